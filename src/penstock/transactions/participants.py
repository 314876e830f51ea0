"""Requests of the transaction coordinator as participants of the writer's flushes.

Each decides when a flush is put together, on the state in force and on the batches in the flush. Their writes in one
flush are combined: first the proof that the ids are still coordinated here, then the ids, then offsets. Ids come before
offsets, because other agents that add pending offsets to a transaction lock its id's row.

Pending offsets and their outcomes are in the flush's commit record, like ids. Other code that changes offsets in the
database begins by storing what records contain, or waits for it (`log/trailing_rows.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

from penstock.base.errors import Fenced, PlatformError
from penstock.coordination.model import Key
from penstock.groups.model import OffsetsPending
from penstock.log.flush import Flush, Participant
from penstock.log.model import Partition
from penstock.log.wal_record import CHANGE_BYTES_MAX
from penstock.metadata.database import Script
from penstock.transactions import store
from penstock.transactions.cells import Cell, Decide
from penstock.transactions.model import Decision, ProducerIdAndEpoch, Transaction, TransactionState
from penstock.transactions.slots import Slots
from penstock.wire.error_codes import ErrorCode

if TYPE_CHECKING:
    from penstock.transactions.service import TransactionService

Callback = Callable[["Decision | Exception"], None]
T = TypeVar("T")


class TransactionWrites:
    """The combined writes of the participants of one flush."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self.states: dict[Key, Transaction | None] = {}
        """Ids as they are to be stored; None: deleted."""
        self.pending: list[store.Pending] = []
        """Pending offsets, none of them of a transaction that ends in the same flush."""
        self.ended: list[store.Ended] = []
        self.proven: set[Key] = set()
        """Ids that must be coordinated here, changed or not."""

    def script(self) -> Script[None]:
        """All writes, in an order that others use as well."""
        keys = sorted(self.states)
        yield from self._slots.fence(self.proven)
        yield from store.put(*(state for key in keys if (state := self.states[key]) is not None))
        for key in keys:
            if self.states[key] is None:
                yield from store.forget(key)
        yield from store.move_offsets(self.pending, sorted(self.ended))

    def record(self) -> bytes | None:
        """What fits into a commit record. Ids under leases are not put there: leases are proven in the database."""
        states = [state for state in self.states.values() if state is not None]
        if self._slots.is_shared or len(states) < len(self.states):
            return None
        changes = store.pack_changes(store.TransactionChanges(states, self.pending, sorted(self.ended)))
        return changes if len(changes) <= CHANGE_BYTES_MAX else None


class FlushRequest(Participant, Generic[T]):
    """A request that waits for the outcome of a flush."""

    def __init__(self, service: TransactionService, key: Key) -> None:
        self._service, self._key = service, key
        self.answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def _writes(self, flush: Flush) -> TransactionWrites:
        return flush.gather(TransactionWrites, lambda: TransactionWrites(self._service.slots))

    def _answer(self, result: T) -> None:
        if not self.answer.done():
            self.answer.set_result(result)

    def _has_other_coordinator(self) -> bool:
        """Whether another agent coordinates the id by now."""
        if self._service.slots.has(self._key):
            return False
        self._fail(Fenced("this id has another coordinator"))
        return True

    def _fail(self, problem: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(problem)

    def failed(self, problem: PlatformError) -> None:
        """Nothing of the flush was written."""
        self._fail(problem)


class Request(FlushRequest[Decision]):
    """A request that is decided by a rule."""

    def __init__(
        self, service: TransactionService, key: Key, decide: Decide, fresh_id: int | None,
        follows: ProducerIdAndEpoch | None = None,
    ) -> None:  # fmt: skip
        super().__init__(service, key)
        self._decide, self._fresh_id, self._follows = decide, fresh_id, follows
        """It follows this producer's batches, as far as those are waiting already."""
        self._changing: Cell | None = None

    def prepare(self, flush: Flush) -> bool:
        """Decide on the state in force and on the producer's batches in the flush."""
        if flush.is_touched(self._key):
            return False
        if self._follows is not None and self._service.has_waiting(self._follows):
            return False
        if self._has_other_coordinator():
            return True
        service, cell = self._service, self._service.cell(self._key)
        in_flush = [] if cell is None else list(_own_partitions(flush, cell))
        seen = cell
        if cell is not None and in_flush:
            seen = Cell(cell.txn, cell.open | dict.fromkeys(in_flush), cell.pending)
        try:
            decision = self._decide(seen, flush.now_ms, self._fresh_id)
        except Exception as bug:  # noqa: BLE001  # only this request fails: nothing of it happened
            self._fail(bug)
            return True
        if decision.state is None and not service.slots.is_shared:
            self._answer(decision)
            return True
        self._decision = decision
        producers = () if cell is None else (cell.txn.producer_id,)
        flush.join(self, producers=producers, keys=(self._key,))
        writes = self._writes(flush)
        writes.proven.add(self._key)
        if decision.state is None:
            return True  # A refusal, too, is only valid from the current coordinator.
        writes.states[self._key] = decision.state
        if decision.state.state is TransactionState.ONGOING:
            flush.is_urgent = True  # Producers before KIP-890 wait for it in each transaction.
        if cell is not None:
            self._changing = cell
            cell.changing = []
        if cell is not None and seen is not None:
            if decision.ending is not None:
                service.write_markers(flush, seen, decision.ending)
            may_have_offsets = cell.txn.groups or cell.pending or service.slots.is_shared
            if may_have_offsets and _is_other(cell.txn, decision):
                # Pending offsets stored through another agent are not known here. If by local knowledge there was no
                # transaction, their sender has not received a response yet.
                commit = decision.ending is not None and decision.ending.commit
                writes.ended.append((self._key[0], cell.txn.producer_id, commit))
                flush.is_urgent = True
        return True

    def committed(self) -> None:
        """The flush is durable: put the state in force."""
        self._change_ended()
        self._service.adopt(self._key, self._decision)
        self._answer(self._decision)

    def failed(self, problem: PlatformError) -> None:
        """Nothing of the flush was written."""
        self._change_ended()
        super().failed(problem)

    def _change_ended(self) -> None:
        if self._changing is not None:
            waiting, self._changing.changing = self._changing.changing, None
            for future in waiting or ():
                if not future.done():
                    future.set_result(None)


class CallbackRequest(Request):
    """A request with a callback, called as soon as it is decided or durable. A task would have to be scheduled
    first."""

    def __init__(
        self,
        service: TransactionService,
        key: Key,
        decide: Decide,
        follows: ProducerIdAndEpoch | None,
        callback: Callback,
    ) -> None:
        super().__init__(service, key, decide, None, follows)
        self._callback: Callback | None = callback

    def _answer(self, result: Decision) -> None:
        self._call_back(result)

    def _fail(self, problem: Exception) -> None:
        self._call_back(problem)

    def _call_back(self, outcome: Decision | Exception) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback(outcome)


def _own_partitions(flush: Flush, cell: Cell) -> Iterator[Partition]:
    """The partitions in which a flush has batches of an id's producer. Administrators of other virtual clusters may
    have had markers with the same producer id written in theirs."""
    return (
        partition
        for partition in flush.partitions_of(cell.txn.producer_id)
        if partition.topic.cluster_id == cell.txn.key[0]
    )


def _is_other(before: Transaction, decision: Decision) -> bool:
    """Whether later batches with the producer's current epoch belong to another transaction, or are refused."""
    after = decision.state
    return (
        decision.ending is not None
        or after is None
        or (before.producer_id, before.epoch) != (after.producer_id, after.epoch)
    )


class PendingOffsets(FlushRequest[Collection[int]]):
    """Stores pending offsets of groups, in the given order; answered with the indexes of those whose transactions have
    ended."""

    def __init__(self, service: TransactionService, offsets: Sequence[tuple[Key, OffsetsPending]]) -> None:
        super().__init__(service, (0, ""))
        self._offsets = offsets
        self._refused: set[int] = set()

    def prepare(self, flush: Flush) -> bool:
        """Check which transactions are open. Those that may end in this flush are checked when that is known."""
        keys = {_owners_key(group, record) for group, record in self._offsets}
        if any(flush.is_touched(key) for key in keys):
            return False
        may_add_offsets = [self._service.may_add_offsets(_owners_key(*one), one[1].owner) for one in self._offsets]
        self._refused = {number for number, accepted in enumerate(may_add_offsets) if not accepted}
        if len(self._refused) == len(self._offsets):
            self._answer(self._refused)
            return True
        flush.join(self, keys=keys)
        flush.is_urgent = True
        writes = self._writes(flush)
        for (group, record), accepted in zip(self._offsets, may_add_offsets, strict=True):
            if accepted:
                writes.pending.append((group, record.owner.producer_id, record.offsets))
        return True

    def committed(self) -> None:
        """The offsets are pending."""
        for number, (group, record) in enumerate(self._offsets):
            cell = self._service.cell(_owners_key(group, record))
            if number not in self._refused and cell is not None:
                self._service.wait_for_end(cell, group[1])
        self._answer(self._refused)


def _owners_key(group: Key, record: OffsetsPending) -> Key:
    return group[0], record.owner.transactional_id


class IdDeletion(FlushRequest[None]):
    """Deletes a transactional id, if it is still unused."""

    def __init__(self, service: TransactionService, key: Key, retention_ms: int) -> None:
        super().__init__(service, key)
        self._retention_ms = retention_ms

    def prepare(self, flush: Flush) -> bool:
        """Check whether it is still unused."""
        if flush.is_touched(self._key):
            return False
        if self._has_other_coordinator():
            return True
        cell = self._service.cell(self._key)
        if cell is None or any(_own_partitions(flush, cell)) or not self._service.is_unused(
            cell, flush.now_ms, self._retention_ms
        ):  # fmt: skip
            self._answer(None)
            return True
        flush.join(self, producers=(cell.txn.producer_id,), keys=(self._key,))
        writes = self._writes(flush)
        writes.proven.add(self._key)
        writes.states[self._key] = None
        return True

    def committed(self) -> None:
        """It is deleted."""
        self._service.drop(self._key)
        self._answer(None)


class MarkerWrite(FlushRequest["dict[Partition, ErrorCode]"]):
    """Writes markers of a producer to some partitions, for an administrator."""

    def __init__(
        self, service: TransactionService, producer: ProducerIdAndEpoch, partitions: Sequence[Partition], *,
        commit: bool, coordinator_epoch: int,
    ) -> None:  # fmt: skip
        super().__init__(service, (0, ""))
        self._producer, self._partitions, self._commit = producer, partitions, commit
        self._coordinator_epoch = coordinator_epoch
        self._refusals: dict[Partition, ErrorCode] = {}

    def prepare(self, flush: Flush) -> bool:
        """Write markers, except where a partition knows a newer epoch."""
        marked: list[Partition] = []
        for partition in self._partitions:
            known = partition.producers.get(self._producer.producer_id)
            if partition.topic.deleted:
                self._refusals[partition] = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            elif known is not None and known.epoch > self._producer.epoch:
                self._refusals[partition] = ErrorCode.INVALID_PRODUCER_EPOCH
            elif not self._service.has_room_for(partition, self._producer.producer_id):
                self._refusals[partition] = ErrorCode.POLICY_VIOLATION
            else:
                marked.append(partition)
        flush.end_transaction(
            marked, producer_id=self._producer.producer_id, epoch=self._producer.epoch, commit=self._commit,
            coordinator_epoch=self._coordinator_epoch,
        )  # fmt: skip
        if marked:
            flush.join(self)
        else:
            self._answer(self._refusals)
        return True

    def committed(self) -> None:
        """The markers are in the log."""
        self._answer(self._refusals)
