"""Exactly once, while the process is killed again and again.

A relay reads `in`, writes what it read to `out`, and commits its offsets, all in one transaction each; some it aborts
and does again. Another does the same to `again`, with librdkafka and a consumer group. Beside them, producers of
transactions over several partitions, which they commit or abort, and plain idempotent producers. Readers of both kinds
read along. What all of them must find is in `exactly_once_history`.
`PENSTOCK_CRASHES` says how often the process is killed.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer
from exactly_once_clients import (
    IN_PARTITIONS,
    OUT_PARTITIONS,
    QUIET,
    ClientRelay,
    ManyByClient,
    ManyByRequest,
    PlainByClient,
    PlainByRequest,
    Relay,
)
from exactly_once_history import Reader, check, read_all
from fixtures.server import Server
from fixtures.waiting import eventually
from fixtures.wire import Wire

CRASHES = int(os.environ.get("PENSTOCK_CRASHES", "10"))
HERE = Path(__file__).parent
INPUTS = 6_000


@pytest.fixture(params=["process", "disk", "postgresql"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """A server with small files, so that transactions are folded into tables while they are open."""
    environment = {}
    if request.param == "postgresql":
        environment["PENSTOCK_METADATA"] = request.getfixturevalue("postgres_dsn")
    durability = "process" if request.param == "process" else "disk"
    one = Server(tmp_path, durability=durability, program=(str(HERE / "small_log.py"),), environment=environment)
    yield one
    if one.running:
        one.kill()


@pytest.mark.timeout(150 + 20 * CRASHES)
def test_exactly_once_through_crashes(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    counts = write_and_check(server, CRASHES, INPUTS)
    assert server.stop() == 0
    with capsys.disabled():
        print(f"\n{CRASHES} crashes: {counts}")


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("safeguard", "complaint"),
    [
        ("offsets_are_not_committed", "relayed twice"),
        ("open_data_is_shown", "a reader of committed data saw"),
        ("ends_miss_a_partition", "relayed twice|not relayed to|in part|was committed|was aborted|committed data saw"),
        ("producers_are_not_judged", "twice"),
    ],
)
def test_the_check_can_fail(tmp_path: Path, safeguard: str, complaint: str) -> None:
    """With one safeguard off, the same history is found to be wrong."""
    server = Server(
        tmp_path, program=(str(HERE / "broken_log.py"),), environment={"PENSTOCK_TEST_BREAK": safeguard}
    )  # fmt: skip
    try:
        with pytest.raises(AssertionError, match=complaint) as found:
            write_and_check(server, 4, 1_200, must_be_relayed=safeguard != "offsets_are_not_committed")
    finally:
        if server.running:
            server.kill()
    print(found.value)


def write_and_check(server: Server, crashes: int, inputs: int, *, must_be_relayed: bool = True) -> str:
    """One history; what it consists of."""
    server.start()
    with Wire(server.bootstrap) as wire:
        wire.create_topic("in", partitions=IN_PARTITIONS)
        for name in ("out", "again", "many", "plain"):
            wire.create_topic(name, partitions=OUT_PARTITIONS)
    bootstrap = server.bootstrap
    source = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 5, **QUIET})
    relays = [Relay(bootstrap, "relay"), ClientRelay(bootstrap, "client relay")]
    many = [ManyByClient(bootstrap, "one"), ManyByClient(bootstrap, "two")]
    many += [ManyByRequest(bootstrap, f"request {number}") for number in range(3)]
    plain = [PlainByClient(bootstrap, "plain"), PlainByRequest(bootstrap, "plain request")]
    readers = [Reader(bootstrap, committed_only=only) for only in (True, False)]
    workers = [*relays, *many]
    for thread in (*workers, *plain, *readers):
        thread.start()
    chance = random.Random("exactly once")
    for crash in range(crashes):
        for number in range(crash * inputs // crashes, (crash + 1) * inputs // crashes):
            source.produce("in", value=str(number), partition=number % IN_PARTITIONS)
            source.poll(0)
        goal = sum(worker.committed for worker in workers) + chance.choice((1, 5, 20))
        eventually(lambda goal=goal: sum(one.committed for one in workers) >= goal, within_s=60, what="commits")
        server.kill()
        server.start()
    assert source.flush(60) == 0

    for thread in (*many, *plain):
        thread.ending.set()  # The relays have the machine to themselves.

    def relayed() -> int:
        with Wire(bootstrap) as wire:
            places = [("in", partition) for partition in range(IN_PARTITIONS)]
            return sum(max(0, offset) for relay in relays for offset in wire.committed(relay.label, places).values())

    def relayed_twice() -> bool:
        committed = read_all(bootstrap, committed_only=True)
        times = Counter(value for partition in range(OUT_PARTITIONS) for value in committed["out", partition].values())
        return max(times.values(), default=0) > 1

    if must_be_relayed:
        while (so_far := relayed()) < len(relays) * inputs:
            eventually(lambda so_far=so_far: relayed() > so_far, within_s=60, what="the relays going on")
    else:  # There is no end of it.
        eventually(relayed_twice, within_s=60, every_s=0.5, what="something being relayed twice")
    for thread in (*workers, *plain, *readers):
        thread.ending.set()
    for thread in (*workers, *plain, *readers):
        thread.join(150)
        assert not thread.is_alive(), thread
    server.kill()
    server.start()
    for worker in workers:
        settle(bootstrap, worker.label)
    check(
        everything=read_all(bootstrap, committed_only=False), committed=read_all(bootstrap, committed_only=True),
        seen=[reader.seen for reader in readers], inputs=inputs, many=many, plain=plain,
    )  # fmt: skip
    return (
        f"{sum(one.committed for one in workers)} transactions committed,"
        f" {sum(one.aborted for one in workers)} aborted,"
        f" {sum(one.restarts for one in workers)} new clients, {sum(one.number for one in plain)} records of"
        " idempotent producers"
    )


def settle(bootstrap: str, label: str) -> None:
    """Abort what an id has left open, so that everything is decided."""
    with Wire(bootstrap) as wire:
        relay = Relay(bootstrap, label)
        relay.start_anew(wire)
