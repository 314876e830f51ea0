"""`kill -9` under load, again and again: nothing acknowledged is lost, changed, doubled or moved.

Producers, idempotent and not, and a consumer group go on through all of it. `PENSTOCK_CRASHES` says how often the
process is killed (per durability); the default is what fits into every run of the tests.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest
from crash_load import MemberLoad, Place, ProducerLoad, check_compacted, check_log, read_all
from fixtures.server import Server
from fixtures.waiting import eventually
from fixtures.wire import Wire, batch

CRASHES = int(os.environ.get("PENSTOCK_CRASHES", "10"))
RESTART_S = 10.0
"""Generous: the machine that runs the tests may be busy. What it takes here is printed."""
USUAL = ("-m", "penstock")
SMALL = (str(Path(__file__).with_name("small_log.py")),)
"""The same with small files and a small tail: compaction runs, and is killed, all the time."""
DOWN_RARELY = 4
"""Every so many crashes, the process is killed again while it starts."""
KEYED: Place = ("keyed", 0)
COMPACTED = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.01"}
PLACES: list[Place] = [("plain", 0), ("plain", 1), ("plain", 2), ("other", 0), ("other", 1)]


class Story:
    """The server, its clients, and the crashes."""

    def __init__(self, server: Server, seed: str) -> None:
        self.server = server
        self.chance = random.Random(seed)
        self.restarts_s: list[float] = []
        server.start()
        with Wire(server.bootstrap) as wire:
            wire.create_topic("plain", partitions=3)
            wire.create_topic("other", partitions=2)
            wire.create_topic(KEYED[0], configs=COMPACTED)
        self.producers = [
            ProducerLoad(server.bootstrap, "exact", PLACES, idempotent=True),
            ProducerLoad(server.bootstrap, "packed", PLACES, idempotent=True, **{"compression.type": "zstd"}),
            ProducerLoad(server.bootstrap, "once", PLACES, idempotent=False),
            ProducerLoad(server.bootstrap, "narrow", PLACES[1:3], idempotent=False, **{"max.in.flight": 1}),
        ]
        self.keyed = ProducerLoad(server.bootstrap, "latest", [KEYED], idempotent=True, keys=40)
        self.members = [MemberLoad(server.bootstrap, "readers", ["plain", "other"]) for _ in range(2)]

    @property
    def acknowledged(self) -> int:
        return sum(producer.acknowledged for producer in self.producers)

    def begin(self) -> None:
        """Start the clients; the group is settled before anything breaks."""
        for thread in (*self.producers, self.keyed, *self.members):
            thread.start()
        eventually(self._settled, within_s=60, what="both members having their share")
        for member in self.members:
            member.rebalances = 0

    def _settled(self) -> bool:
        shares = [member.assigned for member in self.members]
        return all(shares) and sorted(place for share in shares for place in share) == sorted(PLACES)

    def crash(self, number: int) -> None:
        """Let some records through, kill the process at any instant, start it again."""
        goal = self.acknowledged + self.chance.choice((1, 50, 500, 2_000))
        eventually(lambda: self.acknowledged >= goal, within_s=60, every_s=0.002, what="records being acknowledged")
        assert self.server.running, self.server.log_tail()
        self.server.kill()
        if number % DOWN_RARELY == 0:
            self.server.spawn()
            time.sleep(self.chance.uniform(0.1, 1.0))  # An instant of the start, not something to wait for.
            self.server.kill()
        self.restarts_s.append(self.server.start())

    def end(self) -> None:
        """Let the producers finish, then the readers."""
        for producer in (*self.producers, self.keyed):
            producer.stop()
        for producer in (*self.producers, self.keyed):
            producer.join(timeout=60)
            assert not producer.is_alive(), f"{producer.name} still waits for answers"

    def leave(self) -> None:
        """Stop the members and forget the clients."""
        for thread in (*self.producers, self.keyed, *self.members):
            thread.stop()
        for thread in (*self.producers, self.keyed, *self.members):
            if thread.is_alive():
                thread.join(timeout=30)


@pytest.fixture
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    durability, program, *arguments = request.param
    settings = {"log.cleaner.backoff.ms": "500"}
    server = Server(tmp_path, durability=durability, program=program, settings=settings, arguments=arguments)
    yield server
    if server.running:
        server.kill()


@pytest.mark.timeout(60 + 20 * CRASHES)
@pytest.mark.parametrize(
    "server",
    [("process", USUAL), ("disk", USUAL), ("process", SMALL, "--encrypt"), ("disk", SMALL)],
    ids=["process", "disk", "process-small-encrypted", "disk-small"],
    indirect=True,
)
def test_nothing_acknowledged_is_lost(
    server: Server, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    story = Story(server, seed=f"crash/{server.durability}")
    try:
        story.begin()
        for number in range(1, CRASHES + 1):
            story.crash(number)
        story.end()
        with Wire(server.bootstrap) as wire:
            ends = {place: wire.list_offset(place[0], -1, partition=place[1]).offset for place in PLACES}
        eventually(lambda: _positions(story.members) == ends, within_s=60, what="the readers being at the end")
        # A last one, with nobody writing: the group is what it was, and the log is read from its files.
        server.kill()
        server.start()
        check_group(server, story.members)
        with Wire(server.bootstrap) as wire:
            for place in PLACES:
                values = read_all(wire, place)
                assert len(values) == ends[place]
                check_log(place, values, story.producers)
            left = check_compacted(wire, KEYED, story.keyed)
    finally:
        story.leave()
    if "small" in request.node.callspec.id:
        assert len(list((server.data_dir / "segments").rglob("*"))) > 20, "compaction has hardly run"
        assert left < story.keyed.sent[KEYED].count / 2, "key compaction has hardly run"
    files = [file.read_bytes() for file in server.data_dir.rglob("*") if file.is_file()]
    found = [b"exact|" in data for data in files]
    assert any(found) != ("encrypted" in request.node.callspec.id), "what is encrypted, and only that, is unreadable"
    assert max(story.restarts_s) < RESTART_S
    assert server.stop() == 0
    with capsys.disabled():
        print(
            f"\n{CRASHES} crashes ({server.durability}): {story.acknowledged} records acknowledged; restarts"
            f" {median(story.restarts_s):.2f} s in the median, {max(story.restarts_s):.2f} s at most"
        )


def _positions(members: list[MemberLoad]) -> dict[Place, int]:
    return {place: offset for member in members for place, offset in member.next_offset.items()}


def check_group(server: Server, members: list[MemberLoad]) -> None:
    """Members kept their generation through every crash, and the broker has what they committed."""
    with Wire(server.bootstrap) as wire:
        committed = wire.committed("readers", PLACES)
    for member in members:
        assert member.problems == []
        assert member.rebalances == 0, "a member was made to rebalance"
        assert member.committed, "nothing was ever committed"
        for place, offset in member.committed.items():
            assert offset <= committed[place] <= member.tried[place], (place, committed[place], offset)


def test_a_first_start_cut_short(tmp_path: Path) -> None:
    """Killed again and again while it makes its directory, it starts from whatever is there."""
    chance = random.Random("first start")
    server = Server(tmp_path, durability="disk")
    for _ in range(10):
        server.spawn()
        time.sleep(chance.uniform(0.1, 1.2))  # An instant of the start, not something to wait for.
        server.kill()
    server.start()
    try:
        with Wire(server.bootstrap) as wire:
            wire.create_topic("t")
            assert wire.produce("t", batch(b"first")).base_offset == 0
        assert server.stop() == 0
    finally:
        server.kill()
