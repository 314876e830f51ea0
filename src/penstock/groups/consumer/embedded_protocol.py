"""Subscriptions and assignments of classic members, converted to and from those of consumer groups.

Pure. The format is that of Kafka's embedded consumer protocol (`penstock.wire.consumer_protocol`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from struct import Struct

from penstock.base.dataclasses import dataclass
from penstock.groups.consumer.model import ClassicMemberMetadata
from penstock.groups.partitions import Partitions
from penstock.groups.rule_context import TopicView
from penstock.wire.consumer_protocol import encode_assignment, read_assignment, read_subscription
from penstock.wire.messages.consumer_protocol import (
    ConsumerProtocolAssignment,
    ConsumerProtocolAssignmentTopicPartition,
    ConsumerProtocolSubscriptionTopicPartition,
)

_VERSION = Struct(">h")
_NEWEST_ASSIGNMENT = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassicSubscription:
    """What a classic member wants, and has."""

    topics: frozenset[str]
    rack_id: str | None
    owned: Partitions


def parse_subscription(metadata: bytes, topics: TopicView) -> ClassicSubscription:
    """Parse a subscription. Raises `Malformed`."""
    read = read_subscription(metadata)
    return ClassicSubscription(
        topics=frozenset(read.topics), rack_id=read.rack_id or None, owned=_partitions(read.owned_partitions, topics)
    )


def parse_assignment(assignment: bytes, topics: TopicView) -> Partitions:
    """Parse an assignment; deleted topics are left out. Raises `Malformed`."""
    if not assignment:
        return {}
    return _partitions(read_assignment(assignment).assigned_partitions, topics)


def has_user_data(assignment: bytes) -> bool:
    """Whether a client-side assignor has put user data into an assignment, which an upgrade would lose."""
    return bool(assignment) and bool(read_assignment(assignment).user_data)


def encoded_assignment(
    partitions: Mapping[bytes, Iterable[int]], classic: ClassicMemberMetadata, topics: TopicView
) -> bytes:
    """The assignment of a classic member, in the version that it uses.

    An upgrade validates only the group's selected protocol. For another one without a valid version it is the oldest.
    """
    metadata = classic.protocols[0][1]
    (version,) = _VERSION.unpack_from(metadata) if len(metadata) >= _VERSION.size else (0,)
    named = [
        ConsumerProtocolAssignmentTopicPartition(topic=name, partitions=sorted(found))
        for topic_id, found in partitions.items()
        if (name := topics.topic_name(topic_id)) is not None
    ]
    assignment = ConsumerProtocolAssignment(assigned_partitions=named, user_data=None)
    return encode_assignment(assignment, max(0, min(version, _NEWEST_ASSIGNMENT)))


def _partitions(
    listed: Iterable[ConsumerProtocolAssignmentTopicPartition] | Iterable[ConsumerProtocolSubscriptionTopicPartition],
    topics: TopicView,
) -> Partitions:
    found: dict[bytes, set[int]] = {}
    for topic in listed:
        topic_id = topics.topic_id(topic.topic)
        if topic_id is not None and topic.partitions:
            found.setdefault(topic_id, set()).update(topic.partitions)
    return {topic_id: frozenset(partitions) for topic_id, partitions in found.items()}
