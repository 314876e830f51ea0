"""The write path: batches wait in their partition's buffer, and one flush after the other makes them durable.

There is no timer. A flush starts as soon as the previous one has ended and takes everything that arrived meanwhile, up
to `FLUSH_MAX_BYTES`: natural batching (group commit), which serves one producer at the latency of the disk and a
thousand at its bandwidth. Where several virtual clusters append, each gets a share of a flush, and where transactions
end flushes are short (see lines.py). Batches are copied once, grouped by partition, into page-aligned memory that is
written as it is and then stays as the tail that consumers read.

The phases of a flush are: decide (which batches are appended, which are duplicates, which are refused), write and
commit, and only then evolve the partitions, wake waiters and answer. A flush that fails changes nothing. One that was
based on outdated state is put back into the buffers, and decided again. Once another process has taken over the log
(`fence`), everything is refused with the error after which clients look for the leader.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Protocol

from penstock.base.clock import Clock
from penstock.base.dataclasses import dataclass
from penstock.base.errors import Fenced, PlatformError, Unavailable
from penstock.base.log_throttle import LogThrottle
from penstock.keys.model import LockReason
from penstock.log.answers import (
    OFFSETS_EXHAUSTED,
    TOO_MANY_PRODUCERS,
    Appended,
    PendingAppend,
    refused,
    repeated,
    unwritten,
)
from penstock.log.batches import IMPLICIT, Accepted
from penstock.log.commit_path import CommitChange, CommitPath, Outdated
from penstock.log.commits import (
    CONTROL,
    Commit,
    ExcludedBatches,
    apply_entry,
    wake,
)
from penstock.log.fair_queue import FairQueue, FlushQuota, PendingBatch, count_waiting, fitting, uncount_waiting
from penstock.log.flush import (
    Flush,
    Participant,
    ParticipantTicket,
    Share,
    TransactionGuard,
    append_in_order,
    sequence_of,
    settle_appended,
)
from penstock.log.layout import entries_of, index_of, lay_out, partial_answers, write_moved_offsets
from penstock.log.model import Partition, ProducerState, SequenceBatch, Span
from penstock.log.produce_timeouts import ProduceTimeouts
from penstock.log.producers import ProducerRefusal, awaited, check_sequence, remember
from penstock.log.sealing import Sealing, locked_out
from penstock.log.segments import LONG_BYTES
from penstock.log.stages import Stages
from penstock.storage.arena import Arena, aligned
from penstock.wire.error_codes import ErrorCode

FLUSH_MAX_BYTES = 4 * 1024 * 1024
OFFSETS_MAX = 2**62
"""No batch is appended after it: an offset has 63 bits, and a batch that claims to have 2^31 records costs nothing."""
WRITE_COUNTED_MAX_S, WRITE_SMOOTHING = 0.05, 0.1
"""The cap on one write's duration, and its weight, in the moving average: outliers predict nothing."""
COMPLAIN_EVERY_S = 10.0
"""How often the log says that flushes still fail: producers retry many times a second."""
AWAITED_MAX = 1_000
"""How many producers whose first batch failed are remembered in a partition."""
MAX_PARTICIPANTS = 2**14
"""How many may take part in a flush. Each has at most one marker per partition, beside what producers send."""
_log = logging.getLogger(__name__)


class WalSpace(Protocol):
    """Knows how full the write-ahead log is."""

    @property
    def is_short(self) -> bool:
        """Whether flushes should wait."""

    async def wait(self) -> None:
        """Wait for room, for a limited time."""


@dataclass(slots=True)
class WriterStats:
    """Counted since the process started."""

    commits: int = 0
    batches: int = 0
    bytes: int = 0
    failures: int = 0


class Writer:
    """Collects batches of all partitions and flushes them, one flush at a time."""

    def __init__(
        self,
        *,
        arena: Arena,
        commit_path: CommitPath,
        clock: Clock,
        on_commit: Callable[[Commit], None] = lambda commit: None,
        room: WalSpace | None = None,
        soon: Callable[[Callable[[], None]], object] | None = None,
        sealing: Sealing | None = None,
    ) -> None:
        self._arena, self._commit_path, self._clock, self._on_commit = arena, commit_path, clock, on_commit
        self._room, self._sealing = room, sealing
        self._locked: Mapping[int, LockReason] = {} if sealing is None else sealing.locked
        self._soon = soon or _next_turn
        """Schedules the start of a flush, after everything that has arrived is in its buffers."""
        self.transactions: TransactionGuard | None = None
        """Checks transactional batches. None: there are no transactions."""
        self.producer_limit: Callable[[int], float | None] = lambda cluster_id: None
        """The limit on producer ids of a virtual cluster; None: no limit."""
        self._newcomers: dict[int, set[int]] = {}
        """New producer ids of the flush being put together, by virtual cluster, where there is a limit."""
        self._queue = FairQueue()
        """Partitions with waiting batches."""
        self._participants: deque[Participant] = deque()
        self._waiting_count: dict[tuple[int, int], int] = {}
        """How many transactional batches wait, by producer id and epoch."""
        self._task: asyncio.Task[None] | None = None
        self._written: asyncio.Future[None] | None = None
        """Done when the outcome of the flush in flight is known."""
        self._under_way: Flush | None = None
        """The flush in flight."""
        self.timeouts = ProduceTimeouts(clock, self._unanswered)
        self._scheduled = False
        self._write_s = 0.0
        """Moving average of the time to write and commit a flush."""
        self.pending_bytes = 0
        """Accepted and not yet durable; what backpressure is based on."""
        self.on_drained: Callable[[], None] = lambda: None
        """Called after each flush: there is room again."""
        self.on_broken: Callable[[], None] = lambda: None
        """Called when a bug has interrupted a flush."""
        self.broken = False
        self.on_fenced: Callable[[], None] = lambda: None
        """Called once, when another process has taken over the log."""
        self.fenced: Fenced | None = None
        """Why nothing will be written any more, if that has happened."""
        self._abandoned = False
        self.stats, self.stages = WriterStats(), Stages()
        self._failed_in_a_row = 0
        self._log_throttle = LogThrottle(clock, COMPLAIN_EVERY_S)

    def submit(self, partition: Partition, batch: Accepted, ticket: PendingAppend, position: int) -> None:
        """Put a batch into its partition's buffer. The ticket is settled when the batch is durable, or refused."""
        pending = partition.pending
        if not pending:
            self._queue.add(partition)
        pending.append((batch, ticket, position))
        self.pending_bytes += len(batch.data)
        if batch.flags:
            count_waiting(self._waiting_count, batch)
        if not self._scheduled:
            self._schedule()

    def submit_all(self, batches: Sequence[tuple[Partition, Accepted]], ticket: PendingAppend) -> None:
        """The same for all batches of a request, whose positions are those in the sequence."""
        size, queue = 0, self._queue
        for position, (partition, batch) in enumerate(batches):
            pending = partition.pending
            if not pending:
                queue.add(partition)
            pending.append((batch, ticket, position))
            size += len(batch.data)
            if batch.flags:
                count_waiting(self._waiting_count, batch)
        self.pending_bytes += size
        self._schedule()

    def enlist(self, participant: Participant) -> None:
        """Add a participant to the next flush, which is started even if there is nothing else to flush."""
        self._participants.append(participant)
        self._schedule()

    def _schedule(self) -> None:
        """Schedule a flush at the end of this turn of the event loop, unless one is in flight."""
        if self._task is not None:
            if not self.stages.arrived_s:
                self.stages.arrived_s = self._clock.monotonic()
        elif not self._scheduled:
            self._scheduled = True
            self._soon(self._start)

    def has_waiting(self, producer_id: int, epoch: int) -> bool:
        """Whether transactional batches of a producer are left for a later flush than the one being put together."""
        return (producer_id, epoch) in self._waiting_count and bool(self._queue)

    @property
    def is_held_up(self) -> bool:
        """Whether the next flush has to wait for room in the log."""
        return self._has_no_room()

    @property
    def has_stopped(self) -> bool:
        """Whether nothing submitted will ever be flushed."""
        return self.broken or self._abandoned

    def lock_of(self, cluster_id: int) -> LockReason | None:
        """Why a virtual cluster cannot be written to, if so."""
        return self._locked.get(cluster_id)

    @property
    def has_other_writers(self) -> bool:
        """Whether other agents have appended while this process was running."""
        return self._commit_path.has_other_writers

    async def catch_up(self) -> None:
        """Apply every commit that had happened when this was called, whichever agent made it."""
        if not self._commit_path.is_alone:
            await self._commit_path.catch_up()

    async def pass_flush(self) -> None:
        """Wait for the outcome of the flush in flight, if there is one. Later ones are decided on what is known now."""
        if self._written is not None:
            await asyncio.shield(self._written)

    async def drain(self) -> None:
        """Wait until everything submitted so far is settled."""
        while self._scheduled or self._task is not None or self._queue or self._participants:
            if self.has_stopped:
                return
            task = self._task
            if task is None:
                await asyncio.sleep(0)
            else:
                await asyncio.wait((task,))

    def abandon(self) -> None:
        """Abandon the flush in flight, and start no other. Nobody is told its outcome.

        It may still become durable, with the sequence number and the offsets that the next flush would have got.
        """
        self._abandoned = self._scheduled = True
        self._queue.clear()
        self._waiting_count.clear()
        self._participants.clear()
        self.timeouts.stop()
        if self._task is not None:
            self._task.cancel()

    def _break(self, bug: BaseException) -> None:
        """Stop. State in memory may be half changed, so nothing is answered from it: the process must end, and its next
        start finds what is durable."""
        _log.critical("an unexpected error interrupted a flush; restart this agent", exc_info=bug)
        self.broken = self._scheduled = True
        self.on_broken()

    def fence(self, problem: Fenced) -> None:
        """Another process has taken over the log: refuse what waits, and whatever is submitted from now on."""
        if self.fenced is None and not self.has_stopped:
            _log.critical("%s", problem)
            self.fenced = problem
            self.on_fenced()
            self._schedule()

    def _refuse_what_waits(self, problem: Fenced) -> None:
        participants, self._participants = self._participants, deque()
        for participant in participants:
            participant.failed(problem)
        while self._queue:
            self._stage()  # All of it is answered there: no partition can be written to.
        self.on_drained()

    def _start(self) -> None:
        if self.has_stopped:
            return
        self._scheduled = False
        if self._task is not None:
            return  # Its end starts the next one.
        try:
            self._flush_what_waits()
        except Exception as bug:  # noqa: BLE001  # its flush is neither durable nor refused
            self._break(bug)

    def _start_soon(self) -> None:
        self._soon(self._start)

    def _flush_what_waits(self) -> None:
        while self._queue or self._participants:
            if self.fenced is not None:
                self._refuse_what_waits(self.fenced)
                return
            if self._has_no_room():
                self._begin(Flush(0, []))
                return
            flush = self._stage()
            if flush.is_empty:
                continue
            try:
                is_done = self._flush_now(flush)
            except Outdated as problem:
                self._requeue(flush, problem)
                continue
            except PlatformError as problem:
                self._fail(flush, problem)
                continue
            if not is_done:
                self._begin(flush)
                return
            if self._queue and self._queue.is_limited(self._clock.monotonic()):
                # What arrives meanwhile should be in the next one.
                self._scheduled = True
                _next_turn(self._start_soon)
                return

    def _flush_now(self, flush: Flush) -> bool:
        """Commit a flush without waiting, if that is possible."""
        change = flush.change
        if not flush.has_object:
            if change is None or not self._commit_path.change_now(change):
                return False
            self._complete(flush)
            return True
        entries, bases = entries_of(flush.shares, flush.seals)
        began_s = self._clock.monotonic()
        try:
            commit = self._commit_path.commit_now(flush.stored, entries, bases, change)
        except Unavailable:
            if not flush.can_do_without_object:
                raise
            return False
        if commit is None:
            return False
        self._note_write(began_s)
        self._succeed(flush, commit)
        self.stages.note(self._clock.monotonic())
        return True

    def _has_no_room(self) -> bool:
        return self._room is not None and self._room.is_short

    async def _wait_for_room(self) -> None:
        assert self._room is not None
        await self._room.wait()

    def _begin(self, flush: Flush) -> None:
        loop = asyncio.get_running_loop()
        self._written, self._under_way = loop.create_future(), flush
        self._task = loop.create_task(self._run(flush))
        self._task.add_done_callback(self._ended)
        self.timeouts.watch()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        self._flush_ended()
        bug = None if task.cancelled() else task.exception()
        if bug is not None:
            self._break(bug)
        elif (self._queue or self._participants) and not self._scheduled:
            self._scheduled = True
            self._soon(self._start)

    async def _run(self, flush: Flush) -> None:
        """Flush until nothing waits, or flushes can be made inline again (under a steady load something always waits).
        The first flush cannot, which is why this task was started. After one with participants, those are answered
        first."""
        inline = False
        while True:
            if not flush.is_empty:
                try:
                    inline = inline and self._flush_now(flush)
                    if not inline:
                        await self._flush(flush)
                except Outdated as problem:
                    self._requeue(flush, problem)
                except PlatformError as problem:
                    self._fail(flush, problem)
            self._flush_ended()
            if inline or flush.participants or self.fenced or not (self._queue or self._participants):
                return
            inline = True
            if self._has_no_room():
                await self._wait_for_room()
            self._written = asyncio.get_running_loop().create_future()
            if not self.stages.arrived_s:  # These batches were left over by the last flush.
                self.stages.arrived_s = self.stages.staged_s
            flush = self._under_way = self._stage()

    def _flush_ended(self) -> None:
        written, self._written, self._under_way = self._written, None, None
        if written is not None and not written.done():
            written.set_result(None)

    def _unanswered(self) -> Iterator[PendingAppend] | None:
        """The requests that wait for the flush in flight, and for later ones."""
        if self.has_stopped or not (self._task is not None or self._scheduled or self._queue):
            return None
        shares = () if self._under_way is None else self._under_way.shares
        return chain(
            (row[1] for share in shares for row in chain(share.appended, share.repeated)),
            (row[1] for partition in self._queue.partitions() for row in partition.pending),
        )

    async def _flush(self, flush: Flush) -> None:
        change = flush.change
        if flush.has_object:
            try:
                commit = await self._commit(flush, change)
            except Unavailable:
                if not flush.can_do_without_object:
                    raise
            else:
                self._succeed(flush, commit)
                self.stages.note(self._clock.monotonic())
                return
        if change is not None:
            await self._commit_path.change(change)
            self._complete(flush)

    async def _commit(self, flush: Flush, change: CommitChange | None) -> Commit:
        entries, bases = entries_of(flush.shares, flush.seals)
        began_s = self._clock.monotonic()
        if flush.seals is None:
            commit = await self._commit_path.commit(flush.stored, entries, bases, change)
        else:
            commit = await self._commit_path.commit(flush.stored, entries, bases, change, flush.body)
        self._note_write(began_s)
        return commit

    def _note_write(self, began_s: float) -> None:
        stages, now_s = self.stages, self._clock.monotonic()
        stages.began_s, stages.ended_s = began_s, now_s
        took_s = min(now_s - began_s, WRITE_COUNTED_MAX_S)
        self._write_s += WRITE_SMOOTHING * (took_s - self._write_s)

    # ---- decide ----------------------------------------------------------------------------------------------

    def _stage(self) -> Flush:
        """Take waiting batches, decide them, and lay those to append out in memory.

        Refusals are answered at once: they are based on durable state only. Duplicates of batches of this very flush
        are answered with it.
        """
        shares: list[Share] = []
        flush = Flush(self._clock.now_ms(), shares, self._commit_path.seen)
        self._newcomers.clear()
        size, now_s = 0, self._clock.monotonic()
        self.stages.staged(now_s)
        if self._participants:
            self._queue.shorten(now_s, self._write_s)
        quota = self._queue.quota(now_s)
        for cluster_id, queue in self._queue.queues():
            size = self._take(queue, flush, size, quota)
            self._queue.served(cluster_id, now_s)
            if size >= FLUSH_MAX_BYTES:
                break
        if self._participants:
            size = self._prepare_participants(flush, size)
        if not shares and not (flush.is_urgent and flush.record and self._commit_path.record_bytes(0, 0)):
            return flush
        front = self._commit_path.record_bytes(len(shares), sum(len(share.appended) for share in shares))
        if front and flush.record:
            front += len(flush.record)
        if self._sealing is not None:
            front += self._sealing.arrange(shares)
        body, chunk = self._arena.reserve(aligned(front + size))
        for share in shares:
            share.byte_start += front
        lay_out(body, shares)
        flush.body, flush.stored, flush.occupants = body, body, chunk.occupants
        if self._sealing is not None:
            try:
                self._sealing.seal(flush, front, front + size)
            except Unavailable as problem:
                self._fail(flush, problem)
                return Flush(flush.now_ms, [])
        return flush

    def _take(self, queue: deque[Partition], flush: Flush, size: int, quota: FlushQuota) -> int:
        """Let one cluster have its share of a flush; returns the size of the flush with it."""
        end, room = min(size + quota.size_bytes, FLUSH_MAX_BYTES), quota.batches
        admitted: dict[int, int] = {}
        while queue and size < end and room > 0:
            partition = queue.popleft()
            pending: list[PendingBatch] = partition.pending
            taken = fitting(pending, end - size, room)
            room -= taken
            if taken == len(pending):
                partition.pending = []
            else:
                # The rest waits for the next flush: a partition has one share per flush, based on its log end offset.
                room = 0
                partition.pending = pending[taken:]
                queue.append(partition)
                pending = pending[:taken]
            if self._waiting_count:
                uncount_waiting(self._waiting_count, pending)
            share = self._decide(partition, pending, flush.now_ms, admitted)
            if share.appended:
                share.byte_start = size
                size += share.byte_length
                flush.shares.append(share)
        return size

    def _prepare_participants(self, flush: Flush, size_before: int) -> int:
        """Let participants decide, now that the batches of the flush are known; returns its size with their markers."""
        flush.begin_prepare()
        waiting, self._participants = self._participants, deque()
        left = deque(islice(waiting, MAX_PARTICIPANTS, None))
        for participant in islice(waiting, MAX_PARTICIPANTS):
            if not participant.prepare(flush):
                self._participants.append(participant)
        self._participants += left
        flush.end_prepare()
        size = 0
        for share in flush.shares:
            share.byte_start = size
            size += share.byte_length
        self.pending_bytes += size - size_before
        return size

    def _decide(
        self, partition: Partition, pending: list[PendingBatch], now_ms: int, admitted: dict[int, int]
    ) -> Share:
        share = Share(partition, partition.next_offset, partition.next_offset)
        closed_for = self._closed_for(partition)
        if closed_for is not None:
            for batch, ticket, position in pending:
                self.pending_bytes -= len(batch.data)
                ticket.settle(position, closed_for)
            return share
        refusal = None if self.transactions is None else self.transactions.refusal
        number = append_in_order(share, pending, 0, now_ms, refusal, admitted)
        while number < len(pending):
            self._decide_one(share, *pending[number], now_ms)
            number = append_in_order(share, pending, number + 1, now_ms, refusal, admitted)
        if not share.appended:
            for known, ticket, position in share.repeated:
                ticket.settle(position, repeated(known, partition))
        return share

    def _closed_for(self, partition: Partition) -> Appended | None:
        """The answer to every batch of a partition that cannot be written to."""
        if self.fenced is not None:
            return unwritten(self.fenced)
        if partition.topic.deleted:
            return Appended(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        if self._locked and partition.topic.cluster_id in self._locked:
            return locked_out(self._locked[partition.topic.cluster_id])
        return OFFSETS_EXHAUSTED if partition.next_offset > OFFSETS_MAX else None

    def _decide_one(self, share: Share, batch: Accepted, ticket: PendingAppend, position: int, now_ms: int) -> None:
        if batch.producer_id >= 0:
            verdict = self._transactional_refusal(share, batch) or self._check_sequence(share, batch, now_ms)
            if verdict is not None:
                self.pending_bytes -= len(batch.data)
                self._answer_unwritten(share, verdict, ticket, position)
                return
        share.appended.append((batch, ticket, position, share.next_offset))
        share.next_offset += batch.offset_count
        share.byte_length += len(batch.data)

    def _transactional_refusal(self, share: Share, batch: Accepted) -> ErrorCode | ProducerRefusal | None:
        """Why a batch does not fit its producer's transaction."""
        producer_id, partition = batch.producer_id, share.partition
        if not batch.flags:
            if producer_id in partition.transactions or (share.transactional and producer_id in share.transactional):
                return ProducerRefusal.OUTSIDE
            return None
        if self.transactions is None:
            return ErrorCode.INVALID_TXN_STATE
        if share.transactional and producer_id in share.transactional:
            # The batch before it has added the partition to the transaction.
            batch = batch._replace(flags=batch.flags | IMPLICIT)
        refusal = self.transactions.refusal(partition, batch)
        if refusal is not ErrorCode.NONE:
            return refusal
        is_new = producer_id not in share.producers and producer_id not in partition.producers
        if is_new and batch.base_sequence and batch.flags & IMPLICIT and self._commit_path.is_alone:
            return ProducerRefusal.OUT_OF_ORDER
        return None

    def _check_producer_limit(self, share: Share, batch: Accepted) -> Appended | None:
        """The refusal of a new producer beyond the limit; owners of transactional ids are counted already."""
        producer_id = batch.producer_id
        if batch.flags or producer_id in share.producers or self.has_room_for(share.partition, producer_id):
            return None
        return TOO_MANY_PRODUCERS

    def has_room_for(self, partition: Partition, producer_id: int) -> bool:
        """Whether a partition may remember a producer: its virtual cluster knows it already, or is below its limit.
        Called while a flush is put together, and counts the producer. Clients may have invented their ids."""
        if producer_id in partition.producers:
            return True
        cluster_id, producer_counts = partition.topic.cluster_id, partition.producer_counts
        limit = self.producer_limit(cluster_id)
        if limit is None or producer_counts is None or producer_id in producer_counts:
            return True
        newcomers = self._newcomers.setdefault(cluster_id, set())
        if producer_id not in newcomers and len(producer_counts) + len(newcomers) >= limit:
            return False
        newcomers.add(producer_id)
        return True

    def _check_sequence(
        self, share: Share, batch: Accepted, now_ms: int
    ) -> SequenceBatch | ProducerRefusal | Appended | None:
        """Judge a batch of an idempotent producer against the log as of the end of this flush. A refused batch must not
        count as its producer's first, nor take up the limit on producers."""
        state = share.producers.get(batch.producer_id)
        if state is None:
            known = share.partition.producers.get(batch.producer_id)
            if known is not None:
                state = ProducerState(known.producer_id, known.epoch, known.last_ms, known.batches)
        known = state or share.partition.awaited.get(batch.producer_id)
        verdict = check_sequence(known, batch.producer_epoch, batch.base_sequence, batch.offset_count)
        if verdict is None:
            refusal = self._check_producer_limit(share, batch)
            if refusal is not None:
                return refusal
            if batch.flags:
                share.transactional = share.transactional or {}
                share.transactional[batch.producer_id] = None
            if state is not None:
                share.producers[batch.producer_id] = state
            sequence = sequence_of(batch, share.next_offset)
            remember(share.producers, batch.producer_id, batch.producer_epoch, sequence, now_ms)
        elif verdict is ProducerRefusal.OUT_OF_ORDER:
            if state is None:
                return ProducerRefusal.TOO_EARLY
            if not self._commit_path.is_alone:
                return None  # The missing batch may be at another agent: the commit path decides.
        return verdict

    def _answer_unwritten(
        self,
        share: Share,
        verdict: SequenceBatch | ProducerRefusal | ErrorCode | Appended,
        ticket: PendingAppend,
        position: int,
    ) -> None:
        if isinstance(verdict, Appended):
            ticket.settle(position, verdict)
        elif isinstance(verdict, ErrorCode):
            ticket.settle(position, Appended(verdict))
        elif isinstance(verdict, ProducerRefusal):
            ticket.settle(position, refused(verdict, share.partition))
        elif verdict.base_offset < share.base:
            ticket.settle(position, repeated(verdict, share.partition))
        else:
            share.repeated.append((verdict, ticket, position))

    # ---- evolve and answer -----------------------------------------------------------------------------------

    def _recovered(self) -> None:
        if self._failed_in_a_row:
            _log.warning("flushes succeed again, after %d that failed", self._failed_in_a_row)
            self._failed_in_a_row = 0

    def _complete(self, flush: Flush) -> None:
        """A flush of participants alone is durable."""
        self._recovered()
        for participant in flush.participants or ():
            participant.committed()

    def _succeed(self, flush: Flush, commit: Commit) -> None:
        stats, shares, body, occupants = self.stats, flush.shares, flush.body, flush.occupants
        stats.commits += 1
        self._recovered()
        if commit.rest is not None:
            self._succeed_partially(flush, commit, commit.rest)
            return
        for number, share in enumerate(shares):
            partition = share.partition
            moved = commit.bases[number] - share.base
            view = body[share.byte_start : share.byte_start + share.byte_length]
            if moved:
                write_moved_offsets(view, share, moved)
            transactional = share.transactional
            span = apply_entry(
                partition, commit, number, view, None if moved else share.producers,
                transactional=transactional is not None,
            )  # fmt: skip
            if transactional is not None and self.transactions is not None:
                self.transactions.began(partition, transactional)
            if span is not None:
                occupants.append((partition, span))
                if share.byte_length >= LONG_BYTES and not moved:
                    span.index = index_of(share)
            if partition.awaited:
                for producer_id in share.producers:
                    partition.awaited.pop(producer_id, None)
            stats.batches += len(share.appended)
            stats.bytes += share.byte_length
            self.pending_bytes -= share.byte_length
            if partition.waiters:
                for waiter in list(partition.waiters):
                    if partition.transactions or transactional is not None:
                        waiter.on_stable(share.byte_length)
                    else:
                        waiter.on_append(share.byte_length)
        # First, because answering all others takes a while.
        for participant in flush.participants or ():
            participant.committed()
        for number, share in enumerate(shares):
            partition, moved = share.partition, commit.bases[number] - share.base
            settle_appended(share, moved)
            for known, ticket, slot in share.repeated:
                ticket.settle(slot, repeated(known, partition, moved))
        self._on_commit(commit)
        self.on_drained()

    def _succeed_partially(self, flush: Flush, commit: Commit, rest: ExcludedBatches) -> None:
        """Some batches were left out: each run is applied by itself, each batch gets its own answer."""
        positions_by_origin: dict[int, list[int]] = {}
        for position, origin in enumerate(rest.origins):
            positions_by_origin.setdefault(origin, []).append(position)
        for number, share in enumerate(flush.shares):
            partition, own = share.partition, positions_by_origin.get(number, [])
            answers = partial_answers(share, number, flush.body, commit, own, rest)
            for position in own:
                self._apply_partial_entry(flush, commit, position, partition)
            if share.transactional is not None and self.transactions is not None:
                self.transactions.began(partition, share.transactional)
            for producer_id in share.producers:
                partition.awaited.pop(producer_id, None)
            self.pending_bytes -= share.byte_length
            for _, ticket, slot, offset in share.appended:
                ticket.settle(slot, answers[offset])
            for known, ticket, slot in share.repeated:
                ticket.settle(slot, answers[known.base_offset])
        for participant in flush.participants or ():
            participant.committed()
        if commit.entries:
            self._on_commit(commit)
        self.on_drained()

    def _apply_partial_entry(self, flush: Flush, commit: Commit, position: int, partition: Partition) -> None:
        entry = commit.entries[position]
        view = flush.body[entry.byte_start : entry.byte_start + entry.byte_length]
        span = apply_entry(partition, commit, position, view)
        if span is not None:
            flush.occupants.append((partition, span))
        self.stats.batches += entry.batch_count
        self.stats.bytes += entry.byte_length
        wake(partition, entry)

    def _requeue(self, flush: Flush, problem: Outdated) -> None:
        """Nothing was written because the decision was outdated: put everything back, to decide it again."""
        _log.debug("a flush is decided again: %s", problem)
        refused = Appended(ErrorCode.KAFKA_STORAGE_ERROR, message="what this batch repeats is not in the log yet")
        for share in flush.shares:
            partition = share.partition
            self.pending_bytes -= share.byte_length
            again: list[PendingBatch] = []
            for batch, ticket, slot, _ in share.appended:
                if not isinstance(ticket, ParticipantTicket):
                    again.append((batch, ticket, slot))
                    self.pending_bytes += len(batch.data)
                    if batch.flags:
                        count_waiting(self._waiting_count, batch)
            if again and not partition.pending:
                self._queue.add(partition)
            partition.pending = again + partition.pending
            for _, ticket, slot in share.repeated:
                ticket.settle(slot, refused)
        self._participants.extendleft(reversed(flush.participants or ()))
        if self.transactions is not None:
            self.transactions.on_outdated(problem)

    def _fail(self, flush: Flush, problem: PlatformError) -> None:
        """Nothing was written: answer with a retriable error."""
        self.stats.failures += 1
        self._failed_in_a_row += 1
        if isinstance(problem, Fenced):
            self.fence(problem)
        elif self._log_throttle.is_due(is_new=self._failed_in_a_row == 1):
            _log.error("a flush failed, its producers get a retriable error: %s", problem)
        refused = unwritten(problem)
        for share in flush.shares:
            self.pending_bytes -= share.byte_length
            self._await_again(share)
            for _, ticket, slot, _ in share.appended:
                ticket.settle(slot, refused)
            for _, ticket, slot in share.repeated:
                ticket.settle(slot, refused)
        for participant in flush.participants or ():
            participant.failed(problem)
        self.on_drained()

    def _await_again(self, share: Share) -> None:
        """Require the first batch of an unknown producer before others that may have been sent after it."""
        partition, now_ms = share.partition, self._clock.now_ms()
        for batch, _, _, _ in share.appended:
            producer_id = batch.producer_id
            if batch.flags & CONTROL:
                continue
            if producer_id >= 0 and producer_id not in partition.producers and producer_id not in partition.awaited:
                partition.awaited[producer_id] = awaited(batch.producer_epoch, batch.base_sequence, now_ms)
        while len(partition.awaited) > AWAITED_MAX:
            del partition.awaited[next(iter(partition.awaited))]


def _next_turn(callback: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_soon(callback)


def forget_views(occupants: list[tuple[Partition, Span]]) -> None:
    """Called before an arena reuses a chunk: its spans are no longer in memory."""
    shortened: dict[Partition, None] = {}
    for partition, span in occupants:
        span.view = None
        if span.location is None:
            shortened[partition] = None
    # All at once: a partition can have tens of thousands of spans, which move up each time.
    for partition in shortened:
        partition.drop_lost_spans()
