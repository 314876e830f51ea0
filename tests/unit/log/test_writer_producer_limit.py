"""How many producer ids a virtual cluster may have, whoever made them up: no partition remembers one more."""

from __future__ import annotations

import pytest
from fixtures.fake_commits import FakeCommits
from fixtures.log_world import append, batch, registry_of, topic_of, writer_over

from penstock.base.errors import Unavailable
from penstock.log.answers import Appended
from penstock.log.model import Partition, ProducerState
from penstock.log.writer import Writer
from penstock.wire.error_codes import ErrorCode

NONE, CROWDED = ErrorCode.NONE, ErrorCode.POLICY_VIOLATION
LIMIT = 3


@pytest.fixture
def partitions() -> list[Partition]:
    """Two of a topic, whose producers are counted."""
    topic = topic_of(1, 2)
    registry_of(topic)
    return topic.partitions


@pytest.fixture
def writer() -> Writer:
    """One whose clusters may have so many producer ids."""
    writer = writer_over(FakeCommits())
    writer.producer_limit = lambda cluster_id: LIMIT
    return writer


def codes(answers: list[Appended]) -> list[ErrorCode]:
    return [answer.error for answer in answers]


def of(producer_id: int, sequence: int = 0):
    return batch(producer_id=producer_id, sequence=sequence)


async def test_one_too_many_is_refused_and_nothing_of_it_is_kept(writer: Writer, partitions: list[Partition]) -> None:
    first, second = partitions
    answers = await append(writer, *((first, of(number)) for number in range(LIMIT)), (second, of(99)))
    assert codes(answers) == [NONE] * LIMIT + [CROWDED], "also within one flush"
    assert "producer id" in (answers[-1].message or "")
    assert second.next_offset == 0
    assert second.producers == {}
    answers = await append(writer, (first, of(0, 1)), (second, of(0)), (first, of(99)), (first, batch()))
    assert codes(answers) == [NONE, NONE, CROWDED, NONE], "those there are go on, and who has none does"
    assert sorted(first.producers) == [0, 1, 2]
    assert writer.pending_bytes == 0


async def test_a_producer_counts_once_wherever_it_begins(writer: Writer, partitions: list[Partition]) -> None:
    first, second = partitions
    waiting = [(one, of(number)) for number in range(LIMIT) for one in (first, second)]
    assert codes(await append(writer, *waiting)) == [NONE] * (2 * LIMIT)
    assert codes(await append(writer, (first, of(99)), (second, of(99)))) == [CROWDED] * 2


async def test_there_is_room_again(writer: Writer, partitions: list[Partition]) -> None:
    first, _ = partitions
    await append(writer, *((first, of(number)) for number in range(LIMIT)))
    first.forget_producers([1])
    assert codes(await append(writer, (first, of(99)), (first, of(98)))) == [NONE, CROWDED]
    writer.producer_limit = lambda cluster_id: None
    assert codes(await append(writer, (first, of(98)))) == [NONE]


async def test_a_flush_that_fails_takes_up_no_room(partitions: list[Partition]) -> None:
    commits, (first, _) = FakeCommits(), partitions
    writer = writer_over(commits)
    writer.producer_limit = lambda cluster_id: LIMIT
    commits.failures = [Unavailable("the disk is away")]
    assert codes(await append(writer, *((first, of(number)) for number in range(LIMIT)))) == [
        ErrorCode.KAFKA_STORAGE_ERROR
    ] * LIMIT  # fmt: skip
    assert codes(await append(writer, *((first, of(10 + number)) for number in range(LIMIT)))) == [NONE] * LIMIT


async def test_what_is_refused_for_another_reason_takes_up_no_room(partitions: list[Partition]) -> None:
    """Sent before the first batch of its producer failed, it has to wait for that to come again."""
    commits, (first, second) = FakeCommits(), partitions
    writer = writer_over(commits)
    writer.producer_limit = lambda cluster_id: LIMIT
    await append(writer, *((first, of(number)) for number in range(LIMIT - 1)))
    commits.failures = [Unavailable("the disk is away")]
    await append(writer, (first, of(98)))
    answers = await append(writer, (first, of(98, 1)), (second, of(99)))
    assert codes(answers) == [ErrorCode.KAFKA_STORAGE_ERROR, NONE]
    assert sorted(second.producers) == [99]
    assert codes(await append(writer, (first, of(98)))) == [CROWDED]


def test_what_it_has_beyond_a_new_limit_a_cluster_keeps(writer: Writer, partitions: list[Partition]) -> None:
    first, second = partitions
    first.know({number: ProducerState(number, 0, 0) for number in range(2 * LIMIT)})
    assert all(writer.has_room_for(second, number) for number in range(2 * LIMIT))
    assert not writer.has_room_for(second, 99)
