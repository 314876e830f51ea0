"""The transaction coordinator of this process.

All the rules are in `transitions`, all the SQL in `store`. What is added here is when they run: every request becomes
a passenger of one of the writer's flushes. It is decided when that flush is put together, on the state in force and
on the batches that go with it; what it changes, the markers it writes and the offsets it commits become durable in the
flush's own transaction; then the state is in force and the request is answered. So nothing ever comes between the
decision to end a transaction and its markers, and no batch of an ended transaction can come after them: the writer
asks `refusal` about every transactional batch while it puts a flush together.

Every transactional id is in memory, as is, per producer, in which partitions it has open batches. The latter is read
from the partitions, when this is opened and after every flush that touches them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from penstock.base.clock import Clock
from penstock.base.errors import PlatformError
from penstock.coordination.model import Key, Loading
from penstock.log.batches import ABORTABLE, IMPLICIT, Accepted
from penstock.log.flush import Flush
from penstock.log.model import Partition
from penstock.log.producer_ids import ProducerIds
from penstock.log.registry import Registry
from penstock.log.writer import Writer
from penstock.metadata.database import Database, Script
from penstock.transactions import store, transitions
from penstock.transactions.model import (
    EPOCH_MAX,
    NEVER_MS,
    Add,
    Decision,
    End,
    Ending,
    Init,
    Producer,
    Result,
    Transaction,
    TransactionState,
)
from penstock.wire.error_codes import ErrorCode

COORDINATOR_EPOCH = 0
"""Markers carry the epoch of whoever coordinates; here nobody ever takes over without the log itself."""

_Decide = Callable[["Cell | None", int, int | None], Decision]


@dataclass(slots=True)
class Cell:
    """One transactional id: what is stored of it, and where its producer has open batches."""

    txn: Transaction
    open: dict[Partition, None]
    """Its partitions, as their logs say."""

    @property
    def is_ongoing(self) -> bool:
        """Whether there is a transaction to end."""
        return transitions.is_ongoing(self.txn, has_batches=bool(self.open))

    @property
    def state(self) -> TransactionState:
        """Where the id is, its partitions' logs included."""
        return TransactionState.ONGOING if self.open else self.txn.state

    @property
    def began_ms(self) -> int:
        """When the ongoing transaction began; -1 if there is none."""
        producer_id = self.txn.producer_id
        found = (partition.transactions.get(producer_id) for partition in self.open)
        times = [one.started_ms for one in found if one is not None]
        if self.txn.started_ms != NEVER_MS:
            times.append(self.txn.started_ms)
        return min(times, default=NEVER_MS)


class _Request:
    """A request on its way: a passenger of the writer's flushes."""

    __slots__ = ("_decide", "_decision", "_fresh_id", "_key", "_service", "answer")

    def __init__(self, service: TransactionService, key: Key, decide: _Decide, fresh_id: int | None) -> None:
        self._service, self._key, self._decide, self._fresh_id = service, key, decide, fresh_id
        self.answer: asyncio.Future[Decision] = asyncio.get_running_loop().create_future()

    def board(self, flush: Flush) -> bool:
        """Decide on the state in force and on what the flush has of the producer."""
        if flush.has_boarded(self._key):
            return False
        service, cell = self._service, self._service.cell(self._key)
        in_flush = [] if cell is None else list(flush.partitions_of(cell.txn.producer_id))
        try:
            seen = cell if cell is None or not in_flush else Cell(cell.txn, cell.open | dict.fromkeys(in_flush))
            decision = self._decide(seen, flush.now_ms, self._fresh_id)
        except Exception as bug:  # noqa: BLE001  # this request's problem and nobody else's: nothing of it happened
            self._settle(bug)
            return True
        if decision.state is None:
            self._settle(decision)
            return True
        self._decision = decision
        flush.join(self, partial(_write, self._key, cell, decision), self._key)
        if decision.ending is not None and seen is not None:
            service.write_markers(flush, seen, decision.ending)
        return True

    def landed(self) -> None:
        """It is durable: from now on it is in force."""
        self._service.adopt(self._key, self._decision)
        self._settle(self._decision)

    def failed(self, problem: PlatformError) -> None:
        """It did not happen."""
        self._settle(problem)

    def _settle(self, result: Decision | Exception) -> None:
        if self.answer.done():
            return
        if isinstance(result, Decision):
            self.answer.set_result(result)
        else:
            self.answer.set_exception(result)


class _Forgetting:
    """Forgets a transactional id, if it is still unused."""

    def __init__(self, service: TransactionService, key: Key, retention_ms: int) -> None:
        self._service, self._key, self._retention_ms = service, key, retention_ms
        self.answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def board(self, flush: Flush) -> bool:
        """See whether it is still unused."""
        if flush.has_boarded(self._key):
            return False
        cell = self._service.cell(self._key)
        if cell is None or any(flush.partitions_of(cell.txn.producer_id)) or not self._service.is_unused(
            cell, flush.now_ms, self._retention_ms
        ):  # fmt: skip
            if not self.answer.done():
                self.answer.set_result(None)
            return True
        flush.join(self, lambda: store.forget(self._key), self._key)
        return True

    def landed(self) -> None:
        """It is forgotten."""
        self._service.drop(self._key)
        if not self.answer.done():
            self.answer.set_result(None)

    def failed(self, problem: PlatformError) -> None:
        """It did not happen."""
        if not self.answer.done():
            self.answer.set_exception(problem)


class _Marker:
    """Ends a producer's transaction in some partitions because an administrator wants it."""

    def __init__(
        self, producer: Producer, partitions: Sequence[Partition], *, commit: bool, coordinator_epoch: int
    ) -> None:
        self._producer, self._partitions, self._commit = producer, partitions, commit
        self._coordinator_epoch = coordinator_epoch
        self._refusals: dict[Partition, ErrorCode] = {}
        self.answer: asyncio.Future[dict[Partition, ErrorCode]] = asyncio.get_running_loop().create_future()

    def board(self, flush: Flush) -> bool:
        """Write the markers that the partitions do not know better than."""
        marked = 0
        for partition in self._partitions:
            known = partition.producers.get(self._producer.producer_id)
            if partition.topic.deleted:
                self._refusals[partition] = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            elif known is not None and known.epoch > self._producer.epoch:
                self._refusals[partition] = ErrorCode.INVALID_PRODUCER_EPOCH
            else:
                marked += 1
                flush.end_transaction(
                    partition, producer_id=self._producer.producer_id, epoch=self._producer.epoch,
                    commit=self._commit, coordinator_epoch=self._coordinator_epoch,
                )  # fmt: skip
        if marked:
            flush.join(self, None)
        elif not self.answer.done():
            self.answer.set_result(self._refusals)
        return True

    def landed(self) -> None:
        """The markers are in the log."""
        if not self.answer.done():
            self.answer.set_result(self._refusals)

    def failed(self, problem: PlatformError) -> None:
        """They are not."""
        if not self.answer.done():
            self.answer.set_exception(problem)


def _write(key: Key, before: Cell | None, decision: Decision) -> Script[None]:
    if decision.state is not None:
        yield from store.put(decision.state)
    if decision.ending is not None and before is not None and before.txn.groups:
        yield from store.end_offsets(key[0], before.txn.producer_id, commit=decision.ending.commit)


class TransactionService:
    """Transactional ids and their transactions."""

    def __init__(
        self, *, database: Database, registry: Registry, writer: Writer, producer_ids: ProducerIds, clock: Clock
    ) -> None:
        self._database, self._registry, self._writer = database, registry, writer
        self._producer_ids, self._clock = producer_ids, clock
        self._cells: dict[Key, Cell] = {}
        self._by_producer: dict[int, Cell] = {}
        self._open = False
        self.on_begin: Callable[[], None] = lambda: None
        """Called when there may be a transaction that can time out."""

    async def open(self) -> None:
        """Read the ids, and find in the partitions what their producers have open. Until then requests raise."""
        for txn in await self._database.read(store.load):
            self._put(txn)
        for partition in self._registry.partitions():
            if partition.transactions:
                self.began(partition, list(partition.transactions))
        self._open = True
        self._writer.transactions = self

    def now_ms(self) -> int:
        """The time."""
        return self._clock.now_ms()

    # ---- what the writer asks and tells ----------------------------------------------------------------------

    def refusal(self, partition: Partition, batch: Accepted) -> ErrorCode:
        """Why a transactional batch must not be appended, or NONE."""
        cell = self._by_producer.get(batch.producer_id)
        if cell is None:
            return ErrorCode.INVALID_PRODUCER_ID_MAPPING
        if cell.txn.epoch != batch.producer_epoch or batch.producer_epoch == EPOCH_MAX:
            return ErrorCode.INVALID_PRODUCER_EPOCH
        if batch.flags & IMPLICIT or partition.partition_id in cell.txn.partitions:
            return ErrorCode.NONE
        return ErrorCode.TRANSACTION_ABORTABLE if batch.flags & ABORTABLE else ErrorCode.INVALID_TXN_STATE

    def began(self, partition: Partition, producers: Iterable[int]) -> None:
        """Producers have batches of transactions in a partition, or markers that ended them."""
        for producer_id in producers:
            cell = self._by_producer.get(producer_id)
            if cell is None:
                continue
            if producer_id not in partition.transactions:
                cell.open.pop(partition, None)
            elif partition not in cell.open:
                cell.open[partition] = None
                self.on_begin()

    def owns(self, key: Key, producer_id: int) -> bool:
        """Whether a transactional id is this producer's."""
        cell = self._cells.get(key)
        return cell is not None and cell.txn.producer_id == producer_id

    # ---- what passengers do ----------------------------------------------------------------------------------

    def cell(self, key: Key) -> Cell | None:
        """A transactional id as it is in force."""
        return self._cells.get(key)

    def write_markers(self, flush: Flush, cell: Cell, ending: Ending) -> None:
        """End the transaction in every partition that it has."""
        for partition in self.partitions_of(cell):
            if not partition.topic.deleted:
                flush.end_transaction(
                    partition, producer_id=ending.producer.producer_id, epoch=ending.producer.epoch,
                    commit=ending.commit, coordinator_epoch=COORDINATOR_EPOCH,
                )  # fmt: skip

    def adopt(self, key: Key, decision: Decision) -> None:
        """A decision is durable."""
        if decision.state is not None:
            self._put(decision.state)
        if decision.ending is not None:
            # All of them have their markers, or their topics are deleted.
            self._cells[key].open = {}

    def _put(self, txn: Transaction) -> None:
        cell = self._cells.get(txn.key)
        if cell is None:
            cell = self._cells[txn.key] = Cell(txn, {})
        elif cell.txn.producer_id != txn.producer_id:
            del self._by_producer[cell.txn.producer_id]
            cell.open = {}
        cell.txn = txn
        self._by_producer[txn.producer_id] = cell
        if txn.state is TransactionState.ONGOING:
            self.on_begin()

    # ---- requests --------------------------------------------------------------------------------------------

    async def init(self, key: Key, request: Init) -> Result:
        """InitProducerId."""

        def decide(cell: Cell | None, now_ms: int, fresh_id: int | None) -> Decision:
            txn, has_batches = (None, False) if cell is None else (cell.txn, bool(cell.open))
            return transitions.init(txn, key, request, now_ms, has_batches=has_batches, fresh_id=fresh_id)

        return await self._submit(key, decide)

    async def add(self, key: Key, request: Add) -> Result:
        """AddPartitionsToTxn, AddOffsetsToTxn."""

        def decide(cell: Cell | None, now_ms: int, _: int | None) -> Decision:
            txn, has_batches = (None, False) if cell is None else (cell.txn, bool(cell.open))
            return transitions.add(txn, request, now_ms, has_batches=has_batches)

        return await self._submit(key, decide)

    async def end(self, key: Key, request: End) -> Result:
        """EndTxn."""

        def decide(cell: Cell | None, now_ms: int, fresh_id: int | None) -> Decision:
            txn, has_batches = (None, False) if cell is None else (cell.txn, bool(cell.open))
            return transitions.end(txn, request, now_ms, has_batches=has_batches, fresh_id=fresh_id)

        return await self._submit(key, decide)

    async def _submit(self, key: Key, decide: _Decide) -> Result:
        if not self._open:
            raise Loading("the coordinator is reading its state")
        fresh_id = None
        while True:
            request = _Request(self, key, decide, fresh_id)
            self._writer.take_along(request)
            decision = await request.answer
            if not decision.needs_producer_id:
                return decision.result
            fresh_id = await self._producer_ids.take()

    def add_error(self, key: Key, request: Add) -> ErrorCode | None:
        """What `add` would answer without changing anything; None if it has something to change."""
        cell = self._cells.get(key)
        txn, has_batches = (None, False) if cell is None else (cell.txn, bool(cell.open))
        decision = transitions.add(txn, request, self._clock.now_ms(), has_batches=has_batches)
        return decision.result.error if decision.state is None else None

    # ---- administration --------------------------------------------------------------------------------------

    def verify(self, key: Key, producer: Producer, partitions: Iterable[Partition]) -> ErrorCode:
        """Whether partitions are part of a producer's transaction."""
        cell = self._cells.get(key)
        error = transitions.owner_error(None if cell is None else cell.txn, producer)
        if cell is None or error is not ErrorCode.NONE:
            return error
        known = all(partition in cell.open or partition.partition_id in cell.txn.partitions for partition in partitions)
        return ErrorCode.NONE if known else ErrorCode.TRANSACTION_ABORTABLE

    def partitions_of(self, cell: Cell) -> list[Partition]:
        """What the ongoing transaction of an id has been added to or has written to."""
        added = (self._registry.partition(partition_id) for partition_id in sorted(cell.txn.partitions))
        return list(dict.fromkeys((*cell.open, *(partition for partition in added if partition is not None))))

    async def write_marker(
        self, producer: Producer, partitions: Sequence[Partition], *, commit: bool, coordinator_epoch: int
    ) -> dict[Partition, ErrorCode]:
        """End what a producer has open in some partitions, whatever its id's state; which of them refused."""
        marker = _Marker(producer, partitions, commit=commit, coordinator_epoch=coordinator_epoch)
        self._writer.take_along(marker)
        return await marker.answer

    def describe(self, key: Key) -> Cell | None:
        """A transactional id as it is now."""
        return self._cells.get(key)

    def all(self, cluster_id: int) -> Iterator[Cell]:
        """Every transactional id of a virtual cluster."""
        return (cell for (owner, _), cell in self._cells.items() if owner == cluster_id)

    # ---- without a request -----------------------------------------------------------------------------------

    async def abort_timed_out(self) -> bool:
        """Abort transactions that take too long; whether any is left that may."""
        now_ms, left = self._clock.now_ms(), False
        for key, cell in list(self._cells.items()):
            if not cell.is_ongoing:
                continue
            left = True
            if cell.began_ms != NEVER_MS and now_ms - cell.began_ms >= cell.txn.timeout_ms:
                await self._submit(key, _time_out)
        return left

    async def expire(self, retention_ms: int) -> int:
        """Forget ids that were not used for so long; how many."""
        now_ms = self._clock.now_ms()
        old = [key for key, cell in self._cells.items() if self.is_unused(cell, now_ms, retention_ms)]
        for key in old:
            await self._forget(key, retention_ms)
        return len(old)

    async def _forget(self, key: Key, retention_ms: int) -> None:
        forgetting = _Forgetting(self, key, retention_ms)
        self._writer.take_along(forgetting)
        await forgetting.answer

    def is_unused(self, cell: Cell, now_ms: int, retention_ms: int) -> bool:
        """Whether an id was not used for so long."""
        return transitions.may_expire(cell.txn, now_ms, retention_ms, has_batches=bool(cell.open))

    def drop(self, key: Key) -> None:
        """An id is forgotten."""
        cell = self._cells.pop(key)
        del self._by_producer[cell.txn.producer_id]


def _time_out(cell: Cell | None, now_ms: int, _: int | None) -> Decision:
    began_ms = NEVER_MS if cell is None else cell.began_ms
    if cell is None or began_ms == NEVER_MS:
        return transitions.refused(ErrorCode.NONE)
    return transitions.time_out(cell.txn, now_ms, has_batches=bool(cell.open), began_ms=began_ms)
