"""The group coordinator: each operation submits a rule to the coordinator runtime and waits for its reply.

All rules are behind `rules`, all SQL is in `store`. Added here: ids for new members, reading offsets from the database,
listing, and the expiry of offsets.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from penstock.base.clock import Clock
from penstock.base.cooperative import CHEAP_ITEMS_PER_TURN, gather_in_batches, sort_items, yield_if_due
from penstock.base.dataclasses import dataclass
from penstock.base.errors import Conflict, PlatformError
from penstock.base.lazy import lazy_import
from penstock.base.randomness import Randomness, new_uuid, uuid_text
from penstock.base.settings import LiveSettings
from penstock.base.shielded import ShieldedTasks
from penstock.coordination.leases import LeaseHolder
from penstock.coordination.model import Key, Waiter
from penstock.coordination.runtime import CoordinatorRuntime
from penstock.coordination.timers import Scheduler
from penstock.groups import store
from penstock.groups.consumer import model as consumer
from penstock.groups.member_epochs import JOIN_EPOCH, LEAVE_EPOCH, STATIC_LEAVE_EPOCH
from penstock.groups.model import (
    AnyGroup,
    ClassicGroup,
    ClassicHeartbeat,
    CommitOffsets,
    DeleteOffsets,
    DeleteOffsetsResult,
    GroupDecision,
    GroupState,
    Join,
    JoinResult,
    LeaveResult,
    LeavingMember,
    OffsetAndMetadata,
    Record,
    StoredOffsets,
    Sync,
    SyncResult,
    TopicPartition,
)
from penstock.groups.rule_context import RuleContext
from penstock.groups.rules import GroupRules
from penstock.groups.settings import GroupSettings, LiveGroupSettings
from penstock.log.refusals import Refused
from penstock.metadata.database import TransactionRunner
from penstock.wire.error_codes import ErrorCode

if TYPE_CHECKING:
    from penstock.groups.consumer import regexes, transitions
else:
    regexes = lazy_import("penstock.groups.consumer.regexes")
    transitions = lazy_import("penstock.groups.consumer.transitions")

T = TypeVar("T")
G = TypeVar("G", bound=AnyGroup)

_logger = logging.getLogger(__name__)

MAX_PREFIX_CHARS = 255
"""The longest part of a client id in a member id."""
_SWEEP_PAGE = 100
_ENDED_AT_ONCE = 100
"""How many groups that are to be deleted are waited for concurrently."""


class TopicLookup(Protocol):
    """What is needed of topics."""

    def topic_id(self, cluster_id: int, name: str) -> bytes | None:
        """The id of the topic of that name, or None."""

    def topic_name(self, cluster_id: int, topic_id: bytes) -> str | None:
        """The name of the topic with that id, or None."""

    def partition_count(self, cluster_id: int, topic_id: bytes) -> int | None:
        """How many partitions the topic with that id has, or None when there is no such topic."""


class TopicNames(TopicLookup, Protocol):
    """The same, with their names."""

    def names(self, cluster_id: int) -> Sequence[str]:
        """The names of all topics."""


class GroupConfigs(Protocol):
    """Configuration of individual groups."""

    def group_overrides(self, cluster_id: int, group_id: str) -> Mapping[str, str]:
        """The overrides of a group."""


class NoConfigs:
    """For agents without configuration of groups."""

    def group_overrides(self, cluster_id: int, group_id: str) -> Mapping[str, str]:
        """Nothing."""
        return {}


@dataclass(frozen=True, slots=True)
class ClusterTopicView:
    """The topics of one virtual cluster."""

    topics: TopicLookup
    cluster_id: int
    version: int

    def topic_id(self, name: str) -> bytes | None:
        """The id of the topic of that name, or None."""
        return self.topics.topic_id(self.cluster_id, name)

    def topic_name(self, topic_id: bytes) -> str | None:
        """The name of the topic with that id, or None."""
        return self.topics.topic_name(self.cluster_id, topic_id)

    def partition_count(self, topic_id: bytes) -> int | None:
        """How many partitions it has, or None when there is no such topic."""
        return self.topics.partition_count(self.cluster_id, topic_id)


async def _no_preparation(key: Key) -> None:
    """Used where nothing has to happen before a deletion."""


async def _delete_only_group(key: Key, delete: Callable[[], Awaitable[bool]]) -> None:
    """Used where nothing else has state of a group."""
    await delete()


async def _already_current() -> None:
    """Used where the database is always up to date."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedGroup:
    """An entry of a list of groups."""

    group_id: str
    kind: str
    protocol_type: str
    state: str


class GroupService:
    """The group coordinator of this process."""

    def __init__(
        self,
        *,
        database: TransactionRunner,
        topics: TopicNames,
        settings: GroupSettings,
        configs: GroupConfigs | None = None,
        holder: LeaseHolder,
        clock: Clock,
        scheduler: Scheduler,
        randomness: Randomness,
        pending_offset_writer: store.PendingOffsetWriter | None = None,
        catch_up: Callable[[], Awaitable[None]] = _already_current,
        live: LiveSettings | None = None,
    ) -> None:
        self._database, self._topics, self.settings = database, topics, settings
        self.settings_of = (lambda cluster_id: settings) if live is None else LiveGroupSettings(live, settings).of
        """Returns the current settings of a virtual cluster's groups."""
        self._clock, self._randomness = clock, randomness
        self._catch_up = catch_up
        """Returns when the database has the outcomes of all transactions so far."""
        journal = store.GroupJournal(
            database, holder=holder, clock=clock, scheduler=scheduler, pending_offset_writer=pending_offset_writer
        )
        self._configs = configs or NoConfigs()
        self._topic_versions: dict[int, int] = {}
        self._resolving: dict[Key, asyncio.Task[None]] = {}
        self._rules = GroupRules(self.rule_context)
        self.limit: Callable[[int], float | None] = lambda cluster_id: None
        """The limit on groups of a virtual cluster; None: no limit."""
        self.before_deletion: Callable[[Key], Awaitable[None]] = _no_preparation
        """Called before a group is deleted by a request, which waits for it."""
        self.delete_with: Callable[[Key, Callable[[], Awaitable[bool]]], Coroutine[Any, Any, None]] = _delete_only_group
        """Wraps the deletion of a group, so that its other state is deleted as well, with no writes in between."""
        self._deletions = ShieldedTasks()
        self._counts: dict[int, int] = {}
        """The number of groups of each virtual cluster."""
        self._journal = journal
        self._runtime: CoordinatorRuntime[AnyGroup, Record] = CoordinatorRuntime(
            journal=journal, rules=self._rules, clock=clock, scheduler=scheduler, is_stored=self._rules.is_stored,
            on_presence=self._count,
        )  # fmt: skip

    async def open(self) -> None:
        """Take the slots and load groups with members. Until then every request raises `CoordinatorLoading`."""
        await self._runtime.open()
        for cluster_id, count in self._journal.counts.items():
            self._counts[cluster_id] = self.count(cluster_id) + count

    async def close(self) -> None:
        """Finish accepted writes and fail waiting requests."""
        for task in list(self._resolving.values()):
            task.cancel()
        await asyncio.gather(*self._resolving.values(), return_exceptions=True)
        await self._deletions.close()
        await self._runtime.close()

    def rule_context(self, key: Key, now_ms: int) -> RuleContext:
        """The settings and topics that rules use for a group, at a given time."""
        cluster_id, group_id = key
        overrides = self._configs.group_overrides(cluster_id, group_id)
        settings = self.settings_of(cluster_id)
        return RuleContext(
            now_ms=now_ms,
            topics=ClusterTopicView(self._topics, cluster_id, self._topic_versions.get(cluster_id, 1)),
            settings=settings,
            consumer=settings.consumer.of_group(overrides),
            streams=settings.streams.of_group(overrides),
        )

    def topics_changed(self, cluster_id: int) -> None:
        """Topics were created, extended or deleted: groups find out with their next heartbeats."""
        self._topic_versions[cluster_id] = self._topic_versions.get(cluster_id, 1) + 1

    def now_ms(self) -> int:
        """The timestamp of commits."""
        return self._clock.now_ms()

    def new_member_id(self, prefix: str | None = None) -> str:
        """A new member id: a UUID, for a classic member prefixed by its client id or instance id."""
        if prefix is None:
            return uuid_text(new_uuid(self._randomness))
        text = new_uuid(self._randomness).hex()
        return f"{prefix[:MAX_PREFIX_CHARS]}-{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    async def submit(
        self, key: Key, rule: Callable[[AnyGroup | None, Waiter, int], GroupDecision], answer: type[T]
    ) -> T:
        """Apply a rule that only one kind of group has."""
        return await self._runtime.submit(key, rule, answer)

    # --- Members ---

    async def check_group_limit(self, key: Key) -> None:
        """Raise `Refused` if the group does not exist and its virtual cluster is at its limit."""
        limit = self.limit(key[0])
        if limit is None or self.count(key[0]) < limit:
            return
        in_memory, group = self._runtime.latest_decided(key)
        if group is None and (in_memory or not await self._database.read(lambda: store.has_group(key))):
            raise Refused(
                ErrorCode.POLICY_VIOLATION, f"The virtual cluster has reached its limit of {limit:.0f} groups."
            )

    def count(self, cluster_id: int) -> int:
        """How many groups a virtual cluster has, counted as `list_groups` lists them."""
        return self._counts.get(cluster_id, 0)

    def _count(self, key: Key, is_there: bool) -> None:
        count = self.count(key[0]) + (1 if is_there else -1)
        if count:
            self._counts[key[0]] = count
        else:
            self._counts.pop(key[0], None)

    async def join(self, key: Key, request: Join) -> JoinResult:
        """JoinGroup; returns when the rebalance completes."""
        await self.check_group_limit(key)
        return await self._runtime.submit(
            key, lambda group, waiter, now_ms: self._rules.join(key, group, request, waiter, now_ms), JoinResult
        )

    async def sync(self, key: Key, request: Sync) -> SyncResult:
        """SyncGroup; returns when the leader has assigned."""
        return await self._runtime.submit(
            key, lambda group, waiter, now_ms: self._rules.sync(key, group, request, waiter, now_ms), SyncResult
        )

    async def heartbeat(self, key: Key, request: ClassicHeartbeat) -> ErrorCode:
        """Heartbeat."""
        return await self._runtime.submit(
            key, lambda group, waiter, now_ms: self._rules.heartbeat(key, group, request, waiter, now_ms), ErrorCode
        )

    async def leave(self, key: Key, leavers: Sequence[LeavingMember]) -> LeaveResult:
        """LeaveGroup."""
        return await self._runtime.submit(
            key, lambda group, waiter, now_ms: self._rules.leave(key, group, leavers, waiter, now_ms), LeaveResult
        )

    # --- Members of consumer groups ---

    async def consumer_heartbeat(
        self, key: Key, request: consumer.ConsumerHeartbeat, may_see: Callable[[str], bool]
    ) -> consumer.ConsumerHeartbeatResult:
        """ConsumerGroupHeartbeat; `may_see` tells which topics the member may describe. Raises `Refused`."""
        rule = transitions.leave if request.epoch in (LEAVE_EPOCH, STATIC_LEAVE_EPOCH) else transitions.heartbeat
        if request.epoch == JOIN_EPOCH:
            await self.check_group_limit(key)
        result = await self._runtime.submit(
            key,
            lambda group, waiter, now_ms: rule(group, request, waiter, self.rule_context(key, now_ms)),
            consumer.ConsumerHeartbeatResult,
        )
        if result.resolve and key not in self._resolving:
            task = asyncio.get_running_loop().create_task(self._resolve(key, result.resolve, may_see))
            self._resolving[key] = task
            task.add_done_callback(lambda _: self._resolving.pop(key, None))
        return result

    async def _resolve(self, key: Key, patterns: frozenset[str], may_see: Callable[[str], bool]) -> None:
        """Resolve regular expressions, some names at a time, and submit the result to the group."""
        cluster_id = key[0]
        version = self._topic_versions.get(cluster_id, 1)
        names = self._topics.names(cluster_id)
        topics: dict[str, frozenset[str]] = {}
        for pattern in sorted(patterns):
            topics[pattern] = frozenset([name async for name in regexes.matching(pattern, names) if may_see(name)])
        try:
            await self._runtime.submit(
                key,
                lambda group, waiter, now_ms: transitions.regexes_resolved(
                    group, topics, version, waiter, self.rule_context(key, now_ms)
                ),
                bool,
            )
        except PlatformError as error:
            # Later heartbeats request it again.
            _logger.warning("the regular expressions of group %s are not updated: %s", key[1], error)

    # --- Offsets ---

    async def may_fetch(self, key: Key, member_id: str | None, epoch: int) -> ErrorCode:
        """OffsetFetch: whether a caller that claims membership may fetch offsets."""
        return await self._runtime.submit(
            key, lambda group, waiter, _: self._rules.fetch_error(group, member_id, epoch, waiter), ErrorCode
        )

    async def commit_offsets(self, key: Key, request: CommitOffsets) -> ErrorCode:
        """OffsetCommit."""
        await self.check_group_limit(key)
        return await self._runtime.submit(
            key,
            lambda group, waiter, now_ms: self._rules.commit_offsets(key, group, request, waiter, now_ms),
            ErrorCode,
        )

    async def offsets(self, key: Key) -> dict[TopicPartition, OffsetAndMetadata]:
        """All committed offsets of a group, none for an unknown one. Includes every commit decided before."""
        await self._runtime.await_durable(key)
        await self._catch_up()
        return await self._database.read(lambda: store.offsets_of(key))

    async def stable_offsets(
        self, key: Key
    ) -> tuple[dict[TopicPartition, OffsetAndMetadata], frozenset[TopicPartition]]:
        """The same, and the partitions that have pending offsets of open transactions."""
        await self._runtime.await_durable(key)
        await self._catch_up()
        return await self._database.read(lambda: store.offsets_and_pending(key))

    async def delete_offsets(self, key: Key, request: DeleteOffsets) -> DeleteOffsetsResult:
        """OffsetDelete."""
        return await self._runtime.submit(
            key, lambda group, waiter, _: self._rules.delete_offsets(group, request, waiter), DeleteOffsetsResult
        )

    async def forget_topic(self, cluster_id: int, topic_id: bytes) -> None:
        """A topic was deleted: delete the offsets in it."""
        await self._database.transaction(lambda: store.forget_topic(cluster_id, topic_id))

    # --- Administration ---

    async def find(self, key: Key) -> AnyGroup | None:
        """A group in its current state."""
        group, _ = await self._runtime.peek(key)
        return group

    async def described(self, key: Key, kind: type[G]) -> G:
        """A group of that kind in its current state. Raises `Refused`, with Kafka's message, if there is none."""
        group_id = key[1]
        if not group_id and kind is not ClassicGroup:  # Only a classic group may have an empty id.
            raise Refused(ErrorCode.INVALID_GROUP_ID, "")
        group = await self.find(key)
        if isinstance(group, kind):
            return group
        reason = "not found" if group is None else f"is not a {kind.kind} group"
        raise Refused(ErrorCode.GROUP_ID_NOT_FOUND, f"Group {group_id} {reason}.")

    def in_memory(self) -> list[tuple[Key, AnyGroup | None]]:
        """Every group in memory, in its current state: those with members always are."""
        return list(self._runtime.states())

    async def list_groups(self, cluster_id: int) -> list[ListedGroup]:
        """Every group of a virtual cluster, by id."""
        self._runtime.require_open()
        listed: dict[str, ListedGroup] = {}
        for number, stored in enumerate(await self._database.read(lambda: store.list_groups(cluster_id))):
            await yield_if_due(number, CHEAP_ITEMS_PER_TURN)
            listed[stored.group_id] = ListedGroup(
                group_id=stored.group_id,
                kind=stored.kind,
                protocol_type=stored.protocol_type,
                state=(GroupState.STABLE if stored.has_members else GroupState.EMPTY).value,
            )
        for number, ((owner, group_id), group) in enumerate(self._runtime.states()):
            await yield_if_due(number, CHEAP_ITEMS_PER_TURN)
            if owner != cluster_id:
                continue
            listed.pop(group_id, None)
            if group is not None:
                listed[group_id] = ListedGroup(
                    group_id=group_id,
                    kind=group.kind,
                    protocol_type=group.protocol_type or "",
                    state=group.shown_state,
                )
        return await sort_items(list(listed.values()), attrgetter("group_id"))

    async def await_deletion(self, keys: Iterable[Key]) -> None:
        """Wait for work in progress of groups that are to be deleted, many concurrently."""
        await gather_in_batches(keys, self.before_deletion, _ENDED_AT_ONCE)

    async def delete(self, key: Key) -> ErrorCode:
        """DeleteGroups, one group, after `await_deletion`."""
        return await self._delete(key, lambda group, waiter, _: self._rules.delete(group, waiter))

    async def remove(self, key: Key) -> None:
        """Delete a group of a virtual cluster that is being deleted, even if it has members."""
        await self._delete(key, lambda group, waiter, _: self._rules.remove(group, waiter))

    async def _delete(self, key: Key, rule: Callable[[AnyGroup | None, Waiter, int], GroupDecision]) -> ErrorCode:
        error = ErrorCode.NONE

        async def delete() -> bool:
            nonlocal error
            error = await self._runtime.submit(key, rule, ErrorCode)
            return error is ErrorCode.NONE

        await self._deletions.run(self.delete_with(key, delete))
        return error

    # --- Expiry ---

    async def expire_offsets(self) -> int:
        """Delete offsets past their retention, and groups with the last of them; returns the number of offsets.

        Called by a chore every ten minutes or so (`offsets.retention.check.interval.ms`). It reads groups that may have
        expired offsets page by page, and writes only if they have.
        """
        dropped, after = 0, (-1, "")
        while True:
            keys = await self._page_with_old_offsets(after)
            for key in keys:
                dropped += await self._expire_group(key)
            if len(keys) < _SWEEP_PAGE:
                return dropped
            after = keys[-1]

    async def _page_with_old_offsets(self, after: Key) -> list[Key]:
        now_ms = self._clock.now_ms()
        before_ms = now_ms - self.settings.offsets_retention_ms
        await self._catch_up()
        return await self._database.read(
            lambda: store.with_old_offsets(after, empty_before_ms=before_ms, now_ms=now_ms, limit=_SWEEP_PAGE)
        )

    async def _expire_group(self, key: Key) -> int:
        _, revision = await self._runtime.peek(key)
        await self._catch_up()
        offsets, pending = await self._database.read(lambda: store.offsets_and_pending(key))
        names = self._names(key[0], offsets)
        unknown = {topic_id for topic_id, _ in offsets} - names.keys()
        if unknown:  # They were deleted, or another agent created them.
            names |= await self._database.read(lambda: store.topic_names(key[0], unknown))

        stored = StoredOffsets(offsets=offsets, pending=pending, topic_names=names)

        def decide(group: AnyGroup | None, waiter: Waiter, now_ms: int) -> GroupDecision:
            return self._rules.expire_offsets(key, group, stored, waiter, now_ms)

        try:
            # The revision guarantees that no offset was committed since they were read.
            return await self._runtime.submit(key, decide, int, if_revision=revision)
        except Conflict:
            return 0  # The group is in use: the next check will do it.

    def _names(self, cluster_id: int, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> dict[bytes, str]:
        names = {topic_id: self._topics.topic_name(cluster_id, topic_id) for topic_id, _ in offsets}
        return {topic_id: name for topic_id, name in names.items() if name is not None}
