"""Kafka's APIs StreamsGroupHeartbeat and StreamsGroupDescribe: translation, no rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from penstock.authorization.authorizer import Authorizer, action
from penstock.base.acls import CLUSTER_NAME, Operation, ResourceType
from penstock.base.context import RequestContext
from penstock.base.cooperative import CHEAP_ITEMS_PER_TURN, TurnBudget, yield_if_due
from penstock.base.errors import PlatformError
from penstock.groups.configs import STREAMS_ASSIGNORS
from penstock.groups.describing import describe_within_budget, each_member, grant_all
from penstock.groups.failures import ASK_AGAIN, code_of, message_of
from penstock.groups.member_epochs import JOIN_EPOCH, LEAVE_EPOCH, STATIC_LEAVE_EPOCH
from penstock.groups.service import GroupService
from penstock.groups.streams import transitions
from penstock.groups.streams.internal_topics import InternalTopics
from penstock.groups.streams.model import (
    MAX_CONFIGS,
    MAX_COPARTITIONS,
    MAX_SUBTOPOLOGIES,
    MAX_TAGS,
    MAX_TOPICS,
    InternalTopic,
    StatusCode,
    StreamsGroup,
    StreamsHeartbeat,
    StreamsHeartbeatResult,
    StreamsMember,
    StreamsStatus,
    Subtopology,
    TaskOffsets,
    Topology,
    UserEndpoint,
)
from penstock.groups.streams.tasks import Task, TaskRanges, Tasks, by_subtopology
from penstock.log import topic_names
from penstock.log.refusals import Refused
from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import streams_group_describe as describe_wire
from penstock.wire.messages import streams_group_heartbeat as heartbeat_wire

_TAGS_SINCE = _LAG_SINCE = 1
"""The version of StreamsGroupHeartbeat from which there are MISSING_CLIENT_TAGS and a recovery lag."""
_DESCRIPTION_NOT_STORED = 1
"""Topology descriptions (KIP-1331) are not stored, so there never are any."""
_CREATE_TOPIC = action(Operation.CREATE, ResourceType.TOPIC)
_CREATE_ANY = action(Operation.CREATE, ResourceType.CLUSTER)
_SHOWN = 3


class StreamsGroupHandlers:
    """The APIs of streams groups. Every method takes the context and a request, and returns the response."""

    def __init__(self, groups: GroupService, topics: InternalTopics) -> None:
        self._groups, self._topics = groups, topics
        self.authorizer: Authorizer | None = None
        """Set where ACLs apply to the creation of topics."""

    async def heartbeat(
        self, context: RequestContext, request: heartbeat_wire.StreamsGroupHeartbeatRequest
    ) -> heartbeat_wire.StreamsGroupHeartbeatResponse:
        """StreamsGroupHeartbeat, key 88, v0-1. v1: recovery lag as a long, missing client tags, topology descriptions,
        which are never requested."""
        key = (context.cluster_id, request.group_id)
        try:
            _check(request)
            asked = await _asked(context, request)
            rule = transitions.leave if asked.epoch in (LEAVE_EPOCH, STATIC_LEAVE_EPOCH) else transitions.heartbeat
            if asked.epoch == JOIN_EPOCH:
                await self._groups.check_group_limit(key)
            result = await self._groups.submit(
                key,
                lambda group, waiter, now_ms: rule(group, asked, waiter, self._groups.rule_context(key, now_ms)),
                StreamsHeartbeatResult,
            )
            if result.missing:
                result = replace(result, statuses=await self._with_topics(context, result))
        except Refused as refused:
            return heartbeat_wire.StreamsGroupHeartbeatResponse(error_code=refused.code, error_message=refused.message)
        except PlatformError as error:
            return heartbeat_wire.StreamsGroupHeartbeatResponse(error_code=code_of(error))
        return _response(result, context.api_version)

    async def _with_topics(self, context: RequestContext, result: StreamsHeartbeatResult) -> tuple[StreamsStatus, ...]:
        """Create missing internal topics; returns the statuses, with the reasons why some could not be created."""
        denied = self._not_creatable(context, result.missing)
        if denied:
            addition = f"; Unauthorized to CREATE on topics {', '.join(denied)}."
        else:
            failures = list((await self._topics.create(context, result.missing)).items())
            if not failures:
                return result.statuses
            listed = ", ".join(f"{topic} ({reason})" for topic, reason in failures[:_SHOWN])
            more = f" and {len(failures) - _SHOWN} more" if len(failures) > _SHOWN else ""
            addition = f"; Creation failed: {listed}{more}."
        return tuple(
            StreamsStatus(status.code, status.detail + addition)
            if status.code is StatusCode.MISSING_INTERNAL_TOPICS
            else status
            for status in result.statuses
        )

    def _not_creatable(self, context: RequestContext, topics: Iterable[InternalTopic]) -> list[str]:
        authorizer, api_key = self.authorizer, ApiKey.STREAMS_GROUP_HEARTBEAT
        if authorizer is None or authorizer.allows(context, api_key, _CREATE_ANY, CLUSTER_NAME, is_quiet=True):
            return []
        return [topic.name for topic in topics if not authorizer.allows(context, api_key, _CREATE_TOPIC, topic.name)]

    async def describe(
        self, context: RequestContext, request: describe_wire.StreamsGroupDescribeRequest
    ) -> describe_wire.StreamsGroupDescribeResponse:
        """StreamsGroupDescribe, key 89, v0-1. v1: assignor; topology descriptions, of which there are none."""
        groups = await describe_within_budget(
            request.group_ids, partial(self._describe, context),
            lambda group_id: describe_wire.DescribedGroup(group_id=group_id, error_code=ASK_AGAIN),
        )  # fmt: skip
        if request.include_authorized_operations:
            await grant_all(groups)
        if request.include_topology_description:
            for number, described in enumerate(groups):
                await yield_if_due(number, CHEAP_ITEMS_PER_TURN)
                if described.error_code == ErrorCode.NONE:
                    described.topology_description_status = _DESCRIPTION_NOT_STORED
        return describe_wire.StreamsGroupDescribeResponse(groups=groups)

    async def _describe(self, context: RequestContext, group_id: str) -> describe_wire.DescribedGroup:
        try:
            group = await self._groups.described((context.cluster_id, group_id), StreamsGroup)
        except PlatformError as error:
            return describe_wire.DescribedGroup(
                group_id=group_id, error_code=code_of(error), error_message=message_of(error)
            )
        return describe_wire.DescribedGroup(
            group_id=group_id,
            group_state=group.shown_state,
            group_epoch=group.epoch,
            assignment_epoch=group.target_epoch,
            topology=_described_topology(group),
            members=await each_member(group.members.values(), partial(_described, group)),
            assignor_name=STREAMS_ASSIGNORS[0],
        )


# --- Requests ------------------------------------------------------------------------------------------------------


def _check(request: heartbeat_wire.StreamsGroupHeartbeatRequest) -> None:
    """Raise `Refused` for an inconsistent request, in Kafka's order and words."""
    parts = () if request.topology is None else request.topology.subtopologies
    _check_size(parts)
    _check_names([name for part in parts for name in _topics_of(part)])
    if any(part.source_topic_regex for part in parts):
        raise _invalid("Regular expressions for source topics are not supported yet.")
    for name, value in (
        ("MemberId", request.member_id),
        ("GroupId", request.group_id),
        ("InstanceId", request.instance_id),
        ("RackId", request.rack_id),
    ):
        if value is not None and not value.strip():
            raise _invalid(f"{name} can't be empty.")
    if len(request.client_tags or ()) > MAX_TAGS:
        raise _invalid(f"A member may have {MAX_TAGS} client tags.")
    listed = (request.active_tasks, request.standby_tasks, request.warmup_tasks)
    if request.member_epoch == JOIN_EPOCH:
        if request.rebalance_timeout_ms == -1:
            raise _invalid("RebalanceTimeoutMs must be provided in first request.")
        for name, tasks in zip(("ActiveTasks", "StandbyTasks", "WarmupTasks"), listed, strict=True):
            if tasks is None or tasks:
                raise _invalid(f"{name} must be empty when (re-)joining.")
        if request.topology is None:
            raise _invalid("Topology must be non-null when (re-)joining.")
        _check_topology(request.topology)
    elif request.member_epoch == STATIC_LEAVE_EPOCH and request.instance_id is None:
        raise _invalid("InstanceId can't be null.")
    elif request.member_epoch < STATIC_LEAVE_EPOCH:
        raise _invalid(f"MemberEpoch is {request.member_epoch}, but must be greater than or equal to -2.")
    if any(tasks is not None for tasks in listed) and any(tasks is None for tasks in listed):
        raise _invalid("If one task-type is non-null, all must be non-null.")
    if request.member_epoch != JOIN_EPOCH and request.topology is not None:
        raise _invalid("Topology can only be provided when (re-)joining.")


def _check_size(parts: Sequence[heartbeat_wire.Subtopology]) -> None:
    _check_count("subtopologies", len(parts), MAX_SUBTOPOLOGIES)
    groups = [group for part in parts for group in part.copartition_groups]
    _check_count("copartition groups", len(groups), MAX_COPARTITIONS)
    topics = sum(
        len(part.source_topics) + len(part.repartition_sink_topics) + len(part.repartition_source_topics)
        + len(part.state_changelog_topics)
        for part in parts
    )  # fmt: skip
    topics += sum(len(group.source_topics) + len(group.repartition_source_topics) for group in groups)
    _check_count("topics", topics, MAX_TOPICS)
    internal = [topic for part in parts for topic in (*part.repartition_source_topics, *part.state_changelog_topics)]
    _check_count("settings of topics", sum(len(topic.topic_configs) for topic in internal), MAX_CONFIGS)


def _check_count(what: str, count: int, limit: int) -> None:
    if count > limit:
        raise _wrong_topology(f"The topology has {count} {what}; at most {limit} are possible.")


def _topics_of(part: heartbeat_wire.Subtopology) -> Iterable[str]:
    yield from part.source_topics
    yield from part.repartition_sink_topics
    for topic in (*part.repartition_source_topics, *part.state_changelog_topics):
        yield topic.name


def _check_names(names: Iterable[str]) -> None:
    listed = list(dict.fromkeys(names))
    internal = [name for name in listed if name in topic_names.INTERNAL]
    if internal:
        raise _wrong_topology(
            f"Use of Kafka internal topics {','.join(internal)} in a Kafka Streams topology is prohibited."
        )
    wrong = [name for name in listed if not topic_names.is_legal(name)]
    if wrong:
        raise _wrong_topology(f"Topic names {','.join(wrong)} are not valid topic names.")


def _check_topology(topology: heartbeat_wire.Topology) -> None:
    for part in topology.subtopologies:
        for topic in part.state_changelog_topics:
            if topic.partitions != 0:
                raise _wrong_topology(
                    f"Changelog topic {topic.name} must have an undefined partition count, but it is set to"
                    f" {topic.partitions}."
                )
    twice = [
        name for name, times in Counter(part.subtopology_id for part in topology.subtopologies).items() if times > 1
    ]
    if twice:
        raise _wrong_topology(f"There is more than one subtopology {twice[0]}.")


async def _asked(context: RequestContext, request: heartbeat_wire.StreamsGroupHeartbeatRequest) -> StreamsHeartbeat:
    active, standby, warmup = request.active_tasks, request.standby_tasks, request.warmup_tasks
    owned, owned_ranges, offset_ranges = None, TaskRanges(), TaskRanges()
    if active is not None and standby is not None and warmup is not None:
        owned = Tasks(*[await _tasks(listed, owned_ranges) for listed in (active, standby, warmup)])
    endpoint, tags = request.user_endpoint, request.client_tags
    return StreamsHeartbeat(
        member_id=request.member_id,
        epoch=request.member_epoch,
        endpoint_epoch=request.endpoint_information_epoch,
        instance_id=request.instance_id,
        rack_id=request.rack_id,
        rebalance_timeout_ms=request.rebalance_timeout_ms,
        topology=None if request.topology is None else _topology(request.topology),
        owned=owned,
        owned_ranges=owned_ranges,
        process_id=request.process_id,
        endpoint=None if endpoint is None else UserEndpoint(endpoint.host, endpoint.port),
        client_tags=None if tags is None else {tag.key: tag.value for tag in tags},
        changelog_offsets=await _offsets(request.task_offsets, offset_ranges),
        changelog_end_offsets=await _offsets(request.task_end_offsets, offset_ranges),
        offset_ranges=offset_ranges,
        shutdown_application=request.shutdown_application,
        client_id=context.client_id or "",
        client_host=f"/{context.client_host}",
        knows_tags=context.api_version >= _TAGS_SINCE,
    )


async def _tasks(
    listed: Iterable[heartbeat_wire.StreamsGroupHeartbeatRequestTaskIds], ranges: TaskRanges
) -> frozenset[Task]:
    tasks, budget = set[Task](), TurnBudget(CHEAP_ITEMS_PER_TURN)
    for part in listed:
        ranges.add(part.subtopology_id, ())
        for first in range(0, len(part.partitions), CHEAP_ITEMS_PER_TURN):
            some = part.partitions[first : first + CHEAP_ITEMS_PER_TURN]
            ranges.add(part.subtopology_id, some)
            tasks.update(map(partial(Task, part.subtopology_id), some))
            await budget.spend(len(some))
        await budget.spend()
    return frozenset(tasks)


async def _offsets(listed: list[heartbeat_wire.TaskOffset] | None, ranges: TaskRanges) -> dict[Task, int] | None:
    if listed is None:
        return None
    offsets: dict[Task, int] = {}
    for number, one in enumerate(listed):
        await yield_if_due(number, CHEAP_ITEMS_PER_TURN)
        task = Task(one.subtopology_id, one.partition)
        if task in offsets:
            raise _invalid(
                f"Task offsets contain a duplicate entry for subtopology {one.subtopology_id} and partition"
                f" {one.partition}."
            )
        offsets[task] = one.offset
        ranges.add(one.subtopology_id, (one.partition,))
    return offsets


def _topology(topology: heartbeat_wire.Topology) -> Topology:
    return Topology(epoch=topology.epoch, subtopologies=tuple(map(_subtopology, topology.subtopologies)))


def _subtopology(part: heartbeat_wire.Subtopology) -> Subtopology:
    names = [topic.name for topic in part.repartition_source_topics]

    def picked(listed: list[str], indexes: list[int]) -> list[str]:
        if not all(0 <= index < len(listed) for index in indexes):
            raise _wrong_topology(f"A copartition group of subtopology {part.subtopology_id} names a topic it has not.")
        return [listed[index] for index in indexes]

    return Subtopology(
        subtopology_id=part.subtopology_id,
        sources=tuple(part.source_topics),
        repartition_sinks=tuple(part.repartition_sink_topics),
        repartition_sources=tuple(map(_internal_topic, part.repartition_source_topics)),
        changelogs=tuple(map(_internal_topic, part.state_changelog_topics)),
        copartitions=tuple(
            frozenset(picked(part.source_topics, group.source_topics) + picked(names, group.repartition_source_topics))
            for group in part.copartition_groups
        ),
    )


def _internal_topic(topic: heartbeat_wire.TopicInfo) -> InternalTopic:
    return InternalTopic(
        name=topic.name,
        partitions=topic.partitions,
        replication_factor=topic.replication_factor,
        configs=tuple((config.key, config.value) for config in topic.topic_configs),
    )


def _invalid(message: str) -> Refused:
    return Refused(ErrorCode.INVALID_REQUEST, message)


def _wrong_topology(message: str) -> Refused:
    return Refused(ErrorCode.STREAMS_INVALID_TOPOLOGY, message)


# --- Responses -----------------------------------------------------------------------------------------------------


def _response(result: StreamsHeartbeatResult, version: int) -> heartbeat_wire.StreamsGroupHeartbeatResponse:
    response = heartbeat_wire.StreamsGroupHeartbeatResponse(
        member_id=result.member_id,
        member_epoch=result.epoch,
        heartbeat_interval_ms=result.interval_ms,
        task_offset_interval_ms=result.task_offset_interval_ms,
        acceptable_recovery_lag=result.acceptable_recovery_lag if version >= _LAG_SINCE else -1,
        status=[
            heartbeat_wire.Status(status_code=status.code, status_detail=status.detail) for status in result.statuses
        ],
        endpoint_information_epoch=result.endpoint_epoch,
    )
    if result.tasks is not None:
        response.active_tasks = _task_ids(result.tasks.active)
        response.standby_tasks = _task_ids(result.tasks.standby)
        response.warmup_tasks = _task_ids(result.tasks.warmup)
    if result.endpoints is not None:
        response.partitions_by_user_endpoint = [
            heartbeat_wire.EndpointToPartitions(
                user_endpoint=heartbeat_wire.StreamsGroupHeartbeatResponseEndpoint(
                    host=endpoint.host, port=endpoint.port
                ),
                active_partitions=_topic_partitions(active),
                standby_partitions=_topic_partitions(standby),
            )
            for endpoint, active, standby in result.endpoints
        ]
    return response


def _task_ids(tasks: Iterable[Task]) -> list[heartbeat_wire.StreamsGroupHeartbeatResponseTaskIds]:
    return [
        heartbeat_wire.StreamsGroupHeartbeatResponseTaskIds(subtopology_id=subtopology_id, partitions=partitions)
        for subtopology_id, partitions in by_subtopology(tasks).items()
    ]


def _topic_partitions(found: Mapping[str, tuple[int, ...]]) -> list[heartbeat_wire.TopicPartition]:
    return [
        heartbeat_wire.TopicPartition(topic=topic, partitions=list(partitions)) for topic, partitions in found.items()
    ]


def _described_topology(group: StreamsGroup) -> describe_wire.Topology | None:
    """The topology, with the actual partition counts of existing internal topics."""
    topology, found = group.topology, group.configured
    if topology is None:
        return None
    counts = found.partition_counts if found is not None and found.problem is None else {}

    def shown(topics: Iterable[InternalTopic]) -> list[describe_wire.TopicInfo]:
        return [
            describe_wire.TopicInfo(
                name=topic.name,
                partitions=topic.partitions or counts.get(topic.name, 0),
                replication_factor=topic.replication_factor,
                topic_configs=[describe_wire.KeyValue(key=key, value=value) for key, value in topic.configs],
            )
            for topic in sorted(topics, key=lambda topic: topic.name)
        ]

    return describe_wire.Topology(
        epoch=topology.epoch,
        subtopologies=[
            describe_wire.Subtopology(
                subtopology_id=part.subtopology_id,
                source_topics=sorted(part.sources),
                repartition_sink_topics=sorted(part.repartition_sinks),
                state_changelog_topics=shown(part.changelogs),
                repartition_source_topics=shown(part.repartition_sources),
            )
            for part in sorted(topology.subtopologies, key=lambda part: part.subtopology_id)
        ],
    )


def _described(group: StreamsGroup, member: StreamsMember) -> describe_wire.Member:
    endpoint, assigned, target = member.endpoint, member.assigned, member.target
    offsets = group.task_offsets.get(member.member_id, TaskOffsets())
    return describe_wire.Member(
        member_id=member.member_id,
        member_epoch=member.epoch,
        instance_id=member.instance_id,
        rack_id=member.rack_id,
        client_id=member.client_id,
        client_host=member.client_host,
        topology_epoch=member.topology_epoch,
        process_id=member.process_id,
        user_endpoint=None if endpoint is None else describe_wire.Endpoint(host=endpoint.host, port=endpoint.port),
        client_tags=[describe_wire.KeyValue(key=key, value=value) for key, value in member.client_tags.items()],
        task_offsets=_described_offsets(offsets.changelog_offsets),
        task_end_offsets=_described_offsets(offsets.changelog_end_offsets),
        assignment=_described_tasks(assigned.active, assigned.standby, assigned.warmup),
        target_assignment=_described_tasks(target.active, target.standby, target.warmup),
    )


def _described_offsets(offsets: Mapping[Task, int]) -> list[describe_wire.TaskOffset]:
    return [
        describe_wire.TaskOffset(subtopology_id=task.subtopology_id, partition=task.partition, offset=offsets[task])
        for task in sorted(offsets)
    ]


def _described_tasks(
    active: Iterable[Task], standby: Iterable[Task], warmup: Iterable[Task]
) -> describe_wire.Assignment:
    def ids(tasks: Iterable[Task]) -> list[describe_wire.TaskIds]:
        return [
            describe_wire.TaskIds(subtopology_id=subtopology_id, partitions=partitions)
            for subtopology_id, partitions in by_subtopology(tasks).items()
        ]

    return describe_wire.Assignment(active_tasks=ids(active), standby_tasks=ids(standby), warmup_tasks=ids(warmup))
