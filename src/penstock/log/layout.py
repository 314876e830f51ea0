"""The layout of a flush: batches are copied partition by partition, with their offsets written into them.

Base offset and leader epoch are outside a batch's CRC, so nothing else of what a producer sent changes.
"""

from __future__ import annotations

from penstock.base.twins import twinned
from penstock.log.answers import Appended, excluded
from penstock.log.commits import Commit, CommitEntry, ExcludedBatches, ProducerBatch
from penstock.log.flush import Share
from penstock.log.model import LEADER_EPOCH, EntrySeal
from penstock.log.segments import SegmentBuilder
from penstock.wire.error_codes import ErrorCode
from penstock.wire.records import LENGTH_OVERHEAD, PREFIX


def write_offset(body: memoryview, position: int, offset: int, size_bytes: int) -> None:
    """Write a batch's base offset (and leader epoch) into its header."""
    PREFIX.pack_into(body, position, offset, size_bytes - LENGTH_OVERHEAD, LEADER_EPOCH)


def write_moved_offsets(view: memoryview, share: Share, moved: int) -> None:
    """Rewrite base offsets where the database assigned others than expected, because other agents had appended."""
    position = 0
    for batch, _, _, offset in share.appended:
        size = len(batch.data)
        write_offset(view, position, offset + moved, size)
        position += size


def index_of(share: Share) -> tuple[bytes, bytes]:
    """The offset index and time index that a segment of these batches has."""
    builder = SegmentBuilder(share.base)
    for batch, _, _, offset in share.appended:
        builder.add(offset, len(batch.data), batch.max_timestamp)
    return builder.index


@twinned
def lay_out(body: memoryview, shares: list[Share]) -> None:
    """Copy the batches of a flush to their positions, with the offsets that they will most likely get, so that the WAL
    object holds what a segment would."""
    for share in shares:
        position = share.byte_start
        for batch, _, _, offset in share.appended:
            data = batch.data
            end = position + len(data)
            body[position:end] = data
            write_offset(body, position, offset, len(data))
            position = end


@twinned
def describe(shares: list[Share]) -> list[CommitEntry]:
    """Shares as entries of a commit."""
    entries = []
    for share in shares:
        producer_batches = tuple(
            ProducerBatch(
                batch.producer_id,
                batch.producer_epoch,
                batch.base_sequence,
                batch.offset_count - 1,
                offset - share.base,
                batch.max_timestamp,
                batch.flags,
            )
            for batch, _, _, offset in share.appended
            if batch.producer_id >= 0
        )
        entries.append(
            CommitEntry(
                share.partition.partition_id,
                share.byte_start,
                share.byte_length,
                share.next_offset - share.base,
                len(share.appended),
                max(batch.max_timestamp for batch, _, _, _ in share.appended),
                producer_batches,
            )
        )
    return entries


def entries_of(shares: list[Share], seals: list[EntrySeal | None] | None = None) -> tuple[list[CommitEntry], list[int]]:
    """The entries of a commit, and each entry's base offset as far as it is known here."""
    entries = describe(shares)
    if seals is not None:
        entries = [entry._replace(seal=seal) for entry, seal in zip(entries, seals, strict=True)]
    return entries, [share.base for share in shares]


def partial_answers(
    share: Share, number: int, body: memoryview, commit: Commit, positions: list[int], rest: ExcludedBatches
) -> dict[int, Appended]:
    """The answer to each batch, by the offset expected for it. Base offsets of batches in the log are written in."""
    partition, answers, byte_position = share.partition, {}, share.byte_start
    waiting, left, offset = iter(positions), 0, 0
    for count, (batch, _, _, believed) in enumerate(share.appended):
        size = len(batch.data)
        if (number, count) in rest.excluded:
            answers[believed] = excluded(rest.excluded[number, count], partition)
        else:
            if not left:
                position = next(waiting)
                left, offset = commit.entries[position].batch_count, commit.bases[position]
            write_offset(body, byte_position, offset, size)
            answers[believed] = Appended(ErrorCode.NONE, offset, batch.append_time_ms, partition.log_start)
            left, offset = left - 1, offset + batch.offset_count
        byte_position += size
    return answers
