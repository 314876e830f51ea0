"""Partial commits: what remains of a commit when some of its batches must not be appended. Pure.

An agent validates batches by what it knows, and another agent may know more: a producer that has moved from one to the
other may have sent duplicates, or have a newer epoch. By then the WAL object is written. The runs of batches between
the refused ones are appended; each run becomes an entry of its own.

Batches are judged by the same rules as everywhere (`producers.check_sequence`), against locked rows, and also checked
against the transactions that they belong to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from struct import unpack_from
from typing import NamedTuple

from penstock.base.dataclasses import dataclass, field
from penstock.log.batches import ABORTABLE, IMPLICIT
from penstock.log.commit_sql import (
    IdOwner,
    ProducerKey,
    ProducerUpdate,
    TransactionMembership,
    is_member,
    producer_update,
)
from penstock.log.commits import CONTROL, TRANSACTIONAL, CommitEntry, ExclusionReason, ProducerBatch, sequence_batch
from penstock.log.model import ProducerState
from penstock.log.producers import ProducerRefusal, check_sequence, is_fenced, note_marker, remember
from penstock.wire.error_codes import ErrorCode

_PREFIX_BYTES = 12


class _Piece(NamedTuple):
    """One batch of an entry, with its position in the body."""

    number: int
    start: int
    length: int
    offset_count: int
    max_timestamp: int
    producer_batch: ProducerBatch | None


@dataclass(slots=True)
class PartialCommit:
    """What remains of a commit, and the verdicts on the rest."""

    entries: list[CommitEntry] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    """Each entry's base, relative to its partition's log end offset."""
    origins: list[int] = field(default_factory=list)
    """For each entry, the index of the original entry."""
    excluded: dict[tuple[int, int], ExclusionReason] = field(default_factory=dict)
    """Verdicts on the batches left out, by index of the original entry and of the batch in it."""
    producers: list[ProducerUpdate] = field(default_factory=list)
    members: dict[TransactionMembership, None] = field(default_factory=dict)
    ongoing: set[ProducerKey] = field(default_factory=set)
    """Partitions that producers have written to in transactions that are still open."""
    has_lost_markers: bool = False
    """Whether a marker was left out although its partition exists."""


def membership(partition_id: int, batch: ProducerBatch) -> TransactionMembership | None:
    """What a batch requires of its producer's transactional id; None if it belongs to no transaction, or is a
    marker."""
    if not batch.flags & TRANSACTIONAL or batch.flags & CONTROL:
        return None
    return TransactionMembership(batch.producer_id, batch.epoch, None if batch.flags & IMPLICIT else partition_id)


def follow_ongoing(ongoing: set[ProducerKey], partition_id: int, batch: ProducerBatch) -> None:
    """Track which partitions belong to open transactions: those that were written to (KIP-890)."""
    if batch.flags & CONTROL:
        ongoing.discard((partition_id, batch.producer_id))
    elif batch.flags & TRANSACTIONAL:
        ongoing.add((partition_id, batch.producer_id))


def begins_late(batch: ProducerBatch) -> bool:
    """Whether a batch is not the first of its transaction in the partition. With implicit addition that one adds the
    partition, and its sequence is 0, as each transaction has a new epoch."""
    return bool(batch.flags & IMPLICIT) and batch.first_sequence > 0


def decide(
    body: memoryview,
    entries: Sequence[CommitEntry],
    heads: Mapping[int, int],
    states: Mapping[ProducerKey, ProducerState],
    now_ms: int,
    owners: Mapping[int, IdOwner] | None = None,
    ongoing: Iterable[ProducerKey] = (),
) -> PartialCommit:
    """Judge every batch of a commit against log end offsets, producers, transactional ids and open transactions."""
    found = PartialCommit(ongoing=set(ongoing))
    for origin, entry in enumerate(entries):
        head = heads.get(entry.partition_id)
        pieces = list(_pieces(body, entry))
        if head is None:
            found.excluded.update(((origin, piece.number), None) for piece in pieces)
            continue
        _decide_entry(found, origin, entry, pieces, head, states, owners or {}, now_ms)
    return found


def _decide_entry(
    found: PartialCommit, origin: int, entry: CommitEntry, pieces: Sequence[_Piece], head: int,
    states: Mapping[ProducerKey, ProducerState], owners: Mapping[int, IdOwner], now_ms: int,
) -> None:  # fmt: skip
    known: dict[int, ProducerState] = {}
    added: dict[int, list[ProducerBatch]] = {}
    run: list[_Piece] = []
    start = total = 0
    for piece in pieces:
        batch = piece.producer_batch
        if batch is not None:
            state = _state(known, (entry.partition_id, batch.producer_id), states)
            member = membership(entry.partition_id, batch)
            if member is not None and (entry.partition_id, batch.producer_id) in found.ongoing:
                member = member._replace(partition_id=None)
            verdict = _verdict(state, batch, member, owners)
            if verdict is not None:
                found.excluded[origin, piece.number] = verdict
                found.has_lost_markers |= bool(batch.flags & CONTROL)
                _close(found, origin, entry, run, start)
                run, start = [], total
                continue
            moved = batch._replace(offset_delta=total)
            if batch.flags & CONTROL:
                note_marker(known, batch.producer_id, batch.epoch, now_ms)
            else:
                remember(known, batch.producer_id, batch.epoch, sequence_batch(head, moved), now_ms)
            follow_ongoing(found.ongoing, entry.partition_id, batch)
            if member is not None:
                found.members[member] = None
            added.setdefault(batch.producer_id, []).append(moved)
        run.append(piece)
        total += piece.offset_count
    _close(found, origin, entry, run, start)
    for producer_id, batches in added.items():
        key = (entry.partition_id, producer_id)
        found.producers.append(producer_update(key, states.get(key), batches))


def _verdict(
    state: ProducerState | None,
    batch: ProducerBatch,
    member: TransactionMembership | None,
    owners: Mapping[int, IdOwner],
) -> ExclusionReason:
    if batch.flags & CONTROL:
        return ProducerRefusal.FENCED if is_fenced(state, batch.epoch) else None
    if member is not None:
        if is_fenced(state, batch.epoch):
            return ProducerRefusal.FENCED
        owner = owners.get(batch.producer_id)
        if owner is None:
            return ErrorCode.INVALID_PRODUCER_ID_MAPPING
        if owner.epoch != batch.epoch:
            return ErrorCode.INVALID_PRODUCER_EPOCH
        if not is_member(owner, member):
            return ErrorCode.TRANSACTION_ABORTABLE if batch.flags & ABORTABLE else ErrorCode.INVALID_TXN_STATE
        if state is None and begins_late(batch):
            return ProducerRefusal.OUT_OF_ORDER
    return check_sequence(state, batch.epoch, batch.first_sequence, batch.last_offset_delta + 1)


def _state(
    known: dict[int, ProducerState], key: ProducerKey, states: Mapping[ProducerKey, ProducerState]
) -> ProducerState | None:
    """The state of a producer after what was judged so far: a copy, for the rows read stay as they are."""
    producer_id, stored = key[1], states.get(key)
    if producer_id not in known and stored is not None:
        known[producer_id] = ProducerState(producer_id, stored.epoch, stored.last_ms, stored.batches)
    return known.get(producer_id)


def _close(found: PartialCommit, origin: int, entry: CommitEntry, run: Sequence[_Piece], start: int) -> None:
    """Make an entry of batches that lie side by side."""
    if not run:
        return
    batches, offset = [], 0
    for piece in run:
        if piece.producer_batch is not None:
            batches.append(piece.producer_batch._replace(offset_delta=offset))
        offset += piece.offset_count
    found.entries.append(
        CommitEntry(
            entry.partition_id, run[0].start, sum(piece.length for piece in run), offset, len(run),
            max(piece.max_timestamp for piece in run), tuple(batches),
            None if entry.seal is None else entry.seal._replace(skipped=run[0].start - entry.byte_start),
        )
    )  # fmt: skip
    found.starts.append(start)
    found.origins.append(origin)


def _pieces(body: memoryview, entry: CommitEntry) -> Iterator[_Piece]:
    by_delta = {batch.offset_delta: batch for batch in entry.producer_batches}
    position, delta = entry.byte_start, 0
    for number in range(entry.batch_count):
        length = int(unpack_from(">i", body, position + 8)[0]) + _PREFIX_BYTES
        count = int(unpack_from(">i", body, position + 23)[0]) + 1
        (max_timestamp,) = unpack_from(">q", body, position + 35)
        yield _Piece(number, position, length, count, max_timestamp, by_delta.get(delta))
        position, delta = position + length, delta + count
