"""Blobs of the consumer protocol, from any client's version."""

from __future__ import annotations

import pytest

from penstock.wire.consumer_protocol import (
    SUBSCRIBED_MAX_ELEMENTS,
    encode_assignment,
    encode_subscription,
    read_assignment,
    read_subscription,
)
from penstock.wire.messages.consumer_protocol import (
    ConsumerProtocolAssignment,
    ConsumerProtocolAssignmentTopicPartition,
    ConsumerProtocolSubscription,
)
from penstock.wire.primitives import UNLIMITED, Malformed, room

SUBSCRIPTION = ConsumerProtocolSubscription(topics=["a", "b"], user_data=b"x")


@pytest.mark.parametrize("version", range(4))
def test_blobs_come_back(version: int) -> None:
    partitions = [ConsumerProtocolAssignmentTopicPartition(topic="a", partitions=[0, 2])]
    assignment = ConsumerProtocolAssignment(assigned_partitions=partitions)
    assert read_subscription(encode_subscription(SUBSCRIPTION, version)) == SUBSCRIPTION
    assert read_assignment(encode_assignment(assignment, version)) == assignment


def test_a_newer_version_is_read_as_far_as_it_is_known() -> None:
    blob = encode_subscription(SUBSCRIPTION, 3)
    assert read_subscription(b"\0\x09" + blob[2:] + b"more") == SUBSCRIPTION


def test_anything_else_is_malformed() -> None:
    blob = encode_subscription(SUBSCRIPTION, 3)
    for broken in (b"", b"\0", b"\xff\xff" + blob[2:], *(blob[:cut] for cut in range(2, len(blob)))):
        with pytest.raises(Malformed):
            read_subscription(broken)


def test_a_blob_has_only_so_many_elements() -> None:
    """Two bytes become an object of a hundred: what a member says may not be a hundred times what it sends."""
    names = ["t"] * (SUBSCRIBED_MAX_ELEMENTS + 1)
    with pytest.raises(Malformed):
        read_subscription(encode_subscription(ConsumerProtocolSubscription(topics=names), 0))
    most = encode_subscription(ConsumerProtocolSubscription(topics=names[1:]), 0)
    assert len(read_subscription(most).topics) == SUBSCRIBED_MAX_ELEMENTS
    assert room.left == UNLIMITED
