"""Consumer groups over the Kafka protocol: who is in them, what they committed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

from penstock.base.dataclasses import dataclass
from penstock.cli.kafka import share_groups, streams_groups
from penstock.cli.kafka.client import Client, TopicPartition, by_topic
from penstock.cli.kafka.connection import Connection
from penstock.cli.kafka.coordinators import group_coordinator
from penstock.cli.kafka.failures import BrokerError, check
from penstock.wire.api_keys import ApiKey
from penstock.wire.codec import Malformed
from penstock.wire.consumer_protocol import read_assignment
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.consumer_group_describe import ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse
from penstock.wire.messages.delete_groups import DeleteGroupsRequest, DeleteGroupsResponse
from penstock.wire.messages.describe_groups import (
    DescribedGroup,
    DescribedGroupMember,
    DescribeGroupsRequest,
    DescribeGroupsResponse,
)
from penstock.wire.messages.list_groups import ListGroupsRequest, ListGroupsResponse
from penstock.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
    OffsetCommitResponse,
)
from penstock.wire.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchResponse,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedGroup:
    """One line of the list of groups."""

    group_id: str
    state: str
    protocol_type: str
    kind: str
    coordinator: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A member and what it was given."""

    member_id: str
    instance_id: str | None
    client_id: str
    host: str
    assignment: tuple[TopicPartition, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A group and its members."""

    group_id: str
    state: str
    kind: str
    """classic, consumer, share or streams."""
    protocol_type: str
    protocol: str
    coordinator: int
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """What a group committed for one partition."""

    offset: int
    metadata: str | None
    lag: int | None = None
    """What the broker says is left; of share groups only, which are done with records in any order."""


def list_groups(client: Client) -> list[ListedGroup]:
    """Groups of every coordinator, by name."""
    return client.retry(lambda: _list_groups(client))


def _list_groups(client: Client) -> list[ListedGroup]:
    found: dict[str, ListedGroup] = {}
    for node_id in client.metadata([]).brokers:
        response = client.node(node_id).call(ApiKey.LIST_GROUPS, ListGroupsRequest(), ListGroupsResponse)
        check(response.error_code, f"groups of broker {node_id}")
        for group in response.groups:
            found[group.group_id] = ListedGroup(
                group_id=group.group_id,
                state=group.group_state,
                protocol_type=group.protocol_type,
                kind=group.group_type.lower() or "classic",
                coordinator=node_id,
            )
    return [found[name] for name in sorted(found)]


def describe_group(client: Client, group_id: str) -> Group:
    """A group, of the classic or the newer protocol."""
    return client.retry(lambda: _describe_group(client, group_id))


def _describe_group(client: Client, group_id: str) -> Group:
    node_id, connection = group_coordinator(client, group_id)
    request = DescribeGroupsRequest(groups=[group_id])
    described = connection.call(ApiKey.DESCRIBE_GROUPS, request, DescribeGroupsResponse).groups[0]
    # Version 5 and older say "Dead" for a group that is not there; newer ones say it with an error, which they also
    # use for a group of the newer protocol.
    if described.error_code == ErrorCode.GROUP_ID_NOT_FOUND or described.group_state == "Dead":
        newer = (
            _describe_newer(connection, node_id, group_id)
            or _describe_share(connection, node_id, group_id)
            or _describe_streams(client, connection, node_id, group_id)
        )
        if newer is None:
            raise BrokerError(ErrorCode.GROUP_ID_NOT_FOUND, f"group {group_id!r}")
        return newer
    check(described.error_code, f"group {group_id!r}", described.error_message)
    return _classic(described, node_id)


def _classic(described: DescribedGroup, node_id: int) -> Group:
    return Group(
        group_id=described.group_id,
        state=described.group_state,
        kind="classic",
        protocol_type=described.protocol_type,
        protocol=described.protocol_data,
        coordinator=node_id,
        members=tuple(_classic_member(member, described.protocol_type) for member in described.members),
    )


def _classic_member(member: DescribedGroupMember, protocol_type: str) -> Member:
    assigned = _assigned(member.member_assignment) if protocol_type == "consumer" else ()
    return Member(
        member_id=member.member_id,
        instance_id=member.group_instance_id,
        client_id=member.client_id,
        host=member.client_host.removeprefix("/"),
        assignment=assigned,
    )


def _assigned(blob: bytes) -> tuple[TopicPartition, ...]:
    """Partitions in a consumer's assignment; none if the group uses a format of its own."""
    if not blob:
        return ()
    try:
        topics = read_assignment(blob).assigned_partitions
    except Malformed:
        return ()
    return tuple(sorted(TopicPartition(topic.topic, partition) for topic in topics for partition in topic.partitions))


def _describe_newer(connection: Connection, node_id: int, group_id: str) -> Group | None:
    if not connection.offers(ApiKey.CONSUMER_GROUP_DESCRIBE):
        return None
    request = ConsumerGroupDescribeRequest(group_ids=[group_id])
    response = connection.call(ApiKey.CONSUMER_GROUP_DESCRIBE, request, ConsumerGroupDescribeResponse)
    described = response.groups[0]
    if described.error_code == ErrorCode.GROUP_ID_NOT_FOUND:
        return None
    check(described.error_code, f"group {group_id!r}", described.error_message)
    members = tuple(
        Member(
            member_id=member.member_id,
            instance_id=member.instance_id,
            client_id=member.client_id,
            host=member.client_host.removeprefix("/"),
            assignment=tuple(
                TopicPartition(topic.topic_name, partition)
                for topic in member.assignment.topic_partitions
                for partition in topic.partitions
            ),
        )
        for member in described.members
    )
    return Group(
        group_id=group_id,
        state=described.group_state,
        kind="consumer",
        protocol_type="consumer",
        protocol=described.assignor_name,
        coordinator=node_id,
        members=members,
    )


def _describe_share(connection: Connection, node_id: int, group_id: str) -> Group | None:
    described = share_groups.describe_share_group(connection, group_id)
    if described is None:
        return None
    members = tuple(
        Member(
            member_id=member.member_id,
            instance_id=None,
            client_id=member.client_id,
            host=member.client_host.removeprefix("/"),
            assignment=share_groups.assignment_of(described, member.member_id),
        )
        for member in described.members
    )
    return Group(
        group_id=group_id,
        state=described.group_state,
        kind="share",
        protocol_type=share_groups.SHARE,
        protocol=described.assignor_name,
        coordinator=node_id,
        members=members,
    )


def _describe_streams(client: Client, connection: Connection, node_id: int, group_id: str) -> Group | None:
    described = streams_groups.describe_streams_group(connection, group_id)
    if described is None:
        return None
    assignments = streams_groups.assignments_of(client, described)
    members = tuple(
        Member(
            member_id=member.member_id,
            instance_id=member.instance_id,
            client_id=member.client_id,
            host=member.client_host.removeprefix("/"),
            assignment=assignments[member.member_id],
        )
        for member in described.members
    )
    return Group(
        group_id=group_id,
        state=described.group_state,
        kind="streams",
        protocol_type=streams_groups.STREAMS,
        protocol=described.assignor_name or "",
        coordinator=node_id,
        members=members,
    )


def positions(client: Client, group: Group) -> dict[TopicPartition, Committed]:
    """How far a group of any kind is: what it committed, or where a share group begins."""
    if group.protocol_type != share_groups.SHARE:
        return committed_offsets(client, group.group_id)

    def ask() -> dict[TopicPartition, Committed]:
        _, connection = group_coordinator(client, group.group_id)
        found = share_groups.share_positions(connection, group.group_id)
        return {where: Committed(offset=one.start, metadata=None, lag=one.lag) for where, one in found.items()}

    return client.retry(ask)


def committed_offsets(client: Client, group_id: str) -> dict[TopicPartition, Committed]:
    """Everything a group committed."""
    return client.retry(lambda: _committed_offsets(client, group_id))


def _committed_offsets(client: Client, group_id: str) -> dict[TopicPartition, Committed]:
    _, connection = group_coordinator(client, group_id)
    request = OffsetFetchRequest(
        group_id=group_id, topics=None, groups=[OffsetFetchRequestGroup(group_id=group_id, topics=None)]
    )
    response = connection.call(ApiKey.OFFSET_FETCH, request, OffsetFetchResponse)
    answer = response.groups[0] if response.groups else response
    check(answer.error_code, f"group {group_id!r}")
    found: dict[TopicPartition, Committed] = {}
    for topic in answer.topics:
        for partition in topic.partitions:
            where = TopicPartition(topic.name, partition.partition_index)
            check(partition.error_code, f"group {group_id!r}, {where}")
            if partition.committed_offset >= 0:
                found[where] = Committed(offset=partition.committed_offset, metadata=partition.metadata or None)
    return dict(sorted(found.items()))


def commit_offsets(
    client: Client, group_id: str, offsets: Mapping[TopicPartition, int], *, member_id: str = "", epoch: int = -1
) -> None:
    """Commit for a group without members, or as one of them."""
    topics = [
        OffsetCommitRequestTopic(
            name=topic,
            partitions=[
                OffsetCommitRequestPartition(partition_index=where.partition, committed_offset=offsets[where])
                for where in wanted
            ],
        )
        for topic, wanted in by_topic(offsets).items()
    ]
    request = OffsetCommitRequest(
        group_id=group_id, topics=topics, member_id=member_id, generation_id_or_member_epoch=epoch
    )  # fmt: skip

    def attempt() -> None:
        _, connection = group_coordinator(client, group_id)
        response = connection.call(ApiKey.OFFSET_COMMIT, request, OffsetCommitResponse)
        for topic in response.topics:
            for partition in topic.partitions:
                # An unknown member is what a broker says when somebody joined since we looked.
                check(partition.error_code, f"group {group_id!r}, {topic.name}[{partition.partition_index}]")

    client.retry(attempt)


def delete_groups(client: Client, group_ids: Iterable[str]) -> None:
    """Remove groups with everything they committed."""
    for group_id in group_ids:
        client.retry(partial(_delete_group, client, group_id))


def _delete_group(client: Client, group_id: str) -> None:
    _, connection = group_coordinator(client, group_id)
    request = DeleteGroupsRequest(groups_names=[group_id])
    result = connection.call(ApiKey.DELETE_GROUPS, request, DeleteGroupsResponse).results[0]
    check(result.error_code, f"group {group_id!r}", result.error_message)
