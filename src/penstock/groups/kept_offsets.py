"""Expiry and deletion of offsets of groups with server-side assignment. Pure: no await, no clock, no I/O."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from penstock.coordination.model import Reply, Waiter
from penstock.groups.model import (
    AnyGroup,
    Decision,
    DeleteOffsets,
    DeleteOffsetsResult,
    GroupDeleted,
    Offset,
    OffsetsDeleted,
    Record,
    TopicPartition,
)
from penstock.groups.terms import Terms


class Subscribing(AnyGroup, Protocol):
    """A group whose subscriptions are known."""

    def is_subscribed(self, topic: str) -> bool:
        """Whether any member subscribes to a topic."""


def delete_offsets(group: Subscribing, request: DeleteOffsets, waiter: Waiter) -> Decision:
    """Delete offsets of topics that no member subscribes to."""
    subscribed = frozenset(topic for topic in request.topics if group.is_subscribed(topic))
    partitions = tuple(p for topic, ps in request.topics.items() if topic not in subscribed for p in ps)
    records: tuple[Record, ...] = (OffsetsDeleted(partitions),) if partitions else ()
    return Decision(state=group, records=records, replies=(Reply(waiter, DeleteOffsetsResult(subscribed=subscribed)),))


def expire_offsets(
    group: Subscribing,
    offsets: Mapping[TopicPartition, Offset],
    topic_names: Mapping[bytes, str],
    waiter: Waiter,
    terms: Terms,
    pending: Collection[TopicPartition] = (),
) -> Decision:
    """Delete expired offsets, and an empty group with its last offset.

    The retention counts from the commit, for topics that no member subscribes to. An empty group without offsets
    expires at once. Partitions with an offset pending in an open transaction keep their committed one, and the group.
    """
    retention_ms = terms.settings.offsets_retention_ms
    expired_ = tuple(
        partition
        for partition, offset in offsets.items()
        if partition not in pending
        and (
            (name := topic_names.get(partition[0])) is None
            or (not group.is_subscribed(name) and terms.now_ms >= _expires_ms(offset, retention_ms))
        )
    )
    replies = (Reply(waiter, len(expired_)),)
    if len(expired_) == len(offsets) and not pending and group.empty_since_ms is not None:
        return Decision(state=None, records=(GroupDeleted(),), replies=replies)
    records: tuple[Record, ...] = (OffsetsDeleted(expired_),) if expired_ else ()
    return Decision(state=group, records=records, replies=replies)


def _expires_ms(offset: Offset, retention_ms: int) -> int:
    return offset.committed_ms + retention_ms if offset.expires_ms is None else offset.expires_ms
