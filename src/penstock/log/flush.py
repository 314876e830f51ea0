"""One flush of the writer: shares of partitions, and participants.

A *participant* is another change that must become durable atomically with the flush, and in order with it: the state of
a transaction and its markers, or letters for a share group's dead letter queue and the note that they were written. It
decides when the flush is put together, on durable state and on the batches that are already in the flush. Since the
writer has one flush in flight at a time, there is nothing else it could depend on. A flush may consist of participants
alone; without batches of theirs it needs no object, but it may get one: where a commit record is enough, that is faster
than the database.

Where several agents commit, durable state may be ahead of what is known here. So a participant names the producers
whose batches its decision depends on; if they have more batches, nothing of the flush is written and all of it is
decided again (`Outdated`). Writes of participants of the same kind are combined, so that they take few statements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Protocol, TypeVar

from penstock.base.dataclasses import dataclass, field
from penstock.base.errors import PlatformError
from penstock.base.twins import twinned
from penstock.log.answers import Appended, PendingAppend
from penstock.log.batches import IMPLICIT, Accepted
from penstock.log.commit_path import CommitChange, Outdated
from penstock.log.markers import marker
from penstock.log.model import EntrySeal, Partition, ProducerState, SequenceBatch
from penstock.log.producers import is_next, last_sequence, note_marker
from penstock.metadata.database import Script
from penstock.wire.error_codes import ErrorCode

Refuses = Callable[[Partition, Accepted], ErrorCode]
"""Returns why a transactional batch must not be appended."""


@dataclass(slots=True)
class Share:
    """One partition's part of a flush."""

    partition: Partition
    base: int
    next_offset: int
    appended: list[tuple[Accepted, PendingAppend, int, int]] = field(default_factory=list)
    """Batch, ticket and position in it, and the offset assigned."""
    repeated: list[tuple[SequenceBatch, PendingAppend, int]] = field(default_factory=list)
    producers: dict[int, ProducerState] = field(default_factory=dict)
    """States of the producers once this flush is durable."""
    transactional: dict[int, None] | None = None
    """Producers with transactional batches or markers in it, if there are any."""
    byte_start: int = 0
    byte_length: int = 0


@twinned
def append_in_order(
    share: Share, pending: list[tuple[Accepted, PendingAppend, int]], first: int, now_ms: int, refusal: Refuses | None,
    admitted: dict[int, int],
) -> int:  # fmt: skip
    """The fast path for batches in order: append those from `first` on, up to one that is not the next one of a known
    producer, or that `refusal` does not accept; returns its index, or the number of batches.

    `admitted`: epochs of producers whose implicit batches were accepted before, in this flush and virtual cluster.
    Whether such a batch is accepted does not depend on its partition, so `refusal` is not called again.
    """
    partition, producers, appended = share.partition, share.producers, share.appended
    offset, size = share.next_offset, share.byte_length
    number = first
    for batch, ticket, position in islice(pending, first, None):
        producer_id, epoch = batch.producer_id, batch.producer_epoch
        if producer_id >= 0:
            state = producers.get(producer_id)
            known = partition.producers.get(producer_id) if state is None else state
            if known is None or not is_next(known, epoch, batch.base_sequence):
                break
            if batch.flags:
                if not batch.flags & IMPLICIT or admitted.get(producer_id) != epoch:
                    if refusal is None or refusal(partition, batch) is not ErrorCode.NONE:
                        break
                    if batch.flags & IMPLICIT:
                        admitted[producer_id] = epoch
                if share.transactional is None:
                    share.transactional = {}
                share.transactional[producer_id] = None
            elif producer_id in partition.transactions or producer_id in (share.transactional or ()):
                break
            if state is None or epoch != state.epoch:
                batches = known.batches if epoch == known.epoch else ()
                state = producers[producer_id] = ProducerState(producer_id, epoch, now_ms, batches)
            state.last_ms = now_ms
            state.add(sequence_of(batch, offset))
        appended.append((batch, ticket, position, offset))
        offset += batch.offset_count
        size += len(batch.data)
        number += 1
    share.next_offset, share.byte_length = offset, size
    return number


def sequence_of(batch: Accepted, offset: int) -> SequenceBatch:
    """What is remembered of a batch that is appended at an offset."""
    return SequenceBatch(
        batch.base_sequence,
        last_sequence(batch.base_sequence, batch.offset_count),
        offset,
        offset + batch.offset_count - 1,
        batch.max_timestamp,
    )


@twinned
def settle_appended(share: Share, moved: int) -> None:
    """Answer the batches of a share with their offsets."""
    log_start = share.partition.log_start
    for batch, ticket, slot, offset in share.appended:
        ticket.settle(slot, Appended(ErrorCode.NONE, offset + moved, batch.append_time_ms, log_start))


@twinned
def append_marker(share: Share, batch: Accepted, ticket: PendingAppend, now_ms: int) -> None:
    """Append a marker to a share, and update the producer's state."""
    producer_id, epoch, producers = batch.producer_id, batch.producer_epoch, share.producers
    share.appended.append((batch, ticket, 0, share.next_offset))
    share.next_offset += batch.offset_count
    share.byte_length += len(batch.data)
    if share.transactional is None:
        share.transactional = {}
    share.transactional[producer_id] = None
    if producer_id not in producers:
        known = share.partition.producers.get(producer_id)
        if known is not None and known.epoch >= epoch:
            producers[producer_id] = ProducerState(producer_id, known.epoch, known.last_ms, known.batches)
    note_marker(producers, producer_id, epoch, now_ms)


class Participant(Protocol):
    """A change that becomes durable with a flush."""

    def prepare(self, flush: Flush) -> bool:
        """Decide, and join the flush unless there is nothing to write; False to wait for the next flush."""

    def committed(self) -> None:
        """The flush is durable, and its batches are applied. Called at once, in the order in which they joined."""

    def failed(self, problem: PlatformError) -> None:
        """Nothing of the flush was written."""


class FlushWrites(Protocol):
    """The combined writes of all participants of one kind in a flush."""

    def script(self) -> Script[None]:
        """Write them; as in `CommitChange`."""

    def record(self) -> bytes | None:
        """What `script` writes, for a commit record; None if it cannot be expressed there."""


Gathered = TypeVar("Gathered", bound=FlushWrites)


class TransactionGuard(Protocol):
    """Knows which producers may write as part of which transactions."""

    def refusal(self, partition: Partition, batch: Accepted) -> ErrorCode:
        """Why a transactional batch must not be appended, or NONE if it may be, as far as that is known here.

        For implicit batches the answer is the same in all partitions of a virtual cluster.
        """

    def on_outdated(self, problem: Outdated) -> None:
        """A flush is decided again, for this reason."""

    def began(self, partition: Partition, producers: Iterable[int]) -> None:
        """Producers have durable transactional batches in a partition, or markers."""


class ParticipantTicket:
    """Ticket of a batch that a participant appends. If the flush is decided again, the participant appends another one.

    Most participants need no answer: `committed` and `failed` tell them about the whole flush.
    """

    timeout_ms = None

    def time_out(self) -> None:
        """Never called: there is no time-out."""

    def settle(self, position: int, result: Appended) -> None:
        """Ignored."""


_NOBODY = ParticipantTicket()
_NOTHING = memoryview(b"")


@dataclass(slots=True)
class Flush:
    """One flush, from its decision to its end."""

    now_ms: int
    shares: list[Share]
    seen: int = 0
    """The last commit of other agents that it was decided on."""
    body: memoryview = _NOTHING
    stored: memoryview = _NOTHING
    """The body to store: the plain one, or one in which entries are sealed."""
    seals: list[EntrySeal | None] | None = None
    """The seal of each share, if any is sealed."""
    occupants: list[Any] = field(default_factory=list)
    """The occupants of the arena chunk that contains the body."""
    participants: list[Participant] | None = None
    gathered: dict[type[FlushWrites], FlushWrites] | None = None
    producers: set[int] | None = None
    """Producers on whose batches participants' decisions depend."""
    by_partition: dict[Partition, Share] | None = None
    """The shares by partition, once markers have to be added to them."""
    record: bytes | None = b""
    """What participants write, for the commit record; None if it cannot be expressed there."""
    touched: set[object] | None = None
    """What participants have touched: a second one that needs the same takes the next flush."""
    is_urgent: bool = False
    """Whether what participants write is worth an object that contains only its commit record."""

    def begin_prepare(self) -> None:
        """Called before participants are prepared."""
        self.participants, self.gathered, self.producers, self.touched = [], {}, set(), set()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to make durable."""
        return not self.shares and not self.gathered

    @property
    def has_object(self) -> bool:
        """Whether it is laid out as an object: then it is a commit, perhaps one without batches."""
        return len(self.body) > 0

    @property
    def can_do_without_object(self) -> bool:
        """Whether it can be committed by the database alone when the log takes no object because it is full. The
        database has room reserved, and this very change may be what makes room in the log."""
        return not self.shares and bool(self.participants)

    @property
    def change(self) -> CommitChange | None:
        """Everything that participants write."""
        if not self.participants:
            return None
        return CommitChange(script=self._write_all, producers=self.producers or (), seen=self.seen, record=self.record)

    def end_prepare(self) -> None:
        """All participants are prepared: what they write is known."""
        gathered = tuple((self.gathered or {}).values())
        if gathered:
            self.record = gathered[0].record() if len(gathered) == 1 else None

    def is_touched(self, key: object) -> bool:
        """Whether a participant of this flush has touched a key."""
        return self.touched is not None and key in self.touched

    def join(self, participant: Participant, *, producers: Iterable[int] = (), keys: Iterable[object] = ()) -> None:
        """Add a participant, with the producers its decision depends on and the keys that no other one may touch."""
        assert self.participants is not None
        assert self.producers is not None
        assert self.touched is not None
        self.participants.append(participant)
        self.producers.update(producers)
        self.touched.update(keys)

    def gather(self, kind: type[Gathered], make: Callable[[], Gathered]) -> Gathered:
        """The combined writes of a kind of participants; created for the first of them."""
        assert self.gathered is not None
        found = self.gathered.get(kind)
        if found is None:
            found = self.gathered[kind] = make()
        assert isinstance(found, kind)
        return found

    def _write_all(self) -> Script[None]:
        for writes in (self.gathered or {}).values():
            yield from writes.script()

    def partitions_of(self, producer_id: int) -> Iterator[Partition]:
        """The partitions in which this flush has transactional batches of a producer."""
        for share in self.shares:
            if share.transactional is not None and producer_id in share.transactional:
                yield share.partition

    def append(self, partition: Partition, batch: Accepted, ticket: ParticipantTicket = _NOBODY) -> Share:
        """Append a batch of a participant, after what the flush has for the partition; returns its share."""
        share = self._share_of(partition)
        share.appended.append((batch, ticket, 0, share.next_offset))
        share.next_offset += batch.offset_count
        share.byte_length += len(batch.data)
        return share

    def _share_of(self, partition: Partition) -> Share:
        if self.by_partition is None:
            self.by_partition = {share.partition: share for share in self.shares}
        share = self.by_partition.get(partition)
        if share is None:
            share = self.by_partition[partition] = Share(partition, partition.next_offset, partition.next_offset)
            self.shares.append(share)
        return share

    def end_transaction(
        self, partitions: Iterable[Partition], *, producer_id: int, epoch: int, commit: bool, coordinator_epoch: int
    ) -> None:
        """Append a producer's marker to partitions, after its batches in the flush."""
        batch = marker(
            producer_id=producer_id, epoch=epoch, commit=commit, coordinator_epoch=coordinator_epoch, now_ms=self.now_ms
        )
        for partition in partitions:
            append_marker(self._share_of(partition), batch, _NOBODY, self.now_ms)
