"""Share group membership: each operation submits a rule to the group coordinator and waits for its reply."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from penstock.base.config_values import ConfigResource
from penstock.base.lazy import lazy_import
from penstock.coordination.model import Key
from penstock.groups.member_epochs import JOIN_EPOCH
from penstock.groups.service import GroupService
from penstock.groups.share.model import ShareGroup, ShareGroupSettings, ShareHeartbeat, ShareHeartbeatResult
from penstock.log.refusals import Refused
from penstock.log.registry import Registry
from penstock.wire.error_codes import ErrorCode

if TYPE_CHECKING:
    from penstock.groups.share import membership
else:
    membership = lazy_import("penstock.groups.share.membership")


class ConfigOverrides(Protocol):
    """The configuration of groups."""

    def overrides(self, cluster_id: int, kind: ConfigResource, name: str) -> Mapping[str, str]:
        """The overrides of a resource."""


class ShareGroups:
    """The share groups among the groups of this process."""

    def __init__(self, groups: GroupService, registry: Registry, configs: ConfigOverrides) -> None:
        self._groups, self._registry, self._configs = groups, registry, configs

    async def heartbeat(self, key: Key, request: ShareHeartbeat) -> ShareHeartbeatResult:
        """ShareGroupHeartbeat."""
        if request.epoch == JOIN_EPOCH:
            await self._groups.check_group_limit(key)
        settings, topics = self.settings_of(key), self._topics(key[0])
        return await self._groups.submit(
            key,
            lambda group, waiter, now_ms: membership.heartbeat(group, request, topics, settings, waiter, now_ms),
            ShareHeartbeatResult,
        )

    async def find(self, key: Key) -> ShareGroup | None:
        """A share group in its current state."""
        group = await self._groups.find(key)
        return group if isinstance(group, ShareGroup) else None

    async def described(self, key: Key) -> ShareGroup:
        """The same. Raises `Refused` if there is none."""
        return await self._groups.described(key, ShareGroup)

    async def first_offset(self, key: Key, topic_id: bytes, index: int) -> int | None:
        """Where a group begins in a partition that it has not read yet; None: by its reset policy.

        Raises `Refused`, with Kafka's code, when no member of the group subscribes to the topic.
        """
        group = await self.find(key)
        known = None if group is None else group.topics.get(topic_id)
        if known is None:
            message = "The partition is not one that the share group reads."
            raise Refused(ErrorCode.UNKNOWN_SERVER_ERROR, message)
        return None if index < known.first_count else 0

    async def require_empty(self, key: Key, topics: Mapping[bytes, int]) -> None:
        """Ensure that a share group is empty and knows topics, so that its offsets in these may be set."""
        await self._groups.check_group_limit(key)
        _raise(
            await self._groups.submit(
                key,
                lambda group, waiter, now_ms: membership.require_empty(group, topics, waiter, now_ms),
                ShareHeartbeatResult,
            )
        )

    async def forget_topics(self, key: Key, topic_ids: Iterable[bytes], *, must_be_empty: bool = True) -> None:
        """Remove topics from a group's state."""
        wanted = frozenset(topic_ids)
        _raise(
            await self._groups.submit(
                key,
                lambda group, waiter, _: membership.forget_topics(group, wanted, waiter, must_be_empty=must_be_empty),
                ShareHeartbeatResult,
            )
        )

    async def forget_topic(self, cluster_id: int, topic_id: bytes) -> None:
        """A topic was deleted: update groups that read it."""
        for key, group in self._groups.in_memory():
            if key[0] == cluster_id and isinstance(group, ShareGroup) and topic_id in group.topics:
                await self.forget_topics(key, (topic_id,), must_be_empty=False)

    def settings_of(self, key: Key) -> ShareGroupSettings:
        """The membership settings of a group."""
        overrides = self._configs.overrides(key[0], ConfigResource.GROUP, key[1])
        return self._groups.settings_of(key[0]).share.of_group(overrides)

    def _topics(self, cluster_id: int) -> membership.TopicCounts:
        def find(name: str) -> tuple[bytes, int] | None:
            topic = self._registry.by_name(cluster_id, name)
            return None if topic is None else (topic.topic_id, len(topic.partitions))

        return find


def _raise(result: ShareHeartbeatResult) -> None:
    if result.error is not ErrorCode.NONE:
        raise Refused(result.error, result.message or result.error.name)
