"""Consumers in incremental fetch sessions, while logs grow, are trimmed and deleted, the agent dies and there are fewer
sessions than consumers: their answers put together are what full fetches say."""

from __future__ import annotations

import asyncio

from simulation.checkers.sessions import check_session
from simulation.clients import Admin
from simulation.faults import SOME
from simulation.history import PartitionKey
from simulation.links import ConnectionLost
from simulation.scenarios import kill_now_and_then, produce_plainly
from simulation.seeds import simulate
from simulation.session_readers import SessionReader
from simulation.world import WRONG_DRIFT, WRONG_MS, World

READERS, PARTITIONS = 6, 3
"""There are slots for four sessions."""


async def read_in_session(
    world: World, reader: SessionReader, all_keys: list[PartitionKey], stop: asyncio.Event
) -> None:
    """Read some partitions, now and then others, or somewhere else in them."""
    choose = world.workload
    while not stop.is_set():
        await asyncio.sleep(choose.uniform(0, 0.5))
        if not reader.positions or choose.random() < 0.1:
            wanted = choose.sample(all_keys, choose.randint(1, len(all_keys)))
            reader.positions = {key: reader.positions.get(key, 0) for key in wanted}
        elif choose.random() < 0.1:
            key = choose.choice(sorted(reader.positions))
            reader.positions[key] = choose.randint(0, reader.positions[key] + 1)
        try:
            answers = await reader.look()
        except ConnectionLost:
            reader.forget()
            continue
        if answers is not None:
            check_session(reader.known, *answers)
            if any(known.error for known in reader.known.values()):
                world.marks.reach("something was wrong with a partition")
            reader.move_on()


@simulate(
    seeds=50,
    reach=(
        "killed", "connection cut", "clock set back", "session lost", "no room for a session",
        "nothing new of some partitions", "something was wrong with a partition",
    ),
)  # fmt: skip
async def test_sessions_say_what_full_fetches_say(world: World) -> None:
    world.skew_ms, world.drift = WRONG_MS, WRONG_DRIFT
    await world.open()
    admin = Admin(world, "admin")
    lasting = await admin.create_topic("orders", partitions=PARTITIONS)
    gone = await admin.create_topic("gone", partitions=1)
    keys = [*(PartitionKey(lasting, index) for index in range(PARTITIONS)), PartitionKey(gone, 0)]
    world.faults = SOME
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as background:
        background.create_task(kill_now_and_then(world, stop, every_s=1.5))
        for number in range(READERS):
            background.create_task(read_in_session(world, SessionReader(world, f"reader-{number}"), keys, stop))
        async with asyncio.TaskGroup() as work:
            for index, key in enumerate(keys[:-1]):
                work.create_task(produce_plainly(world, "orders", key, f"plain-{index}", 8, pause_s=0.5 * index))
            work.create_task(produce_plainly(world, "gone", keys[-1], "doomed", 3))
            work.create_task(trim_now_and_then(world, admin, keys[0]))
        await admin.delete_topic("gone")
        await asyncio.sleep(1.0)
        stop.set()


async def trim_now_and_then(world: World, admin: Admin, key: PartitionKey) -> None:
    """Let the log begin further and further up."""
    for offset in range(1, 5):
        await asyncio.sleep(world.workload.uniform(0, 0.5))
        await admin.delete_records("orders", key, offset)
