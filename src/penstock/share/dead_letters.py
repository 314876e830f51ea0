"""Dead letter queues of share groups: what was given up is told of in a topic (KIP-1191).

A record that is given up is durable as *archiving* when its member is answered. Then this writes a letter, together
with a note that the queue has it (`passengers`), and after that has the record archived. So there is one letter for
each record that was given up, whatever crashes meanwhile, and the start goes on where it was left.

A queue that cannot be one (it is not there, was not enabled, has a name that is not allowed, refuses the letter) gets
none, and the record is archived all the same, as in Apache Kafka. What fails because something does not answer is tried
again for as long as it takes, where Apache Kafka gives up after five attempts.

Each partition of a group with letters to write has a task that writes one batch after the other; few do so at once, and
each holds one batch in memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeVar

from penstock.base.clock import Clock
from penstock.base.complaints import Seldom
from penstock.base.errors import Conflict, CorruptData, Fenced, InvalidRequest, PlatformError, Unavailable
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
from penstock.wire.error_codes import ErrorCode

T = TypeVar("T")

AT_ONCE = 4
"""How many batches are made at the same time."""
SETTLE_S = 5.0
"""How long who forgets partitions waits for their letters."""
COMPLAIN_EVERY_S = 10.0
_DELAYS_MS = (1_000, 2_000, 4_000, 8_000, 16_000, 30_000)
"""Pauses before something that failed is tried again; the last one repeats."""
_CREATED_WITH = {"errors.deadletterqueue.group.enable": "true", "message.timestamp.type": "CreateTime"}
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class DeadLetterStats:
    """Counted since the process started."""

    letters: int = 0
    """Records whose letters are in a queue."""
    lost: int = 0
    """Records that were given up without, as there was no queue that would have them."""


class _Undeliverable(Exception):
    """No queue will have these letters."""


class _Decided(NamedTuple):
    """What is to become of records, now that a queue has letters of them or never will."""

    state_epoch: int = 0
    stretches: Sequence[Stretch] = ()
    reason: str | None = None
    """Why no queue has any."""
    wait_ms: int = 0
    """For how long no more may be written."""


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
        """Where batches are looked at and made."""
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._again: set[Key] = set()
        """Partitions of which something was said while their task was at work."""
        self._room = asyncio.Semaphore(AT_ONCE)
        self._closed = False
        self._complaints = Seldom(clock, COMPLAIN_EVERY_S)
        self.charge: Callable[[int, int], int] = lambda cluster_id, size_bytes: 0
        """Counts bytes as written by a virtual cluster; for how many milliseconds to write no more for it."""
        self.stats = DeadLetterStats()

    def begin(self, key: Key) -> None:
        """A partition has records that a queue is to hear of."""
        if self._closed:
            return
        if key in self._tasks:
            self._again.add(key)
            return
        task = self._tasks[key] = asyncio.get_running_loop().create_task(self._work(PartitionName.of(key)))
        task.add_done_callback(partial(self._ended, key))

    def _ended(self, key: Key, task: asyncio.Task[None]) -> None:
        del self._tasks[key]
        is_asked = key in self._again
        self._again.discard(key)
        bug = None if task.cancelled() else task.exception()
        if bug is not None:
            _log.error("letters of %s cannot be written", key, exc_info=bug)
        elif is_asked:
            self.begin(key)

    async def settle(self, is_meant: Callable[[Key], bool]) -> None:
        """Wait until letters are written whose partitions are to be forgotten, if it does not take long."""
        tasks = [task for key, task in self._tasks.items() if is_meant(key)]
        if tasks:
            await asyncio.wait(tasks, timeout=SETTLE_S)

    async def close(self) -> None:
        """Write no more. The next start goes on."""
        self._closed = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, name: PartitionName) -> None:
        """Write until there is nothing to write."""
        failures, decided = 0, _Decided()
        while True:
            try:
                if not decided.stretches:
                    async with self._room:
                        found = await self._write_some(name)
                    if found is None:
                        return
                    decided = found
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
                self._complain(name, "wait, and are tried again", problem)
                await pause(self._alarms, _DELAYS_MS[min(failures, len(_DELAYS_MS) - 1)])
                failures += 1

    async def _write_some(self, name: PartitionName) -> _Decided | None:
        """Write one batch, unless the queue is not to have it; None if there is nothing to write."""
        lock = self._writer.lock_of(name.cluster_id)
        topic = self._topics.registry.by_id(name.cluster_id, name.topic_id)
        if lock is Lock.ERASED or topic is None:
            return None  # Nobody will ever read one, nor the other.
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
            copies = await self._copies(topic.partitions[name.partition_index], runs, takes.largest_batch_bytes)
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
            return _Decided()  # The queue was deleted. There may be another by now, or none is wanted.
        if not is_there:
            return _Decided(epoch, stretches, f"{queue.topic.name} was deleted")
        self.stats.letters += len(made.offsets)
        return _Decided(epoch, stretches, wait_ms=self.charge(name.cluster_id, len(batch.data)))

    async def _be_done(self, name: PartitionName, decided: _Decided) -> None:
        """Archive records whose letters are durable, or of which there are none."""
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
        """The partition of the group's queue that hears of a partition."""
        wanted = config.dead_letter_topic
        topic = self._topics.registry.by_name(name.cluster_id, wanted)
        wrong = letters.complaint(wanted, topic, self._topics.settings.of(name.cluster_id))
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

    async def _copies(self, log: Partition, runs: Sequence[Run], largest_bytes: int) -> Copies:
        """The records themselves, as far as they are there, a batch has room, and it does not take too long."""
        copies = Copies(min(largest_bytes, letters.TOGETHER_BYTES), largest_bytes)
        wanted = [(run.first, run.last) for run in runs]
        while wanted := letters.behind(wanted, max(copies.looked_to, log.log_start - 1)):
            if copies.is_enough:
                return copies
            first, last = wanted[0]
            try:
                views = await self._reader.read_batches(log, first, COLD_READ_BYTES)
                await self._aside(partial(copies.look, views, wanted))
            except (CorruptData, InvalidRequest):
                copies.looked_to = last
                continue
            if not views:
                break  # Nothing is there any more.
            copies.looked_to = max(copies.looked_to, first)
        copies.looked_to = runs[-1].last
        return copies

    def _complain(self, name: PartitionName, what: str, problem: Exception | str) -> None:
        if self._complaints.is_due():
            _log.error("dead letters of the share group %r %s: %s", name.group_id, what, problem)
