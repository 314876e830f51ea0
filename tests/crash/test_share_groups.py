"""`kill -9` while a share group works: nothing accepted comes again, everything else does.

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

CRASHES = int(os.environ.get("PENSTOCK_CRASHES", "10")) // 2
MEMBERS, RECORDS, LIMIT = 3, 4_000, 10
GROUP, TOPIC = "workers", "jobs"
ACCEPT, RELEASE = 1, 2


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A broker of the test's own."""
    one = Server(tmp_path, durability="disk")
    one.start()
    with Wire(one.bootstrap) as wire:
        wire.create_topic(TOPIC)
        values = {"share.auto.offset.reset": "earliest", "share.delivery.count.limit": str(LIMIT)}
        resource = configs.AlterConfigsResource(
            resource_type=32, resource_name=GROUP,
            configs=[configs.AlterableConfig(name=key, config_operation=0, value=text) for key, text in values.items()],
        )  # fmt: skip
        request = configs.IncrementalAlterConfigsRequest(resources=[resource])
        assert wire.call(ApiKey.INCREMENTAL_ALTER_CONFIGS, 1, request).responses[0].error_code == 0
    yield one
    one.stop()


class Members:
    """Threads that take, accept and release; what they know is shared."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.stop = threading.Event()
        self.accepted: set[int] = set()
        """Accepted, and told so."""
        self.maybe: set[int] = set()
        """Acceptance was sent, and nothing heard of it."""
        self.deliveries: Counter[int] = Counter()
        self.faults: list[str] = []
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._work, args=(number,)) for number in range(MEMBERS)]

    @property
    def reached(self) -> int:
        """How many records were accepted, as far as anybody can tell."""
        with self._lock:
            return len(self.accepted | self.maybe)

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
            said = {offset: ACCEPT if chance.random() < 0.8 else RELEASE for offset in held}
            with self._lock:
                self.maybe |= {offset for offset, kind in said.items() if kind == ACCEPT}
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
                        self.accepted |= {offset for offset, kind in said.items() if kind == ACCEPT}
                    for taken in partition.acquired_records:
                        offsets = range(taken.first_offset, taken.last_offset + 1)
                        again = self.accepted.intersection(offsets)
                        if again:
                            self.faults.append(f"accepted, and delivered again: {sorted(again)}")
                        self.deliveries.update(offsets)
                        held += offsets
        return held


def test_nothing_accepted_comes_again_and_nothing_is_lost(server: Server) -> None:
    members = Members(server)
    members.start()
    try:
        end = work_through_crashes(server, members)
    finally:
        members.finish()
    assert members.faults == []
    assert end == RECORDS // CRASHES // 20 * 20 * CRASHES


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
        finished = members.accepted | members.maybe | {o for o, times in members.deliveries.items() if times >= LIMIT}
        return finished >= set(range(end))

    eventually(done, what="every record to be done with", within_s=60)
    return int(end)
