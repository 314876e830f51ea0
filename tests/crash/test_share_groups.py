"""`kill -9` while a share group works: nothing accepted comes again, everything else does, and the dead letter queue is
told once of each record that was given up.

Members speak the wire protocol themselves, so that it is known what was answered and what was only sent.
"""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures.raw_client import ConnectionClosed
from fixtures.server import Server
from fixtures.waiting import eventually
from fixtures.wire import Wire, batch

from penstock.wire.api_keys import ApiKey
from penstock.wire.messages import incremental_alter_configs as configs
from penstock.wire.messages.share_fetch import (
    AcknowledgementBatch,
    FetchPartition,
    FetchTopic,
    ShareFetchRequest,
)
from penstock.wire.messages.share_group_heartbeat import ShareGroupHeartbeatRequest
from penstock.wire.records import Record

CRASHES = int(os.environ.get("PENSTOCK_CRASHES", "10")) // 2
MEMBERS, RECORDS, LIMIT = 3, 4_000, 10
GROUP, TOPIC, QUEUE = "workers", "jobs", "dlq.jobs"
ACCEPT, RELEASE, REJECT = 1, 2, 3
ENDS = (ACCEPT, REJECT)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A broker of the test's own."""
    one = Server(tmp_path, durability="disk")
    one.start()
    with Wire(one.bootstrap) as wire:
        wire.create_topic(TOPIC)
        wire.create_topic(QUEUE, configs={"errors.deadletterqueue.group.enable": "true"})
        values = {
            "share.auto.offset.reset": "earliest", "share.delivery.count.limit": str(LIMIT),
            "errors.deadletterqueue.topic.name": QUEUE, "errors.deadletterqueue.copy.record.enable": "true",
        }  # fmt: skip
        resource = configs.AlterConfigsResource(
            resource_type=32, resource_name=GROUP,
            configs=[configs.AlterableConfig(name=key, config_operation=0, value=text) for key, text in values.items()],
        )  # fmt: skip
        request = configs.IncrementalAlterConfigsRequest(resources=[resource])
        assert wire.call(ApiKey.INCREMENTAL_ALTER_CONFIGS, 1, request).responses[0].error_code == 0
    yield one
    one.stop()


class Members:
    """Threads that take, accept, reject and release; what they know is shared."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.stop = threading.Event()
        self.ended: dict[int, int] = {}
        """Accepted or rejected, and told so."""
        self.maybe: dict[int, set[int]] = {kind: set() for kind in ENDS}
        """The same was sent, whatever was heard of it."""
        self.deliveries: Counter[int] = Counter()
        self.faults: list[str] = []
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._work, args=(number,)) for number in range(MEMBERS)]

    @property
    def reached(self) -> int:
        """How many records are done with, as far as anybody can tell."""
        with self._lock:
            return len(self.maybe[ACCEPT] | self.maybe[REJECT])

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def _work(self, number: int) -> None:
        chance = random.Random(f"member {number}")
        while not self.stop.is_set():
            try:
                with Wire(self.server.bootstrap) as wire:
                    self._session(wire, f"member-{number}", chance)
            except (ConnectionClosed, OSError, AssertionError):
                self.stop.wait(0.1)  # The broker is away.

    def _session(self, wire: Wire, member_id: str, chance: random.Random) -> None:
        topic_id = bytes(wire.metadata([TOPIC]).topics[0].topic_id)
        join = ShareGroupHeartbeatRequest(
            group_id=GROUP, member_id=member_id, member_epoch=0, subscribed_topic_names=[TOPIC]
        )
        assert wire.call(ApiKey.SHARE_GROUP_HEARTBEAT, 1, join).error_code == 0
        held: list[int] = []
        epoch = 0
        while not self.stop.is_set() or held:
            said = {offset: chance.choices((ACCEPT, REJECT, RELEASE), (0.6, 0.2, 0.2))[0] for offset in held}
            with self._lock:
                for kind in ENDS:
                    self.maybe[kind] |= {offset for offset, one in said.items() if one == kind}
            answer = wire.call(ApiKey.SHARE_FETCH, 2, self._request(member_id, topic_id, epoch, said))
            assert answer.error_code == 0
            epoch += 1
            held = self._learn(answer, said)

    def _request(self, member_id: str, topic_id: bytes, epoch: int, said: dict[int, int]) -> ShareFetchRequest:
        batches = [
            AcknowledgementBatch(first_offset=offset, last_offset=offset, acknowledge_types=[kind])
            for offset, kind in sorted(said.items())
        ]
        partition = FetchPartition(partition_index=0, acknowledgement_batches=batches)
        stopping = self.stop.is_set()
        return ShareFetchRequest(
            group_id=GROUP, member_id=member_id, share_session_epoch=epoch, max_wait_ms=0 if stopping else 100,
            min_bytes=1, max_bytes=1 << 20, max_records=0 if stopping else 50, batch_size=50,
            topics=[FetchTopic(topic_id=topic_id, partitions=[partition])],
        )  # fmt: skip

    def _learn(self, answer: object, said: dict[int, int]) -> list[int]:
        held: list[int] = []
        with self._lock:
            for topic in answer.responses:  # type: ignore[attr-defined]
                for partition in topic.partitions:
                    if partition.acknowledge_error_code == 0:
                        self.ended |= {offset: kind for offset, kind in said.items() if kind in ENDS}
                    for taken in partition.acquired_records:
                        offsets = range(taken.first_offset, taken.last_offset + 1)
                        again = self.ended.keys() & set(offsets)
                        if again:
                            self.faults.append(f"done with, and delivered again: {sorted(again)}")
                        self.deliveries.update(offsets)
                        held += offsets
        return held


def test_nothing_comes_again_nothing_is_lost_and_every_dead_letter_is_written_once(server: Server) -> None:
    members = Members(server)
    members.start()
    try:
        end = work_through_crashes(server, members)
    finally:
        members.finish()
    assert members.faults == []
    assert end == RECORDS // CRASHES // 20 * 20 * CRASHES
    check_letters(server, members)


def check_letters(server: Server, members: Members) -> None:
    """Every record that was given up is told of once, with its value, and no other."""
    tried_out = {offset for offset, times in members.deliveries.items() if times >= LIMIT}
    accepted = {offset for offset, kind in members.ended.items() if kind == ACCEPT}
    rejected = {offset for offset, kind in members.ended.items() if kind == REJECT}
    with Wire(server.bootstrap) as wire:
        values = {record.offset: record.value for record in everything(wire, TOPIC)}

        def told() -> list[tuple[int, bytes | None]] | None:
            found = [
                (int(dict(one.headers)["__dlq.errors.offset"] or b""), one.value) for one in everything(wire, QUEUE)
            ]
            return found if rejected <= {offset for offset, _ in found} else None

        letters = eventually(told, what="a letter of everything that was rejected", within_s=60)
    assert letters == [(offset, values[offset]) for offset, _ in letters]
    offsets = [offset for offset, _ in letters]
    assert len(offsets) == len(set(offsets)), "told of twice"
    assert not accepted.intersection(offsets)
    assert members.maybe[REJECT] | tried_out >= set(offsets)


def everything(wire: Wire, topic: str) -> list[Record]:
    """All records of a topic of one partition."""
    found: list[Record] = []
    end = wire.list_offset(topic, -1).offset
    while len(found) < end:
        found += wire.fetch_records(topic, len(found))
    return found


def work_through_crashes(server: Server, members: Members) -> int:
    """Fill the topic and kill the broker, until the group is done with everything; how many records there are."""
    chance = random.Random("share crashes")
    for crash in range(CRASHES):
        with Wire(server.bootstrap) as wire:
            for start in range(0, RECORDS // CRASHES, 20):
                values = [b"%d/%d" % (crash, start + number) for number in range(20)]
                assert wire.produce(TOPIC, batch(*values)).error_code == 0
        enough = (crash + 1) * RECORDS // CRASHES - chance.randint(1, 700)
        eventually(lambda enough=enough: members.reached >= enough, what="the group to get on", within_s=60)
        server.kill()
        server.start()
    with Wire(server.bootstrap) as wire:
        end = wire.list_offset(TOPIC, -1).offset

    def done() -> bool:
        tried_out = {offset for offset, times in members.deliveries.items() if times >= LIMIT}
        return members.maybe[ACCEPT] | members.maybe[REJECT] | tried_out >= set(range(end))

    eventually(done, what="every record to be done with", within_s=60)
    return int(end)
