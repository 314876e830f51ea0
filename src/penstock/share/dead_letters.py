"""Dead letter queues of share groups: a dead letter is written for each record that was given up (KIP-1191).

A record that is given up is durable as *archiving* when its member gets the response. Then a dead letter is appended to
the queue, together with a durable note that it was (`participants`), and after that the record is archived. So there is
exactly one dead letter for each record, over crashes, and a start continues where the last process stopped.

A topic that cannot be a queue (missing, not enabled, invalid name, or it refuses the dead letter) gets none, and the
record is archived all the same, as in Apache Kafka. A failure of the database, the log or the key service is retried
for as long as it lasts, where Apache Kafka gives up after five attempts: without them nobody can read from the
partition either. Records to be copied that cannot be read may be a problem of one partition only; that is retried as
often as in Apache Kafka, and then their dead letters are written without copies.

Each partition of a group with dead letters to write has a task that writes one batch after the other. Only a few do so
at once, shared fairly among virtual clusters, and each holds one batch in memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import NamedTuple, TypeVar

from penstock.base.clock import Clock
from penstock.base.dataclasses import dataclass
from penstock.base.errors import Conflict, CorruptData, Fenced, InvalidRequest, PlatformError, Unavailable
from penstock.base.log_throttle import LogThrottle
from penstock.coordination.model import Key
from penstock.coordination.timers import Scheduler, pause
from penstock.keys.model import LockReason
from penstock.log.batches import Rejected
from penstock.log.model import Partition, Topic
from penstock.log.reader import COLD_READ_BYTES, Reader
from penstock.log.refusals import Refused
from penstock.log.topics import NewTopic, Topics
from penstock.log.writer import Writer
from penstock.share import dead_letter_records
from penstock.share.dead_letter_records import BuiltBatch, DeadLetterSource, OffsetRange, RecordCopies, ranges_of
from penstock.share.fair_semaphore import FairSemaphore
from penstock.share.model import DeadLetterBatch, Run
from penstock.share.service import SharePartitions
from penstock.share.settings import ShareConfig, ShareConfigs
from penstock.share.store import PartitionName
from penstock.wire.error_codes import ErrorCode
from penstock.wire.records import iter_batches

T = TypeVar("T")

AT_ONCE, OF_CLUSTER_AT_ONCE = 4, 2
"""How many batches are made concurrently; and for one virtual cluster."""
READ_ATTEMPTS = 5
"""How often reading the records to be copied is retried."""
SETTLE_S = 5.0
"""How long a group's deletion waits for its dead letters."""
COMPLAIN_EVERY_S = 10.0
_DELAYS_MS = (1_000, 2_000, 4_000, 8_000, 16_000, 30_000)
"""Pauses between retries; the last one repeats."""
_CREATED_WITH = {"errors.deadletterqueue.group.enable": "true", "message.timestamp.type": "CreateTime"}
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class DeadLetterStats:
    """Counted since the process started."""

    written: int = 0
    """Records whose dead letters are in a queue."""
    lost: int = 0
    """Records given up without a dead letter, because no queue would take it."""


class _Undeliverable(Exception):
    """No queue will ever take these dead letters."""


class _ReadFailed(Unavailable):
    """The records to be copied cannot be read now."""


class _WriteResult(NamedTuple):
    """What to do with records, after their dead letters were written or turned out to be impossible."""

    state_epoch: int = 0
    ranges: Sequence[OffsetRange] = ()
    reason: str | None = None
    """Why no queue has dead letters for them."""
    wait_ms: int = 0
    """Throttle time for further dead letters."""


class DeadLetters:
    """Writes the dead letters of all share groups."""

    def __init__(
        self, *, partitions: SharePartitions, topics: Topics, configs: ShareConfigs, reader: Reader, writer: Writer,
        clock: Clock, scheduler: Scheduler, executor: Executor | None = None,
    ) -> None:  # fmt: skip
        partitions.dead_letter_writer = self
        self._partitions, self._topics, self._configs = partitions, topics, configs
        self._reader, self._writer, self._clock, self._scheduler = reader, writer, clock, scheduler
        self._executor = executor
        """Runs the work of reading and making batches on a thread."""
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._of_group: dict[Key, dict[Key, asyncio.Task[None]]] = {}
        """Tasks by group."""
        self._again: set[Key] = set()
        """Partitions for which `begin` was called while their task was running."""
        self._semaphore = FairSemaphore(AT_ONCE, OF_CLUSTER_AT_ONCE)
        self._closed = False
        self._log_throttle = LogThrottle(clock, COMPLAIN_EVERY_S)
        self.charge: Callable[[int, int], int] = lambda cluster_id, size_bytes: 0
        """Charges written bytes to a virtual cluster's quota; returns the throttle time in milliseconds."""
        self.stats = DeadLetterStats()

    def begin(self, key: Key) -> None:
        """A partition has records whose dead letters are to be written."""
        if self._closed:
            return
        if key in self._tasks:
            self._again.add(key)
            return
        task = self._tasks[key] = asyncio.get_running_loop().create_task(self._run(PartitionName.of(key)))
        self._of_group.setdefault(PartitionName.group_of(key), {})[key] = task
        task.add_done_callback(partial(self._ended, key))

    def _ended(self, key: Key, task: asyncio.Task[None]) -> None:
        group = PartitionName.group_of(key)
        del self._tasks[key], self._of_group[group][key]
        if not self._of_group[group]:
            del self._of_group[group]
        is_asked = key in self._again
        self._again.discard(key)
        bug = None if task.cancelled() else task.exception()
        if bug is not None:
            _log.error("letters of %s cannot be written", key, exc_info=bug)
        elif is_asked:
            self.begin(key)

    async def settle(self, group: Key) -> None:
        """Wait for the dead letters of a group that is about to be deleted, for a limited time."""
        tasks = self._of_group.get(group)
        if tasks:
            await asyncio.wait(list(tasks.values()), timeout=SETTLE_S)

    @property
    def waiting(self) -> int:
        """How many partitions have dead letters that are not written yet."""
        return len(self._tasks)

    async def close(self) -> None:
        """Stop writing. The next start continues."""
        self._closed = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, name: PartitionName) -> None:
        """Write until there is nothing left to write."""
        failures, read_failures, result = 0, 0, _WriteResult()
        while True:
            try:
                if not result.ranges:
                    async with self._semaphore.acquire(name.cluster_id):
                        found = await self._write_batch(name, must_read=read_failures < READ_ATTEMPTS)
                    if found is None:
                        return
                    result, read_failures = found, 0
                await self._archive(name, result)
                wait_ms, result, failures = result.wait_ms, _WriteResult(), 0
                if wait_ms:
                    await pause(self._scheduler, wait_ms)
            except Fenced:
                return
            except CorruptData as problem:
                self._log_problem(name, "cannot be written", problem)
                return
            except PlatformError as problem:
                read_failures = read_failures + 1 if isinstance(problem, _ReadFailed) else 0
                self._log_problem(name, "wait, and are tried again", problem)
                await pause(self._scheduler, _DELAYS_MS[min(failures, len(_DELAYS_MS) - 1)])
                failures += 1

    async def _write_batch(self, name: PartitionName, *, must_read: bool) -> _WriteResult | None:
        """Write one batch, unless no queue takes it; None if there is nothing to write. `must_read`: do not leave out
        copies because the store does not answer."""
        lock = self._writer.lock_of(name.cluster_id)
        topic = self._topics.registry.by_id(name.cluster_id, name.topic_id)
        if lock is LockReason.ERASED or topic is None or topic.deleted:
            return None  # Neither the records nor the dead letters can ever be read.
        if lock is not None:
            raise Unavailable("the keys of the cluster are not there")
        self._again.discard(name.key)
        partition = await self._partitions.archiving(name)
        if partition is None:
            return None
        epoch = partition.state_epoch
        if partition.dead_lettered:
            return _WriteResult(epoch, partition.dead_lettered)
        runs = [run for run in partition.runs if run.archiving]
        config = self._configs.of(name.cluster_id, name.group_id)
        try:
            queue = await self._queue(name, config)
        except _Undeliverable as reason:
            return _WriteResult(epoch, [(run.first, run.last) for run in runs], str(reason))
        runs, now_ms = dead_letter_records.first_offsets(runs), self._clock.now_ms()
        source, takes = DeadLetterSource(name.group_id, topic.name, name.partition_index), queue.topic.config
        copies = RecordCopies(0, 0, scanned_to=runs[-1].last)
        if config.copies_records:
            log = topic.partitions[name.partition_index]
            copies = await self._copies(log, runs, takes.largest_batch_bytes, must_read=must_read)
        made = await self._on_thread(
            lambda: dead_letter_records.build_batch_for(
                source, runs, copies.found, read_to=copies.scanned_to, queue=takes, now_ms=now_ms
            )
        )
        return await self._append(name, epoch, queue, made)

    async def _append(self, name: PartitionName, epoch: int, queue: Partition, made: BuiltBatch) -> _WriteResult:
        batch, ranges = made.verdict, ranges_of(made.offsets)
        if isinstance(batch, Rejected):
            why = f"{queue.topic.name} refuses them: {batch.message or batch.error.name}"
            return _WriteResult(epoch, ranges, why)
        try:
            is_there = await self._partitions.append_dead_letters(name, epoch, DeadLetterBatch(queue, batch, ranges))
        except Conflict:
            return _WriteResult()  # The queue was deleted. The next round looks it up again.
        if not is_there:
            return _WriteResult(epoch, ranges, f"{queue.topic.name} was deleted")
        self.stats.written += len(made.offsets)
        return _WriteResult(epoch, ranges, wait_ms=self.charge(name.cluster_id, len(batch.data)))

    async def _archive(self, name: PartitionName, result: _WriteResult) -> None:
        """Archive records whose dead letters are durable, or that get none."""
        if not result.ranges or not await self._partitions.archive(name, result.state_epoch, result.ranges):
            return
        if result.reason is not None:
            self.stats.lost += sum(last - first + 1 for first, last in result.ranges)
            self._log_problem(name, "are not written", result.reason)

    async def _on_thread(self, work: Callable[[], T]) -> T:
        if self._executor is None:
            await asyncio.sleep(0)
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    # --- Where dead letters go ---

    async def _queue(self, name: PartitionName, config: ShareConfig) -> Partition:
        """The partition of the group's queue that receives the dead letters about a partition."""
        wanted = config.dead_letter_topic
        topic = self._topics.registry.by_name(name.cluster_id, wanted)
        wrong = dead_letter_records.invalid_reason(wanted, topic, self._topics.settings.of(name.cluster_id))
        if wrong is None and topic is not None and topic.deleted:
            wrong = f"the topic {wanted!r} was deleted by another agent"
        if wrong is not None:
            raise _Undeliverable(wrong)
        if topic is None:
            topic = await self._create(name.cluster_id, wanted)
        return topic.partitions[name.partition_index % len(topic.partitions)]

    async def _create(self, cluster_id: int, wanted: str) -> Topic:
        (made,) = await self._topics.create(cluster_id, [NewTopic(name=wanted, overrides=_CREATED_WITH)])
        if not isinstance(made, Refused):
            return made
        if made.code is ErrorCode.TOPIC_ALREADY_EXISTS:
            raise Unavailable(f"{wanted} was created by somebody else a moment ago")
        raise _Undeliverable(f"{wanted} cannot be created: {made.message}")

    # --- What is copied ---

    async def _copies(
        self, log: Partition, runs: Sequence[Run], largest_bytes: int, *, must_read: bool
    ) -> RecordCopies:
        """The records to copy, as far as they exist, fit into a batch, and can be read in limited time. Records that
        cannot be read leave only their own dead letters without copies."""
        copies = RecordCopies(min(largest_bytes, dead_letter_records.MAX_BATCH_BYTES), largest_bytes)
        wanted = [(run.first, run.last) for run in runs]
        end = runs[-1].last
        while wanted := dead_letter_records.ranges_after(wanted, max(copies.scanned_to, log.log_start - 1)):
            if copies.is_full:
                return copies
            first, _ = wanted[0]
            is_damaged = has_more = False
            try:
                has_more = await self._scan_from(log, first, wanted, copies)
            except (CorruptData, InvalidRequest, Unavailable) as problem:
                if must_read and isinstance(problem, Unavailable):
                    raise _ReadFailed(str(problem)) from problem
                is_damaged = True  # Looked at once the exception is gone, which refers to what was read.
            if is_damaged:
                copies.skip_to(await self._first_readable_after(log, max(first, copies.scanned_to + 1), end) - 1)
            elif has_more:
                copies.scanned_to = max(copies.scanned_to, first)
            else:
                break  # The rest was removed.
        copies.scanned_to = end
        return copies

    async def _scan_from(
        self, log: Partition, offset: int, wanted: Sequence[OffsetRange], copies: RecordCopies
    ) -> bool:
        """Read once, and search that; whether there was anything. What was read must not be referred to any more when
        the next read begins: that may wait for its memory."""
        views = await self._reader.read_batches(log, offset, COLD_READ_BYTES)
        await self._on_thread(partial(copies.scan, views, wanted))
        return bool(views)

    async def _first_readable_after(self, log: Partition, damaged: int, end: int) -> int:
        """The first readable offset after an unreadable one, at most `end`; the next offset if none is. The extent of
        the damage is unknown: the search goes in growing steps, and then between the last two."""
        step, good = 1, end + 1
        while damaged < end:
            at = min(damaged + step, end)
            if await self._can_read(log, at):
                good = at
                break
            damaged, step = at, 2 * step
        while damaged + 1 < good <= end:
            middle = (damaged + good) // 2
            if await self._can_read(log, middle):
                good = middle
            else:
                damaged = middle
        return good

    async def _can_read(self, log: Partition, offset: int) -> bool:
        try:
            views = await self._reader.read_batches(log, offset, 1)
            return not views or next(iter_batches(views[0]), None) is not None
        except (CorruptData, InvalidRequest, Unavailable):
            return False

    def _log_problem(self, name: PartitionName, what: str, problem: Exception | str) -> None:
        if self._log_throttle.is_due():
            _log.error("dead letters of the share group %r %s: %s", name.group_id, what, problem)
