"""The share coordinator: acquiring and acknowledging records of share partitions.

Every operation submits a rule to the coordinator runtime. To acquire records, the rule must know what the log has from
the partition's next offset on. While that is in memory or in the page cache, reading it is part of the decision;
otherwise it is read first, by one request per partition at a time, and the decision is made on what was read.

Waiting fetches *watch* their partitions: they are called back when records become available again; the log notifies
them of new ones.

Records given up for a dead letter queue are tracked here. The writer of dead letters (`dead_letters`) is notified, asks
which records are `archiving`, has their dead letters appended (`append_dead_letters`), and then archives them
(`archive`).

A deleted group takes its rows with it, in a transaction of the group coordinator. While that is in flight nothing is
decided for the group's partitions, so that no write of theirs comes after it; and then they are dropped from memory. So
there is no second step that could fail, and nothing reappears.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Protocol, TypeVar

from penstock.base.clock import Clock, SteadyClock
from penstock.base.cooperative import gather_in_batches
from penstock.base.dataclasses import dataclass
from penstock.base.errors import Unavailable
from penstock.coordination.leases import LeaseHolder
from penstock.coordination.model import Key, Reply, Timer, Waiter
from penstock.coordination.runtime import CoordinatorRuntime
from penstock.coordination.timers import Scheduler
from penstock.log.aborted import AbortedLookup, aborted_between, batches_below, end_of
from penstock.log.model import AbortedTransaction, Partition
from penstock.log.reader import COLD_READ_BYTES, Reader
from penstock.log.timestamps import OffsetForTimestamp
from penstock.log.writer import Writer
from penstock.metadata.database import TransactionRunner
from penstock.share import store, transitions
from penstock.share.model import (
    Acknowledged,
    Acknowledgement,
    Acquire,
    Acquired,
    DeadLetterBatch,
    Decision,
    Fetched,
    Limits,
    Record,
    SharePartition,
)
from penstock.share.reading import (
    NOTHING,
    AcquiredBatches,
    ScannedBatches,
    aborted_batches,
    acquired_batches,
    scan,
)
from penstock.share.settings import ShareConfig, ShareConfigs
from penstock.share.store import PartitionName, SharePartitionSummary

T = TypeVar("T")
Rule = Callable[[SharePartition | None, Waiter, int], Decision]

AGAIN_MS = 1_000
"""When a timer is retried that fired while its group was being deleted."""
IDLE_MAX_RUNS = 400_000
"""How many runs of idle partitions are cached: some 64 MiB. A partition that is read in order has few; one of which
every other record of very many is acknowledged may have as many as the limit on locks."""
_ATTEMPTS = 4
"""How often an acquisition is retried because another one was faster. After that it returns nothing."""


class DeadLetterWriter(Protocol):
    """Writes dead letters for dead letter queues."""

    def begin(self, key: Key) -> None:
        """A partition has records whose dead letters are to be written."""

    async def settle(self, group: Key) -> None:
        """Wait until that is done for the partitions of a group, for a limited time."""


StartAt = Callable[[PartitionName], Awaitable[int | None]]
"""Returns where a group begins in a partition that it has not read yet, None to apply its reset policy. May raise the
error for the member."""

Read = Callable[[], Awaitable[list[memoryview]]]
"""Reads the next records from storage."""


@dataclass(slots=True, eq=False)
class _Initialisation:
    """The initialisation of a share partition, in progress."""

    cancelled: bool = False
    """Whether its group was deleted meanwhile."""


@dataclass(frozen=True, slots=True)
class _NotInitialised:
    """The share partition is not initialised."""


@dataclass(frozen=True, slots=True)
class _Cold:
    """The next records are not in memory."""

    offset: int
    count: int


class SharePartitions:
    """Every share partition of this process."""

    def __init__(
        self,
        *,
        database: TransactionRunner,
        reader: Reader,
        aborted: AbortedLookup,
        configs: ShareConfigs,
        offset_for_timestamp: OffsetForTimestamp,
        holder: LeaseHolder,
        clock: Clock,
        scheduler: Scheduler,
        writer: Writer | None = None,
        is_alone: bool = True,
    ) -> None:
        """`is_alone`: no other process can take the slots while this one lives."""
        self._database, self._reader, self._aborted, self._configs = database, reader, aborted, configs
        self._offset_for_timestamp, self._clock, self._is_alone = offset_for_timestamp, clock, is_alone
        self._journal = store.ShareJournal(database, holder=holder, clock=clock, scheduler=scheduler, writer=writer)
        self.dead_letter_writer: DeadLetterWriter | None = None
        """None: records that need dead letters stay archiving."""
        self._runtime: CoordinatorRuntime[SharePartition, Record] = CoordinatorRuntime(
            journal=self._journal,
            rules=_WakingRules(self._limits_of, self.wake, self._begin_dead_letters, self._is_deleting),
            # All times in these rules are those of locks, which are never stored: a monotonic clock.
            clock=SteadyClock(clock),
            scheduler=scheduler,
            keeps_states=True,
            weigh=lambda partition: len(partition.runs) + 1,
            idle_weight_max=IDLE_MAX_RUNS,
        )
        self._watchers: dict[Key, dict[Callable[[], None], None]] = {}
        self._readers: dict[Key, asyncio.Lock] = {}
        self._deleting = Counter[Key]()
        """Groups being deleted, with the number of deletions."""
        self._initialising: dict[Key, set[_Initialisation]] = {}
        """Initialisations in progress."""
        self._next_epoch = 0
        """Higher than the epoch of any partition whose dead letters may be in flight."""

    async def open(self) -> None:
        """Take the slots."""
        await self._runtime.open()

    async def close(self) -> None:
        """Finish accepted writes and fail waiting requests."""
        await self._runtime.close()

    def _limits_of(self, key: Key) -> Limits:
        return self._configs.of(key[0], PartitionName.of(key).group_id).limits

    async def _submit(self, key: Key, rule: Rule, answer: type[T]) -> T:
        """Submit a rule, unless the group is being deleted by then."""
        return await self._runtime.submit(key, self._unless_going(key, rule), answer)

    def _unless_going(self, key: Key, rule: Rule) -> Rule:
        def decide(partition: SharePartition | None, waiter: Waiter, now_ms: int) -> Decision:
            if self._is_deleting(key):
                raise Unavailable("the share group is being deleted")
            return rule(partition, waiter, now_ms)

        return decide

    def _is_deleting(self, key: Key) -> bool:
        return bool(self._deleting) and PartitionName.group_of(key) in self._deleting

    # --- Watching ---

    def watch(self, names: Iterable[PartitionName], awake: Callable[[], None]) -> None:
        """Call back whenever records of these partitions may have become available."""
        for name in names:
            self._watchers.setdefault(name.key, {})[awake] = None

    def unwatch(self, names: Iterable[PartitionName], awake: Callable[[], None]) -> None:
        """Stop calling back."""
        for name in names:
            watchers = self._watchers.get(name.key)
            if watchers is not None:
                watchers.pop(awake, None)
                if not watchers:
                    del self._watchers[name.key]

    def wake(self, key: Key) -> None:
        """Records may have become available."""
        for awake in list(self._watchers.get(key, ())):
            awake()

    # --- Acknowledging ---

    def acknowledge(
        self, name: PartitionName, member: str, given: Sequence[Acknowledgement]
    ) -> asyncio.Future[Acknowledged]:
        """Accept, release, reject or renew; the result comes once that is durable.

        When this returns, whatever is submitted for the partition later is decided on the records so acknowledged.
        """
        key, limits = name.key, self._configs.of(name.cluster_id, name.group_id).limits

        def decide(partition: SharePartition | None, waiter: Waiter, now_ms: int) -> Decision:
            return transitions.acknowledge(partition, member, given, limits, waiter, now_ms)

        answer: asyncio.Future[Acknowledged] = self._runtime.post(key, self._unless_going(key, decide))
        answer.add_done_callback(partial(self._on_acknowledged, key))
        return answer

    def _on_acknowledged(self, key: Key, answer: asyncio.Future[Acknowledged]) -> None:
        if not answer.cancelled() and answer.exception() is None:
            self.wake(key)

    async def release(self, name: PartitionName, member: str) -> None:
        """A member is gone: release what it has acquired."""
        key, limits = name.key, self._configs.of(name.cluster_id, name.group_id).limits
        await self._submit(
            key,
            lambda partition, waiter, now_ms: transitions.release(partition, member, limits, waiter, now_ms),
            Acknowledged,
        )
        self.wake(key)

    # --- Dead letters ---

    def _begin_dead_letters(self, key: Key) -> None:
        if self.dead_letter_writer is not None:
            self.dead_letter_writer.begin(key)

    async def archiving(self, name: PartitionName) -> SharePartition | None:
        """A partition with records that need dead letters, or are to be archived since these were written; None if
        there are no such records."""
        partition, _ = await self._runtime.peek(name.key)
        if partition is None or not partition.archiving:
            return None
        self._next_epoch = max(self._next_epoch, partition.state_epoch + 1)
        return partition

    async def append_dead_letters(self, name: PartitionName, state_epoch: int, dead_letters: DeadLetterBatch) -> bool:
        """Append dead letters; whether the queue still existed. Raises `Conflict` if it is known not to.

        The result is durable on return, and no other dead letters will be written about these records.
        """
        return await self._journal.append_dead_letters(name.key, state_epoch, dead_letters)

    async def archive(self, name: PartitionName, state_epoch: int, ranges: Sequence[tuple[int, int]]) -> bool:
        """Archive ranges that are archiving. False if the partition was reset meanwhile."""
        is_done = await self._submit(
            name.key,
            lambda partition, waiter, now_ms: transitions.archive(partition, state_epoch, ranges, waiter, now_ms),
            bool,
        )
        self.wake(name.key)
        return is_done

    # --- Acquiring ---

    def ready_bytes(self, name: PartitionName, log: Partition, max_bytes: int) -> int:
        """About how many bytes can be acquired: `max_bytes` if there are more, or if that is not known before it is
        tried; 0 if there is nothing."""
        _, partition = self._runtime.current(name.key)
        if partition is None:
            return max_bytes
        config = self._configs.of(name.cluster_id, name.group_id)
        if not transitions.has_room(partition, config.limits):
            return 0
        offset = max(transitions.next_fetch_offset(partition), log.log_start)
        end = log.last_stable_offset if config.read_committed else log.next_offset
        if offset >= end:
            return 0
        found = self._reader.tail(log, offset, max_bytes, at_least_one=True)
        size_bytes = sum(map(len, found or ()))
        return size_bytes if found and end_of(found) >= end else max(size_bytes, max_bytes)

    async def prove(self) -> None:
        """Find out which partitions other agents coordinate by now; their acquisitions raise `Fenced`.

        To be called between a request for records and its acquisitions. These write nothing, so no guard refuses one
        that is based on outdated state, where records are available that were accepted at another agent since.
        """
        if not self._is_alone:
            await self._journal.prove()

    async def acquire(
        self, name: PartitionName, log: Partition, asked: Acquire, max_bytes: int, start_at: StartAt, *,
        gives_up: Callable[[], bool] = lambda: False,
    ) -> AcquiredBatches:  # fmt: skip
        """Acquire records for a member. `gives_up`: as of `Reader.read_batches`. Whoever does waits for no other reads
        either: those may wait for memory with what it holds."""
        key, config = name.key, self._configs.of(name.cluster_id, name.group_id)
        if not self._is_alone:
            self._journal.check(key)
        for _ in range(_ATTEMPTS):
            found: list[ScannedBatches] = []
            answer = await self._submit(
                key,
                lambda partition, waiter, now_ms, found=found: self._decide(  # type: ignore[misc]
                    partition, log, asked, max_bytes, config, found, waiter, now_ms
                ),
                object,
            )
            match answer:
                case Acquired():
                    return acquired_batches(answer, found)
                case _NotInitialised():
                    if config.starts_before_ms is not None and gives_up():
                        return NOTHING
                    await self._initialise(name, log, config, start_at)
                case _Cold():
                    if key in self._readers and gives_up():
                        return NOTHING
                    read = partial(self._reader.read_batches, log, answer.offset, COLD_READ_BYTES, gives_up=gives_up)
                    taken = await self._acquire_cold(name, log, asked, answer, config, read)
                    if taken is not None:
                        return taken
        return NOTHING

    def _decide(
        self,
        partition: SharePartition | None,
        log: Partition,
        asked: Acquire,
        max_bytes: int,
        config: ShareConfig,
        found: list[ScannedBatches],
        waiter: Waiter,
        now_ms: int,
    ) -> Decision:
        """Acquire, if what the log has is known."""
        if partition is None:
            return Decision(state=None, replies=(Reply(waiter, _NotInitialised()),))
        partition = transitions.trimmed(partition, log.log_start)
        offset = transitions.next_fetch_offset(partition)
        end = log.last_stable_offset if config.read_committed else log.next_offset
        if offset >= end or not transitions.has_room(partition, config.limits):
            return Decision(state=partition, replies=(Reply(waiter, Acquired()),))
        count = max(partition.next_offset - offset, 0) + asked.max_records
        views = self._reader.at_hand(log, offset, max_bytes)
        if views is None or (config.read_committed and log.aborted_from > offset):
            return Decision(state=partition, replies=(Reply(waiter, _Cold(offset, count)),))
        fetched = self._fetched(log, offset, count, views, end, config, (), found)
        return transitions.acquire(partition, asked, fetched, config.limits, waiter, now_ms)

    def _fetched(
        self,
        log: Partition,
        offset: int,
        count: int,
        views: Sequence[memoryview],
        end: int,
        config: ShareConfig,
        older: Sequence[AbortedTransaction],
        found: list[ScannedBatches],
    ) -> Fetched:
        """What the log has, for the rule, and `found` for later use."""
        if config.read_committed:
            views = batches_below(views, end)
        scanned = scan(views, offset, count)
        found[:] = [scanned]
        aborted = []
        if config.read_committed and scanned.batches and (older or log.aborted):
            recent = aborted_between(log.aborted, offset, scanned.batches[-1].last + 1)
            aborted = aborted_batches(scanned, dict.fromkeys((*older, *recent)))
        return Fetched(offset, log.log_start, scanned.batches, aborted)

    async def _acquire_cold(
        self, name: PartitionName, log: Partition, asked: Acquire, cold: _Cold, config: ShareConfig, read: Read
    ) -> AcquiredBatches | None:
        """Read, then acquire from what was read; None if the partition has changed meanwhile."""
        lock = self._readers.setdefault(name.key, asyncio.Lock())
        if lock.locked():
            # Another request reads the same. Afterwards look again: what it does not acquire is available.
            async with lock:
                return None
        async with lock:
            try:
                return await self._acquire_read(name, log, asked, cold, config, read)
            finally:
                self._readers.pop(name.key, None)

    async def _acquire_read(
        self, name: PartitionName, log: Partition, asked: Acquire, cold: _Cold, config: ShareConfig, read: Read
    ) -> AcquiredBatches | None:
        offset, end = cold.offset, log.last_stable_offset if config.read_committed else log.next_offset
        views = await read()
        older: Sequence[AbortedTransaction] = ()
        if config.read_committed and views:
            # Memory first: what is dropped from memory meanwhile has been stored by then.
            older = aborted_between(log.aborted, offset, end_of(views))
            if log.aborted_from > offset:
                older = (*await self._aborted.between(log, offset, end_of(views)), *older)
        found: list[ScannedBatches] = []

        def decide(partition: SharePartition | None, waiter: Waiter, now_ms: int) -> Decision:
            if partition is None or offset > partition.next_offset:
                return Decision(state=partition, replies=(Reply(waiter, cold),))
            fetched = self._fetched(log, offset, cold.count, views, end, config, older, found)
            return transitions.acquire(partition, asked, fetched, config.limits, waiter, now_ms)

        answer = await self._submit(name.key, decide, object)
        return (
            acquired_batches(answer, found) if isinstance(answer, Acquired) and (answer.ranges or not views) else None
        )

    async def _initialise(self, name: PartitionName, log: Partition, config: ShareConfig, start_at: StartAt) -> None:
        """Initialise a share partition, unless its group or topic is deleted meanwhile."""
        group, initialisation = PartitionName.group_of(name.key), _Initialisation()
        self._initialising.setdefault(group, set()).add(initialisation)
        try:
            offset = await start_at(name)
            if offset is None:
                offset = await self._reset_offset(log, config)

            def decide(partition: SharePartition | None, waiter: Waiter, now_ms: int) -> Decision:
                if initialisation.cancelled or log.topic.deleted:
                    raise Unavailable("the share group, or its topic, was deleted")
                return transitions.initialise(partition, offset, waiter, state_epoch=self._next_epoch)

            await self._submit(name.key, decide, SharePartition)
        finally:
            self._initialising[group].discard(initialisation)
            if not self._initialising[group]:
                del self._initialising[group]

    async def _reset_offset(self, log: Partition, config: ShareConfig) -> int:
        if config.starts_before_ms is not None:
            since_ms = max(0, self._clock.now_ms() - config.starts_before_ms)
            found = await self._offset_for_timestamp(log, since_ms, max_only=False)
            return log.next_offset if found is None else found[0]
        return log.log_start if config.starts_earliest else log.next_offset

    # --- Administration ---

    async def summaries(self, cluster_id: int, group_id: str) -> Mapping[tuple[bytes, int], SharePartitionSummary]:
        """The state of every initialised partition of a group."""
        return await self._database.read(lambda: store.summaries(cluster_id, group_id))

    async def reset(self, offsets: Mapping[PartitionName, int]) -> None:
        """Set the offsets of a group without members, after `settle_group`."""
        await gather_in_batches(offsets.items(), lambda one: self._reset(*one))

    async def _reset(self, name: PartitionName, offset: int) -> None:
        await self._submit(
            name.key,
            lambda partition, waiter, _: transitions.reset(partition, offset, waiter, state_epoch=self._next_epoch),
            Acknowledged,
        )

    async def forget(self, names: Iterable[PartitionName]) -> None:
        """Delete the state of partitions."""
        await gather_in_batches(names, self._forget)

    async def _forget(self, name: PartitionName) -> None:
        await self._submit(name.key, lambda partition, waiter, _: transitions.forget(partition, waiter), Acknowledged)
        self.wake(name.key)

    async def settle_group(self, key: Key) -> None:
        """A group is about to lose state: wait for its dead letters, for a limited time. To be called before its
        members are checked, so that nobody joins during the wait."""
        if self.dead_letter_writer is not None:
            await self.dead_letter_writer.settle(key)

    async def delete_group(self, group: Key, delete: Callable[[], Awaitable[bool]]) -> None:
        """Delete a group with all of its rows; `delete` returns whether it was deleted."""
        self._deleting[group] += 1
        try:
            await self._runtime.await_durable_where(lambda key: PartitionName.is_of_group(key, group))
            if await delete():
                for initialisation in self._initialising.get(group, ()):
                    initialisation.cancelled = True
                for key in self._runtime.drop_where(lambda key: PartitionName.is_of_group(key, group)):
                    self.wake(key)
        finally:
            self._deleting[group] -= 1
            if not self._deleting[group]:
                del self._deleting[group]

    async def forget_topic(self, cluster_id: int, topic_id: bytes) -> None:
        """A topic was deleted. Does not wait for dead letters, because changes of topics wait for this."""
        stored = await self._database.read(lambda: store.of_topic(cluster_id, topic_id))
        known = self._runtime.keys_where(
            lambda key: key[0] == cluster_id and PartitionName.of(key).topic_id == topic_id
        )
        await self.forget(dict.fromkeys((*stored, *map(PartitionName.of, known))))

    async def forget_deleted_topics(self) -> None:
        """The same for topics whose deletion was not completed here, after a crash for example."""
        for cluster_id, topic_id in await self._database.read(store.deleted_topics):
            await self.forget_topic(cluster_id, topic_id)


class _WakingRules(transitions.ShareRules):
    """The rules, extended to wake watchers when locks expire, and to start writing dead letters."""

    def __init__(
        self, limits_of: Callable[[Key], Limits], wake: Callable[[Key], None],
        begin_dead_letters: Callable[[Key], None], is_deleting: Callable[[Key], bool],
    ) -> None:  # fmt: skip
        super().__init__(limits_of)
        self._wake, self._begin_dead_letters, self._is_deleting = wake, begin_dead_letters, is_deleting

    def expired(self, key: Key, state: SharePartition | None, timer: str, now_ms: int) -> Decision:
        """A lock expired, or records that need dead letters are durable."""
        if self._is_deleting(key):
            return Decision(state=state, timers=(Timer(timer, AGAIN_MS),))
        if timer == transitions.DEAD_LETTERS:
            self._begin_dead_letters(key)
        decision = super().expired(key, state, timer, now_ms)
        if decision.records:
            # Watchers that look from now on are decided after this, and answered when this is durable.
            asyncio.get_running_loop().call_soon(self._wake, key)
        return decision
