"""Builds decisions about consumer groups, and what several of their rules do. Pure: no await, no clock, no I/O."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.base.dataclasses import dataclass, field, replace
from penstock.coordination.model import Reply, Timer, Waiter
from penstock.groups.assignors import ASSIGNORS, Subscriber
from penstock.groups.consumer import membership
from penstock.groups.consumer.model import ConsumerGroup, ConsumerMember
from penstock.groups.model import GroupDecision, GroupStored, MemberRemoved, MemberStored, Record
from penstock.groups.partitions import Partitions, is_free_for
from penstock.groups.reconcile import MemberState, reconciled
from penstock.groups.rule_context import RuleContext, TopicView, fingerprint, may_assign, next_heartbeat_ms
from penstock.groups.settings import ConsumerSettings

SESSION_TIMER = "session/"
REBALANCE_TIMER = "rebalance/"
"""Timer: a member of the consumer protocol must revoke partitions."""
JOIN_TIMER = "rejoin/"
"""Timer: a member of the classic protocol must rejoin."""
SYNC_TIMER = "fetch/"
"""Timer: a member of the classic protocol must sync."""
MEMBER_TIMERS = (SESSION_TIMER, REBALANCE_TIMER, JOIN_TIMER, SYNC_TIMER)


@dataclass(slots=True)
class ConsumerDecisionBuilder:
    """A decision under construction: rules change its group, and the records follow from what they changed. It lives
    within one call of one rule."""

    group: ConsumerGroup
    context: RuleContext
    records: list[Record] = field(default_factory=list)
    """Records that must precede those of the group's final state."""
    replies: list[Reply] = field(default_factory=list)
    timers: list[Timer] = field(default_factory=list)
    _changed: dict[str, None] = field(default_factory=dict)
    _removed: dict[str, None] = field(default_factory=dict)
    _stores_group: bool = False

    def decision(self) -> GroupDecision:
        """The finished decision."""
        group, records = self.group, list(self.records)
        records += (MemberRemoved(member_id) for member_id in self._removed if member_id not in group.members)
        records += (MemberStored(group.members[member_id]) for member_id in self._changed if member_id in group.members)
        if self._stores_group or self._removed:
            records.append(GroupStored(group))
        return GroupDecision(
            state=group, records=tuple(records), replies=tuple(self.replies), timers=tuple(self.timers)
        )

    def reply(self, waiter: Waiter | None, answer: object) -> None:
        """Reply to a waiter, if there is one."""
        if waiter is not None:
            self.replies.append(Reply(waiter, answer))

    def set_timer(self, name: str, delay_ms: int | None) -> None:
        """Set or cancel a timer."""
        self.timers.append(Timer(name, delay_ms))

    def store_group(self) -> None:
        """Store the group in its final state."""
        self._stores_group = True

    def store_group_and_members(self) -> None:
        """Store the group and all its members in their final state."""
        self._changed.update(dict.fromkeys(self.group.members))
        self.store_group()

    def put_member(self, member: ConsumerMember) -> None:
        """Add a member, or replace the one with the same id."""
        if self.group.members.get(member.member_id) == member:
            return
        self._stores_group = self._stores_group or member.member_id not in self.group.members
        self.group = membership.with_member(self.group, member)
        self._changed[member.member_id] = None

    def put_soft_state(self, member: ConsumerMember) -> None:
        """Replace a member that differs in soft state only."""
        self.group = replace(self.group, members={**self.group.members, member.member_id: member})

    def remove_member(self, member: ConsumerMember) -> None:
        """Remove a member."""
        self.group = membership.without_member(self.group, member)
        self._removed[member.member_id] = None
        for timer in MEMBER_TIMERS:
            self.set_timer(timer + member.member_id, None)
        if not self.group.members:
            self.group = replace(self.group, empty_since_ms=self.context.now_ms)

    def restart_session(self, member: ConsumerMember) -> None:
        """A member sent a request: restart its session timer."""
        classic = member.classic
        delay_ms = self.context.consumer.session_timeout_ms if classic is None else classic.session_timeout_ms
        self.set_timer(SESSION_TIMER + member.member_id, delay_ms)

    # --- Epochs and targets ---

    def bump_epoch(self) -> None:
        """Increase the group's epoch: something requires a new assignment."""
        self.group = replace(self.group, epoch=self.group.epoch + 1, changed_ms=self.context.now_ms)
        self.store_group()

    def refresh_topics_hash(self) -> bool:
        """Compare the subscribed topics with the last known ones; whether they changed."""
        topics = self.context.topics
        seen = topics_hash(self.group, topics)
        changed = seen != self.group.topics_hash
        self.group = replace(self.group, topics_version=topics.version, topics_hash=seen)
        return changed

    def may_compute_target(self) -> bool:
        """Whether the group's epoch requires a target that may be computed now."""
        return self.group.target_epoch < self.group.epoch and self._may_assign()

    def compute_target(self) -> None:
        """Compute the target for the group's epoch, unless it exists or it is too early."""
        group, context = self.group, self.context
        if not self.may_compute_target():
            return
        subscribers = self._subscribers()
        counts = {
            topic_id: context.topics.partition_count(topic_id) or 0
            for topic_id in sorted({topic_id for subscriber in subscribers for topic_id in subscriber.topic_ids})
        }
        targets = ASSIGNORS[preferred_assignor(group, context.consumer)](subscribers, counts)
        members = dict(group.members)
        for member_id, target in targets.items():
            if members[member_id].target is not target:
                members[member_id] = replace(members[member_id], target=target)
                self._changed[member_id] = None
        self.group = replace(group, members=members, target_epoch=group.epoch, assigned_ms=context.now_ms)
        self.store_group()

    def _may_assign(self) -> bool:
        group, context = self.group, self.context
        work = len(group.members) * max(len(group.subscription_counts.topics), 1) + sum(
            len(owned) for owned in group.owners.values()
        )
        return may_assign(group.assigned_ms, context.consumer.assignment_interval_ms, work, context.now_ms)

    def _subscribers(self) -> list[Subscriber]:
        known: dict[tuple[frozenset[str], str], frozenset[bytes]] = {}
        subscribers = []
        for member in self.group.members.values():
            subscription = (member.topics, member.regex)
            topic_ids = known.get(subscription)
            if topic_ids is None:
                topic_ids = known[subscription] = subscribed_ids(self.group, member, self.context.topics)
            subscribers.append(
                Subscriber(
                    member_id=member.member_id,
                    instance_id=member.instance_id,
                    topic_ids=topic_ids,
                    target=member.target,
                )
            )
        return subscribers

    def reconcile(
        self, member: ConsumerMember, owned: Partitions | None, *, subscription_changed: bool
    ) -> ConsumerMember:
        """Reconcile a member one step towards its target."""
        group = self.group
        if not subscription_changed and member.has_reached(group.target_epoch):
            return member
        subscribed = subscribed_ids(group, member, self.context.topics)
        before = member.current_assignment
        after = reconciled(
            before,
            target=member.target,
            target_epoch=group.target_epoch,
            is_subscribed=subscribed.__contains__,
            is_free=is_free_for(group.owners, member.member_id),
            owned=owned,
            subscription_changed=subscription_changed,
        )
        if after == before:
            return member
        member = replace(
            member,
            epoch=after.epoch,
            previous_epoch=member.previous_epoch if after.epoch == member.epoch else member.epoch,
            state=after.state,
            assigned=after.assigned,
            pending_revocation=after.pending_revocation,
        )
        self.put_member(member)
        if member.classic is None:
            must_revoke = member.state is MemberState.UNREVOKED
            self.set_timer(REBALANCE_TIMER + member.member_id, member.rebalance_timeout_ms if must_revoke else None)
        return member

    def heartbeat_interval_ms(self, member: ConsumerMember) -> int:
        """The member's heartbeat interval: short while there may be news for it."""
        group, context = self.group, self.context
        return next_heartbeat_ms(
            context.consumer.heartbeat_interval_ms, len(group.members), is_settled=member.has_reached(group.epoch),
            changed_ms=group.changed_ms, now_ms=context.now_ms,
        )  # fmt: skip

    # --- Leaving ---

    def drop_unused_regexes(self) -> None:
        """Drop regular expressions that no member uses any more."""
        group = self.group
        if group.regexes.keys() - group.subscription_counts.regexes.keys():
            regexes = {
                pattern: found
                for pattern, found in group.regexes.items()
                if pattern in group.subscription_counts.regexes
            }
            self.group = replace(group, regexes=regexes)
            self.store_group()

    def fence_members(self, members: Iterable[ConsumerMember]) -> None:
        """Remove members and reassign their partitions."""
        for member in members:
            self.remove_member(member)
        self.drop_unused_regexes()
        self.refresh_topics_hash()
        self.bump_epoch()
        if not self.group.members:
            self.group = replace(self.group, target_epoch=self.group.epoch, assigned_ms=0)


def subscribed_ids(group: ConsumerGroup, member: ConsumerMember, topics: TopicView) -> frozenset[bytes]:
    """The ids of existing topics that a member subscribes to."""
    names = member.topics
    resolved = group.regexes.get(member.regex) if member.regex else None
    if resolved is not None:
        names = names | resolved.topics
    return frozenset(topic_id for name in names if (topic_id := topics.topic_id(name)) is not None)


def topics_hash(group: ConsumerGroup, topics: TopicView) -> int:
    """A hash that changes when the subscribed topics, or their partition counts, do."""
    names = set(group.subscription_counts.topics)
    for pattern, resolved in group.regexes.items():
        if pattern in group.subscription_counts.regexes:
            names |= resolved.topics
    return fingerprint(names, topics)


def preferred_assignor(group: ConsumerGroup, settings: ConsumerSettings) -> str:
    """The assignor that most members prefer; the default if none does."""
    votes = {name: count for name, count in group.subscription_counts.assignors.items() if name in settings.assignors}
    return max(sorted(votes), key=votes.__getitem__, default=settings.assignors[0])
