"""Members of consumer groups (KIP-848) as clients are: told what they have, they use it until they have given it back.

A member writes down when it used which partition. It stops using what it has to give back before it says that it has,
and everything when it is fenced, or was not answered for so long that its session may be over. Whoever was answered not
long ago is a member still, whoever coordinates the group by now.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, ClassVar

from simulation.clients import TRY_AGAIN, Client
from simulation.history import GroupCommit, Outcome
from simulation.links import ConnectionLost
from simulation.world import World

from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import consumer_group_heartbeat as beats
from penstock.wire.messages import offset_commit

GIVE_UP_S = 35.0
"""Less than a session."""
ANSWER_S = 5.0
FENCED = (ErrorCode.FENCED_MEMBER_EPOCH, ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.GROUP_ID_NOT_FOUND)

Partition = tuple[bytes, int]


@dataclass(slots=True)
class Use:
    """A stretch of time in which a member used a partition; without an end while it does."""

    partition: Partition
    member_id: str
    since: float
    until: float = float("inf")


class Member(Client):
    """One member, which joins again whenever it is fenced."""

    HEARTBEAT: ClassVar[ApiKey] = ApiKey.CONSUMER_GROUP_HEARTBEAT
    PATIENCE_S: ClassVar[float] = GIVE_UP_S
    """How long it goes on without an answer."""
    PASSING: ClassVar[frozenset[ErrorCode]] = TRY_AGAIN
    """Errors that pass."""

    def __init__(self, world: World, name: str, group_id: str, topic: str, uses: list[Use]) -> None:
        super().__init__(world, name)
        self.group_id, self.topic, self.uses = group_id, topic, uses
        self.lives = self.epoch = 0
        self.heard_at = 0.0
        self.stays = False
        """Whether it does not leave any more."""
        self.told: set[Partition] = set()
        self.using: dict[Partition, Use] = {}

    @property
    def member_id(self) -> str:
        """Another one in each life."""
        return f"{self.name}-{self.lives}"

    async def live(self, stop: asyncio.Event) -> None:
        """Be a member until told to stop; then leave."""
        while not stop.is_set():
            pause_s = await self.beat()
            await asyncio.sleep(pause_s)

    async def beat(self) -> float:
        """One heartbeat; in how many seconds the next is due."""
        await self.commit()
        self.give_back()
        asked_at = self.now()
        try:
            async with asyncio.timeout(ANSWER_S):
                answer = await self.call(self.HEARTBEAT, 1, self.request())
        except (ConnectionLost, TimeoutError):
            self.give_up()
            if self.now() - self.heard_at > self.PATIENCE_S:
                self.die()
            return 0.2
        error = ErrorCode(answer.error_code)
        if error is ErrorCode.NONE:
            self.hear(answer, asked_at)
            return float(answer.heartbeat_interval_ms) / 1000
        if error in FENCED:
            self.world.marks.reach("fenced")
            heard_of = self.now() - self.heard_at < self.PATIENCE_S
            assert error is ErrorCode.FENCED_MEMBER_EPOCH or not heard_of, f"{self.member_id} was forgotten"
            self.die()
        else:
            assert error in self.PASSING, error
            if error is ErrorCode.NOT_COORDINATOR:
                self.world.marks.reach("another coordinator")
                self.give_up()
        return 0.2

    async def commit(self) -> None:
        """Commit an offset for everything in use: more than anybody has committed before."""
        if self.using:
            await self._commit(self.member_id, self.epoch, self._next(), tuple(sorted(self.using)))

    def _next(self) -> int:
        return len(self.world.history.group_commits) + 1

    async def _commit(self, member_id: str, epoch: int, offset: int, partitions: tuple[Partition, ...]) -> None:
        commit = GroupCommit(
            group_id=self.group_id, partitions=tuple(index for _, index in partitions), offset=offset,
            invoked_at=self.now(),
        )  # fmt: skip
        self.world.history.group_commits.append(commit)
        asked = [
            offset_commit.OffsetCommitRequestPartition(partition_index=index, committed_offset=offset)
            for _, index in partitions
        ]
        request = offset_commit.OffsetCommitRequest(
            group_id=self.group_id, generation_id_or_member_epoch=epoch, member_id=member_id,
            topics=[offset_commit.OffsetCommitRequestTopic(name=self.topic, partitions=asked)],
        )  # fmt: skip
        try:
            async with asyncio.timeout(ANSWER_S):
                answer = await self.call(ApiKey.OFFSET_COMMIT, 9, request)
        except (ConnectionLost, TimeoutError):
            self.give_up()
            return
        error = ErrorCode(answer.topics[0].partitions[0].error_code)
        commit.answered_at = self.now()
        if error is ErrorCode.NONE:
            commit.outcome = Outcome.ACKNOWLEDGED
        elif error not in TRY_AGAIN:
            commit.outcome = Outcome.REFUSED

    def abandon(self) -> Zombie:
        """Stop without leaving the group; returns a zombie that may commit late."""
        zombie = Zombie(self, self.member_id, self.epoch, self._next(), tuple(sorted(self.using)))
        self.die()
        return zombie

    def request(self) -> Any:
        """Full, as after anything that may have gone wrong."""
        owned: dict[bytes, list[int]] = {}
        for topic_id, partition in sorted(self.using):
            owned.setdefault(topic_id, []).append(partition)
        return beats.ConsumerGroupHeartbeatRequest(
            group_id=self.group_id, member_id=self.member_id, member_epoch=self.epoch, rebalance_timeout_ms=60_000,
            subscribed_topic_names=[self.topic],
            topic_partitions=[
                beats.ConsumerGroupHeartbeatRequestTopicPartitions(topic_id=topic_id, partitions=partitions)
                for topic_id, partitions in owned.items()
            ],
        )  # fmt: skip

    def hear(self, answer: Any, asked_at: float) -> None:
        """Begin to use what is new; what is gone is given back before the next heartbeat."""
        self.epoch, self.heard_at = answer.member_epoch, asked_at
        told = self.assigned(answer)
        if told is None:
            return
        self.told = told
        for partition in sorted(self.told - self.using.keys()):
            use = self.using[partition] = Use(partition, self.member_id, self.now())
            self.uses.append(use)
        if self.using.keys() - self.told:
            self.world.marks.reach("gave something back")

    def assigned(self, answer: Any) -> set[Partition] | None:
        """What an answer says the member has, if it says so."""
        if answer.assignment is None:
            return None
        return {
            (bytes(topic.topic_id), partition)
            for topic in answer.assignment.topic_partitions
            for partition in topic.partitions
        }

    def give_back(self) -> None:
        """Stop using what is not this member's any more."""
        for partition in sorted(self.using.keys() - self.told):
            self.using.pop(partition).until = self.now()

    def die(self) -> None:
        """Stop using everything; the next heartbeat joins as another member."""
        self.told = set()
        self.give_back()
        self.lives += 1
        self.epoch = 0
        self.heard_at = self.now()

    async def leave(self) -> None:
        """Stop using everything, say so once, and be another member from now on."""
        self.told = set()
        self.give_back()
        request = self.request()
        request.member_epoch = -1
        try:
            await self.call(self.HEARTBEAT, 1, request)
        except ConnectionLost:
            self.world.marks.reach("leaving was not answered")
        self.die()


@dataclass(frozen=True, slots=True)
class Zombie:
    """A paused process that resumes without knowing that its member was removed from the group."""

    member: Member
    member_id: str
    epoch: int
    offset: int
    partitions: tuple[Partition, ...]

    async def commit_late(self, after_s: float) -> None:
        """Commit the offsets that it had read before the pause."""
        await asyncio.sleep(after_s)
        if self.partitions:
            await self.member._commit(self.member_id, self.epoch, self.offset, self.partitions)
            self.member.world.marks.reach("a zombie committed or tried to")
