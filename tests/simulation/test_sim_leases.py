"""Leases that are lost in the middle of a decision: another agent takes all slots of coordinators over, again and
again, while the one before decides, writes and answers as if nothing had happened, and its clock is another."""

from __future__ import annotations

import asyncio

from simulation.clients import Admin, Client, Committer
from simulation.faults import SOME
from simulation.heartbeat_groups import PARTITIONS, all_in_use, check_group, leave_now_and_then
from simulation.heartbeating import Member, Use
from simulation.history import PartitionKey
from simulation.members import GroupMember
from simulation.migrating import go_up_and_down, set_sessions
from simulation.scenarios import produce_plainly, replace_now_and_then
from simulation.seeds import simulate
from simulation.share_consumers import ShareConsumer
from simulation.streams_members import StreamsMember
from simulation.world import WRONG_DRIFT, WRONG_MS, World
from test_sim_groups import MEMBER_PARTITIONS, MEMBERS, all_own, check_classic
from test_sim_share import CONFIG, ENABLED, QUEUE, check_queue, check_share, finish

REACH = ("the one before was still alive", "another coordinator", "database: after", "clock set back")


@simulate(seeds=40, reach=(*REACH, "told to join again"))
async def test_leases_of_classic_groups(world: World) -> None:
    topic_id = await open_shared(world, MEMBER_PARTITIONS)
    lookers = [Committer(world, "group", "orders", PartitionKey(topic_id, n)) for n in range(MEMBER_PARTITIONS)]
    members = [GroupMember(world, f"member-{n}", "group", "orders", MEMBER_PARTITIONS) for n in range(MEMBERS)]
    for member in members:
        # Nobody stands still here: a coordinator that was replaced answers whoever does not know.
        member.freezes = 0.0
    stop, ended = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as everything:
        replacing = everything.create_task(replace_now_and_then(world, ended, every_s=1.5, lingers_s=2.0))
        for member in members:
            everything.create_task(member.run(stop))
        await asyncio.sleep(world.workload.uniform(8, 15))
        ended.set()
        await replacing
        await world.heal()
        await world.eventually(lambda: all_own(members), "all partitions having an owner")
        stop.set()
    await check_classic(world, lookers)


@simulate(seeds=20, reach=(*REACH, "gave something back"))
async def test_leases_of_consumer_groups(world: World) -> None:
    await use_while_replaced(world, await open_shared(world, PARTITIONS), Member)


@simulate(seeds=20, reach=(*REACH, "gave something back"))
async def test_leases_of_streams_groups(world: World) -> None:
    topic_id = await open_shared(world, PARTITIONS, "group-changelog")
    await use_while_replaced(world, topic_id, StreamsMember)


@simulate(seeds=6, reach=(*REACH, "the group went up", "the group went down"))
async def test_leases_of_a_group_that_goes_up_and_down(world: World) -> None:
    set_sessions(world)
    topic_id = await open_shared(world, PARTITIONS)
    stop = asyncio.Event()
    await go_up_and_down(world, topic_id, replace_now_and_then(world, stop, every_s=1.5, lingers_s=3.0), stop)


async def use_while_replaced(world: World, topic_id: bytes, kind: type[Member]) -> None:
    """Members that each use something alone, whose coordinator is another one again and again."""
    uses: list[Use] = []
    members = [kind(world, f"member-{number}", "group", "orders", uses) for number in range(3)]
    lookers = [Committer(world, "group", "orders", PartitionKey(topic_id, index)) for index in range(PARTITIONS)]
    stop, settled = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as work:
        replacing = work.create_task(replace_now_and_then(world, stop, every_s=1.5, lingers_s=3.0))
        work.create_task(world.workload.choice(lookers).look_on(stop))
        for member in members:
            work.create_task(leave_now_and_then(world, member, settled, work, times=4, most_s=5))
        await asyncio.sleep(15)
        stop.set()
        await replacing
        await world.heal()
        await world.eventually(lambda: all_in_use(members), "all partitions being used")
        settled.set()
    await check_group(world, uses, lookers)


@simulate(
    seeds=60, reach=("the one before was still alive", "share partition: NOT_LEADER_OR_FOLLOWER", "delivered again")
)
async def test_leases_of_share_partitions(world: World) -> None:
    topic_id = await open_shared(world, 1)
    partition = PartitionKey(topic_id, 0)
    members = await joined(world, partition)
    stop, ended = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as everything:
        replacing = everything.create_task(replace_now_and_then(world, ended, every_s=0.3, lingers_s=0.5))
        for member in members:
            everything.create_task(member.work(stop))
        await produce_plainly(world, "orders", partition, "plain", 20, pause_s=0.2)
        ended.set()
        await replacing
        stop.set()
    await world.heal()
    await check_share(world, members, partition)


@simulate(seeds=60, reach=("the one before was still alive", "share partition: NOT_LEADER_OR_FOLLOWER"))
async def test_records_accepted_at_another_agent_are_not_given_out(world: World) -> None:
    """Members that have nothing to say look seldom, so that the agent before learns of no lost lease by a write of its
    own, while another member is always at the newest agent, and accepts what it gets at once."""
    topic_id = await open_shared(world, 1)
    partition = PartitionKey(topic_id, 0)
    quick, *slow = members = await joined(world, partition)
    stop, ended = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as everything:
        replacing = everything.create_task(replace_now_and_then(world, ended, every_s=0.3, lingers_s=1.0))
        everything.create_task(quick.work(stop, accepts=1.0, keeps=0.0))
        everything.create_task(go_where_the_agent_is(quick, stop))
        for member in slow:
            everything.create_task(member.work(stop, accepts=1.0, keeps=0.0, pause_s=0.5))
        await produce_plainly(world, "orders", partition, "plain", 20, pause_s=0.2)
        ended.set()
        await replacing
        stop.set()
    await world.heal()
    await check_share(world, members, partition)


async def joined(world: World, partition: PartitionKey) -> list[ShareConsumer]:
    """Three members of a configured share group."""
    members = [ShareConsumer(world, "workers", number, "orders", partition) for number in range(3)]
    await world.eventually(lambda: members[0].configure(**CONFIG), "the group being configured")
    for member in members:
        await world.eventually(member.join, "a member joining")
    return members


async def go_where_the_agent_is(client: Client, stop: asyncio.Event) -> None:
    """Leave each agent as soon as there is another one."""
    world = client.world
    known = world.places[0]
    while not stop.is_set():
        if world.places and world.places[0] is not known and world.places[0].up.is_set():
            known = world.places[0]
            client.give_up()
        await asyncio.sleep(0.005)


@simulate(seeds=15, reach=("the one before was still alive", "dead letters"))
async def test_dead_letters_over_leases(world: World) -> None:
    topic_id = await open_shared(world, 1)
    partition = PartitionKey(topic_id, 0)
    queue_id = await Admin(world, "queues").create_topic(QUEUE, **ENABLED)
    members = [ShareConsumer(world, "workers", number, "orders", partition) for number in range(3)]
    await world.eventually(lambda: members[0].configure(**CONFIG, queue=QUEUE), "the group being configured")
    for member in members:
        await world.eventually(member.join, "a member joining")
    stop, ended = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as everything:
        replacing = everything.create_task(replace_now_and_then(world, ended, every_s=0.3, lingers_s=0.5))
        for member in members:
            everything.create_task(member.work(stop, rejects=0.4))
        await produce_plainly(world, "orders", partition, "plain", 20, pause_s=0.2)
        ended.set()
        await replacing
        stop.set()
    await world.heal()
    await finish(world, members, partition)
    await check_queue(world, members, partition, queue_id)


async def open_shared(world: World, partitions: int, *more: str) -> bytes:
    """A world in which agents replace each other, and a topic in it, and others of the same kind."""
    world.is_shared = True
    world.skew_ms, world.drift = WRONG_MS, WRONG_DRIFT
    await world.open()
    admin = Admin(world, "admin")
    topic_id = await admin.create_topic("orders", partitions=partitions)
    for name in more:
        await admin.create_topic(name, partitions=partitions)
    world.faults = SOME
    return topic_id
