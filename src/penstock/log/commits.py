"""The packed row of a commit: everything that one flush made visible, in one blob.

A row of `wal_commit` fully describes a WAL object: for each partition the byte range of its batches, how many offsets
they take, and the sequence numbers of their idempotent producers. With the base offsets beside it, replaying the rows
in `seq` order rebuilds log end offsets, spans, producer states and usage, which is how an agent starts and how agents
follow each other.

Layout, big-endian. Blob: format byte, then entries. Entry: partition id i64, byte start u32, byte length u32, offset
count u32, batch count u32, maximum timestamp i64, producer batch count u16; then as many producer batches: producer id
i64, epoch i16, first sequence i32, last offset delta u32, offset delta of the batch's first record within the entry
u32, maximum timestamp i64; in format 2, for rows with transactions, flags u8 as well. In format 3, for rows with sealed
entries, an entry also has a key id i64 before its producer batches, 0 if it is not sealed, and else salt (16 bytes),
start, length and skipped u32, base offset i64 and CRC u32 of its seal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import starmap
from struct import Struct
from struct import error as StructError
from typing import NamedTuple

from penstock.base.dataclasses import dataclass
from penstock.base.errors import CorruptData
from penstock.base.integers import pack_i64s, unpack_i64s
from penstock.base.twins import twinned
from penstock.log.model import (
    AbortedTransaction,
    EntrySeal,
    OpenTransaction,
    Partition,
    ProducerState,
    SequenceBatch,
    Span,
)
from penstock.log.producers import ProducerRefusal, last_sequence, note_marker, remember
from penstock.storage.wal import WalLocation
from penstock.wire.error_codes import ErrorCode

FORMAT, FORMAT_WITH_FLAGS, FORMAT_WITH_SEALS = 1, 2, 3
_ENTRY = Struct(">qIIIIqH")
_PRODUCER = Struct(">qhiIIq")
_PRODUCER_WITH_FLAGS = Struct(">qhiIIqB")
_KEY_ID = Struct(">q")
_SEAL = Struct(">q16sIIIqI")
SEAL_BYTES = _SEAL.size
"""The size of a seal in an entry."""

TRANSACTIONAL, CONTROL, ABORT = 1, 2, 4
STORED_FLAGS = TRANSACTIONAL | CONTROL | ABORT
"""Flags of a batch: it belongs to a transaction; it is a marker; the marker of an abort."""


class ProducerBatch(NamedTuple):
    """One idempotent batch inside an entry."""

    producer_id: int
    epoch: int
    first_sequence: int
    last_offset_delta: int
    offset_delta: int
    """The batch's first offset, relative to the entry's base."""
    timestamp: int
    flags: int = 0
    """Only `STORED_FLAGS` are stored; the commit path uses the others."""


class CommitEntry(NamedTuple):
    """What one commit adds to one partition."""

    partition_id: int
    byte_start: int
    byte_length: int
    offset_count: int
    batch_count: int
    max_timestamp: int
    producer_batches: tuple[ProducerBatch, ...] = ()
    seal: EntrySeal | None = None


ExclusionReason = SequenceBatch | ProducerRefusal | ErrorCode | None
"""Why a batch is not in the log: a duplicate of this one, refused with this error, or (None) its partition does not
exist."""


@dataclass(frozen=True, slots=True)
class ExcludedBatches:
    """The batches left out of a partial commit: its entries are runs of the original ones."""

    origins: Sequence[int]
    """For each entry the index of the original one."""
    excluded: Mapping[tuple[int, int], ExclusionReason]
    """By index of the original entry, and of the batch in it."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One durable commit, as agents see it."""

    seq: int
    object_id: bytes
    location: WalLocation
    committed_ms: int
    agent_id: int
    entries: Sequence[CommitEntry]
    bases: Sequence[int]
    """The base offset of each entry."""
    rest: ExcludedBatches | None = None
    """Set where batches were left out, and only for the agent that made the commit."""


def pack_entries(entries: Sequence[CommitEntry]) -> bytes:
    """The `entries` column."""
    return pack_unsealed(entries) or _pack_sealed(entries)


@twinned
def pack_unsealed(entries: Sequence[CommitEntry]) -> bytes | None:
    """The same for entries without seals; None if one has a seal."""
    if any(entry.seal for entry in entries):
        return None
    flagged = any(batch.flags for entry in entries for batch in entry.producer_batches)
    parts = [bytes((FORMAT_WITH_FLAGS if flagged else FORMAT,))]
    for entry in entries:
        parts.append(_ENTRY.pack(*entry[:6], len(entry.producer_batches)))
        if flagged:
            parts.extend(_with_flags(batch) for batch in entry.producer_batches)
        else:
            parts.extend(_PRODUCER.pack(*batch[:-1]) for batch in entry.producer_batches)
    return b"".join(parts)


def _pack_sealed(entries: Sequence[CommitEntry]) -> bytes:
    parts = [bytes((FORMAT_WITH_SEALS,))]
    for entry in entries:
        parts.append(_ENTRY.pack(*entry[:6], len(entry.producer_batches)))
        parts.append(_KEY_ID.pack(0) if entry.seal is None else _SEAL.pack(*entry.seal))
        parts.extend(_with_flags(batch) for batch in entry.producer_batches)
    return b"".join(parts)


def _with_flags(batch: ProducerBatch) -> bytes:
    return _PRODUCER_WITH_FLAGS.pack(*batch[:-1], batch.flags & STORED_FLAGS)


def packed_bytes_max(entries: int, batches: int) -> int:
    """The largest size of both columns for so many entries with so many batches, none of them sealed."""
    return 1 + entries * (_ENTRY.size + 8) + batches * _PRODUCER_WITH_FLAGS.size


def unpack_entries(blob: bytes) -> list[CommitEntry]:
    """Read the `entries` column; raise `CorruptData` on anything that was not packed by us."""
    found = unpack_unsealed(blob)
    return _unpack(blob) if found is None else found


@twinned
def unpack_unsealed(blob: bytes) -> list[CommitEntry] | None:
    """The entries of a row without seals; None if there are any, or the row is invalid."""
    try:
        return _unpack(blob) if blob[:1] != bytes((FORMAT_WITH_SEALS,)) else None
    except CorruptData:
        return None


def _unpack(blob: bytes) -> list[CommitEntry]:
    if not blob or blob[0] not in (FORMAT, FORMAT_WITH_FLAGS, FORMAT_WITH_SEALS):
        raise CorruptData(f"commit row of unknown format {blob[:1]!r}")
    producer = _PRODUCER if blob[0] == FORMAT else _PRODUCER_WITH_FLAGS
    entries, position, end, sealed = [], 1, len(blob), blob[0] == FORMAT_WITH_SEALS
    while position < end:
        if position + _ENTRY.size > end:
            raise CorruptData("commit row ends inside an entry")
        partition_id, start, length, offsets, count, timestamp, producer_count = _ENTRY.unpack_from(blob, position)
        position += _ENTRY.size
        seal, position = _unpack_seal(blob, position) if sealed else (None, position)
        batches: tuple[ProducerBatch, ...] = ()
        if producer_count:
            following = position + producer_count * producer.size
            if following > end:
                raise CorruptData("commit row ends inside a producer batch")
            batches = tuple(starmap(ProducerBatch, producer.iter_unpack(blob[position:following])))
            position = following
        entries.append(CommitEntry(partition_id, start, length, offsets, count, timestamp, batches, seal))
    return entries


def _unpack_seal(blob: bytes, position: int) -> tuple[EntrySeal | None, int]:
    try:
        if not _KEY_ID.unpack_from(blob, position)[0]:
            return None, position + _KEY_ID.size
        return EntrySeal(*_SEAL.unpack_from(blob, position)), position + _SEAL.size
    except StructError:
        raise CorruptData("commit row ends inside a seal") from None


def pack_bases(bases: Sequence[int]) -> bytes:
    """The `bases` column: one i64 per entry."""
    return pack_i64s(bases)


def unpack_bases(blob: bytes) -> tuple[int, ...]:
    """Read the `bases` column; raise `CorruptData` on anything that was not packed by us."""
    if len(blob) % 8:
        raise CorruptData(f"commit row with {len(blob)} bytes of base offsets")
    return unpack_i64s(blob)


def span_of(commit: Commit, position: int, view: memoryview | None) -> Span:
    """The span that entry number `position` of a commit adds to its partition."""
    entry, base = commit.entries[position], commit.bases[position]
    span = Span(
        base, base + entry.offset_count - 1, commit.seq, commit.location, entry.byte_start, entry.byte_length,
        entry.max_timestamp, entry.batch_count, view,
    )  # fmt: skip
    span.seal = entry.seal
    return span


def apply_entry(
    partition: Partition,
    commit: Commit,
    position: int,
    view: memoryview | None = None,
    producers: dict[int, ProducerState] | None = None,
    *,
    transactional: bool = True,
) -> Span | None:
    """Evolve a partition by one entry of a durable commit, and return the span. The only way the log end advances.

    Entries must arrive in commit order; one that is already in segments (a replay over loaded rows) changes nothing.
    `producers` are the states after this entry, if the caller has computed them. Not `transactional`: the caller knows
    that no batch of the entry begins, continues or ends a transaction.
    """
    entry, base = commit.entries[position], commit.bases[position]
    if base < partition.segmented_to:
        return None
    span = span_of(commit, position, view)
    partition.spans.append(span)
    partition.next_offset = max(partition.next_offset, base + entry.offset_count)
    partition.size_bytes += entry.byte_length
    if partition.first_dirty_ms < 0:
        partition.first_dirty_ms = commit.committed_ms
    if producers:
        partition.know(producers)
    if producers is None:
        for batch in entry.producer_batches:
            remember_batch(partition, base, batch, commit.committed_ms)
    if producers is None or transactional:
        follow_all(partition.transactions, partition.aborted, base, entry.producer_batches, commit.committed_ms)
    return span


def wake(partition: Partition, entry: CommitEntry) -> None:
    """Notify a partition's waiters of an entry."""
    if not partition.waiters:
        return
    is_plain = not partition.transactions and not any(batch.flags for batch in entry.producer_batches)
    for waiter in list(partition.waiters):
        if is_plain:
            waiter.on_append(entry.byte_length)
        else:
            waiter.on_stable(entry.byte_length)


@twinned
def follow_all(
    open_transactions: dict[int, OpenTransaction], aborted: list[AbortedTransaction], base: int,
    batches: tuple[ProducerBatch, ...], now_ms: int,
) -> None:  # fmt: skip
    """Apply transactional batches and markers to the open transactions of their partition.

    Open transactions stay ordered by first offset, so that the first one determines the last stable offset.
    """
    for batch in batches:
        if not batch.flags:
            continue
        offset = base + batch.offset_delta
        if not batch.flags & CONTROL:
            if batch.producer_id not in open_transactions:
                open_transactions[batch.producer_id] = OpenTransaction(offset, now_ms)
            continue
        ended = open_transactions.pop(batch.producer_id, None)
        if ended is not None and batch.flags & ABORT:
            stable = next((one.first_offset for one in open_transactions.values()), offset + 1)
            aborted.append(AbortedTransaction(batch.producer_id, ended.first_offset, offset, stable))


def remember_batch(partition: Partition, base: int, batch: ProducerBatch, now_ms: int) -> None:
    """Remember one idempotent batch of a durable entry with this base offset; one that is known changes nothing."""
    if batch.flags & CONTROL:
        partition.add_producer(batch.producer_id)
        note_marker(partition.producers, batch.producer_id, batch.epoch, now_ms)
        return
    state = partition.producers.get(batch.producer_id)
    if state is not None and (
        batch.epoch < state.epoch or (state.batches and base + batch.offset_delta <= state.batches[-1].last_offset)
    ):
        return  # Where commits store states, loaded states are ahead of replayed commits.
    partition.add_producer(batch.producer_id)
    remember(partition.producers, batch.producer_id, batch.epoch, sequence_batch(base, batch), now_ms)


def sequence_batch(base: int, batch: ProducerBatch) -> SequenceBatch:
    """What is remembered of one idempotent batch of an entry with this base offset."""
    count = batch.last_offset_delta + 1
    first = base + batch.offset_delta
    return SequenceBatch(
        batch.first_sequence, last_sequence(batch.first_sequence, count), first, first + count - 1, batch.timestamp
    )
