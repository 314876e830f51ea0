"""Expiry and deletion of offsets of groups with server-side assignment. Pure: no await, no clock, no I/O."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from penstock.coordination.model import Reply, Waiter
from penstock.groups.model import (
    AnyGroup,
    DeleteOffsets,
    DeleteOffsetsResult,
    GroupDecision,
    GroupDeleted,
    OffsetAndMetadata,
    OffsetsDeleted,
    Record,
    TopicPartition,
)
from penstock.groups.rule_context import RuleContext


class SubscribedGroup(AnyGroup, Protocol):
    """A group whose subscriptions are known."""

    def is_subscribed(self, topic: str) -> bool:
        """Whether any member subscribes to a topic."""


def delete_offsets(group: SubscribedGroup, request: DeleteOffsets, waiter: Waiter) -> GroupDecision:
    """Delete offsets of topics that no member subscribes to."""
    subscribed = frozenset(topic for topic in request.topics if group.is_subscribed(topic))
    partitions = tuple(p for topic, ps in request.topics.items() if topic not in subscribed for p in ps)
    records: tuple[Record, ...] = (OffsetsDeleted(partitions),) if partitions else ()
    return GroupDecision(
        state=group, records=records, replies=(Reply(waiter, DeleteOffsetsResult(subscribed=subscribed)),)
    )


def expire_offsets(
    group: SubscribedGroup,
    offsets: Mapping[TopicPartition, OffsetAndMetadata],
    topic_names: Mapping[bytes, str],
    waiter: Waiter,
    context: RuleContext,
    pending: Collection[TopicPartition] = (),
) -> GroupDecision:
    """Delete expired offsets, and an empty group with its last offset.

    The retention counts from the commit, for topics that no member subscribes to. An empty group without offsets
    expires at once. Partitions with an offset pending in an open transaction keep their committed one, and the group.
    """
    retention_ms = context.settings.offsets_retention_ms
    expired = tuple(
        partition
        for partition, offset in offsets.items()
        if partition not in pending
        and (
            (name := topic_names.get(partition[0])) is None
            or (not group.is_subscribed(name) and context.now_ms >= _expires_ms(offset, retention_ms))
        )
    )
    replies = (Reply(waiter, len(expired)),)
    if len(expired) == len(offsets) and not pending and group.empty_since_ms is not None:
        return GroupDecision(state=None, records=(GroupDeleted(),), replies=replies)
    records: tuple[Record, ...] = (OffsetsDeleted(expired),) if expired else ()
    return GroupDecision(state=group, records=records, replies=replies)


def _expires_ms(offset: OffsetAndMetadata, retention_ms: int) -> int:
    return offset.committed_ms + retention_ms if offset.expires_ms is None else offset.expires_ms
