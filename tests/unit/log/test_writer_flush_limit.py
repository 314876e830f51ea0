"""A flush that is full: what does not fit waits for the next one, in order and with offsets of its own."""

from __future__ import annotations

import asyncio
from struct import pack_into

from fixtures.log_world import append, batch, batches_in, topic_of, writer_over

from penstock.log.batches import Accepted
from penstock.log.commits import Commit, pack_entries, unpack_entries
from penstock.log.fair_queue import SHARED_QUOTA
from penstock.log.model import Partition
from penstock.log.writer import FLUSH_MAX_BYTES
from penstock.storage.wal import WalLocation
from penstock.wire.error_codes import ErrorCode
from penstock.wire.records import HEADER_BYTES, LENGTH_OVERHEAD, NO_TIMESTAMP


class Path:
    """Commits everything at once and keeps it."""

    is_alone = True
    has_other_writers = False
    seen = 0

    def __init__(self) -> None:
        self.commits: list[Commit] = []

    def record_bytes(self, entries: int, batches: int) -> int:
        return 0

    def commit_now(self, body, entries, heads, change=None) -> Commit:
        location = WalLocation(str(len(self.commits)), 0, len(body))
        self.commits.append(Commit(len(self.commits) + 1, b"", location, 0, 1, entries, tuple(heads)))
        return self.commits[-1]

    async def commit(self, body, entries, heads, change=None) -> Commit:
        raise AssertionError("everything is committed at once")


async def test_partition_that_overfills_a_flush_goes_on_in_the_next() -> None:
    path, (first, second) = Path(), topic_of(1, 2).partitions
    writer = writer_over(path)
    size_bytes = FLUSH_MAX_BYTES // 4 - 100
    waiting = [(first, batch(2, size_bytes=size_bytes, mark=mark)) for mark in range(9)]
    answers = await append(writer, *waiting, (second, batch(mark=9)))
    assert [answer.error for answer in answers] == [ErrorCode.NONE] * 10
    assert [answer.base_offset for answer in answers] == [*range(0, 18, 2), 0]
    for commit in path.commits:
        assert len({entry.partition_id for entry in commit.entries}) == len(commit.entries)
    stored = [found for span in first.spans for found in batches_in(span.view)]
    assert stored == [(2 * mark, 2, mark) for mark in range(9)]
    assert first.next_offset == 18
    assert second.next_offset == 1
    assert writer.pending_bytes == 0


async def test_batches_that_claim_more_records_than_a_row_can_count_go_into_several_flushes() -> None:
    path, (partition,) = Path(), topic_of(1).partitions
    count = 2**31 - 1
    answers = await append(writer_over(path), *((partition, batch(count, mark=mark)) for mark in range(5)))
    assert [(answer.error, answer.base_offset) for answer in answers] == [
        (ErrorCode.NONE, count * mark) for mark in range(5)
    ]
    assert partition.next_offset == 5 * count
    assert all(unpack_entries(pack_entries(commit.entries)) == commit.entries for commit in path.commits)


async def test_offsets_do_not_run_over() -> None:
    path, (partition,) = Path(), topic_of(1).partitions
    partition.next_offset = 2**62
    writer = writer_over(path)
    for error in (ErrorCode.NONE, ErrorCode.POLICY_VIOLATION):
        (answer,) = await append(writer, (partition, batch(2**31 - 1)))
        assert answer.error is error
    assert partition.next_offset == 2**62 + 2**31 - 1
    assert writer.pending_bytes == 0


async def test_more_batches_than_a_row_can_count_go_into_several_flushes() -> None:
    """A batch need not have records to be accepted: that is for its readers to find."""
    path, (partition,) = Path(), topic_of(1).partitions
    empty = bytearray(HEADER_BYTES)
    pack_into(">qi", empty, 0, 0, HEADER_BYTES - LENGTH_OVERHEAD)
    data, total = bytes(empty), 2**16 + 1
    assert total * len(data) < FLUSH_MAX_BYTES
    answers = await append(
        writer_over(path),
        *((partition, Accepted(data, 1, 7, 0, number, 5, NO_TIMESTAMP)) for number in range(total)),
    )
    assert {answer.error for answer in answers} == {ErrorCode.NONE}
    assert partition.next_offset == total
    assert all(unpack_entries(pack_entries(commit.entries)) == commit.entries for commit in path.commits)


def of_two_clusters() -> tuple[Partition, Partition]:
    """A partition of somebody, and one of somebody else."""
    first, second = topic_of(1), topic_of(2, name="u")
    second.cluster_id = first.cluster_id + 1
    return first.partitions[0], second.partitions[0]


async def test_nobody_waits_behind_all_that_another_cluster_has_to_write() -> None:
    path, (loud, quiet) = Path(), of_two_clusters()
    size_bytes = SHARED_QUOTA.size_bytes // 4
    waiting = [(loud, batch(size_bytes=size_bytes, mark=mark)) for mark in range(16)]
    await append(writer_over(path), *waiting, (quiet, batch(mark=16)))
    shares = [{entry.partition_id: entry.byte_length for entry in commit.entries} for commit in path.commits]
    assert [share.get(1) for share in shares] == [SHARED_QUOTA.size_bytes] * 4
    assert [2 in share for share in shares] == [True, False, False, False]
    stored = [found for span in loud.spans for found in batches_in(span.view)]
    assert stored == [(mark, 1, mark) for mark in range(16)]


async def test_nor_behind_very_many_batches_however_small() -> None:
    path, (loud, quiet) = Path(), of_two_clusters()
    writer = writer_over(path)
    total = 3 * SHARED_QUOTA.batches
    begun = asyncio.gather(
        append(writer, (quiet, batch())), append(writer, *((loud, batch(mark=mark)) for mark in range(total)))
    )
    while not path.commits:
        await asyncio.sleep(0)
    # What arrives while the others' batches are written is in the very next flush.
    await append(writer, (quiet, batch(mark=1)))
    assert [entry.partition_id for entry in path.commits[1].entries] == [1, 2]
    await begun
    assert [entry.batch_count for commit in path.commits for entry in commit.entries if entry.partition_id == 1] == [
        SHARED_QUOTA.batches
    ] * 3


async def test_a_cluster_that_is_alone_has_whole_flushes() -> None:
    path, (loud, _) = Path(), of_two_clusters()
    count = FLUSH_MAX_BYTES // SHARED_QUOTA.size_bytes
    await append(
        writer_over(path), *((loud, batch(size_bytes=SHARED_QUOTA.size_bytes, mark=mark)) for mark in range(count))
    )
    assert [entry.batch_count for commit in path.commits for entry in commit.entries] == [count]
