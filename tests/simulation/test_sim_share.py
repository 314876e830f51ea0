"""A share group works while agents die: nobody gets what another has, nothing accepted comes again, nothing is lost;
whoever is heard of stays a member, and everything is read by somebody."""

from __future__ import annotations

import asyncio

from simulation.checkers.share import check_accepted, check_complete, check_counts, check_exclusive, check_letters
from simulation.clients import Admin
from simulation.faults import SOME
from simulation.heartbeat_groups import PARTITIONS, all_in_use
from simulation.history import PartitionKey
from simulation.logs import read_log
from simulation.scenarios import kill_now_and_then, produce_plainly, read_logs
from simulation.seeds import simulate
from simulation.share_consumers import ShareConsumer
from simulation.share_members import ShareMember
from simulation.world import WRONG_DRIFT, WRONG_MS, World

from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.delete_groups import DeleteGroupsRequest

MEMBERS, PRODUCERS, BATCHES, LEAVES = 3, 2, 15, 4
QUEUE, ENABLED, LETTERS_S = "dlq.jobs", {"errors.deadletterqueue.group.enable": "true"}, 60.0
"""Where dead letters go, and within which time they are written once nothing goes wrong any more."""
CONFIG = {"auto_offset_reset": "earliest", "delivery_count_limit": "10"}
LIMIT, LOCK_S = 10, 30.0


async def finish(world: World, members: list[ShareConsumer], partition: PartitionKey) -> None:
    """Let a last member take what is left."""
    topic, number = members[0].topic, len(members)
    for member in members:
        member.give_up()
    last = ShareConsumer(world, "workers", number, topic, partition)
    await asyncio.sleep(2 * LOCK_S)
    await world.eventually(last.drain, "everything being accepted")


async def check_share(world: World, members: list[ShareConsumer], partition: PartitionKey) -> None:
    """What must hold once all is taken."""
    await finish(world, members, partition)
    topic = members[0].topic
    history = world.history
    if any(delivery.count > 1 for delivery in history.deliveries):
        world.marks.reach("delivered again")
    check_exclusive(history.deliveries, LOCK_S)
    check_accepted(history.deliveries, history.said)
    check_counts(history.deliveries, LIMIT)
    (log,) = await read_logs(world, topic, [partition])
    check_complete(log.high_watermark, history.deliveries, history.said, LIMIT)


@simulate(
    reach=(
        "killed", "database: after", "database: crash after", "connection cut",
        "share fetch: SHARE_SESSION_NOT_FOUND", "delivered again", "clock set back", "clock set forward",
    )
)  # fmt: skip
async def test_share_group(world: World) -> None:
    world.skew_ms, world.drift = WRONG_MS, WRONG_DRIFT
    await world.open()
    topic_id = await Admin(world, "admin").create_topic("jobs", partitions=1)
    partition = PartitionKey(topic_id, 0)
    members = [ShareConsumer(world, "workers", number, "jobs", partition) for number in range(MEMBERS)]
    await world.eventually(lambda: members[0].configure(**CONFIG), "the group being configured")
    for member in members:
        await world.eventually(member.join, "a member joining")
    world.faults = SOME
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as background:
        background.create_task(kill_now_and_then(world, stop, every_s=0.7))
        for member in members:
            background.create_task(member.work(stop))
        async with asyncio.TaskGroup() as work:
            for number in range(PRODUCERS):
                work.create_task(produce_plainly(world, "jobs", partition, f"p{number}", BATCHES, pause_s=0.1))
        await asyncio.sleep(1.0)
        stop.set()
    await world.heal()
    await check_share(world, members, partition)


@simulate(
    seeds=25, reach=("killed", "connection cut", "database: after", "clock set back", "leaving was not answered")
)  # fmt: skip
async def test_members_of_a_share_group(world: World) -> None:
    world.skew_ms, world.drift = WRONG_MS, WRONG_DRIFT
    await world.open()
    await Admin(world, "admin").create_topic("jobs", partitions=PARTITIONS)
    members = [ShareMember(world, f"member-{number}", "workers", "jobs", []) for number in range(MEMBERS)]
    world.faults = SOME
    stop, settled = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as work:
        work.create_task(kill_now_and_then(world, stop, every_s=3))
        for member in members:
            work.create_task(come_and_go(world, member, settled))
        await asyncio.sleep(40)
        stop.set()
        await asyncio.sleep(1)
        await world.heal()
        await world.eventually(lambda: all_in_use(members), "everything being read")
        for member in members:
            await world.eventually(member.is_described_so, "the group saying so, too")
        settled.set()


async def come_and_go(world: World, member: ShareMember, stop: asyncio.Event) -> None:
    """Live, and now and then leave, or just stop, and come back as somebody else."""
    await asyncio.sleep(world.workload.uniform(0, 2))
    for _ in range(LEAVES):
        gone = asyncio.Event()
        life = asyncio.get_running_loop().create_task(member.live(gone))
        await asyncio.sleep(world.workload.uniform(2, 12))
        gone.set()
        await life
        if world.workload.random() < 0.6:
            await member.leave()
        else:
            member.die()
    member.stays = True
    await member.live(stop)


async def check_queue(world: World, members: list[ShareConsumer], partition: PartitionKey, queue_id: bytes) -> None:
    """Compare the dead letter queue with what was given up."""
    await asyncio.sleep(LETTERS_S)
    source = await read_log(world, members[0].topic, partition)
    queue = await read_log(world, QUEUE, PartitionKey(queue_id, 0))
    letters = [
        (int(dict(record.headers)["__dlq.errors.offset"] or b""), record.value)
        for batch in queue.batches
        for record in batch.records
    ]
    values = {record.offset: record.value for batch in source.batches for record in batch.records}
    if letters:
        world.marks.reach("dead letters")
    check_letters(letters, values, world.history.deliveries, world.history.said, LIMIT)


AT_ANY_MOMENT = ("killed", "database: after", "database: crash after", "died between a letter and its record")


@simulate(reach=("dead letters", *AT_ANY_MOMENT), seeds=60)
async def test_dead_letters(world: World) -> None:
    await world.open()
    admin = Admin(world, "admin")
    partition = PartitionKey(await admin.create_topic("jobs", partitions=1), 0)
    queue_id = await admin.create_topic(QUEUE, partitions=1, **ENABLED)
    members = [ShareConsumer(world, "workers", number, "jobs", partition) for number in range(MEMBERS)]
    await world.eventually(lambda: members[0].configure(**CONFIG, queue=QUEUE), "the group being configured")
    for member in members:
        await world.eventually(member.join, "a member joining")
    world.faults = SOME
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as background:
        background.create_task(kill_now_and_then(world, stop, every_s=0.7))
        for member in members:
            background.create_task(member.work(stop, rejects=0.4))
        async with asyncio.TaskGroup() as work:
            for number in range(PRODUCERS):
                work.create_task(produce_plainly(world, "jobs", partition, f"p{number}", BATCHES, pause_s=0.1))
        await asyncio.sleep(1.0)
        stop.set()
    await world.heal()
    await check_share(world, members, partition)
    await check_queue(world, members, partition, queue_id)


@simulate(reach=("killed", "database: before", "database: after", "deleted", "spoken of when it was gone"), seeds=30)
async def test_deleted_groups_leave_nothing(world: World) -> None:
    """Again and again a group is deleted while those who were its members still speak of what they have: nothing of it
    is stored from then on, for another of its name to go on with."""
    await world.open()
    admin = Admin(world, "admin")
    partition = PartitionKey(await admin.create_topic("jobs", partitions=1), 0)
    await admin.create_topic(QUEUE, partitions=1, **ENABLED)
    members = [ShareConsumer(world, "workers", number, "jobs", partition) for number in range(MEMBERS)]
    await world.eventually(lambda: members[0].configure(**CONFIG, queue=QUEUE), "the group being configured")
    world.faults = SOME
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as background:
        background.create_task(kill_now_and_then(world, stop, every_s=1.0))
        await produce_plainly(world, "jobs", partition, "p", BATCHES)
        for _ in range(LEAVES):
            for member in members:
                await world.eventually(member.join, "a member joining")
            gone = asyncio.Event()
            async with asyncio.TaskGroup() as work:
                for member in members:
                    work.create_task(member.work(gone, rejects=0.4))
                await asyncio.sleep(world.workload.uniform(0.1, 1.0))
                await world.eventually(lambda: deleted(world, admin, members), "the group being deleted")
                assert await stored_partitions(world) == 0
                if any(member.held for member in members):
                    world.marks.reach("spoken of when it was gone")
                await asyncio.sleep(world.workload.uniform(0.1, 1.0))
                gone.set()
            assert await stored_partitions(world) == 0
        stop.set()
    await world.heal()
    await asyncio.sleep(LETTERS_S)
    assert await stored_partitions(world) == 0


async def deleted(world: World, admin: Admin, members: list[ShareConsumer]) -> bool | None:
    """Whether the group is gone, once its members have left it."""
    for member in members:
        await member.leave(admin)
    answer = await admin.call(ApiKey.DELETE_GROUPS, 2, DeleteGroupsRequest(groups_names=["workers"]))
    error = answer.results[0].error_code
    if error == ErrorCode.NONE:
        world.marks.reach("deleted")
    return True if error in (ErrorCode.NONE, ErrorCode.GROUP_ID_NOT_FOUND) else None


async def stored_partitions(world: World) -> int:
    """How many partitions groups are stored to have begun to read."""
    return int((await world.database.statement("SELECT COUNT(*) FROM share_partition"))[0][0])
