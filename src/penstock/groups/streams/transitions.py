"""The rules of streams groups (KIP-1071). Pure: no await, no clock, no I/O.

A rule that refuses a request raises `Refused`; the group is unchanged then.

A heartbeat, in order: the member is found, or added, with the topology if it is the first; the topology is configured
again if topics have changed; if any of this requires a new assignment, the group's epoch increases and a target is
computed, at most once per interval; and the member is reconciled one step towards its target. Most heartbeats do none
of this: they restart a timer and change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from penstock.coordination.model import Reply, Timer, Waiter
from penstock.groups.capacity import MAX_MEMBERS
from penstock.groups.member_epochs import JOIN_EPOCH, STATIC_LEAVE_EPOCH
from penstock.groups.member_errors import (
    fenced_epoch,
    fenced_instance,
    unknown_instance,
    unknown_member,
    unreleased_instance,
)
from penstock.groups.model import (
    AnyGroup,
    ClassicGroup,
    GroupDecision,
    GroupState,
    GroupStored,
    MemberRemoved,
    MemberStored,
    Record,
)
from penstock.groups.reconcile import MemberState
from penstock.groups.rule_context import RuleContext, TopicView, fingerprint, may_assign, next_heartbeat_ms
from penstock.groups.streams.assignor import Assignee, assign_tasks
from penstock.groups.streams.endpoints import endpoints_of
from penstock.groups.streams.model import (
    KIND,
    StatusCode,
    StreamsGroup,
    StreamsGroupSettings,
    StreamsHeartbeat,
    StreamsHeartbeatResult,
    StreamsMember,
    StreamsStatus,
    TaskOffsets,
    Topology,
)
from penstock.groups.streams.reconcile import reconciled
from penstock.groups.streams.tasks import NO_TASKS, NO_TASKS_WITH_EPOCHS, Task, TaskRanges
from penstock.groups.streams.topology import configure
from penstock.log.refusals import Refused
from penstock.wire.error_codes import ErrorCode

SESSION_TIMER = "session/"
REBALANCE_TIMER = "rebalance/"
"""Timer: a member must revoke tasks."""
INITIAL_TIMER = "initial"
"""Timer: the delay of the first assignment ends."""

DELAY_OVER_MS = 50
"""How long after the delay members send their next heartbeats, so that it is over."""
MAX_FILTERED_OFFSETS = 5_000
"""Offsets of so many tasks are filtered, if some of these tasks do not exist."""

# --- Heartbeats ----------------------------------------------------------------------------------------------------


def heartbeat(group: AnyGroup | None, request: StreamsHeartbeat, waiter: Waiter, context: RuleContext) -> GroupDecision:
    """Add a member or keep it alive, and reconcile it one step."""
    before = _get_or_create_group(group, request, context.streams)
    known, replaced = _get_or_create_member(before, request)
    member = _with_request_fields(known, request)
    after = _with_configured_topology(_with_member(before, member, replaced, request), context)
    _check_tasks(after, request.owned_ranges)
    after = _with_offsets(after, request)
    if _requires_assignment(before, after, known, member, context.streams):
        after = replace(
            after, epoch=before.epoch + 1, changed_ms=context.now_ms, configs=context.streams.assignment_configs
        )
    timers: list[Timer] = []
    delay_ms = context.streams.initial_rebalance_delay_ms
    if not before.members and delay_ms > 0:
        after = replace(after, delayed_until_ms=context.now_ms + delay_ms)
        timers.append(Timer(INITIAL_TIMER, delay_ms))
    after, delay = _with_target(after, context)
    target = NO_TASKS if after.delayed_until_ms is not None else after.members[member.member_id].target
    member = reconciled(after.members[member.member_id], target, after.target_epoch, request.owned, after.members)
    after = replace(after, members={**after.members, member.member_id: member})
    if request.shutdown_application and after.shutdown_by is None:
        after = replace(after, shutdown_by=member.member_id)
    changed_tasks = member.assigned != known.assigned
    if member.endpoint != known.endpoint or (changed_tasks and member.endpoint is not None):
        after = replace(after, endpoint_epoch=after.endpoint_epoch + 1)
    endpoints = endpoints_of(after, context.topics) if after.endpoint_epoch != request.endpoint_epoch else None
    if not isinstance(group, StreamsGroup):
        after = replace(after, endpoint_epoch=0)  # As in Kafka: a new group sends endpoints again.
    result = StreamsHeartbeatResult(
        member_id=member.member_id,
        epoch=member.epoch,
        interval_ms=_interval_ms(after, member, context),
        task_offset_interval_ms=context.streams.task_offset_interval_ms,
        acceptable_recovery_lag=context.streams.acceptable_recovery_lag,
        statuses=_statuses(after, member, delay, request, context.streams),
        tasks=member.assigned if changed_tasks or _must_resend_tasks(member, request) else None,
        endpoint_epoch=after.endpoint_epoch,
        endpoints=endpoints,
        missing=() if after.configured is None else after.configured.missing,
    )
    timers += _member_timers(known, member, replaced, context.streams)
    reports_offsets = request.changelog_offsets is not None or request.changelog_end_offsets is not None
    return GroupDecision(
        state=after if reports_offsets or after != group else group,
        records=_records(before, after, is_new=group is not before),
        replies=(Reply(waiter, result),),
        timers=tuple(timers),
    )


def _get_or_create_group(
    group: AnyGroup | None, request: StreamsHeartbeat, settings: StreamsGroupSettings
) -> StreamsGroup:
    """The streams group of a request, created when a member joins it; with room for the member."""
    if not isinstance(group, StreamsGroup):
        if group is None and request.epoch != JOIN_EPOCH:
            raise Refused(ErrorCode.GROUP_ID_NOT_FOUND, "Streams group not found.")
        is_empty_classic = isinstance(group, ClassicGroup) and group.state is GroupState.EMPTY
        if group is not None and not (is_empty_classic and request.epoch == JOIN_EPOCH):
            raise Refused(ErrorCode.GROUP_ID_NOT_FOUND, "Group is not a streams group.")
        return StreamsGroup()
    is_known = request.member_id in group.members or group.static_member(request.instance_id) is not None
    capacity = min(settings.max_size, MAX_MEMBERS)
    if request.epoch == JOIN_EPOCH and not is_known and len(group.members) >= capacity:
        raise Refused(
            ErrorCode.GROUP_MAX_SIZE_REACHED,
            f"The streams group has reached its maximum capacity of {capacity} members.",
        )
    return group


def _get_or_create_member(group: StreamsGroup, request: StreamsHeartbeat) -> tuple[StreamsMember, StreamsMember | None]:
    """The member that sent a heartbeat, and the one that it replaces."""
    if request.instance_id is None:
        member = group.members.get(request.member_id)
        if member is None and request.epoch == JOIN_EPOCH:
            return StreamsMember(member_id=request.member_id), None
        if member is None:
            raise unknown_member(request.member_id)
        _check_epoch(member, request)
        return member, None
    member = group.static_member(request.instance_id)
    if request.epoch == JOIN_EPOCH:
        if member is None:
            return group.members.get(request.member_id, StreamsMember(member_id=request.member_id)), None
        if member.epoch != STATIC_LEAVE_EPOCH:
            if member.member_id == request.member_id:
                return member, None
            raise unreleased_instance(request.member_id, request.instance_id, member.member_id)
        # It keeps the tasks of the member that it replaces.
        return replace(member, member_id=request.member_id, epoch=0, previous_epoch=0), member
    member = _static_member(group, request, request.instance_id)
    _check_epoch(member, request)
    return member, None


def _static_member(group: StreamsGroup, request: StreamsHeartbeat, instance_id: str) -> StreamsMember:
    member = group.static_member(instance_id)
    if member is None:
        raise unknown_instance(instance_id)
    if member.member_id != request.member_id:
        raise fenced_instance(request.member_id, instance_id, member.member_id)
    return member


def _check_epoch(member: StreamsMember, request: StreamsHeartbeat) -> None:
    """A member is in its epoch; or in the previous one, if it may have missed a response and owns nothing
    unassigned."""
    if request.epoch in (JOIN_EPOCH, member.epoch):
        return
    if (
        request.epoch == member.previous_epoch < member.epoch
        and request.owned is not None
        and request.owned.is_subset_of(member.assigned)
    ):
        return
    raise fenced_epoch(KIND, request.epoch, member.epoch)


def _with_request_fields(member: StreamsMember, request: StreamsHeartbeat) -> StreamsMember:
    """The member with the fields of its heartbeat."""
    joins = request.epoch == JOIN_EPOCH
    updated = replace(
        member,
        instance_id=member.instance_id if request.instance_id is None else request.instance_id,
        rack_id=member.rack_id if request.rack_id is None else request.rack_id,
        rebalance_timeout_ms=(
            member.rebalance_timeout_ms if request.rebalance_timeout_ms == -1 else request.rebalance_timeout_ms
        ),
        topology_epoch=member.topology_epoch if request.topology is None else request.topology.epoch,
        process_id=member.process_id if request.process_id is None else request.process_id,
        endpoint=request.endpoint if joins or request.endpoint is not None else member.endpoint,
        client_tags=member.client_tags if request.client_tags is None else request.client_tags,
        client_id=request.client_id,
        client_host=request.client_host,
    )
    return member if updated == member else updated


def _with_member(
    group: StreamsGroup, member: StreamsMember, replaced: StreamsMember | None, request: StreamsHeartbeat
) -> StreamsGroup:
    """The group with a member, in place of the one that it replaces, and with the topology that it brings."""
    members = {key: one for key, one in group.members.items() if replaced is None or key != replaced.member_id}
    members[member.member_id] = member
    offsets = group.task_offsets
    if replaced is not None and replaced.member_id not in members:
        offsets = {key: reported for key, reported in offsets.items() if key != replaced.member_id}
    return replace(
        group, members=members, topology=_topology(group, request), task_offsets=offsets, empty_since_ms=None
    )  # fmt: skip


def _topology(group: StreamsGroup, request: StreamsHeartbeat) -> Topology | None:
    """The group's topology, which its first member brought. An older one is stale, updates are not supported."""
    if request.topology is None or group.topology is None:
        return request.topology or group.topology
    if request.topology.epoch >= group.topology.epoch and request.topology != group.topology:
        raise Refused(ErrorCode.INVALID_REQUEST, "Topology updates are not supported yet.")
    return group.topology


def _with_configured_topology(group: StreamsGroup, context: RuleContext) -> StreamsGroup:
    """The group with its topology configured by the current topics."""
    topology, topics = group.topology, context.topics
    if topology is None or (group.configured is not None and group.topics_version == topics.version):
        return group
    seen = fingerprint(topology.required, topics)
    found = group.configured
    if found is None or seen != group.topics_hash:
        found = configure(topology, lambda name: _partition_count(topics, name))
    ready = topology.epoch if found.problem is None else -1
    return replace(
        group, configured=found, topics_version=topics.version, topics_hash=seen, validated_epoch=ready
    )  # fmt: skip


def _partition_count(topics: TopicView, name: str) -> int | None:
    topic_id = topics.topic_id(name)
    return None if topic_id is None else topics.partition_count(topic_id)


def _check_tasks(group: StreamsGroup, owned: TaskRanges) -> None:
    """Refuse a request that names tasks that do not exist."""
    found = group.configured
    if found is None or found.problem is not None or found.task_counts is None:
        return
    wrong = owned.first_unknown(found.task_counts)
    if wrong is None:
        return
    part, partition = wrong
    if partition is None:
        raise Refused(ErrorCode.INVALID_REQUEST, f"Subtopology {part} does not exist in the topology.")
    raise Refused(
        ErrorCode.INVALID_REQUEST,
        f"Task {partition} for subtopology {part} is invalid. Number of tasks for this subtopology:"
        f" {found.task_counts[part]}",
    )


def _with_offsets(group: StreamsGroup, request: StreamsHeartbeat) -> StreamsGroup:
    """The group with the offsets that a member reports. Those of nonexistent tasks are dropped; if there are very many
    of these, all are."""
    if request.changelog_offsets is None and request.changelog_end_offsets is None:
        return group
    counts = (None if group.configured is None else group.configured.task_counts) or {}
    are_all_there = request.offset_ranges.first_unknown(counts) is None

    def known(offsets: Mapping[Task, int]) -> Mapping[Task, int]:
        if are_all_there:
            return offsets
        if len(offsets) > MAX_FILTERED_OFFSETS:
            return {}
        return {task: at for task, at in offsets.items() if 0 <= task.partition < counts.get(task.subtopology_id, 0)}

    before = group.task_offsets.get(request.member_id, TaskOffsets())
    reported = TaskOffsets(
        changelog_offsets=before.changelog_offsets
        if request.changelog_offsets is None
        else known(request.changelog_offsets),
        changelog_end_offsets=before.changelog_end_offsets
        if request.changelog_end_offsets is None
        else known(request.changelog_end_offsets),
    )
    return replace(group, task_offsets={**group.task_offsets, request.member_id: reported})


def _requires_assignment(
    before: StreamsGroup, after: StreamsGroup, known: StreamsMember, member: StreamsMember,
    settings: StreamsGroupSettings,
) -> bool:  # fmt: skip
    """Whether tasks may have to be reassigned. A static member that comes back unchanged requires nothing."""
    if member.instance_id is None:
        member_changed = member != known
    else:
        member_changed = _assignment_inputs(member) != _assignment_inputs(known)
    return (
        member_changed
        or after.topics_hash != before.topics_hash
        or after.validated_epoch != before.validated_epoch
        or before.configs != settings.assignment_configs
    )


def _assignment_inputs(member: StreamsMember) -> tuple[object, ...]:
    return member.topology_epoch, member.rack_id, member.client_tags, member.process_id


# --- Targets -------------------------------------------------------------------------------------------------------


def _with_target(group: StreamsGroup, context: RuleContext) -> tuple[StreamsGroup, StreamsStatus | None]:
    """The group with a target for its epoch, or why that has to wait."""
    if group.delayed_until_ms is not None:
        detail = "Assignment delayed due to the configured initial rebalance delay."
        return group, StreamsStatus(StatusCode.ASSIGNMENT_DELAYED, detail)
    if group.target_epoch >= group.epoch:
        return group, None
    found = group.configured
    task_counts = {} if found is None or found.problem is not None else found.task_counts or {}
    work = len(group.members) + sum(task_counts.values())
    if not may_assign(group.assigned_ms, context.streams.assignment_interval_ms, work, context.now_ms):
        detail = "Assignment delayed due to the configured assignment interval."
        return group, StreamsStatus(StatusCode.ASSIGNMENT_DELAYED, detail)
    parts = () if group.topology is None else group.topology.subtopologies
    targets = assign_tasks(
        (_assignee(group, member) for member in group.members.values()),
        task_counts,
        frozenset(part.subtopology_id for part in parts if part.changelogs),
        int(group.configs.get("num.standby.replicas", "0")),
    )
    members = {
        member_id: member if member.target == targets[member_id] else replace(member, target=targets[member_id])
        for member_id, member in group.members.items()
    }
    return replace(group, members=members, target_epoch=group.epoch, assigned_ms=context.now_ms), None


def _assignee(group: StreamsGroup, member: StreamsMember) -> Assignee:
    offsets = group.task_offsets.get(member.member_id)
    return Assignee(
        member_id=member.member_id,
        process_id=member.process_id,
        active=frozenset(member.assigned.active),
        standby=member.assigned.standby,
        changelog_offsets={} if offsets is None else offsets.changelog_offsets,
    )


# --- Responses -----------------------------------------------------------------------------------------------------


def _must_resend_tasks(member: StreamsMember, request: StreamsHeartbeat) -> bool:
    """Whether to send a member its tasks although they are unchanged: it joins, or reports others. Then a response was
    lost, and the tasks would be missing until the next assignment. Kafka does not send them again."""
    return request.epoch == JOIN_EPOCH or (request.owned is not None and not request.owned.is_all_of(member.assigned))


def _interval_ms(group: StreamsGroup, member: StreamsMember, context: RuleContext) -> int:
    """The member's heartbeat interval. A heartbeat during the delay would make the client log it each time."""
    until_ms = group.delayed_until_ms
    if until_ms is None and group.target_epoch < group.epoch:
        until_ms = group.assigned_ms + context.streams.assignment_interval_ms
    if until_ms is not None and until_ms > context.now_ms:
        return min(context.streams.heartbeat_interval_ms, until_ms - context.now_ms + DELAY_OVER_MS)
    return next_heartbeat_ms(
        context.streams.heartbeat_interval_ms, len(group.members), is_settled=member.has_reached(group.epoch),
        changed_ms=group.changed_ms, now_ms=context.now_ms,
    )  # fmt: skip


def _statuses(
    group: StreamsGroup, member: StreamsMember, delay: StreamsStatus | None, request: StreamsHeartbeat,
    settings: StreamsGroupSettings,
) -> tuple[StreamsStatus, ...]:  # fmt: skip
    """In Kafka's order."""
    found: list[StreamsStatus] = []
    topology = group.topology
    if topology is not None and member.topology_epoch < topology.epoch:
        detail = (
            f"The member's topology epoch {member.topology_epoch} is behind the group's topology epoch"
            f" {topology.epoch}."
        )
        found.append(StreamsStatus(StatusCode.STALE_TOPOLOGY, detail))
    if delay is not None:
        found.append(delay)
    if group.configured is not None and group.configured.problem is not None:
        found.append(group.configured.problem)
    if group.shutdown_by is not None:
        detail = (
            f"Streams group member {group.shutdown_by} encountered a fatal error and requested a shutdown for the"
            " entire application."
        )
        found.append(StreamsStatus(StatusCode.SHUTDOWN_APPLICATION, detail))
    absent = [tag for tag in settings.rack_aware_assignment_tags if tag not in member.client_tags]
    if absent and request.knows_tags:
        detail = (
            f"Missing required client tags for rack-aware standby assignment: [{', '.join(absent)}]. Configure them via"
            " 'client.tag.<tagKey>' in your Streams config."
        )
        found.append(StreamsStatus(StatusCode.MISSING_CLIENT_TAGS, detail))
    return tuple(found)


def _member_timers(
    known: StreamsMember, member: StreamsMember, replaced: StreamsMember | None, settings: StreamsGroupSettings
) -> list[Timer]:
    timers = [] if replaced is None or replaced.member_id == member.member_id else _no_timers(replaced.member_id)
    timers.append(Timer(SESSION_TIMER + member.member_id, settings.session_timeout_ms))
    if (member.state, member.epoch, member.assigned) != (known.state, known.epoch, known.assigned):
        must_revoke = member.state is MemberState.UNREVOKED
        timers.append(Timer(REBALANCE_TIMER + member.member_id, member.rebalance_timeout_ms if must_revoke else None))
    return timers


def _no_timers(member_id: str) -> list[Timer]:
    return [Timer(SESSION_TIMER + member_id, None), Timer(REBALANCE_TIMER + member_id, None)]


# --- Leaving -------------------------------------------------------------------------------------------------------


def leave(group: AnyGroup | None, request: StreamsHeartbeat, waiter: Waiter, context: RuleContext) -> GroupDecision:
    """Remove a member, or note that a static one left temporarily and keeps its tasks."""
    if not isinstance(group, StreamsGroup):
        text = "Group not found." if group is None else "Group is not a streams group."
        raise Refused(ErrorCode.GROUP_ID_NOT_FOUND, text)
    before = group
    if request.shutdown_application and before.shutdown_by is None and before.members:
        before = replace(before, shutdown_by=request.member_id)
    try:
        member = _leaver(group, request)
    except Refused as refusal:
        if before is group:
            raise
        # A member that was already removed may still request the shutdown of the application.
        return GroupDecision(state=before, replies=(Reply(waiter, refusal),))
    reply = Reply(waiter, StreamsHeartbeatResult(member_id=member.member_id, epoch=request.epoch))
    if request.epoch != STATIC_LEAVE_EPOCH or request.instance_id is None:
        return _without(before, member, context.now_ms, reply)
    # Its tasks count as assigned from the beginning, so that late commits of its previous instance are accepted.
    kept = replace(member.assigned, active=dict.fromkeys(member.assigned.active, 0))
    away = replace(member, epoch=STATIC_LEAVE_EPOCH, assigned=kept, pending_revocation=NO_TASKS_WITH_EPOCHS)
    return GroupDecision(
        state=replace(before, members={**before.members, member.member_id: away}),
        records=(MemberStored(away),),
        replies=(reply,),
        timers=(Timer(REBALANCE_TIMER + member.member_id, None),),
    )


def _leaver(group: StreamsGroup, request: StreamsHeartbeat) -> StreamsMember:
    if request.instance_id is not None:
        return _static_member(group, request, request.instance_id)
    member = group.members.get(request.member_id)
    if member is None:
        raise unknown_member(request.member_id)
    return member


def _without(group: StreamsGroup, member: StreamsMember, now_ms: int, *replies: Reply) -> GroupDecision:
    """The group without a member; the others get a new assignment with their next heartbeats."""
    members = {key: one for key, one in group.members.items() if key != member.member_id}
    offsets = {key: reported for key, reported in group.task_offsets.items() if key != member.member_id}
    after = replace(group, members=members, task_offsets=offsets, epoch=group.epoch + 1, changed_ms=now_ms)
    timers = _no_timers(member.member_id)
    if not members:
        # The next member to join need not wait because of an assignment for members that are gone.
        after = replace(
            after, target_epoch=after.epoch, assigned_ms=0, empty_since_ms=now_ms, shutdown_by=None,
            delayed_until_ms=None,
        )  # fmt: skip
        timers.append(Timer(INITIAL_TIMER, None))
    return GroupDecision(
        state=after,
        records=(MemberRemoved(member.member_id), GroupStored(after)),
        replies=replies,
        timers=tuple(timers),
    )


# --- Timers --------------------------------------------------------------------------------------------------------


def expired(group: StreamsGroup, timer: str, context: RuleContext) -> GroupDecision:
    """A timer fired."""
    if timer == INITIAL_TIMER:
        after, _ = _with_target(replace(group, delayed_until_ms=None), context)
        return GroupDecision(state=after, records=_records(group, after))
    for prefix in (SESSION_TIMER, REBALANCE_TIMER):
        member = group.members.get(timer.removeprefix(prefix)) if timer.startswith(prefix) else None
        if member is not None and (prefix == SESSION_TIMER or member.state is MemberState.UNREVOKED):
            return _without(group, member, context.now_ms)
    return GroupDecision(state=group)


def restored(group: StreamsGroup, context: RuleContext) -> GroupDecision:
    """A group was loaded: every member gets a full session time-out."""
    timers = [Timer(SESSION_TIMER + member_id, context.streams.session_timeout_ms) for member_id in group.members]
    timers += (
        Timer(REBALANCE_TIMER + member.member_id, member.rebalance_timeout_ms)
        for member in group.members.values()
        if member.state is MemberState.UNREVOKED
    )
    return GroupDecision(state=group, timers=tuple(timers))


# --- Records -------------------------------------------------------------------------------------------------------


def _records(before: StreamsGroup, after: StreamsGroup, *, is_new: bool = False) -> tuple[Record, ...]:
    """The records that a change needs."""
    records: list[Record] = [MemberRemoved(member_id) for member_id in before.members if member_id not in after.members]
    records += (
        MemberStored(member) for key, member in after.members.items() if _has_changed(before.members.get(key), member)
    )
    if is_new or _stored(before) != _stored(after) or before.members.keys() != after.members.keys():
        records.append(GroupStored(after))
    return tuple(records)


def _has_changed(before: StreamsMember | None, after: StreamsMember) -> bool:
    return before is not after and before != after


def _stored(group: StreamsGroup) -> tuple[object, ...]:
    return (
        group.epoch, group.target_epoch, group.assigned_ms, group.topology, group.validated_epoch, group.topics_hash,
        group.configs, group.empty_since_ms,
    )  # fmt: skip
