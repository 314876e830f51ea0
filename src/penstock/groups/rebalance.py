"""The steps that the rules of classic groups are composed of. Pure: no await, no clock, no I/O.

A `Step` is a decision under construction: rules replace its group and collect records, replies and timers. It lives
within one call of one rule.

The phases of a rebalance:

    prepare    a member joined, left or changed: all must rejoin (requests get REBALANCE_IN_PROGRESS, 27)
    complete   all members are parked in a join, or time is up: next generation, replies to all joins
    sync       the leader's assignments arrive: stable, replies to all syncs

An *initial* rebalance, of a group that was empty, does not complete as soon as all its members have joined: the first
member would always get a generation of its own, and everybody after it would have to wait for that member's next
heartbeat, by default 3 s later. With `group.initial.rebalance.delay.ms` above 0 it is delayed as in Kafka. With 0, the
default here, it is delayed while members keep arriving: until none came for `join_quiet_ms`, or for four times the
longest recent gap between two arrivals, within limits. A single consumer waits 20 ms; fifty that start at the same time
get one generation. Ids given to members that have not come back count as arrivals still to come.
"""

from __future__ import annotations

from collections.abc import Iterable

from penstock.base.dataclasses import dataclass, field, replace
from penstock.coordination.model import Reply, Timer, Waiter
from penstock.groups.model import (
    CONSUMER,
    Decision,
    Group,
    GroupState,
    GroupStored,
    JoinedMember,
    JoinResult,
    JoinWindow,
    Member,
    Record,
    SyncResult,
    with_members,
)
from penstock.groups.settings import GroupSettings
from penstock.groups.subscriptions import subscribed_topics
from penstock.wire.error_codes import ErrorCode

JOIN_TIMER = "join"
SYNC_TIMER = "sync"
SESSION_TIMER = "session/"

_PENDING_QUIET_MS = 500
"""How long an initial rebalance waits for a member that was given its id and did not come back with it."""


@dataclass(slots=True)
class Step:
    """A decision under construction."""

    group: Group
    now_ms: int
    settings: GroupSettings
    records: list[Record] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    timers: list[Timer] = field(default_factory=list)

    def decision(self) -> Decision:
        """The finished decision. A group that consists only of pending ids vanishes."""
        group = self.group
        gone = not (group.members or group.pending or group.stored or group.generation)
        return Decision(
            state=None if gone else group,
            records=tuple(self.records),
            replies=tuple(self.replies),
            timers=tuple(self.timers),
        )

    def reply(self, waiter: Waiter | None, answer: object) -> None:
        """Reply to a waiter, if there is one."""
        if waiter is not None:
            self.replies.append(Reply(waiter, answer))

    def timer(self, name: str, delay_ms: int | None) -> None:
        """Set or cancel a timer."""
        self.timers.append(Timer(name, delay_ms))

    def session(self, member: Member, delay_ms: int | None = None) -> None:
        """A member sent a request: restart its session timer."""
        self.timer(SESSION_TIMER + member.member_id, member.session_timeout_ms if delay_ms is None else delay_ms)

    def store(self) -> None:
        """Store the group in its current state."""
        self.group = replace(self.group, stored=True)
        self.records.append(GroupStored(self.group))

    def put(self, member: Member) -> None:
        """Add a member or replace the one with the same id."""
        group = self.group
        instances = group.instances
        if member.instance_id is not None and instances.get(member.instance_id) != member.member_id:
            instances = {**instances, member.instance_id: member.member_id}
        self.group = replace(group, members={**group.members, member.member_id: member}, instances=instances)

    def put_all(self, members: Iterable[Member]) -> None:
        """Replace all members."""
        by_id, instances = with_members(members)
        self.group = replace(self.group, members=by_id, instances=instances)

    def remove(self, *member_ids: str) -> None:
        """Remove members or pending ids; their parked requests get UNKNOWN_MEMBER_ID."""
        group, gone = self.group, frozenset(member_ids)
        for member_id in member_ids:
            self.timer(SESSION_TIMER + member_id, None)
            member = group.members.get(member_id)
            if member is not None:
                self.reply(member.join_waiter, JoinResult(error=ErrorCode.UNKNOWN_MEMBER_ID, member_id=""))
                self.reply(member.sync_waiter, SyncResult(error=ErrorCode.UNKNOWN_MEMBER_ID))
        if not gone.isdisjoint(group.pending):
            group = replace(group, pending=group.pending - gone)
        if not gone.isdisjoint(group.members):
            members = {key: kept for key, kept in group.members.items() if key not in gone}
            instances = {key: kept for key, kept in group.instances.items() if kept not in gone}
            leader = group.leader if group.leader not in gone else next(iter(members), None)
            group = replace(group, members=members, instances=instances, leader=leader)
        self.group = group


def member_error(group: Group, member_id: str, instance_id: str | None) -> ErrorCode:
    """Whether a request comes from a member (KIP-345: an instance id belongs to one member id at a time)."""
    if instance_id is not None:
        holder = group.instances.get(instance_id)
        if holder is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        if holder != member_id:
            return ErrorCode.FENCED_INSTANCE_ID
    return ErrorCode.NONE if member_id in group.members else ErrorCode.UNKNOWN_MEMBER_ID


def supports(group: Group, protocol_type: str, protocols: tuple[tuple[str, bytes], ...]) -> bool:
    """Whether a member with these protocols is compatible with the group."""
    if group.state is GroupState.EMPTY:
        return bool(protocol_type and protocols)
    if group.protocol_type != protocol_type:
        return False
    others = [{name for name, _ in member.protocols} for member in group.members.values()]
    return any(all(name in names for names in others) for name, _ in protocols)


def select_protocol(group: Group) -> str | None:
    """The protocol of the next generation: of those that all members have, the one with the most votes."""
    members = list(group.members.values())
    candidates = set.intersection(*({name for name, _ in member.protocols} for member in members))
    votes: dict[str, int] = {}
    for member in members:
        choice = next((name for name, _ in member.protocols if name in candidates), None)
        if choice is not None:
            votes[choice] = votes.get(choice, 0) + 1
    return max(votes, key=votes.__getitem__, default=None)


def all_joined(group: Group) -> bool:
    """Whether every member is parked in a join, and no id is pending."""
    return not group.pending and all(member.join_waiter is not None for member in group.members.values())


def joined(group: Group, member_id: str, *, skip_assignment: bool = False) -> JoinResult:
    """The response to a join in the current generation."""
    members: tuple[JoinedMember, ...] = ()
    if group.leader == member_id:
        members = tuple(
            JoinedMember(
                member_id=member.member_id,
                instance_id=member.instance_id,
                metadata=member.metadata(group.protocol_name),
            )
            for member in group.members.values()
        )
    return JoinResult(
        member_id=member_id,
        generation=group.generation,
        protocol_type=group.protocol_type,
        protocol_name=group.protocol_name,
        leader=group.leader or "",
        skip_assignment=skip_assignment,
        members=members,
    )


def prepare_or_complete(step: Step) -> None:
    """Membership changed: start a rebalance, or complete the one being prepared if possible."""
    if step.group.state is GroupState.PREPARING_REBALANCE:
        complete_if_joined(step)
    else:
        prepare(step)


def complete_if_joined(step: Step) -> None:
    """Complete the rebalance being prepared when no member is missing. An initial one waits for its timer."""
    group = step.group
    if group.state is GroupState.PREPARING_REBALANCE and not group.initial and all_joined(group):
        complete(step)


def prepare(step: Step) -> None:
    """Require all members to rejoin."""
    group = step.group
    if group.state is GroupState.COMPLETING_REBALANCE:
        _turn_away_syncs(step)
    step.timer(SYNC_TIMER, None)
    was_empty = group.state is GroupState.EMPTY
    members = [replace(member, owes_sync=False) for member in step.group.members.values()]
    step.put_all(members)
    step.group = replace(step.group, state=GroupState.PREPARING_REBALANCE, since_ms=step.now_ms)
    if was_empty:
        window = JoinWindow(opened_ms=step.now_ms, last_ms=step.now_ms)
        step.group = replace(step.group, window=window)
        delay_ms = step.settings.initial_rebalance_delay_ms
        step.timer(JOIN_TIMER, delay_ms if delay_ms > 0 else step.settings.join_quiet_ms)
    elif all_joined(step.group):
        complete(step)
    else:
        step.timer(JOIN_TIMER, rebalance_timeout_ms(step.group))


def _turn_away_syncs(step: Step) -> None:
    """The generation ends before it has assignments: parked syncs get REBALANCE_IN_PROGRESS."""
    members = []
    for member in step.group.members.values():
        if member.sync_waiter is not None:
            step.reply(member.sync_waiter, SyncResult(error=ErrorCode.REBALANCE_IN_PROGRESS))
            step.session(member)
        members.append(replace(member, assignment=b"", sync_waiter=None))
    step.put_all(members)


def complete(step: Step) -> None:
    """Start the next generation with the members that have joined, and with static ones, which may be restarting."""
    step.timer(JOIN_TIMER, None)
    members = step.group.members.values()
    step.remove(*(one.member_id for one in members if one.join_waiter is None and one.instance_id is None))
    if step.group.members and not _elect(step):
        # Only static members, and none has rejoined: wait for them, or for their sessions to expire.
        step.timer(JOIN_TIMER, rebalance_timeout_ms(step.group))
        return
    step.group = replace(step.group, generation=step.group.generation + 1, since_ms=step.now_ms, window=None)
    if step.group.members:
        _start_generation(step)
    else:
        _become_empty(step)
    step.store()


def _elect(step: Step) -> bool:
    """Make a member that has rejoined the leader. False if none has."""
    group = step.group
    leader = group.members.get(group.leader or "")
    if leader is not None and leader.join_waiter is not None:
        return True
    for member in group.members.values():
        if member.join_waiter is not None:
            step.group = replace(group, leader=member.member_id)
            return True
    return False


def _start_generation(step: Step) -> None:
    protocol_name = select_protocol(step.group)
    group = replace(step.group, state=GroupState.COMPLETING_REBALANCE, protocol_name=protocol_name)
    group = replace(group, subscribed=subscribed_topics(group))
    members = []
    for member in group.members.values():
        step.reply(member.join_waiter, joined(group, member.member_id))
        step.session(member)
        members.append(replace(member, join_waiter=None, is_new=False, owes_sync=True))
    step.group = group
    step.put_all(members)
    step.timer(SYNC_TIMER, rebalance_timeout_ms(group))


def _become_empty(step: Step) -> None:
    subscribed: frozenset[str] | None = frozenset() if step.group.protocol_type == CONSUMER else None
    step.group = replace(
        step.group, state=GroupState.EMPTY, protocol_name=None, leader=None, subscribed=subscribed, window=None
    )


def rebalance_timeout_ms(group: Group) -> int:
    """The longest rebalance time-out of the members."""
    return max((member.rebalance_timeout_ms for member in group.members.values()), default=0)


# --- The initial rebalance -----------------------------------------------------------------------------------------


def arrived(step: Step, *, member: bool) -> None:
    """A member joined an initial rebalance, or was given an id to join it with."""
    window = step.group.window
    if window is None:
        return
    gap_ms = max(step.now_ms - window.last_ms, window.gap_ms // 2)
    window = replace(window, last_ms=step.now_ms, gap_ms=gap_ms, arrived=window.arrived or member)
    step.group = replace(step.group, window=window)
    if step.settings.initial_rebalance_delay_ms == 0:
        step.timer(JOIN_TIMER, min(_quiet_ms(window, step.settings), _left_ms(step, step.settings.join_window_max_ms)))


def first_join_timer(step: Step) -> None:
    """The timer of an initial rebalance fired: complete it, or wait for members that are still arriving."""
    group, settings = step.group, step.settings
    window = group.window
    if window is None:
        return complete(step)
    if settings.initial_rebalance_delay_ms > 0:
        left_ms = _left_ms(step, rebalance_timeout_ms(group))
        if not (window.arrived and left_ms > 0):
            return complete(step)
        step.group = replace(group, window=replace(window, arrived=False))
        return step.timer(JOIN_TIMER, min(settings.initial_rebalance_delay_ms, left_ms))
    quiet_ms = _PENDING_QUIET_MS if group.pending else 0
    wait_ms = min(window.last_ms + quiet_ms - step.now_ms, _left_ms(step, settings.join_window_max_ms))
    if wait_ms > 0:
        return step.timer(JOIN_TIMER, wait_ms)
    return complete(step)


def _quiet_ms(window: JoinWindow, settings: GroupSettings) -> int:
    return min(max(settings.join_quiet_ms, 4 * window.gap_ms), settings.join_quiet_max_ms)


def _left_ms(step: Step, limit_ms: int) -> int:
    window = step.group.window
    # A wall clock set back must not make it longer.
    return limit_ms if window is None else min(max(window.opened_ms + limit_ms - step.now_ms, 0), limit_ms)
