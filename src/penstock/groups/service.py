"""Groups as a service: each operation hands a rule to the coordination runner and waits for its answer.

All the rules are behind `rules`, all the SQL in `store`. What is added here: ids for new members, reading
offsets from the database, listing, and the sweep of offsets that nobody needs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from penstock.base.clock import Clock
from penstock.base.dataclasses import dataclass
from penstock.base.errors import Conflict, PlatformError
from penstock.base.later import later
from penstock.base.portions import MADE_AT_ONCE, breathe, in_order, together
from penstock.base.randomness import Randomness, new_uuid, uuid_text
from penstock.base.undivided import Undivided
from penstock.coordination.leases import Database, Holder
from penstock.coordination.model import Key, Waiter
from penstock.coordination.runner import Runner
from penstock.coordination.timers import Alarms
from penstock.groups import store
from penstock.groups.consumer import model as consumer
from penstock.groups.model import (
    AnyGroup,
    CommitOffsets,
    Decision,
    DeleteOffsets,
    DeleteOffsetsResult,
    Group,
    GroupState,
    Heartbeat,
    Join,
    JoinResult,
    Leaver,
    LeaveResult,
    Offset,
    Record,
    Sync,
    SyncResult,
    TopicPartition,
)
from penstock.groups.rules import GroupRules
from penstock.groups.settings import GroupSettings, LiveGroupSettings
from penstock.groups.terms import Terms
from penstock.log.refusals import Refused
from penstock.log.settings import LiveSettings
from penstock.wire.error_codes import ErrorCode

if TYPE_CHECKING:
    from penstock.groups.consumer import regexes, transitions
else:
    regexes = later("penstock.groups.consumer.regexes")
    transitions = later("penstock.groups.consumer.transitions")

T = TypeVar("T")
G = TypeVar("G", bound=AnyGroup)

_logger = logging.getLogger(__name__)

MAX_PREFIX_CHARS = 255
"""Of a client's id in a member's."""
_SWEEP_PAGE = 100
_ENDED_AT_ONCE = 100
"""Groups that are to be deleted and are waited for at the same time."""


class Topics(Protocol):
    """What groups need to know of topics."""

    def topic_id(self, cluster_id: int, name: str) -> bytes | None:
        """The id of the topic of that name, or None."""

    def topic_name(self, cluster_id: int, topic_id: bytes) -> str | None:
        """The name of the topic with that id, or None."""

    def partition_count(self, cluster_id: int, topic_id: bytes) -> int | None:
        """How many partitions the topic with that id has, or None when there is no such topic."""


class KnownTopics(Topics, Protocol):
    """The same, and their names."""

    def names(self, cluster_id: int) -> Sequence[str]:
        """The names of all topics."""


class GroupConfigs(Protocol):
    """Configuration of single groups."""

    def group_overrides(self, cluster_id: int, group_id: str) -> Mapping[str, str]:
        """What was set for a group."""


class NoConfigs:
    """No group has configuration of its own."""

    def group_overrides(self, cluster_id: int, group_id: str) -> Mapping[str, str]:
        """Nothing."""
        return {}


@dataclass(frozen=True, slots=True)
class ClusterTopics:
    """The topics of one virtual cluster."""

    topics: Topics
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


async def _nothing(key: Key) -> None:
    """What happens when nobody wants to know."""


async def _alone(key: Key, delete: Callable[[], Awaitable[bool]]) -> None:
    """How a group is deleted of which nobody else keeps anything."""
    await delete()


async def _at_once() -> None:
    """The database knows everything as soon as anybody does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedGroup:
    """A group in a list."""

    group_id: str
    kind: str
    protocol_type: str
    state: str


class GroupService:
    """The group coordinator of this process."""

    def __init__(
        self,
        *,
        database: Database,
        topics: KnownTopics,
        settings: GroupSettings,
        configs: GroupConfigs | None = None,
        holder: Holder,
        clock: Clock,
        alarms: Alarms,
        randomness: Randomness,
        passage: store.Passage | None = None,
        catch_up: Callable[[], Awaitable[None]] = _at_once,
        live: LiveSettings | None = None,
    ) -> None:
        self._database, self._topics, self.settings = database, topics, settings
        self.settings_of = LiveGroupSettings(live or LiveSettings(), settings).of
        """What groups of a virtual cluster go by now."""
        self._clock, self._randomness = clock, randomness
        self._catch_up = catch_up
        """Returns when the database has what became of offsets of transactions until now."""
        journal = store.GroupJournal(database, holder=holder, clock=clock, alarms=alarms, passage=passage)
        self._configs = configs or NoConfigs()
        self._topic_versions: dict[int, int] = {}
        self._resolving: dict[Key, asyncio.Task[None]] = {}
        self._rules = GroupRules(self.terms)
        self.limit: Callable[[int], float | None] = lambda cluster_id: None
        """How many groups a virtual cluster may have; None: any number."""
        self.before_deletion: Callable[[Key], Awaitable[None]] = _nothing
        """Called before somebody's request deletes a group, which waits for it."""
        self.delete_with: Callable[[Key, Callable[[], Awaitable[bool]]], Coroutine[Any, Any, None]] = _alone
        """Has a group deleted, and knows nothing of it any more if it was. Nothing of it is written meanwhile."""
        self._deletions = Undivided()
        self._counts: dict[int, int] = {}
        """How many groups each virtual cluster has."""
        self._journal = journal
        self._runner: Runner[AnyGroup, Record] = Runner(
            journal=journal, rules=self._rules, clock=clock, alarms=alarms, outlives=self._rules.is_stored,
            on_presence=self._count,
        )  # fmt: skip

    async def open(self) -> None:
        """Take over the slots and resume groups with members. Until then every request raises `Loading`."""
        await self._runner.open()
        for cluster_id, count in self._journal.counts.items():
            self._counts[cluster_id] = self.count(cluster_id) + count

    async def close(self) -> None:
        """Finish what was accepted and let everybody go who waits."""
        for task in list(self._resolving.values()):
            task.cancel()
        await asyncio.gather(*self._resolving.values(), return_exceptions=True)
        await self._deletions.close()
        await self._runner.close()

    def terms(self, key: Key, now_ms: int) -> Terms:
        """What rules go by for a group, at a time."""
        cluster_id, group_id = key
        overrides = self._configs.group_overrides(cluster_id, group_id)
        settings = self.settings_of(cluster_id)
        return Terms(
            now_ms=now_ms,
            topics=ClusterTopics(self._topics, cluster_id, self._topic_versions.get(cluster_id, 1)),
            settings=settings,
            consumer=settings.consumer.of_group(overrides),
            streams=settings.streams.of_group(overrides),
        )

    def topics_changed(self, cluster_id: int) -> None:
        """A topic came, grew or went: groups find out with their next heartbeats."""
        self._topic_versions[cluster_id] = self._topic_versions.get(cluster_id, 1) + 1

    def now_ms(self) -> int:
        """The time that commits are stamped with."""
        return self._clock.now_ms()

    def new_member_id(self, prefix: str | None = None) -> str:
        """An id for a member that has none: a UUID, for a classic one with its client id or instance id in front."""
        if prefix is None:
            return uuid_text(new_uuid(self._randomness))
        text = new_uuid(self._randomness).hex()
        return f"{prefix[:MAX_PREFIX_CHARS]}-{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    async def apply(self, key: Key, rule: Callable[[AnyGroup | None, Waiter, int], Decision], answer: type[T]) -> T:
        """Apply a rule that only one kind of group has."""
        return await self._runner.submit(key, rule, answer)

    # --- Members ---

    async def make_room(self, key: Key) -> None:
        """Raise `Refused` if there is no such group, and its virtual cluster may not have another one."""
        limit = self.limit(key[0])
        if limit is None or self.count(key[0]) < limit:
            return
        in_memory, group = self._runner.latest(key)
        if group is None and (in_memory or not await self._database.read(lambda: store.has_group(key))):
            raise Refused(ErrorCode.POLICY_VIOLATION, f"This cluster may have {limit:.0f} groups, and has them.")

    def count(self, cluster_id: int) -> int:
        """How many groups a virtual cluster has, as many as `list_groups` would list."""
        return self._counts.get(cluster_id, 0)

    def _count(self, key: Key, is_there: bool) -> None:
        count = self.count(key[0]) + (1 if is_there else -1)
        if count:
            self._counts[key[0]] = count
        else:
            self._counts.pop(key[0], None)

    async def join(self, key: Key, request: Join) -> JoinResult:
        """JoinGroup; returns when the rebalance completes."""
        await self.make_room(key)
        return await self._runner.submit(
            key, lambda group, waiter, now_ms: self._rules.join(key, group, request, waiter, now_ms), JoinResult
        )

    async def sync(self, key: Key, request: Sync) -> SyncResult:
        """SyncGroup; returns when the leader has assigned."""
        return await self._runner.submit(
            key, lambda group, waiter, now_ms: self._rules.sync(key, group, request, waiter, now_ms), SyncResult
        )

    async def heartbeat(self, key: Key, request: Heartbeat) -> ErrorCode:
        """Heartbeat."""
        return await self._runner.submit(
            key, lambda group, waiter, now_ms: self._rules.heartbeat(key, group, request, waiter, now_ms), ErrorCode
        )

    async def leave(self, key: Key, leavers: Sequence[Leaver]) -> LeaveResult:
        """LeaveGroup."""
        return await self._runner.submit(
            key, lambda group, waiter, now_ms: self._rules.leave(key, group, leavers, waiter, now_ms), LeaveResult
        )

    # --- Members of consumer groups ---

    async def consumer_heartbeat(
        self, key: Key, request: consumer.Heartbeat, may_see: Callable[[str], bool]
    ) -> consumer.HeartbeatResult:
        """ConsumerGroupHeartbeat; `may_see` tells which topics the member may find. Raises `Refused`."""
        rule = (
            transitions.leave
            if request.epoch in (consumer.LEAVES, consumer.LEAVES_FOR_A_WHILE)
            else transitions.heartbeat
        )
        if request.epoch == 0:
            await self.make_room(key)
        result = await self._runner.submit(
            key,
            lambda group, waiter, now_ms: rule(group, request, waiter, self.terms(key, now_ms)),
            consumer.HeartbeatResult,
        )
        if result.resolve and key not in self._resolving:
            task = asyncio.get_running_loop().create_task(self._resolve(key, result.resolve, may_see))
            self._resolving[key] = task
            task.add_done_callback(lambda _: self._resolving.pop(key, None))
        return result

    async def _resolve(self, key: Key, patterns: frozenset[str], may_see: Callable[[str], bool]) -> None:
        """Look up regular expressions, a few names at a time, and tell the group."""
        cluster_id = key[0]
        version = self._topic_versions.get(cluster_id, 1)
        names = self._topics.names(cluster_id)
        topics: dict[str, frozenset[str]] = {}
        for pattern in sorted(patterns):
            topics[pattern] = frozenset([name async for name in regexes.matching(pattern, names) if may_see(name)])
        try:
            await self._runner.submit(
                key,
                lambda group, waiter, now_ms: transitions.resolved(
                    group, topics, version, waiter, self.terms(key, now_ms)
                ),
                bool,
            )
        except PlatformError as error:
            # The next heartbeats ask again.
            _logger.warning("the regular expressions of group %s are not updated: %s", key[1], error)

    # --- Offsets ---

    async def may_fetch(self, key: Key, member_id: str | None, epoch: int) -> ErrorCode:
        """OffsetFetch: whether a member that names itself may be told offsets."""
        return await self._runner.submit(
            key, lambda group, waiter, _: self._rules.fetch_error(group, member_id, epoch, waiter), ErrorCode
        )

    async def commit_offsets(self, key: Key, request: CommitOffsets) -> ErrorCode:
        """OffsetCommit."""
        await self.make_room(key)
        return await self._runner.submit(
            key,
            lambda group, waiter, now_ms: self._rules.commit_offsets(key, group, request, waiter, now_ms),
            ErrorCode,
        )

    async def offsets(self, key: Key) -> dict[TopicPartition, Offset]:
        """All committed offsets of a group; of an unknown group: none. Sees every commit decided before."""
        await self._runner.settled(key)
        await self._catch_up()
        return await self._database.read(lambda: store.offsets_of(key))

    async def stable_offsets(self, key: Key) -> tuple[dict[TopicPartition, Offset], frozenset[TopicPartition]]:
        """The same, and for which partitions a transaction that has not ended may change that."""
        await self._runner.settled(key)
        await self._catch_up()
        return await self._database.read(lambda: store.offsets_and_pending(key))

    async def delete_offsets(self, key: Key, request: DeleteOffsets) -> DeleteOffsetsResult:
        """OffsetDelete."""
        return await self._runner.submit(
            key, lambda group, waiter, _: self._rules.delete_offsets(group, request, waiter), DeleteOffsetsResult
        )

    async def forget_topic(self, cluster_id: int, topic_id: bytes) -> None:
        """A topic was deleted: so are the offsets in it."""
        await self._database.transaction(lambda: store.forget_topic(cluster_id, topic_id))

    # --- Administration ---

    async def find(self, key: Key) -> AnyGroup | None:
        """A group as it is now."""
        group, _ = await self._runner.peek(key)
        return group

    async def described(self, key: Key, kind: type[G]) -> G:
        """A group of that kind as it is now. Raises `Refused`, in Kafka's words, if there is none of that id."""
        group_id = key[1]
        if not group_id and kind is not Group:  # Only a classic group may be called nothing.
            raise Refused(ErrorCode.INVALID_GROUP_ID, "")
        group = await self.find(key)
        if isinstance(group, kind):
            return group
        reason = "not found" if group is None else f"is not a {kind.kind} group"
        raise Refused(ErrorCode.GROUP_ID_NOT_FOUND, f"Group {group_id} {reason}.")

    def in_memory(self) -> list[tuple[Key, AnyGroup | None]]:
        """Every group in memory, as in force now: all that have members are."""
        return list(self._runner.states())

    async def list_groups(self, cluster_id: int) -> list[ListedGroup]:
        """Every group of a virtual cluster, by id."""
        self._runner.require_open()
        listed: dict[str, ListedGroup] = {}
        for number, stored in enumerate(await self._database.read(lambda: store.list_groups(cluster_id))):
            await breathe(number, MADE_AT_ONCE)
            listed[stored.group_id] = ListedGroup(
                group_id=stored.group_id,
                kind=stored.kind,
                protocol_type=stored.protocol_type,
                state=(GroupState.STABLE if stored.has_members else GroupState.EMPTY).value,
            )
        for number, ((owner, group_id), group) in enumerate(self._runner.states()):
            await breathe(number, MADE_AT_ONCE)
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
        return await in_order(list(listed.values()), attrgetter("group_id"))

    async def await_deletion(self, keys: Iterable[Key]) -> None:
        """Let groups that are to be deleted come to an end with what they have begun, many at the same time."""
        await together(keys, self.before_deletion, _ENDED_AT_ONCE)

    async def delete(self, key: Key) -> ErrorCode:
        """DeleteGroups, one group, after `await_deletion`."""
        return await self._delete(key, lambda group, waiter, _: self._rules.delete(group, waiter))

    async def remove(self, key: Key) -> None:
        """Forget a group of a virtual cluster that is going, whoever is a member of it."""
        await self._delete(key, lambda group, waiter, _: self._rules.remove(group, waiter))

    async def _delete(self, key: Key, rule: Callable[[AnyGroup | None, Waiter, int], Decision]) -> ErrorCode:
        error = ErrorCode.NONE

        async def delete() -> bool:
            nonlocal error
            error = await self._runner.submit(key, rule, ErrorCode)
            return error is ErrorCode.NONE

        await self._deletions.run(self.delete_with(key, delete))
        return error

    # --- Expiry ---

    async def expire_offsets(self) -> int:
        """Drop offsets past their retention, and groups with the last of them; return how many offsets went.

        For a background loop to call every ten minutes or so (`offsets.retention.check.interval.ms`). Reads a page of
        groups that may have something to drop at a time, and writes only if they have.
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
        _, revision = await self._runner.peek(key)
        await self._catch_up()
        offsets, pending = await self._database.read(lambda: store.offsets_and_pending(key))
        names = self._names(key[0], offsets)
        unknown = {topic_id for topic_id, _ in offsets} - names.keys()
        if unknown:  # They are gone, or another agent has made them.
            names |= await self._database.read(lambda: store.topic_names(key[0], unknown))

        def decide(group: AnyGroup | None, waiter: Waiter, now_ms: int) -> Decision:
            return self._rules.expire_offsets(key, group, offsets, names, waiter, now_ms, pending)

        try:
            # The revision makes sure that no offset was committed since they were read.
            return await self._runner.submit(key, decide, int, if_revision=revision)
        except Conflict:
            return 0  # The group is in use: there is another time.

    def _names(self, cluster_id: int, offsets: Mapping[TopicPartition, Offset]) -> dict[bytes, str]:
        names = {topic_id: self._topics.topic_name(cluster_id, topic_id) for topic_id, _ in offsets}
        return {topic_id: name for topic_id, name in names.items() if name is not None}
