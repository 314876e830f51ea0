"""Consumers that are restarted with another protocol now and then, as when a group is moved to KIP-848, or back.

A `Migrant` lives several times, each time as a member of the classic or of the consumer protocol, mostly of the one
that is the order of the day (`Course`). Some are static: they come back in their own place, whatever they speak then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, ClassVar

from simulation.checkers.epochs import Told, check_epochs
from simulation.checkers.uses import check_uses
from simulation.clients import TRY_AGAIN, Committer
from simulation.heartbeat_groups import PARTITIONS, all_in_use, check_group
from simulation.heartbeating import ANSWER_S, Member, Partition, Use
from simulation.history import OffsetLook, PartitionKey
from simulation.links import ConnectionLost
from simulation.world import World

from penstock.wire.api_keys import ApiKey
from penstock.wire.consumer_protocol import (
    encode_assignment,
    encode_subscription,
    read_assignment,
    read_subscription,
)
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import consumer_group_heartbeat as beats
from penstock.wire.messages import join_group, leave_group, offset_fetch, sync_group
from penstock.wire.messages.consumer_protocol import (
    ConsumerProtocolAssignment,
    ConsumerProtocolAssignmentTopicPartition,
    ConsumerProtocolSubscription,
    ConsumerProtocolSubscriptionTopicPartition,
)
from penstock.wire.messages.heartbeat import HeartbeatRequest

SESSION_MS, PATIENCE_S = 20_000, 10.0
"""A session is longer than a coordinator is ever away, and than it takes a member to notice that it is not answered."""
REBALANCE_MS = 60_000
ASSIGNOR = "cooperative-sticky"
AWAY, FOR_GOOD = -2, -1
COURSES, CRASHES = 4, 0.1
_LOST = (ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.FENCED_INSTANCE_ID)


@dataclass(slots=True)
class Course:
    """Where a group is going, and what its members were told on the way."""

    world: World
    group_id: str
    topic: str
    topic_id: bytes
    count: int
    """How many partitions there are."""
    is_upward: bool = False
    """Whether members are to speak the consumer protocol."""
    uses: list[Use] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    _is_up: bool | None = None

    def hear(self, member_id: str, epoch: int, asked_at: float, *, joins: bool, is_up: bool) -> None:
        """A member was answered by the group, which is a consumer group or a classic one."""
        self.told.append(Told(member_id, epoch, asked_at, self.world.loop.time(), joins))
        if self._is_up is not None and is_up is not self._is_up:
            self.world.marks.reach("the group went up" if is_up else "the group went down")
        self._is_up = is_up


class MigratingMember(Member):
    """What members of both protocols have in common here."""

    PATIENCE_S: ClassVar[float] = PATIENCE_S

    def __init__(self, name: str, course: Course, instance_id: str | None) -> None:
        super().__init__(course.world, name, course.group_id, course.topic, course.uses)
        self.course, self.instance_id = course, instance_id
        self.heard_at = self.now()

    async def insist(self, key: ApiKey, version: int, request: Any) -> None:
        """Ask until there is an answer, but not for ever."""
        for _ in range(20):
            try:
                async with asyncio.timeout(ANSWER_S):
                    answer = await self.call(key, version, request)
            except (ConnectionLost, TimeoutError):
                self.give_up()
                continue
            if answer.error_code not in TRY_AGAIN:
                return
            self._passes(ErrorCode(answer.error_code))
            await asyncio.sleep(0.2)

    def _passes(self, error: ErrorCode) -> None:
        assert error in TRY_AGAIN, error
        if error is ErrorCode.NOT_COORDINATOR:
            self.world.marks.reach("another coordinator")
            self.give_up()

    async def look(self, fresh: set[Partition], member_id: str | None, epoch: int) -> None:
        """Ask where to go on in what is new."""
        asked_at = self.now()
        indexes = sorted(index for _, index in fresh)
        topic = offset_fetch.OffsetFetchRequestTopics(name=self.topic, partition_indexes=indexes)
        group = offset_fetch.OffsetFetchRequestGroup(
            group_id=self.group_id, member_id=member_id, member_epoch=epoch, topics=[topic]
        )
        async with asyncio.timeout(ANSWER_S):
            answer = await self.call(ApiKey.OFFSET_FETCH, 9, offset_fetch.OffsetFetchRequest(groups=[group]))
        (found,) = answer.groups
        error = ErrorCode(found.error_code)
        if error is not ErrorCode.NONE:
            # The epoch may be another by now, where the answer to a heartbeat was lost.
            if error not in (ErrorCode.STALE_MEMBER_EPOCH, ErrorCode.UNKNOWN_MEMBER_ID):
                self._passes(error)
            return
        self.world.marks.reach("a member asked where to go on")
        for partition in found.topics[0].partitions:
            look = OffsetLook(
                group_id=self.group_id, partition=partition.partition_index, offset=int(partition.committed_offset),
                invoked_at=asked_at, answered_at=self.now(),
            )  # fmt: skip
            self.world.history.looks.append(look)


class ModernMember(MigratingMember):
    """A member of the consumer protocol, which may be static."""

    PASSING: ClassVar[frozenset[ErrorCode]] = TRY_AGAIN | {ErrorCode.UNRELEASED_INSTANCE_ID}
    """A static one may have to wait until the session of its last life is over."""

    def request(self) -> Any:
        """Full, as after anything that may have gone wrong."""
        request = super().request()
        request.instance_id = self.instance_id
        return request

    async def beat(self) -> float:
        """One heartbeat; then ask where to go on."""
        had = set(self.using)
        pause_s = await super().beat()
        fresh = self.using.keys() - had
        if fresh:
            try:
                await self.look(fresh, self.member_id, self.epoch)
            except (ConnectionLost, TimeoutError):
                self.give_up()
        return pause_s

    def hear(self, answer: Any, asked_at: float) -> None:
        """Also take down the epoch."""
        joins = self.epoch == 0
        super().hear(answer, asked_at)
        self.course.hear(self.member_id, self.epoch, asked_at, joins=joins, is_up=True)

    async def leave(self) -> None:
        """Stop using everything and say so: static members that they will be back."""
        self.told = set()
        self.give_back()
        request = beats.ConsumerGroupHeartbeatRequest(
            group_id=self.group_id, member_id=self.member_id, instance_id=self.instance_id,
            member_epoch=FOR_GOOD if self.instance_id is None else AWAY,
        )  # fmt: skip
        await self.insist(self.HEARTBEAT, 1, request)
        self.die()


class ClassicMember(MigratingMember):
    """A member of the classic protocol, as consumers are: cooperative, or eager, which gives everything back before it
    joins again. Whoever leads assigns nothing that somebody else has."""

    def __init__(self, name: str, course: Course, instance_id: str | None) -> None:
        super().__init__(name, course, instance_id)
        choose = self.world.workload
        self.is_eager, self.join_version = choose.random() < 0.4, choose.choice((5, 9))
        self.given_id, self.epoch = "", -1
        self.is_member = self.is_settled = False
        """Whether it has been told that it is one; and what it has, in this generation."""

    @property
    def member_id(self) -> str:
        """The one that it was given."""
        return self.given_id

    async def beat(self) -> float:
        """Join, or send a heartbeat; in how many seconds the next is due."""
        if self.is_settled:
            await self.commit()
        try:
            async with asyncio.timeout(ANSWER_S):
                return await (self._heartbeat() if self.is_settled else self._join())
        except (ConnectionLost, TimeoutError):
            self.give_up()
            if self.now() - self.heard_at > self.PATIENCE_S:
                self._lose()
            return 0.2

    def _lose(self) -> None:
        self.told = set()
        self.give_back()
        self.is_settled = False

    def die(self) -> None:
        """Stop using everything; whoever joins next is nobody yet."""
        super().die()
        self.given_id, self.epoch = "", -1
        self.is_member = self.is_settled = False

    # ---- becoming a member -----------------------------------------------------------------------------------------

    async def _join(self) -> float:
        if self.is_eager:
            self._lose()
        asked_at = self.now()
        joined = await self.call(ApiKey.JOIN_GROUP, self.join_version, self._wants())
        error = ErrorCode(joined.error_code)
        if error is ErrorCode.MEMBER_ID_REQUIRED:
            self.given_id = joined.member_id
            return 0.0
        if error is not ErrorCode.NONE:
            return self._refused(error)
        joins, self.is_member = not self.is_member, True
        self.given_id, self.epoch, self.heard_at = joined.member_id, joined.generation_id, self.now()
        is_up = not joined.leader
        self.course.hear(self.given_id, self.epoch, asked_at, joins=joins, is_up=is_up)
        leads = joined.leader == self.given_id and not joined.skip_assignment
        request = sync_group.SyncGroupRequest(
            group_id=self.group_id, generation_id=self.epoch, member_id=self.given_id,
            group_instance_id=self.instance_id, protocol_type="consumer", protocol_name=ASSIGNOR,
            assignments=self._assign(joined.members) if leads else [],
        )  # fmt: skip
        synced = await self.call(ApiKey.SYNC_GROUP, 5, request)
        if synced.error_code:
            return self._refused(ErrorCode(synced.error_code))
        self.is_settled = True
        return await self._take(bytes(synced.assignment))

    def _wants(self) -> join_group.JoinGroupRequest:
        indexes = sorted(index for _, index in self.using)
        owned = [ConsumerProtocolSubscriptionTopicPartition(topic=self.topic, partitions=indexes)] if indexes else []
        subscription = ConsumerProtocolSubscription(topics=[self.topic], owned_partitions=owned)
        protocol = join_group.JoinGroupRequestProtocol(name=ASSIGNOR, metadata=encode_subscription(subscription, 1))
        return join_group.JoinGroupRequest(
            group_id=self.group_id, session_timeout_ms=SESSION_MS, rebalance_timeout_ms=REBALANCE_MS,
            member_id=self.given_id, group_instance_id=self.instance_id, protocol_type="consumer",
            protocols=[protocol],
        )  # fmt: skip

    def _assign(self, members: list[join_group.JoinGroupResponseMember]) -> list[Any]:
        """Everybody keeps what it has, up to a fair share; what nobody has is given out, the rest later."""
        owners: dict[int, list[str]] = {}
        for member in members:
            for topic in read_subscription(member.metadata).owned_partitions:
                for index in topic.partitions:
                    owners.setdefault(index, []).append(member.member_id)
        shares: dict[str, list[int]] = {member.member_id: [] for member in members}
        most = -(-self.course.count // len(members))
        for index, claims in sorted(owners.items()):
            if len(claims) == 1 and len(shares[claims[0]]) < most:
                shares[claims[0]].append(index)
        for index in range(self.course.count):
            if index not in owners:
                min(shares.values(), key=len).append(index)
        return [
            sync_group.SyncGroupRequestAssignment(member_id=member_id, assignment=self._encoded(indexes))
            for member_id, indexes in shares.items()
        ]

    def _encoded(self, indexes: list[int]) -> bytes:
        topic = ConsumerProtocolAssignmentTopicPartition(topic=self.topic, partitions=indexes)
        return encode_assignment(ConsumerProtocolAssignment(assigned_partitions=[topic] if indexes else []), 1)

    async def _take(self, assignment: bytes) -> float:
        listed = read_assignment(assignment).assigned_partitions if assignment else []
        self.told = {(self.course.topic_id, index) for topic in listed for index in topic.partitions}
        fresh = self.told - self.using.keys()
        for partition in sorted(fresh):
            use = self.using[partition] = Use(partition, self.given_id, self.now())
            self.uses.append(use)
        if self.using.keys() - self.told:
            # What was taken away is given back, and somebody may have it once that has been said.
            self.world.marks.reach("a classic member gave something back")
            self.give_back()
            self.is_settled = False
        if fresh:
            await self.look(fresh, None, -1)
        return 0.1

    # ---- being one -------------------------------------------------------------------------------------------------

    async def _heartbeat(self) -> float:
        asked_at = self.now()
        request = HeartbeatRequest(
            group_id=self.group_id, generation_id=self.epoch, member_id=self.given_id,
            group_instance_id=self.instance_id,
        )  # fmt: skip
        error = ErrorCode((await self.call(ApiKey.HEARTBEAT, 4, request)).error_code)
        if error in (ErrorCode.NONE, ErrorCode.REBALANCE_IN_PROGRESS):
            self.heard_at = asked_at
        if error is ErrorCode.NONE:
            return self.world.workload.uniform(0.3, 1.0)
        return self._refused(error)

    def _refused(self, error: ErrorCode) -> float:
        if error is ErrorCode.REBALANCE_IN_PROGRESS:
            self.is_settled = False
        elif error is ErrorCode.ILLEGAL_GENERATION:
            self.world.marks.reach("a classic member was behind")
            self._lose()
        elif error in _LOST:
            heard_of = self.is_member and self.now() - self.heard_at < self.PATIENCE_S
            assert not heard_of, f"{self.given_id} was forgotten"
            self.die()
        else:
            self._passes(error)
        return self.world.workload.uniform(0.02, 0.2)

    async def leave(self) -> None:
        """Stop using everything, and say so; a static one just goes."""
        member_id = self.given_id
        self.die()
        if self.instance_id is not None or not member_id:
            return
        member = leave_group.MemberIdentity(member_id=member_id)
        await self.insist(
            ApiKey.LEAVE_GROUP, 4, leave_group.LeaveGroupRequest(group_id=self.group_id, members=[member])
        )


class Migrant:
    """One consumer over all its lives."""

    def __init__(self, name: str, course: Course, instance_id: str | None = None) -> None:
        self.name, self.course, self.instance_id = name, course, instance_id
        self.stays = False
        self._lives = 0
        self.member = self._start()

    @property
    def using(self) -> dict[Partition, Use]:
        """What it uses now."""
        return self.member.using

    def _start(self) -> MigratingMember:
        self._lives += 1
        obeys = self.course.world.workload.random() < 0.97
        kind = ModernMember if self.course.is_upward is obeys else ClassicMember
        return kind(f"{self.name}-{self._lives}", self.course, self.instance_id)

    async def live(
        self, stop: asyncio.Event, settled: asyncio.Event, zombies: asyncio.TaskGroup, *, crashes: float
    ) -> None:
        """Be restarted again and again, and then stay until everything has settled."""
        choose = self.course.world.workload
        await asyncio.sleep(choose.uniform(0, 2))
        while not stop.is_set():
            gone = asyncio.Event()
            life = asyncio.get_running_loop().create_task(self.member.live(gone))
            await asyncio.sleep(choose.uniform(1.5, 6))
            gone.set()
            await life
            if choose.random() < crashes:
                zombies.create_task(self.member.abandon().commit_late(choose.uniform(1, 30)))
            else:
                await self.member.leave()
            check_uses(self.course.uses)
            self.member = self._start()
        self.stays = True
        await self.member.live(settled)


def set_sessions(world: World) -> None:
    """Let members of the consumer protocol have the sessions and heartbeats of these here. Before the world opens."""
    for limit in ("min.", ""):
        world.settings[f"group.consumer.{limit}session.timeout.ms"] = str(SESSION_MS)
        world.settings[f"group.consumer.{limit}heartbeat.interval.ms"] = "1000"


async def go_up_and_down(world: World, topic_id: bytes, upset: Coroutine[Any, Any, None], stop: asyncio.Event) -> None:
    """Members are restarted one after the other, mostly with the protocol that is the order of the day, while something
    upsets their coordinator until it is told to stop."""
    course = Course(world, "group", "orders", topic_id, PARTITIONS, is_upward=world.workload.random() < 0.5)
    # One never crashes and is static, so that the group is never without members.
    migrants = [Migrant("anchor", course, "anchor"), Migrant("static", course, "static")]
    migrants += (Migrant(f"dynamic-{number}", course) for number in range(2))
    lookers = [Committer(world, "group", "orders", PartitionKey(topic_id, index)) for index in range(PARTITIONS)]
    settled = asyncio.Event()
    async with asyncio.TaskGroup() as work:
        upsetting = work.create_task(upset)
        work.create_task(world.workload.choice(lookers).look_on(stop))
        for migrant in migrants:
            crashes = 0.0 if migrant.name == "anchor" else CRASHES
            work.create_task(migrant.live(stop, settled, work, crashes=crashes))
        for _ in range(COURSES):
            await asyncio.sleep(world.workload.uniform(10, 16))
            course.is_upward = not course.is_upward
        stop.set()
        await upsetting
        await world.heal()
        await world.eventually(lambda: all_in_use(migrants), "everything being used")
        settled.set()
    await check_group(world, course.uses, lookers)
    check_epochs(course.told)
