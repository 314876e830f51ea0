"""How many groups a cluster may have: counted as they come and go, and asked about without looking at all of them."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import pytest
from group_world import Process, World, settle
from test_group_handlers import DAY_MS, commit, join

from penstock.base.errors import PlatformError
from penstock.groups.consumer import model as consumer
from penstock.groups.model import CommitOffsets, OffsetAndMetadata, TransactionOwner
from penstock.groups.settings import GroupSettings
from penstock.log.refusals import Refused
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.delete_groups import DeleteGroupsRequest
from penstock.wire.messages.leave_group import LeaveGroupRequest

CLUSTERS = (1, 2)
GROUPS = tuple(f"g{number}" for number in range(5))


class Crowd:
    """Clients that do anything to some groups, over faults of the database and restarts."""

    def __init__(self, seed: int) -> None:
        self.random, self.world = random.Random(seed), World(GroupSettings(initial_rebalance_delay_ms=100))
        self.members: list[tuple[int, str, str]] = []
        self.joining: set[asyncio.Future[None]] = set()

    async def start(self) -> None:
        self.process: Process = await self.world.start()
        self.process.service._runtime._idle_states_max = 2

    async def step(self) -> None:
        """Do something, and let it end."""
        key = self.random.choice(CLUSTERS), self.random.choice(GROUPS)
        doing = self.random.choice(
            (self.joins, self.joins, self.beats, self.commits, self.commits, self.transacts, self.leaves, self.deletes,
             self.looks, self.time, self.time, self.fault, self.restart)
        )  # fmt: skip
        await doing(*key)
        await settle()

    async def check(self) -> None:
        for cluster_id in CLUSTERS:
            listed = await self.process.service.list_groups(cluster_id)
            assert self.process.service.count(cluster_id) == len(listed), listed

    async def joins(self, cluster_id: int, group: str) -> None:
        async def member(process: Process) -> None:
            with suppress(PlatformError):
                answer = await process.ask("join_group", join(group=group), version=3, cluster_id=cluster_id)
                self.members.append((cluster_id, group, answer.member_id))

        task = asyncio.ensure_future(member(self.process))
        self.joining.add(task)
        task.add_done_callback(self.joining.discard)

    async def beats(self, cluster_id: int, group: str) -> None:
        request = consumer.ConsumerHeartbeat(
            member_id=f"m{self.random.randrange(2)}", epoch=self.random.choice((0, 0, -1)), rebalance_timeout_ms=10_000,
            topics=frozenset({"orders"}), owned={},
        )  # fmt: skip
        with suppress(PlatformError):
            await self.process.service.consumer_heartbeat((cluster_id, group), request, lambda topic: True)

    async def commits(self, cluster_id: int, group: str) -> None:
        await self.process.ask("offset_commit", commit(group=group), version=8, cluster_id=cluster_id)

    async def transacts(self, cluster_id: int, group: str) -> None:
        """Offsets of a transaction, which may have ended meanwhile: the group is there all the same."""
        owner = TransactionOwner(transactional_id="relay", producer_id=7, epoch=0, begins=True)
        offset = OffsetAndMetadata(
            committed_offset=1, leader_epoch=-1, metadata="", committed_ms=self.process.service.now_ms()
        )
        with suppress(PlatformError):
            await self.process.service.commit_offsets(
                (cluster_id, group), CommitOffsets(offsets={(bytes(16), 0): offset}, owner=owner)
            )

    async def leaves(self, cluster_id: int, group: str) -> None:
        if self.members:
            cluster_id, group, member_id = self.members.pop(self.random.randrange(len(self.members)))
            request = LeaveGroupRequest(group_id=group, member_id=member_id)
            await self.process.ask("leave_group", request, version=2, cluster_id=cluster_id)

    async def deletes(self, cluster_id: int, group: str) -> None:
        request = DeleteGroupsRequest(groups_names=[group])
        await self.process.ask("delete_groups", request, version=2, cluster_id=cluster_id)

    async def looks(self, cluster_id: int, group: str) -> None:
        for name in GROUPS:
            with suppress(PlatformError):
                await self.process.service.find((cluster_id, name))

    async def time(self, cluster_id: int, group: str) -> None:
        await self.world.clock.pass_ms(self.random.choice((150, 150, 3_000, 70_000, 8 * DAY_MS)))
        with suppress(PlatformError):
            await self.process.service.expire_offsets()

    async def fault(self, cluster_id: int, group: str) -> None:
        self.world.database.faults = [self.random.choice(("before", "lost", "after"))]
        if self.random.random() < 0.5:
            await self.commits(cluster_id, group)
        else:  # A first generation, say, of which nothing is stored yet.
            await self.joins(cluster_id, group)
            await self.world.clock.pass_ms(150)
        self.world.database.faults = []

    async def restart(self, cluster_id: int, group: str) -> None:
        await self.process.service.close()
        await self.start()


@pytest.mark.parametrize("seed", range(12))
async def test_groups_are_counted_as_many_as_are_listed(seed: int) -> None:
    crowd = Crowd(seed)
    await crowd.start()
    for _ in range(80):
        await crowd.step()
        await crowd.check()
    await crowd.process.service.close()
    await asyncio.gather(*crowd.joining, return_exceptions=True)


async def test_at_its_limit_a_cluster_keeps_the_groups_it_has() -> None:
    world = World()
    process = await world.start()
    for group in ("a", "b"):
        await process.ask("offset_commit", commit(group=group), version=8)
    again = (await world.start()).service  # With nothing in memory.
    again.limit = lambda cluster_id: 2
    await again.check_group_limit((1, "a"))
    for key in ((1, "c"), (1, "d")):
        with pytest.raises(Refused) as refused:
            await again.check_group_limit(key)
        assert refused.value.code is ErrorCode.POLICY_VIOLATION
    await again.check_group_limit((2, "c"))
    assert await again.delete((1, "b")) is ErrorCode.NONE
    await again.check_group_limit((1, "c"))


async def test_a_group_on_its_way_to_the_database_is_there_and_nobody_lists_all_of_them() -> None:
    world = World()
    process = await world.start()
    service = process.service
    service.limit = lambda cluster_id: 1
    committing = asyncio.ensure_future(process.ask("offset_commit", commit(group="a"), version=8))
    while not service._runtime.latest_decided((1, "a"))[1]:
        await asyncio.sleep(0)
    assert service._runtime.current((1, "a")) == (False, None)
    service._counts[1] = 1  # Somebody else's, say.
    reads = world.database.reads
    await service.check_group_limit((1, "a"))
    assert world.database.reads == reads
    answer = await committing
    assert answer.topics[0].partitions[0].error_code == ErrorCode.NONE
