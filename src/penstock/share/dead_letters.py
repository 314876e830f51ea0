"""Dead letter queues of share groups: a letter is written for each record that was given up (KIP-1191).

A record that is given up is durable as *archiving* when its member gets the response. Then a letter is appended to the
queue, together with a durable note that it was (`participants`), and after that the record is archived. So there is
exactly one letter for each record, over crashes, and a start continues where the last process stopped.

A topic that cannot be a queue (missing, not enabled, invalid name, or it refuses the letter) gets none, and the record
is archived all the same, as in Apache Kafka. A failure of the database, the log or the key service is retried for as
long as it lasts, where Apache Kafka gives up after five attempts: without them nobody can read from the partition
either. Records to be copied that cannot be read may be a problem of one partition only; that is retried as often as in
Apache Kafka, and then their letters are written without copies.

Each partition of a group with letters to write has a task that writes one batch after the other. Only a few do so at
once, shared fairly among virtual clusters, and each holds one batch in memory.
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
from penstock.coordination.timers import Alarms, pause
from penstock.keys.model import Lock
from penstock.log.batches import Rejected
from penstock.log.model import Partition, Topic
from penstock.log.reader import COLD_READ_BYTES, Reader
from penstock.log.refusals import Refused
from penstock.log.topics import NewTopic, Topics
from penstock.log.writer import Writer
from penstock.share import letters
from penstock.share.letters import Copies, Made, Source, Stretch, stretches_of
from penstock.share.model import Letters, Run
from penstock.share.service import SharePartitions
from penstock.share.settings import ShareConfig, ShareConfigs
from penstock.share.store import PartitionName
from penstock.share.turns import Turns
from penstock.wire.error_codes import ErrorCode
from penstock.wire.records import iter_batches

T = TypeVar("T")

AT_ONCE, OF_CLUSTER_AT_ONCE = 4, 2
"""How many batches are made concurrently; and for one virtual cluster."""
READ_ATTEMPTS = 5
"""How often reading the records to be copied is retried."""
SETTLE_S = 5.0
"""How long a group's deletion waits for its letters."""
COMPLAIN_EVERY_S = 10.0
_DELAYS_MS = (1_000, 2_000, 4_000, 8_000, 16_000, 30_000)
"""Pauses between retries; the last one repeats."""
_CREATED_WITH = {"errors.deadletterqueue.group.enable": "true", "message.timestamp.type": "CreateTime"}
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class DeadLetterStats:
    """Counted since the process started."""

    letters: int = 0
    """Records whose letters are in a queue."""
    lost: int = 0
    """Records given up without a letter, because no queue would take it."""


class _Undeliverable(Exception):
    """No queue will ever take these letters."""


class _Unread(Unavailable):
    """The records to be copied cannot be read now."""


class _Decided(NamedTuple):
    """What to do with records, after their letters were written or turned out to be impossible."""

    state_epoch: int = 0
    stretches: Sequence[Stretch] = ()
    reason: str | None = None
    """Why no queue has letters for them."""
    wait_ms: int = 0
    """Throttle time for further letters."""


class DeadLetters:
    """Writes the letters of all share groups."""

    def __init__(
        self, *, partitions: SharePartitions, topics: Topics, configs: ShareConfigs, reader: Reader, writer: Writer,
        clock: Clock, alarms: Alarms, executor: Executor | None = None,
    ) -> None:  # fmt: skip
        partitions.letter_writer = self
        self._partitions, self._topics, self._configs = partitions, topics, configs
        self._reader, self._writer, self._clock, self._alarms = reader, writer, clock, alarms
        self._executor = executor
        """Runs the work of reading and making batches on a thread."""
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._of_group: dict[Key, dict[Key, asyncio.Task[None]]] = {}
        """Tasks by group."""
        self._again: set[Key] = set()
        """Partitions for which `begin` was called while their task was running."""
        self._turns = Turns(AT_ONCE, OF_CLUSTER_AT_ONCE)
        self._closed = False
        self._log_throttle = LogThrottle(clock, COMPLAIN_EVERY_S)
        self.charge: Callable[[int, int], int] = lambda cluster_id, size_bytes: 0
        """Charges written bytes to a virtual cluster's quota; returns the throttle time in milliseconds."""
        self.stats = DeadLetterStats()

    def begin(self, key: Key) -> None:
        """A partition has records whose letters are to be written."""
        if self._closed:
            return
        if key in self._tasks:
            self._again.add(key)
            return
        task = self._tasks[key] = asyncio.get_running_loop().create_task(self._work(PartitionName.of(key)))
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
        """Wait for the letters of a group that is about to be deleted, for a limited time."""
        tasks = self._of_group.get(group)
        if tasks:
            await asyncio.wait(list(tasks.values()), timeout=SETTLE_S)

    @property
    def waiting(self) -> int:
        """How many partitions have letters that are not written yet."""
        return len(self._tasks)

    async def close(self) -> None:
        """Stop writing. The next start continues."""
        self._closed = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, name: PartitionName) -> None:
        """Write until there is nothing left to write."""
        failures, unread, decided = 0, 0, _Decided()
        while True:
            try:
                if not decided.stretches:
                    async with self._turns.turn(name.cluster_id):
                        found = await self._write_some(name, must_read=unread < READ_ATTEMPTS)
                    if found is None:
                        return
                    decided, unread = found, 0
                await self._be_done(name, decided)
                wait_ms, decided, failures = decided.wait_ms, _Decided(), 0
                if wait_ms:
                    await pause(self._alarms, wait_ms)
            except Fenced:
                return
            except CorruptData as problem:
                self._complain(name, "cannot be written", problem)
                return
            except PlatformError as problem:
                unread = unread + 1 if isinstance(problem, _Unread) else 0
                self._complain(name, "wait, and are tried again", problem)
                await pause(self._alarms, _DELAYS_MS[min(failures, len(_DELAYS_MS) - 1)])
                failures += 1

    async def _write_some(self, name: PartitionName, *, must_read: bool) -> _Decided | None:
        """Write one batch, unless no queue takes it; None if there is nothing to write. `must_read`: do not leave out
        copies because the store does not answer."""
        lock = self._writer.lock_of(name.cluster_id)
        topic = self._topics.registry.by_id(name.cluster_id, name.topic_id)
        if lock is Lock.ERASED or topic is None or topic.deleted:
            return None  # Neither the records nor the letters can ever be read.
        if lock is not None:
            raise Unavailable("the keys of the cluster are not there")
        self._again.discard(name.key)
        partition = await self._partitions.archiving(name)
        if partition is None:
            return None
        epoch = partition.state_epoch
        if partition.told:
            return _Decided(epoch, partition.told)
        runs = [run for run in partition.runs if run.archiving]
        config = self._configs.of(name.cluster_id, name.group_id)
        try:
            queue = await self._queue(name, config)
        except _Undeliverable as reason:
            return _Decided(epoch, [(run.first, run.last) for run in runs], str(reason))
        runs, now_ms = letters.first_of(runs), self._clock.now_ms()
        source, takes = Source(name.group_id, topic.name, name.partition_index), queue.topic.config
        copies = Copies(0, 0, looked_to=runs[-1].last)
        if config.copies_records:
            log = topic.partitions[name.partition_index]
            copies = await self._copies(log, runs, takes.largest_batch_bytes, must_read=must_read)
        made = await self._aside(
            lambda: letters.make(source, runs, copies.found, read_to=copies.looked_to, queue=takes, now_ms=now_ms)
        )
        return await self._send(name, epoch, queue, made)

    async def _send(self, name: PartitionName, epoch: int, queue: Partition, made: Made) -> _Decided:
        batch, stretches = made.verdict, stretches_of(made.offsets)
        if isinstance(batch, Rejected):
            why = f"{queue.topic.name} refuses them: {batch.message or batch.error.name}"
            return _Decided(epoch, stretches, why)
        try:
            is_there = await self._partitions.tell(name, epoch, Letters(queue, batch, stretches))
        except Conflict:
            return _Decided()  # The queue was deleted. The next round looks it up again.
        if not is_there:
            return _Decided(epoch, stretches, f"{queue.topic.name} was deleted")
        self.stats.letters += len(made.offsets)
        return _Decided(epoch, stretches, wait_ms=self.charge(name.cluster_id, len(batch.data)))

    async def _be_done(self, name: PartitionName, decided: _Decided) -> None:
        """Archive records whose letters are durable, or that get none."""
        if not decided.stretches or not await self._partitions.archive(name, decided.state_epoch, decided.stretches):
            return
        if decided.reason is not None:
            self.stats.lost += sum(last - first + 1 for first, last in decided.stretches)
            self._complain(name, "are not written", decided.reason)

    async def _aside(self, work: Callable[[], T]) -> T:
        if self._executor is None:
            await asyncio.sleep(0)
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    # --- Where letters go ---

    async def _queue(self, name: PartitionName, config: ShareConfig) -> Partition:
        """The partition of the group's queue that receives the letters about a partition."""
        wanted = config.dead_letter_topic
        topic = self._topics.registry.by_name(name.cluster_id, wanted)
        wrong = letters.complaint(wanted, topic, self._topics.settings.of(name.cluster_id))
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

    async def _copies(self, log: Partition, runs: Sequence[Run], largest_bytes: int, *, must_read: bool) -> Copies:
        """The records to copy, as far as they exist, fit into a batch, and can be read in limited time. Records that
        cannot be read leave only their own letters without copies."""
        copies = Copies(min(largest_bytes, letters.TOGETHER_BYTES), largest_bytes)
        wanted = [(run.first, run.last) for run in runs]
        end = runs[-1].last
        while wanted := letters.behind(wanted, max(copies.looked_to, log.log_start - 1)):
            if copies.is_enough:
                return copies
            first, _ = wanted[0]
            try:
                views = await self._reader.read_batches(log, first, COLD_READ_BYTES)
                await self._aside(partial(copies.look, views, wanted))
            except (CorruptData, InvalidRequest, Unavailable) as problem:
                if must_read and isinstance(problem, Unavailable):
                    raise _Unread(str(problem)) from problem
                copies.pass_over(await self._behind_damage(log, max(first, copies.looked_to + 1), end) - 1)
                continue
            if not views:
                break  # The rest was removed.
            copies.looked_to = max(copies.looked_to, first)
        copies.looked_to = end
        return copies

    async def _behind_damage(self, log: Partition, damaged: int, end: int) -> int:
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

    def _complain(self, name: PartitionName, what: str, problem: Exception | str) -> None:
        if self._log_throttle.is_due():
            _log.error("dead letters of the share group %r %s: %s", name.group_id, what, problem)
