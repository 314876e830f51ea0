"""Builds decisions about classic groups. Pure: no await, no clock, no I/O."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.base.dataclasses import dataclass, field, replace
from penstock.coordination.model import Reply, Timer, Waiter
from penstock.groups.model import (
    ClassicGroup,
    ClassicMember,
    GroupDecision,
    GroupStored,
    JoinResult,
    Record,
    SyncResult,
    with_members,
)
from penstock.groups.settings import GroupSettings
from penstock.wire.error_codes import ErrorCode

JOIN_TIMER = "join"
"""Timer: the rebalance being prepared completes, whoever has joined."""
SYNC_TIMER = "sync"
"""Timer: members that have not synced in this generation are removed."""
SESSION_TIMER = "session/"
"""Timer of a member, followed by its id: its session expires."""


@dataclass(slots=True)
class ClassicDecisionBuilder:
    """A decision under construction: rules replace its group and collect records, replies and timers. It lives within
    one call of one rule."""

    group: ClassicGroup
    now_ms: int
    settings: GroupSettings
    records: list[Record] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    timers: list[Timer] = field(default_factory=list)

    def decision(self) -> GroupDecision:
        """The finished decision. A group that consists only of pending ids vanishes."""
        group = self.group
        gone = not (group.members or group.pending_members or group.stored or group.generation)
        return GroupDecision(
            state=None if gone else group,
            records=tuple(self.records),
            replies=tuple(self.replies),
            timers=tuple(self.timers),
        )

    def reply(self, waiter: Waiter | None, answer: object) -> None:
        """Reply to a waiter, if there is one."""
        if waiter is not None:
            self.replies.append(Reply(waiter, answer))

    def set_timer(self, name: str, delay_ms: int | None) -> None:
        """Set or cancel a timer."""
        self.timers.append(Timer(name, delay_ms))

    def restart_session(self, member: ClassicMember, delay_ms: int | None = None) -> None:
        """A member sent a request: restart its session timer."""
        self.set_timer(SESSION_TIMER + member.member_id, member.session_timeout_ms if delay_ms is None else delay_ms)

    def store_group(self) -> None:
        """Store the group in its current state."""
        self.group = replace(self.group, stored=True)
        self.records.append(GroupStored(self.group))

    def put_member(self, member: ClassicMember) -> None:
        """Add a member or replace the one with the same id."""
        group = self.group
        instances = group.instances
        if member.instance_id is not None and instances.get(member.instance_id) != member.member_id:
            instances = {**instances, member.instance_id: member.member_id}
        self.group = replace(group, members={**group.members, member.member_id: member}, instances=instances)

    def replace_members(self, members: Iterable[ClassicMember]) -> None:
        """Replace all members."""
        by_id, instances = with_members(members)
        self.group = replace(self.group, members=by_id, instances=instances)

    def remove_members(self, *member_ids: str) -> None:
        """Remove members or pending ids; their parked requests get UNKNOWN_MEMBER_ID."""
        group, gone = self.group, frozenset(member_ids)
        for member_id in member_ids:
            self.set_timer(SESSION_TIMER + member_id, None)
            member = group.members.get(member_id)
            if member is not None:
                self.reply(member.join_waiter, JoinResult(error=ErrorCode.UNKNOWN_MEMBER_ID, member_id=""))
                self.reply(member.sync_waiter, SyncResult(error=ErrorCode.UNKNOWN_MEMBER_ID))
        if not gone.isdisjoint(group.pending_members):
            group = replace(group, pending_members=group.pending_members - gone)
        if not gone.isdisjoint(group.members):
            members = {key: kept for key, kept in group.members.items() if key not in gone}
            instances = {key: kept for key, kept in group.instances.items() if kept not in gone}
            leader = group.leader if group.leader not in gone else next(iter(members), None)
            group = replace(group, members=members, instances=instances, leader=leader)
        self.group = group
