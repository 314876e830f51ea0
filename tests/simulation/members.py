"""Members of a classic group, as Kafka's consumers are: they join, one of them assigns, all commit what they own.

A member may freeze for longer than its session lasts, and then go on as if it still owned what it did: a zombie. It
may leave and come back, and its connection may end at any time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from simulation.clients import Client
from simulation.history import GroupCommit, Outcome, Ownership
from simulation.links import ConnectionLost
from simulation.world import World

from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import join_group, leave_group, offset_commit, sync_group
from penstock.wire.messages.heartbeat import HeartbeatRequest

SESSION_MS = 6_000
HEARTBEAT_S = 0.4
JOIN_VERSION, SYNC_VERSION, HEARTBEAT_VERSION, LEAVE_VERSION, COMMIT_VERSION = 7, 5, 4, 4, 8
_JOIN_ANEW = (ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.ILLEGAL_GENERATION, ErrorCode.FENCED_INSTANCE_ID)


class GroupMember(Client):
    """One consumer."""

    def __init__(self, world: World, name: str, group_id: str, topic: str, partitions: int) -> None:
        super().__init__(world, name)
        self.group_id, self.topic, self.partitions = group_id, topic, partitions
        self.member_id, self.generation = "", -1
        self.owned: tuple[int, ...] | None = None
        """What it believes to own; None while it is between two generations."""
        self.freezes, self.leaves = 0.04, 0.03
        """How often, per heartbeat."""
        self.session_ms, self.pause_s = SESSION_MS, HEARTBEAT_S
        self._offset = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Be a member until told to stop."""
        choose = self.world.workload
        while not stop.is_set():
            try:
                if self.owned is None:
                    await self._join()
                    continue
                await asyncio.sleep(self.pause_s * choose.uniform(0.5, 1.5))
                if choose.random() < self.freezes:
                    # The whole process stands still, and does not know for how long.
                    await asyncio.sleep(choose.uniform(0.5, 2.5) * self.session_ms / 1000)
                await self._commit()
                if self.owned is not None and choose.random() < self.leaves:
                    await self.leave()
                elif self.owned is not None:
                    await self._heartbeat()
            except ConnectionLost:
                await asyncio.sleep(choose.uniform(0.01, 0.1))

    # ---- becoming a member -------------------------------------------------------------------------------------

    async def _join(self) -> None:
        request = join_group.JoinGroupRequest(
            group_id=self.group_id, session_timeout_ms=self.session_ms, rebalance_timeout_ms=SESSION_MS,
            member_id=self.member_id, protocol_type="consumer",
            protocols=[join_group.JoinGroupRequestProtocol(name="range", metadata=b"")],
        )  # fmt: skip
        joined = await self.call(ApiKey.JOIN_GROUP, JOIN_VERSION, request)
        error = ErrorCode(joined.error_code)
        if error is ErrorCode.MEMBER_ID_REQUIRED:
            self.member_id = joined.member_id
            return
        if error is not ErrorCode.NONE:
            await self._refused(error)
            return
        self.member_id, self.generation = joined.member_id, joined.generation_id
        assignments = []
        if joined.leader == self.member_id:
            assignments = self._assign([member.member_id for member in joined.members])
        synced = await self.call(
            ApiKey.SYNC_GROUP, SYNC_VERSION,
            sync_group.SyncGroupRequest(
                group_id=self.group_id, generation_id=self.generation, member_id=self.member_id,
                protocol_type="consumer", protocol_name="range", assignments=assignments,
            ),
        )  # fmt: skip
        if synced.error_code:
            await self._refused(ErrorCode(synced.error_code))
            return
        self.owned = tuple(bytes(synced.assignment))
        self.world.history.ownerships.append(
            Ownership(
                group_id=self.group_id, generation=self.generation, member_id=self.member_id, partitions=self.owned
            )
        )

    def _assign(self, members: Sequence[str]) -> list[sync_group.SyncGroupRequestAssignment]:
        """Somehow: no two leaders would do it in the same way."""
        order = list(range(self.partitions))
        self.world.workload.shuffle(order)
        return [
            sync_group.SyncGroupRequestAssignment(member_id=member, assignment=bytes(sorted(order[n :: len(members)])))
            for n, member in enumerate(members)
        ]

    async def _refused(self, error: ErrorCode) -> None:
        self.owned = None
        if error is ErrorCode.NOT_COORDINATOR:
            self.world.marks.reach("another coordinator")
            self.give_up()
        if error in _JOIN_ANEW:
            if error is ErrorCode.UNKNOWN_MEMBER_ID:
                self.world.marks.reach("given up for dead")
                self.member_id = ""
            return
        await asyncio.sleep(self.world.workload.uniform(0.02, 0.2))

    # ---- being one ---------------------------------------------------------------------------------------------

    async def _heartbeat(self) -> None:
        request = HeartbeatRequest(group_id=self.group_id, generation_id=self.generation, member_id=self.member_id)
        error = ErrorCode((await self.call(ApiKey.HEARTBEAT, HEARTBEAT_VERSION, request)).error_code)
        if error is ErrorCode.REBALANCE_IN_PROGRESS or error in _JOIN_ANEW:
            if error is ErrorCode.REBALANCE_IN_PROGRESS:
                self.world.marks.reach("told to join again")
            await self._refused(error)

    async def leave(self) -> None:
        member = leave_group.MemberIdentity(member_id=self.member_id)
        self.owned, self.member_id = None, ""
        await self.call(
            ApiKey.LEAVE_GROUP, LEAVE_VERSION, leave_group.LeaveGroupRequest(group_id=self.group_id, members=[member])
        )
        self.world.marks.reach("left")

    async def _commit(self) -> None:
        """Commit a rising offset for everything owned."""
        if not self.owned:
            return
        self._offset += 1
        offset = self.generation * 100_000 + self._offset
        commit = GroupCommit(
            group_id=self.group_id, generation=self.generation, partitions=self.owned, offset=offset,
            invoked_at=self.now(),
        )  # fmt: skip
        self.world.history.group_commits.append(commit)
        partitions = [
            offset_commit.OffsetCommitRequestPartition(
                partition_index=index, committed_offset=offset, committed_metadata=""
            )
            for index in self.owned
        ]
        request = offset_commit.OffsetCommitRequest(
            group_id=self.group_id, generation_id_or_member_epoch=self.generation, member_id=self.member_id,
            topics=[offset_commit.OffsetCommitRequestTopic(name=self.topic, partitions=partitions)],
        )  # fmt: skip
        response: Any = await self.call(ApiKey.OFFSET_COMMIT, COMMIT_VERSION, request)
        error = ErrorCode(response.topics[0].partitions[0].error_code)
        commit.answered_at = self.now()
        if error is ErrorCode.NONE:
            commit.outcome = Outcome.ACKNOWLEDGED
        elif error in _JOIN_ANEW:
            commit.outcome = Outcome.REFUSED
            self.world.marks.reach("zombie refused")
            await self._refused(error)
