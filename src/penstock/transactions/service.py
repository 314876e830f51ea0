"""The transaction coordinator of this process.

All rules are in `transitions`, all SQL is in `store`. Added here is when they run: every request becomes a participant
of one of the writer's flushes (`participants`). It is decided when that flush is put together, on the state in force
and on the batches in the flush; its changes, markers and offsets become durable atomically with the flush; then the
state is put in force and the request is answered. So nothing can come between the decision to end a transaction and its
markers, and no batch of an ended transaction can follow them: the writer calls `refusal` for transactional batches
while it puts a flush together.

Every transactional id that this process coordinates is in memory, as is, per producer, what it has written: the
partitions with open batches, and the groups with pending offsets. The former is read from the partitions, when this is
opened and after every flush that touches them; the latter is noted before offsets are stored.

Where several agents append to the same partitions (`Slots.is_shared`), state in memory may be outdated. Then nothing is
refused that another agent may know better: batches are validated by the commit itself, a decision that missed batches
is rejected by it (`log/flush.py`), and before an end without a transaction is refused, other agents' writes are read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from penstock.base.clock import Clock
from penstock.base.cooperative import gather_in_batches
from penstock.base.errors import Fenced, PlatformError, Unavailable
from penstock.coordination.model import CoordinatorLoading, Key
from penstock.groups.model import OffsetsPending, TransactionOwner
from penstock.log.batches import ABORTABLE, IMPLICIT, Accepted
from penstock.log.commit_path import Outdated
from penstock.log.flush import Flush
from penstock.log.model import Partition, Topic
from penstock.log.producer_ids import ProducerIds
from penstock.log.producers import is_fenced
from penstock.log.registry import Registry
from penstock.log.wal_record import CHANGE_BYTES_MAX
from penstock.log.writer import Writer
from penstock.metadata.database import Database, read_by_statement
from penstock.transactions import cells, store, transitions
from penstock.transactions.cells import Cell, Decide
from penstock.transactions.model import (
    EPOCH_MAX,
    NEVER_MS,
    AddToTransaction,
    Decision,
    EndMarkers,
    EndTransaction,
    InitProducerId,
    ProducerIdAndEpoch,
    Result,
    Transaction,
    TransactionState,
)
from penstock.transactions.ownership import OwnershipCache
from penstock.transactions.participants import (
    CallbackRequest,
    FlushRequest,
    IdDeletion,
    MarkerWrite,
    PendingOffsets,
    Request,
)
from penstock.transactions.slots import AllSlots, Slots
from penstock.wire.error_codes import ErrorCode

T = TypeVar("T")

COORDINATOR_EPOCH = 0
"""The coordinator epoch in markers: constant, because nobody takes over coordination without the log itself."""
OFFSETS_BYTES_MAX = CHANGE_BYTES_MAX // 2
"""The largest part of a commit record for pending offsets."""
CONCURRENT_CHANGES = 100
"""How many transactions are aborted or stored, or ids deleted, concurrently by chores."""
ANY_AGE = -(2**63)
"""A retention that every id exceeds, even with timestamps in the future."""
_log = logging.getLogger(__name__)


class TransactionService:
    """Transactional ids and their transactions."""

    def __init__(
        self, *, database: Database, registry: Registry, writer: Writer, producer_ids: ProducerIds, clock: Clock,
        slots: Slots | None = None,
    ) -> None:  # fmt: skip
        self._database, self._registry, self._writer = database, registry, writer
        self._producer_ids, self._clock = producer_ids, clock
        self.slots: Slots = slots or AllSlots()
        self._cells: dict[Key, Cell] = {}
        self._by_producer: dict[int, Cell] = {}
        self._ownership = OwnershipCache(database)
        self.is_open = self._closed = False
        self._waiting: dict[FlushRequest[Any], None] = {}
        """Requests that wait for a flush."""
        self._timed_out: dict[Key, None] = {}
        """Timed-out transactions to be aborted, and (below) those whose abort is in a flush."""
        self._aborting: set[Key] = set()
        self._replacing: set[asyncio.Task[None]] = set()
        """Aborts for which a producer id has to be taken first."""
        self.on_begin: Callable[[], None] = lambda: None
        """Called when there may be a transaction that can time out."""

    async def open(self) -> None:
        """Load the ids, and find open batches of their producers in the partitions. Until then requests raise."""
        await self.slots.take()
        await self._writer.catch_up()
        for txn in await self._database.read(store.load):
            if self.slots.has(txn.key):
                self._put(txn)
        for producer_id, group_id, since_ms in await self._database.read(store.load_pending):
            if (cell := self._by_producer.get(producer_id)) is not None:
                cell.pending[group_id] = since_ms
                self.on_begin()
        for partition in self._registry.partitions():
            if partition.transactions:
                self.began(partition, list(partition.transactions))
        self.is_open = True
        self._writer.transactions = self

    def now_ms(self) -> int:
        """The time."""
        return self._clock.now_ms()

    # ---- called by the writer --------------------------------------------------------------------------------

    def refusal(self, partition: Partition, batch: Accepted) -> ErrorCode:
        """Why a transactional batch must not be appended, or NONE if it may be, as far as that is known here."""
        cell = self._by_producer.get(batch.producer_id)
        if self.slots.is_shared:
            # Epochs only increase. Otherwise another agent may coordinate the id by now.
            is_old = cell is not None and batch.producer_epoch < cell.txn.epoch
            fenced = is_old or batch.producer_epoch == EPOCH_MAX
            return ErrorCode.INVALID_PRODUCER_EPOCH if fenced else ErrorCode.NONE
        if cell is None or cell.txn.key[0] != partition.topic.cluster_id:
            fenced = is_fenced(partition.producers.get(batch.producer_id), batch.producer_epoch)
            return ErrorCode.INVALID_PRODUCER_EPOCH if fenced else ErrorCode.INVALID_PRODUCER_ID_MAPPING
        if cell.txn.epoch != batch.producer_epoch or batch.producer_epoch == EPOCH_MAX:
            return ErrorCode.INVALID_PRODUCER_EPOCH
        if batch.flags & IMPLICIT or partition.partition_id in cell.txn.partitions or partition in cell.open:
            return ErrorCode.NONE
        return ErrorCode.TRANSACTION_ABORTABLE if batch.flags & ABORTABLE else ErrorCode.INVALID_TXN_STATE

    def began(self, partition: Partition, producers: Iterable[int]) -> None:
        """Producers have transactional batches in a partition, or markers that ended their transactions."""
        for producer_id in producers:
            cell = self._by_producer.get(producer_id)
            if cell is None or cell.txn.key[0] != partition.topic.cluster_id:
                continue
            if producer_id not in partition.transactions:
                cell.open.pop(partition, None)
            elif partition not in cell.open:
                if not cell.open:
                    self.on_begin()
                cell.open[partition] = None

    def on_outdated(self, problem: Outdated) -> None:
        """A flush is decided again. If slots were lost, the state of their ids is dropped."""
        if self.slots.lose(problem):
            for key in [key for key in self._cells if not self.slots.has(key)]:
                self.drop(key)

    def ownership(self, key: Key, producer_id: int) -> ErrorCode:
        """Why a producer does not own a transactional id, or NONE."""
        cell = self._cells.get(key)
        if cell is not None and cell.txn.producer_id == producer_id:
            return ErrorCode.NONE
        if not self.slots.is_shared:
            return ErrorCode.INVALID_PRODUCER_ID_MAPPING
        return self._ownership.ownership(key, producer_id)

    # ---- called by participants --------------------------------------------------------------------------------

    def cell(self, key: Key) -> Cell | None:
        """The state in force of a transactional id."""
        return self._cells.get(key)

    def has_waiting(self, producer: ProducerIdAndEpoch) -> bool:
        """Whether batches of a producer are left for a later flush than the one being put together."""
        return self._writer.has_waiting(producer.producer_id, producer.epoch)

    def write_markers(self, flush: Flush, cell: Cell, ending: EndMarkers) -> None:
        """End the transaction in all of its partitions."""
        flush.end_transaction(
            [partition for partition in self.partitions_of(cell) if not partition.topic.deleted],
            producer_id=ending.producer.producer_id, epoch=ending.producer.epoch, commit=ending.commit,
            coordinator_epoch=COORDINATOR_EPOCH,
        )  # fmt: skip

    def adopt(self, key: Key, decision: Decision) -> None:
        """A decision is durable: put it in force."""
        if decision.state is not None:
            self._put(decision.state)
        if decision.ending is not None:
            # All of these have their markers, or their topics are deleted.
            self._cells[key].open = {}
            self._cells[key].pending = {}

    def _put(self, txn: Transaction) -> None:
        cell, producer_counts = self._cells.get(txn.key), self._registry.producer_counts(txn.key[0])
        if cell is None:
            cell = self._cells[txn.key] = Cell(txn, {})
            producer_counts.added((txn.producer_id,))
        elif cell.txn.producer_id != txn.producer_id:
            del self._by_producer[cell.txn.producer_id]
            producer_counts.removed((cell.txn.producer_id,))
            producer_counts.added((txn.producer_id,))
            cell.open, cell.pending = {}, {}
        cell.txn = txn
        self._by_producer[txn.producer_id] = cell
        if txn.state is TransactionState.ONGOING:
            self.on_begin()

    # ---- requests --------------------------------------------------------------------------------------------

    async def init(self, key: Key, request: InitProducerId) -> Result:
        """InitProducerId."""

        def decide(cell: Cell | None, now_ms: int, fresh_id: int | None) -> Decision:
            txn, has_batches = (None, False) if cell is None else (cell.txn, cell.has_writes)
            return transitions.init(txn, key, request, now_ms, has_batches=has_batches, fresh_id=fresh_id)

        return await self._submit(key, decide)

    async def add(self, key: Key, request: AddToTransaction) -> Result:
        """AddPartitionsToTxn, AddOffsetsToTxn."""

        def decide(cell: Cell | None, now_ms: int, _: int | None) -> Decision:
            txn, has_batches = (None, False) if cell is None else (cell.txn, cell.has_writes)
            return transitions.add(txn, request, now_ms, has_batches=has_batches)

        return await self._submit(key, decide)

    async def end(self, key: Key, request: EndTransaction) -> Result:
        """EndTxn. It is ordered after all batches of its producer that arrived earlier."""
        if self.slots.is_shared:
            await self._read_other_agents_writes(key)
        return await self._submit(key, cells.ending(request), request.producer)

    def end_soon(
        self, key: Key, request: EndTransaction, callback: Callable[[Result | PlatformError | None], None]
    ) -> None:
        """The same with a callback, called as soon as it is durable; with None if it takes more than a flush: then use
        `end`."""
        if self.slots.is_shared:
            callback(None)
            return
        try:
            self.require(key)
        except PlatformError as problem:
            callback(problem)
            return

        def on_outcome(outcome: Decision | Exception) -> None:
            if isinstance(outcome, Decision):
                callback(None if outcome.needs_producer_id else outcome.result)
            else:
                callback(outcome if isinstance(outcome, PlatformError) else None)

        self._writer.enlist(CallbackRequest(self, key, cells.ending(request), request.producer, on_outcome))

    async def _read_other_agents_writes(self, key: Key) -> None:
        """Before a transaction is ended: read what other agents have of it, if they may have anything."""
        cell = self._cells.get(key)
        if cell is None or (cell.is_ongoing and not self._writer.has_other_writers):
            return
        await self._writer.catch_up()
        if not cell.is_ongoing:
            await self._find_pending(cell)

    async def _find_pending(self, cell: Cell) -> None:
        producer_id, epoch = cell.txn.producer_id, cell.txn.epoch
        pending = await read_by_statement(self._database, store.load_pending_of(cell.txn.key[0], producer_id))
        if (cell.txn.producer_id, cell.txn.epoch) == (producer_id, epoch):
            cell.pending.update(pending)

    def require(self, key: Key) -> None:
        """Raise the error for a request about an id that is coordinated elsewhere, or not loaded yet."""
        if not self.is_open:
            raise CoordinatorLoading("the coordinator is reading its state")
        if not self.slots.has(key):
            raise Fenced("this id has another coordinator")

    async def _submit(self, key: Key, decide: Decide, follows: ProducerIdAndEpoch | None = None) -> Result:
        self.require(key)
        fresh_id = None
        while True:
            decision = await self._outcome(Request(self, key, decide, fresh_id, follows))
            if not decision.needs_producer_id:
                return decision.result
            fresh_id = await self._producer_ids.take()

    async def _outcome(self, request: FlushRequest[T]) -> T:
        """What a flush has made of a request. Raises `Unavailable` once this is closed."""
        if self._closed:
            raise Unavailable("the coordinator is shutting down")
        self._waiting[request] = None
        self._writer.enlist(request)
        try:
            return await request.answer
        finally:
            self._waiting.pop(request, None)

    async def begin_offset_commit(self, key: Key, producer: ProducerIdAndEpoch, group_id: str) -> ErrorCode:
        """A producer is about to send offsets of a group, which adds the group to its transaction, or begins one.

        The transaction has begun even if the offsets turn out to be refused.
        """
        await self._await_flush(key)
        cell = self._cells.get(key)
        txn = await self._known(key, cell)
        error = transitions.owner_error(txn, producer)
        if cell is not None and error is ErrorCode.NONE:
            self.wait_for_end(cell, group_id)
        return error

    async def check_part(self, key: Key, request: AddToTransaction) -> tuple[ErrorCode | None, int]:
        """What `add` would answer if it had nothing to change, else None; and when the whole transaction began."""
        await self._await_flush(key)
        cell = self._cells.get(key)
        txn, has_batches = await self._known(key, cell), cell is not None and cell.has_writes
        decision = transitions.add(txn, request, self._clock.now_ms(), has_batches=has_batches)
        began_ms = NEVER_MS if txn is None else txn.started_ms
        return (decision.result.error if decision.state is None else None), began_ms

    async def _await_flush(self, key: Key) -> None:
        """Wait until no flush in flight changes the id: its decision would miss the offsets that are about to come."""
        while not self.slots.is_shared and (cell := self._cells.get(key)) is not None and cell.changing is not None:
            cell.changing.append(ended := asyncio.get_running_loop().create_future())
            await ended

    def prefers_commit_record(self, offsets: Sequence[tuple[Key, OffsetsPending]]) -> bool:
        """Whether `store_pending` is better for these now: there is room in the log, and in a commit record beside what
        others put there. Otherwise the flush, with all its batches, would have to go through the database."""
        return not self._writer.is_held_up and store.size_of(offsets) <= OFFSETS_BYTES_MAX

    async def store_pending(self, offsets: Sequence[tuple[Key, OffsetsPending]]) -> Collection[int]:
        """Store pending offsets; the indexes of those whose transactions have ended. Only where one process appends
        alone. Raises `Unavailable` when nothing of it happened.
        """
        return await self._outcome(PendingOffsets(self, offsets))

    def may_add_offsets(self, key: Key, owner: TransactionOwner) -> bool:
        """Whether a producer may add offsets to its transaction."""
        cell = self._cells.get(key)
        if cell is None or (cell.txn.producer_id, cell.txn.epoch) != (owner.producer_id, owner.epoch):
            return False
        return owner.begins or (cell.txn.state is TransactionState.ONGOING and cell.txn.started_ms == owner.began_ms)

    def wait_for_end(self, cell: Cell, group_id: str) -> None:
        """A group may have pending offsets in a transaction."""
        if group_id not in cell.pending:
            cell.pending[group_id] = self._clock.now_ms()
            self.on_begin()

    def close(self) -> None:
        """Fail everybody who waits for a flush, which may never come: the writer has stopped, or will soon. Groups,
        chores and changes of topics may be among them, and are waited for next. Outcomes are not reported any more."""
        self._closed = True
        for request in list(self._waiting):
            request.failed(Unavailable("the coordinator is shutting down"))

    async def _known(self, key: Key, cell: Cell | None) -> Transaction | None:
        """The current state of an id. Where several agents coordinate, another one may have changed it."""
        if self.slots.is_shared:
            return await read_by_statement(self._database, store.load_one(key))
        return None if cell is None else cell.txn

    # ---- administration --------------------------------------------------------------------------------------

    def verify(self, key: Key, producer: ProducerIdAndEpoch, partitions: Iterable[Partition]) -> ErrorCode:
        """Whether partitions are part of a producer's transaction."""
        cell = self._cells.get(key)
        error = transitions.owner_error(None if cell is None else cell.txn, producer)
        if cell is None or error is not ErrorCode.NONE:
            return error
        known = all(partition in cell.open or partition.partition_id in cell.txn.partitions for partition in partitions)
        return ErrorCode.NONE if known else ErrorCode.TRANSACTION_ABORTABLE

    def partitions_of(self, cell: Cell) -> list[Partition]:
        """The partitions that were added to the ongoing transaction of an id, or that it has written to."""
        return cell.partitions(self._registry)

    async def write_marker(
        self, producer: ProducerIdAndEpoch, partitions: Sequence[Partition], *, commit: bool, coordinator_epoch: int
    ) -> dict[Partition, ErrorCode]:
        """End what a producer has open in some partitions, whatever its id's state; the partitions that refused."""
        marker = MarkerWrite(self, producer, partitions, commit=commit, coordinator_epoch=coordinator_epoch)
        return await self._outcome(marker)

    def has_room_for(self, partition: Partition, producer_id: int) -> bool:
        """Whether a partition may remember a producer because of a marker."""
        return self._writer.has_room_for(partition, producer_id)

    def all(self, cluster_id: int) -> Iterator[Cell]:
        """Every transactional id of a virtual cluster."""
        return (cell for (owner, _), cell in self._cells.items() if owner == cluster_id)

    # ---- chores --------------------------------------------------------------------------------------------------

    def abort_timed_out(self) -> bool:
        """Start aborting timed-out transactions; whether any is left that may time out.

        It does not wait. Chores share one task, and when the log is full flushes wait for room that one of the chores
        makes; but that may need just these aborts, because retention does not go past the last stable offset.
        """
        now_ms, left = self._clock.now_ms(), False
        for key, cell in self._cells.items():
            if cell.is_ongoing:
                left = True
                began_ms = cell.began_ms
                if began_ms != NEVER_MS and now_ms - began_ms >= cell.txn.timeout_ms and key not in self._aborting:
                    self._timed_out[key] = None
        self._abort_some()
        return left

    def _abort_some(self) -> None:
        while self._timed_out and len(self._aborting) < CONCURRENT_CHANGES:
            key = next(iter(self._timed_out))
            del self._timed_out[key]
            self._aborting.add(key)
            self._writer.enlist(CallbackRequest(self, key, cells.time_out, None, partial(self._on_aborted, key)))

    def _on_aborted(self, key: Key, outcome: Decision | Exception) -> None:
        """One was aborted, or need not be, or another agent does it. A failed one is found by the next run."""
        if isinstance(outcome, Decision) and outcome.needs_producer_id:
            task = asyncio.get_running_loop().create_task(self._abort_and_replace(key))
            self._replacing.add(task)
            task.add_done_callback(self._replacing.discard)
            return
        self._aborting.discard(key)
        if isinstance(outcome, Exception) and not isinstance(outcome, PlatformError):
            _log.error("a transaction of %r is not aborted", key[1], exc_info=outcome)
        if isinstance(outcome, PlatformError) and not isinstance(outcome, Fenced):
            self._timed_out.clear()
        self._abort_some()

    async def _abort_and_replace(self, key: Key) -> None:
        """Abort the timed-out transaction of a producer in its last epoch, which gets another producer id."""
        try:
            self._on_aborted(key, Decision(result=await self._submit(key, cells.time_out)))
        except Exception as problem:  # noqa: BLE001  # reported, like those of the others
            self._on_aborted(key, problem)

    async def keep_open(self, topic: Topic) -> None:
        """A topic is being deleted: store the transactions that have written to it, whose logs will not show them any
        more.

        They can be ended as usual, also after a restart, as in Apache Kafka.
        """
        partitions, known = frozenset(topic.partitions), self._cells.items()
        unstored = (key for key, cell in known if cell.txn.state is not TransactionState.ONGOING and cell.open)
        keys = [key for key in unstored if not partitions.isdisjoint(self._cells[key].open)]
        await gather_in_batches(keys, lambda key: self._submit(key, cells.keep_open), CONCURRENT_CHANGES)

    async def expire(self, retention_ms: int) -> int:
        """Delete ids that were not used for so long; how many. Not while it would have to wait for room in the log."""
        if self._writer.is_held_up:
            return 0
        now_ms = self._clock.now_ms()
        old = [key for key, cell in self._cells.items() if self.is_unused(cell, now_ms, retention_ms)]
        await gather_in_batches(old, lambda key: _unless_fenced(self._delete(key, retention_ms)), CONCURRENT_CHANGES)
        return len(old)

    async def remove(self, cluster_id: int, at_most: int) -> bool:
        """Abort and delete some transactional ids of a virtual cluster that is being deleted; whether none is left.

        Nobody is left who could end a transaction, so time-outs are not waited for. Raises `Unavailable` if no id could
        be deleted.
        """
        keys = list(islice((key for key in self._cells if key[0] == cluster_id), at_most))
        await gather_in_batches(keys, lambda key: self._submit(key, cells.abort))
        await gather_in_batches(keys, lambda key: self._delete(key, ANY_AGE))
        if keys and all(key in self._cells for key in keys):
            raise Unavailable(f"transactional id {keys[0][1]} is in use")
        return not keys

    async def _delete(self, key: Key, retention_ms: int) -> None:
        await self._outcome(IdDeletion(self, key, retention_ms))

    def is_unused(self, cell: Cell, now_ms: int, retention_ms: int) -> bool:
        """Whether an id was not used for so long."""
        return transitions.may_expire(cell.txn, now_ms, retention_ms, has_batches=cell.has_writes)

    def drop(self, key: Key) -> None:
        """An id is deleted."""
        cell = self._cells.pop(key)
        self._registry.producer_counts(key[0]).removed((cell.txn.producer_id,))
        del self._by_producer[cell.txn.producer_id]


async def _unless_fenced(change: Awaitable[object]) -> None:
    """Wait for a change of an id, unless another agent coordinates that by now: then it is that agent's task."""
    with suppress(Fenced):
        await change
