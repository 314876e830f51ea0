"""The rules of consumer groups for members that use the consumer protocol (KIP-848). Pure: no await, no clock, no I/O.

A rule that refuses a request raises `Refused`; the group is unchanged then.

A heartbeat, in order: the member is found, or added; its fields are updated; if they or the topics require a new
assignment, the group's epoch increases and a target is computed, at most once per interval; and the member is
reconciled one step towards its target. Most heartbeats do none of this: they restart a timer and change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from penstock.coordination.model import Reply, Waiter
from penstock.groups.capacity import MAX_MEMBERS, is_room, size_of
from penstock.groups.consumer import migration, regexes
from penstock.groups.consumer.model import (
    JOINS,
    LEAVES_FOR_A_WHILE,
    ConsumerGroup,
    ConsumerMember,
    Heartbeat,
    HeartbeatResult,
    Resolved,
)
from penstock.groups.consumer.steps import (
    JOIN_TIMER,
    REBALANCE_TIMER,
    SESSION_TIMER,
    SYNC_TIMER,
    Step,
    preferred_assignor,
)
from penstock.groups.model import (
    AnyGroup,
    CommitOffsets,
    Decision,
    Offset,
    TopicPartition,
)
from penstock.groups.partitions import is_part_of, same_partitions
from penstock.groups.reconcile import Reconciliation
from penstock.groups.terms import Terms
from penstock.log.refusals import Refused
from penstock.wire.error_codes import ErrorCode

MODERN_COMMITS_SINCE = 9
"""The version of OffsetCommit from which members of the consumer protocol may commit."""

STALE_EPOCHS_SINCE = 6
"""The version of TxnOffsetCommit from which clients know STALE_MEMBER_EPOCH."""

REGEX_PAUSE_MS = 1_000
"""The minimum interval between resolutions of a group's regular expressions, however often topics change."""


# --- Members -------------------------------------------------------------------------------------------------------


def heartbeat(group: AnyGroup | None, request: Heartbeat, waiter: Waiter, terms: Terms) -> Decision:
    """Add a member or keep it alive, and return its next step."""
    step = _entered(group, request, terms)
    known = _found(step, request)
    member = _said(known, request)
    _check_regex(step.group, known, member)
    assignor = preferred_assignor(step.group, terms.consumer)
    step.put(member)
    step.forget_regexes()
    changes_topics = known.topics != member.topics
    changes_regex = known.regex != member.regex
    is_resolved = changes_regex and (not member.regex or member.regex in step.group.regexes)
    bump = changes_topics or is_resolved or preferred_assignor(step.group, terms.consumer) != assignor
    if bump or step.group.topics_version != terms.topics.version:
        bump = step.look_at_topics() or bump
    if bump or not step.group.epoch:
        step.bump()
    step.retarget()
    member = step.reconcile(
        step.group.members[member.member_id], request.owned, subscription_changed=changes_topics or changes_regex
    )
    step.session(member)
    changed = not same_partitions(known.assigned, member.assigned)
    result = HeartbeatResult(
        member_id=member.member_id,
        epoch=member.epoch,
        interval_ms=step.interval_ms(member),
        assigned=member.assigned if request.is_full or changed else None,
        resolve=_to_resolve(step),
    )
    step.reply(waiter, result)
    return step.decision()


def _entered(group: AnyGroup | None, request: Heartbeat, terms: Terms) -> Step:
    """The consumer group of a request, created or converted when a member joins it; with room for the member."""
    if isinstance(group, ConsumerGroup):
        step = Step(group, terms)
    elif request.epoch != JOINS:
        text = "Consumer group not found." if group is None else "Group is not a consumer group."
        raise Refused(ErrorCode.GROUP_ID_NOT_FOUND, text)
    elif group is None:
        step = Step(ConsumerGroup(), terms)
    else:
        step = migration.upgraded(group, terms)
    members, capacity = step.group.members, min(terms.consumer.max_size, MAX_MEMBERS)
    if len(members) >= capacity and request.member_id not in members:
        known = step.group.static_member(request.instance_id)
        if known is None:
            raise Refused(
                ErrorCode.GROUP_MAX_SIZE_REACHED,
                f"The consumer group has reached its maximum capacity of {capacity} members.",
            )
    others = (size_of(other.topics) for key, other in members.items() if key != request.member_id)
    if request.topics is not None and not is_room(size_of(request.topics), others):
        raise Refused(
            ErrorCode.GROUP_MAX_SIZE_REACHED, "The members of the consumer group subscribe to too many topics together."
        )
    return step


def _found(step: Step, request: Heartbeat) -> ConsumerMember:
    """The member that sent a heartbeat."""
    group = step.group
    if request.instance_id is None:
        member = group.members.get(request.member_id)
        if member is None and request.epoch == JOINS:
            return ConsumerMember(member_id=request.member_id)
        if member is None:
            raise _unknown_member(request.member_id)
    else:
        member = group.static_member(request.instance_id)
        if request.epoch == JOINS:
            return static_successor(step, member, request.member_id, request.instance_id, is_classic=False)
        if member is None:
            raise Refused(ErrorCode.UNKNOWN_MEMBER_ID, f"Instance id {request.instance_id} is unknown.")
        check_not_fenced(member, request.member_id, request.instance_id)
    _check_epoch(member, request)
    return member


def static_successor(
    step: Step, before: ConsumerMember | None, member_id: str, instance_id: str, *, is_classic: bool
) -> ConsumerMember:
    """The member that joins as a static one: new, or replacing the one that had the instance id."""
    if before is None:
        known = step.group.members.get(member_id)
        return ConsumerMember(member_id=member_id) if known is None else known
    both_modern = not is_classic and before.classic is None
    if both_modern and before.epoch != LEAVES_FOR_A_WHILE and before.member_id != member_id:
        raise Refused(
            ErrorCode.UNRELEASED_INSTANCE_ID,
            f"Static member {member_id} with instance id {instance_id} cannot join the group because the instance id"
            f" is owned by {before.member_id} member.",
        )
    if before.member_id == member_id and before.epoch != LEAVES_FOR_A_WHILE:
        return before
    step.remove(before)
    # It keeps the assignment of the member that it replaces.
    successor = replace(before, member_id=member_id, epoch=0, previous_epoch=0, told_to_join=False)
    step.put(successor)
    return successor


def check_not_fenced(member: ConsumerMember, member_id: str, instance_id: str) -> None:
    """Raise `Refused` if another member has the instance id."""
    if member.member_id != member_id:
        raise Refused(
            ErrorCode.FENCED_INSTANCE_ID,
            f"Static member {member_id} with instance id {instance_id} was fenced by member {member.member_id}.",
        )


def _unknown_member(member_id: str) -> Refused:
    return Refused(ErrorCode.UNKNOWN_MEMBER_ID, f"Member {member_id} is not a member of the group.")


def _check_epoch(member: ConsumerMember, request: Heartbeat) -> None:
    """A member is in its epoch; or in the previous one, if it may have missed a response and owns nothing
    unassigned."""
    if request.epoch in (JOINS, member.epoch):
        return
    if request.epoch > member.epoch:
        relation = "greater"
    elif (
        request.epoch == member.previous_epoch
        and request.owned is not None
        and is_part_of(request.owned, member.assigned)
    ):
        return
    else:
        relation = "smaller"
    raise Refused(
        ErrorCode.FENCED_MEMBER_EPOCH,
        f"The consumer group member has a {relation} member epoch ({request.epoch}) than the one known by the group"
        f" coordinator ({member.epoch}). The member must abandon all its partitions and rejoin.",
    )


def _said(member: ConsumerMember, request: Heartbeat) -> ConsumerMember:
    """The member with the fields of its heartbeat."""
    if (
        request.topics is None and request.regex is None and request.assignor is None and request.rack_id is None
        and request.rebalance_timeout_ms == -1 and member.classic is None
        and (member.client_id, member.client_host) == (request.client_id, request.client_host)
    ):  # fmt: skip
        return member
    # If a set is equal, the same object is kept, which members share.
    topics = member.topics if request.topics is None or request.topics == member.topics else request.topics
    return replace(
        member,
        instance_id=request.instance_id if request.instance_id is not None else member.instance_id,
        rack_id=request.rack_id if request.rack_id is not None else member.rack_id,
        rebalance_timeout_ms=(
            request.rebalance_timeout_ms if request.rebalance_timeout_ms != -1 else member.rebalance_timeout_ms
        ),
        assignor=request.assignor if request.assignor is not None else member.assignor,
        topics=topics,
        regex=request.regex if request.regex is not None else member.regex,
        client_id=request.client_id,
        client_host=request.client_host,
        classic=None,
        told_to_join=False,
    )


def _check_regex(group: ConsumerGroup, before: ConsumerMember, after: ConsumerMember) -> None:
    if after.regex and after.regex != before.regex and after.regex not in group.tally.regexes:
        regexes.check(after.regex)


def leave(group: AnyGroup | None, request: Heartbeat, waiter: Waiter, terms: Terms) -> Decision:
    """Remove a member, or note that a static one left temporarily and keeps its assignment."""
    if not isinstance(group, ConsumerGroup):
        text = "Consumer group not found." if group is None else "Group is not a consumer group."
        raise Refused(ErrorCode.GROUP_ID_NOT_FOUND, text)
    if request.instance_id is None:
        member = group.members.get(request.member_id)
        if member is None:
            raise _unknown_member(request.member_id)
    else:
        member = group.static_member(request.instance_id)
        if member is None:
            raise Refused(ErrorCode.UNKNOWN_MEMBER_ID, f"Instance id {request.instance_id} is unknown.")
        check_not_fenced(member, request.member_id, request.instance_id)
    result = HeartbeatResult(member_id=member.member_id, epoch=request.epoch)
    if request.epoch == LEAVES_FOR_A_WHILE and request.instance_id is not None:
        step = Step(group, terms)
        since_ever = {topic_id: dict.fromkeys(found, 0) for topic_id, found in member.assigned.items()}
        step.put(replace(member, epoch=LEAVES_FOR_A_WHILE, assigned=since_ever, revoking={}))
        step.timer(REBALANCE_TIMER + member.member_id, None)
        step.reply(waiter, result)
        return step.decision()
    decision = migration.without(group, (member,), terms)
    return replace(decision, replies=(*decision.replies, Reply(waiter, result)))


# --- Regular expressions -------------------------------------------------------------------------------------------


def _to_resolve(step: Step) -> frozenset[str]:
    """The regular expressions to resolve now; records that it was requested."""
    group, terms = step.group, step.terms
    if not group.tally.regexes or 0 <= terms.now_ms - group.asked_ms < REGEX_PAUSE_MS:
        return frozenset()
    old_ms = terms.now_ms - terms.consumer.regex_refresh_interval_ms
    stale = any(
        (found := group.regexes.get(pattern)) is None
        or found.version != terms.topics.version
        or found.resolved_ms < old_ms
        for pattern in group.tally.regexes
    )
    if not stale:
        return frozenset()
    step.group = replace(group, asked_ms=terms.now_ms)
    return frozenset(group.tally.regexes)


def resolved(
    group: AnyGroup | None, found: Mapping[str, frozenset[str]], version: int, waiter: Waiter, terms: Terms
) -> Decision:
    """Regular expressions were resolved, with that version of the topics: changes require a new assignment."""
    if not isinstance(group, ConsumerGroup):
        return Decision(state=group, replies=(Reply(waiter, False),))
    step = Step(group, terms)
    before = group.regexes
    now = {pattern: topics for pattern, topics in found.items() if pattern in group.tally.regexes}
    changed = any(pattern not in before or before[pattern].topics != topics for pattern, topics in now.items())
    fresh = {
        pattern: Resolved(
            topics=before[pattern].topics if pattern in before and before[pattern].topics == topics else topics,
            resolved_ms=terms.now_ms,
            version=version,
        )
        for pattern, topics in now.items()
    }
    step.group = replace(group, regexes={**before, **fresh})
    if changed:
        step.look_at_topics()
        step.bump()
    step.reply(waiter, changed)
    return step.decision()


# --- Timers --------------------------------------------------------------------------------------------------------


def expired(group: ConsumerGroup, timer: str, terms: Terms) -> Decision:
    """A timer fired."""
    for prefix in (SESSION_TIMER, JOIN_TIMER, SYNC_TIMER, REBALANCE_TIMER):
        if timer.startswith(prefix):
            member = group.members.get(timer.removeprefix(prefix))
            if member is None or (prefix == REBALANCE_TIMER and member.state is not Reconciliation.UNREVOKED):
                break
            return migration.without(group, (member,), terms)
    return Decision(state=group)


def restored(group: ConsumerGroup, terms: Terms) -> Decision:
    """A group was loaded: every member gets a full session time-out."""
    step = Step(group, terms)
    for member in group.members.values():
        step.session(member)
        if member.state is Reconciliation.UNREVOKED and member.classic is None:
            step.timer(REBALANCE_TIMER + member.member_id, member.rebalance_timeout_ms)
    return step.decision()


# --- Offsets -------------------------------------------------------------------------------------------------------


def commit_offsets(group: ConsumerGroup, request: CommitOffsets, waiter: Waiter) -> Decision:
    """Commit offsets for a member, or for a caller without membership while the group is empty."""
    error = _commit_error(group, request)
    records = request.records if error is ErrorCode.NONE else ()
    return Decision(state=group, records=records, replies=(Reply(waiter, error),))


def _commit_error(group: ConsumerGroup, request: CommitOffsets) -> ErrorCode:
    in_transaction = request.owner is not None
    if request.generation < 0 and not group.members:
        return ErrorCode.NONE
    if in_transaction and request.generation == -1 and not request.member_id and request.instance_id is None:
        # Producers from before KIP-447 send no member.
        return ErrorCode.NONE
    member = group.members.get(request.member_id)
    if member is None:
        return ErrorCode.UNKNOWN_MEMBER_ID
    if not in_transaction and member.classic is None and request.version < MODERN_COMMITS_SINCE:
        return ErrorCode.UNSUPPORTED_VERSION
    if request.generation == member.epoch or (
        0 <= request.generation < member.epoch and _had_all(member, request.offsets, request.generation)
    ):
        return ErrorCode.NONE
    understands = not in_transaction or request.version >= STALE_EPOCHS_SINCE
    return ErrorCode.STALE_MEMBER_EPOCH if member.classic is None and understands else ErrorCode.ILLEGAL_GENERATION


def _had_all(member: ConsumerMember, offsets: Mapping[TopicPartition, Offset], epoch: int) -> bool:
    """Whether a member has had all these partitions since an epoch: then its older epoch is accepted (KIP-1251)."""

    def since(topic_id: bytes, partition: int) -> int | None:
        found = member.assigned.get(topic_id, {}).get(partition)
        return member.revoking.get(topic_id, {}).get(partition) if found is None else found

    return all((found := since(*partition)) is not None and found <= epoch for partition in offsets)


def fetch_error(group: ConsumerGroup, member_id: str | None, epoch: int) -> ErrorCode:
    """Whether a member may fetch offsets. A caller that does not claim membership may."""
    if member_id is None and epoch < 0:
        return ErrorCode.NONE
    member = group.members.get(member_id or "")
    if member is None:
        return ErrorCode.UNKNOWN_MEMBER_ID
    if epoch == member.epoch:
        return ErrorCode.NONE
    return ErrorCode.STALE_MEMBER_EPOCH if member.classic is None else ErrorCode.ILLEGAL_GENERATION
