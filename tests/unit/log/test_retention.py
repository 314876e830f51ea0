"""Retention by time and size: the rule by cases, then the chore over real rows."""

from __future__ import annotations

import pytest
from fixtures.clocks import START_MS
from fixtures.upkeep_world import DAY_MS, GRACE_MS, UpkeepWorld, record

from penstock.log.model import OpenTransaction, Partition, Span, Topic, TopicConfig
from penstock.log.segments import SegmentFacts
from penstock.log.upkeep.retention import decide

NOW = 1_000_000


def partition_of(*spans: tuple[int, int, int], log_start: int = 0, size_bytes: int = 0) -> Partition:
    topic = Topic(
        cluster_id=1, topic_id=b"t" * 16, name="t", replication_factor=1, created_ms=0, overrides={},
        config=TopicConfig(),
    )  # fmt: skip
    partition = Partition(partition_id=1, topic=topic, index=0, log_start=log_start, size_bytes=size_bytes)
    partition.spans = [Span(base, last, 1, None, 0, 10, max_timestamp, 1, None) for base, last, max_timestamp in spans]
    return partition


def facts(*shapes: tuple[int, int, int, int]) -> list[SegmentFacts]:
    return [
        SegmentFacts.of((base, last, size, -1, max_timestamp, 500_000)) for base, last, size, max_timestamp in shapes
    ]


OLD, YOUNG, FUTURE = NOW - 101, NOW - 99, NOW + 1_000_000
EDGE = NOW - 100  # As old as retention.ms: Kafka removes what is older.


@pytest.mark.parametrize(
    ("segments", "spans", "log_start", "expected"),
    [
        ([], [], 0, 0),
        ([(0, 9, 5, OLD)], [], 0, 10),
        ([(0, 9, 5, EDGE)], [], 0, 0),
        ([(0, 9, 5, YOUNG)], [], 0, 0),
        ([(0, 9, 5, OLD), (10, 19, 5, YOUNG), (20, 29, 5, OLD)], [], 0, 10),  # Only from the front.
        ([(0, 9, 5, FUTURE), (10, 19, 5, OLD)], [], 0, 0),  # A record of tomorrow holds what follows it.
        ([(0, 9, 5, -1)], [], 0, 10),  # Without timestamps: as old as the object.
        ([(0, 9, 5, OLD)], [(10, 14, OLD), (15, 19, YOUNG)], 0, 15),  # Into what is in the write-ahead log.
        ([(0, 9, 5, YOUNG)], [(10, 14, OLD)], 0, 0),
        ([(0, 9, 5, OLD)], [(0, 9, OLD), (10, 14, OLD)], 0, 15),  # Memory still has what is in a segment.
        ([(0, 9, 5, OLD)], [(10, 14, -1)], 0, 10),
        ([(10, 19, 5, YOUNG)], [], 15, 15),  # Never back.
    ],
)
def test_age(segments, spans, log_start, expected) -> None:
    decision = decide(
        partition_of(*spans, log_start=log_start), facts(*segments), TopicConfig(retention_ms=100), now_ms=NOW
    )  # fmt: skip
    assert decision.log_start == expected
    assert decision.is_final


@pytest.mark.parametrize(
    ("size_bytes", "retention_bytes", "leaving_bytes", "expected"),
    [
        (30, -1, 0, 0),
        (30, 30, 0, 0),
        (30, 21, 0, 0),  # Less than a segment too much: at least so many bytes stay.
        (30, 20, 0, 10),
        (30, 11, 0, 10),
        (30, 5, 0, 20),
        (30, 0, 0, 30),
        (80, 40, 0, 30),  # What is in the write-ahead log counts, and stays.
        (40, 20, 10, 10),  # What is about to go anyway is no reason to take more.
    ],
)
def test_size(size_bytes, retention_bytes, leaving_bytes, expected) -> None:
    decision = decide(
        partition_of(size_bytes=size_bytes),
        facts((0, 9, 10, YOUNG), (10, 19, 10, YOUNG), (20, 29, 10, YOUNG)),
        TopicConfig(retention_ms=-1, retention_bytes=retention_bytes), now_ms=NOW, leaving_bytes=leaving_bytes,
    )  # fmt: skip
    assert decision.log_start == expected


def test_when_the_first_segments_all_go_there_is_another_look() -> None:
    decision = decide(
        partition_of((10, 19, OLD)), facts((0, 9, 10, OLD)), TopicConfig(retention_ms=100), now_ms=NOW,
        complete=False,
    )  # fmt: skip
    assert decision.log_start == 10, "the spans are not looked at before all segments were"
    assert not decision.is_final


@pytest.mark.parametrize(("first_offset", "expected"), [(0, 0), (5, 5), (12, 12), (20, 20), (35, 30)])
@pytest.mark.parametrize("config", [TopicConfig(retention_ms=100), TopicConfig(retention_ms=-1, retention_bytes=0)])
def test_what_is_not_stable_stays(config: TopicConfig, first_offset: int, expected: int) -> None:
    partition = partition_of(size_bytes=30)
    partition.transactions[7] = OpenTransaction(first_offset, 0)
    decision = decide(partition, facts((0, 9, 10, OLD), (10, 19, 10, OLD), (20, 29, 10, OLD)), config, now_ms=NOW)
    assert (decision.log_start, decision.is_final) == (expected, True)


def test_a_log_start_within_a_transaction_does_not_go_back() -> None:
    """An administrator may delete records of one that is open."""
    partition = partition_of(log_start=15)
    partition.transactions[7] = OpenTransaction(5, 0)
    decision = decide(partition, facts((10, 19, 5, OLD)), TopicConfig(retention_ms=100), now_ms=NOW)
    assert decision.log_start == 15


class Poll:
    """A fetch that waits."""

    changes = 0

    def on_append(self, size_bytes: int) -> None:
        raise AssertionError("nothing was appended")

    def on_change(self) -> None:
        self.changes += 1


async def test_old_records_leave_and_those_who_wait_are_told() -> None:
    world = await UpkeepWorld().start()
    topic = await world.topic(retention_ms=DAY_MS)
    (partition,) = topic.partitions
    for day in range(5):
        await world.segment(partition, [record(day, "x" * 100, START_MS + day * DAY_MS)])
    poll = Poll()
    partition.waiters[poll] = None
    world.clock.time_ms += 2 * DAY_MS + 1
    await world.run()
    assert partition.log_start == 2
    assert await world.offsets(partition) == [2, 3, 4]
    assert await world.segment_count(partition) == 3
    assert poll.changes == 1
    await world.check()
    assert len(world.stored_keys()) == 5, "readers may still be at it"
    world.clock.time_ms += GRACE_MS + 1
    await world.run()
    assert len(world.stored_keys()) == 3
    assert await world.rows("SELECT COUNT(*) FROM object") == [(3,)]


async def test_retention_waits_for_its_interval_and_goes_on_where_much_must_go() -> None:
    world = await UpkeepWorld(settings={"log.retention.check.interval.ms": "5000"}).start()
    topic = await world.topic(retention_ms=1000)
    (partition,) = topic.partitions
    assert await world.upkeep.retention.run() == 5.0
    for number in range(150):
        await world.segment(partition, [record(number, timestamp=START_MS)])
    world.clock.time_ms += 4000
    assert await world.upkeep.retention.run() == 1.0
    assert partition.log_start == 0
    world.clock.time_ms += 1000
    await world.run()
    assert partition.log_start == 150
    assert await world.segment_count(partition) == 0
    assert partition.size_bytes == 0
    await world.check()


async def test_size_is_kept_while_removal_lags_behind() -> None:
    world = await UpkeepWorld(settings={"log.retention.check.interval.ms": "1"}).start()
    topic = await world.topic(retention_ms=-1, retention_bytes=1)
    (partition,) = topic.partitions
    for number in range(10):
        await world.segment(partition, [record(number, "x" * 1000)])
    size = partition.size_bytes // 10
    await world.topics.alter_topic(topic, lambda before: {**before, "retention.bytes": str(4 * size)})
    for _ in range(3):
        world.clock.time_ms += 1
        await world.upkeep.retention.run()
    assert partition.log_start == 6, "what goes anyway was not taken for too much again"
    await world.run()
    assert partition.size_bytes == 4 * size
    await world.check()


@pytest.mark.parametrize("policy", ["compact", ""])
async def test_without_the_delete_policy_nothing_expires(policy: str) -> None:
    world = await UpkeepWorld().start()
    topic = await world.topic(cleanup_policy=policy, retention_ms=1, retention_bytes=0)
    (partition,) = topic.partitions
    await world.segment(partition, [record("a", timestamp=START_MS)])
    world.clock.time_ms += DAY_MS
    await world.run()
    assert partition.log_start == 0


async def test_little_traffic_expires_from_the_write_ahead_log() -> None:
    world = await UpkeepWorld().start()
    topic = await world.topic(retention_ms=1000)
    (partition,) = topic.partitions
    world.span(partition, [record("a", timestamp=START_MS)])
    world.clock.time_ms += 1001
    world.span(partition, [record("b", timestamp=world.clock.time_ms)])
    await world.run()
    assert partition.log_start == 1
    assert await world.rows("SELECT log_start FROM partition") == [(1,)]
