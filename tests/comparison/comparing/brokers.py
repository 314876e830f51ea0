"""The two that are compared: Apache Kafka as one KRaft node, and Penstock, on fresh directories and free ports."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fixtures.server import Server
from fixtures.waiting import eventually, free_ports
from fixtures.wire import Wire

from benchmarks.model import Variant
from benchmarks.peers.kafka import SETTINGS, Kafka
from benchmarks.peers.server import Place
from penstock.authorization.settings import STANDARD_AUTHORIZER
from penstock.wire.api_keys import ApiKey
from penstock.wire.messages.find_coordinator import FindCoordinatorRequest

ROOT = Path(__file__).resolve().parents[3]
JARS = ROOT / "build" / "bench"
EVERYBODY = "User:ANONYMOUS"
KAFKA_SETTINGS = {
    "offsets.topic.num.partitions": "1", "transaction.state.log.num.partitions": "1",
    "share.coordinator.state.topic.num.partitions": "1", "group.initial.rebalance.delay.ms": "0",
    "authorizer.class.name": STANDARD_AUTHORIZER, "super.users": EVERYBODY,
}  # fmt: skip
"""One partition where there would be fifty, and no waiting for more members: quick, and as Penstock does. ACLs are
decided by, so that there are any; and whoever connects is a super user."""
_SAID_TO_BOTH = (
    "num.partitions", "log.retention.hours", "log.segment.bytes", "log.retention.check.interval.ms",
    "socket.request.max.bytes",
)  # fmt: skip
PENSTOCK_SETTINGS = {name: SETTINGS[name] for name in _SAID_TO_BOTH} | {
    "authorizer.class.name": STANDARD_AUTHORIZER, "super.users": EVERYBODY,
}  # fmt: skip
"""What Kafka's shipped server.properties says, so that it has been said to both."""
COORDINATED = {0: "warm-up", 1: "warm-up", 2: "warm-up:AAAAAAAAAAAAAAAAAAAAAQ:0"}


def install_kafka() -> None:
    """Resolve the jars, if they are not there: from Maven Central, where the benchmarks keep them."""
    JARS.mkdir(parents=True, exist_ok=True)
    Kafka(JARS).install()


@contextmanager
def both(directory: Path) -> Iterator[tuple[str, str]]:
    """Addresses of Kafka and Penstock, both running, coordinators included."""
    port, side_port = free_ports(2)
    place = Place(variant=Variant.KAFKA, directory=directory / "kafka", port=port, side_port=side_port)
    kafka = Kafka(JARS, KAFKA_SETTINGS).start(place)
    penstock = Server(directory / "penstock", settings=PENSTOCK_SETTINGS)
    try:
        penstock.start()
        kafka.await_ready()
        for address in (kafka.address, penstock.bootstrap):
            _warm_up(address)
        yield kafka.address, penstock.bootstrap
        assert penstock.running, f"Penstock ended by itself\n{penstock.log_tail()}"
    finally:
        kafka.child.kill()
        if penstock.running:
            penstock.stop()


def _warm_up(address: str) -> None:
    """Kafka makes the topics of its coordinators when it is first asked for one."""
    with Wire(address) as wire:
        for kind, name in COORDINATED.items():
            request = FindCoordinatorRequest(key_type=kind, coordinator_keys=[name])

            def found(request: FindCoordinatorRequest = request) -> bool:
                return bool(wire.call(ApiKey.FIND_COORDINATOR, 6, request).coordinators[0].error_code == 0)

            eventually(found, within_s=60, what=f"a coordinator of kind {kind}")
        wire.producer_id()
