"""The two that are compared: Apache Kafka as one KRaft node, and Penstock, on fresh directories and free ports."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import yaml
from fixtures.server import Server
from fixtures.waiting import eventually, free_ports
from fixtures.wire import Wire

from benchmarks.model import Variant
from benchmarks.peers.kafka import SETTINGS, Kafka
from benchmarks.peers.server import Place
from penstock.authorization.settings import STANDARD_AUTHORIZER
from penstock.identity import scram
from penstock.wire.api_keys import ApiKey
from penstock.wire.messages.alter_user_scram_credentials import (
    AlterUserScramCredentialsRequest,
    ScramCredentialUpsertion,
)
from penstock.wire.messages.find_coordinator import FindCoordinatorRequest

ROOT = Path(__file__).resolve().parents[3]
JARS = ROOT / "build" / "bench"
EVERYBODY = "User:ANONYMOUS"
PREFIX = "errors.deadletterqueue.topic.name.prefix"
"""Of the names of dead letter queues: none is asked for."""
NO_DELAY = "connection.failed.authentication.delay.ms"
TOKEN_KEY = "what the tokens of a comparison are made with"
USER, PASSWORD = "walter", "secret"
"""Somebody who is there from the beginning: Kafka is told of users of PLAIN when it starts."""
MECHANISMS = ["SCRAM-SHA-512", "PLAIN", "SCRAM-SHA-256"]
"""In the order that they have in a hash table of Java, in which Kafka tells them."""
KAFKA_SETTINGS = {
    "offsets.topic.num.partitions": "1", "transaction.state.log.num.partitions": "1",
    "share.coordinator.state.topic.num.partitions": "1", "group.initial.rebalance.delay.ms": "0",
    "authorizer.class.name": STANDARD_AUTHORIZER, "super.users": EVERYBODY, PREFIX: "", NO_DELAY: "0",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT",
    "sasl.enabled.mechanisms": ",".join(MECHANISMS), "delegation.token.secret.key": TOKEN_KEY,
    "listener.name.sasl_plaintext.plain.sasl.jaas.config":
    f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}="{PASSWORD}";',
    **{
        f"listener.name.sasl_plaintext.scram-sha-{bits}.sasl.jaas.config":
        "org.apache.kafka.common.security.scram.ScramLoginModule required;" for bits in (256, 512)
    },
}  # fmt: skip
"""One partition where there would be fifty, and no waiting for more members: quick, and as Penstock does. ACLs are
decided by, so that there are any; and whoever connects without saying who they are is a super user. A second listener
is for those who say, which they have to for tokens."""
_SAID_TO_BOTH = (
    "num.partitions", "log.retention.hours", "log.segment.bytes", "log.retention.check.interval.ms",
    "socket.request.max.bytes",
)  # fmt: skip
PENSTOCK_SETTINGS = {name: SETTINGS[name] for name in _SAID_TO_BOTH} | {
    "authorizer.class.name": STANDARD_AUTHORIZER, "super.users": EVERYBODY, "audit.enable": "false", NO_DELAY: "0",
    PREFIX: "",
}  # fmt: skip
"""What Kafka's shipped server.properties says, so that it has been said to both. Kafka has no audit log."""
QUICK_START = ("-XX:TieredStopAtLevel=1",)
"""It has ended before thorough compiling would have paid."""
COORDINATED = {0: "warm-up", 1: "warm-up", 2: "warm-up:AAAAAAAAAAAAAAAAAAAAAQ:0"}


class Addresses(NamedTuple):
    """Where a broker is."""

    plain: str
    sasl: str


def install_kafka() -> None:
    """Resolve the jars, if they are not there: from Maven Central, where the benchmarks keep them."""
    JARS.mkdir(parents=True, exist_ok=True)
    Kafka(JARS).install()


@contextmanager
def both(directory: Path) -> Iterator[tuple[Addresses, Addresses]]:
    """Addresses of Kafka and Penstock, both running, coordinators included."""
    port, side_port, *sasl_ports = free_ports(4)
    sasl_of_kafka, sasl_of_penstock = (f"127.0.0.1:{sasl_port}" for sasl_port in sasl_ports)
    place = Place(variant=Variant.KAFKA, directory=directory / "kafka", port=port, side_port=side_port)
    clients = f"PLAINTEXT://{place.address},SASL_PLAINTEXT://{sasl_of_kafka}"
    listeners = {"listeners": f"{clients},CONTROLLER://127.0.0.1:{side_port}", "advertised.listeners": clients}
    kafka = Kafka(JARS, {**KAFKA_SETTINGS, **listeners}, flags=QUICK_START).start(place)
    penstock = Server(
        directory / "penstock", settings=PENSTOCK_SETTINGS,
        arguments=("--config", str(_configuration(directory, sasl_of_penstock))),
    )  # fmt: skip
    try:
        penstock.start()
        kafka.await_ready()
        for address in (kafka.address, penstock.bootstrap):
            _warm_up(address)
        yield Addresses(kafka.address, sasl_of_kafka), Addresses(penstock.bootstrap, sasl_of_penstock)
        assert penstock.running, f"Penstock ended by itself\n{penstock.log_tail()}"
    finally:
        kafka.child.kill()
        if penstock.running:
            penstock.stop()


def _configuration(directory: Path, sasl: str) -> Path:
    """What Penstock needs for tokens."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "token.key").write_text(TOKEN_KEY)
    file = directory / "penstock.yaml"
    document = {
        "listeners": [{"protocol": "SASL_PLAINTEXT", "listen": sasl, "mechanisms": MECHANISMS}],
        "delegation-tokens": {"key-file": "token.key"},
    }
    file.write_text(yaml.safe_dump(document))
    return file


def _warm_up(address: str) -> None:
    """Kafka makes the topics of its coordinators when it is first asked for one. Both have their user."""
    with Wire(address) as wire:
        salt, iterations = b"salt", scram.MIN_ITERATIONS
        salted = scram.salted_password(scram.Mechanism.SCRAM_SHA_512, PASSWORD.encode(), salt, iterations)
        user = ScramCredentialUpsertion(
            name=USER, mechanism=scram.Mechanism.SCRAM_SHA_512, iterations=iterations, salt=salt, salted_password=salted
        )
        altered = wire.call(
            ApiKey.ALTER_USER_SCRAM_CREDENTIALS, 0, AlterUserScramCredentialsRequest(deletions=[], upsertions=[user])
        )
        assert altered.results[0].error_code == 0
        for kind, name in COORDINATED.items():
            request = FindCoordinatorRequest(key_type=kind, coordinator_keys=[name])

            def found(request: FindCoordinatorRequest = request) -> bool:
                return bool(wire.call(ApiKey.FIND_COORDINATOR, 6, request).coordinators[0].error_code == 0)

            eventually(found, within_s=60, what=f"a coordinator of kind {kind}")
        wire.producer_id()
