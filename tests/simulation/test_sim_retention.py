"""Retention by time and by size under faults: what is due goes, what is not stays, and no byte is left behind."""

from __future__ import annotations

import asyncio

from simulation.checkers.retention import check_retention
from simulation.clients import Admin
from simulation.faults import SOME
from simulation.history import PartitionKey
from simulation.places import START_MS
from simulation.scenarios import (
    EAGER,
    check_log,
    follow,
    kill_now_and_then,
    produce_idempotently,
    produce_plainly,
    read_logs,
    settle,
)
from simulation.seeds import simulate
from simulation.world import World

RETENTION_MS = 1_500


@simulate(reach=("killed", "database: after", "log start moved", "everything expired"))
async def test_retention_takes_what_is_due(world: World) -> None:
    world.upkeep = EAGER
    world.settings["log.retention.check.interval.ms"] = "500"
    await world.open()
    admin = Admin(world, "admin")
    timed = PartitionKey(await admin.create_topic("timed", partitions=1, retention_ms=str(RETENTION_MS)), 0)
    sized = PartitionKey(await admin.create_topic("sized", partitions=1, retention_bytes="20000"), 0)
    world.faults = SOME
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as background:
        background.create_task(kill_now_and_then(world, stop, every_s=1.0))
        for name, partition in (("timed", timed), ("sized", sized)):
            background.create_task(follow(world, name, partition, f"consumer-{name}", stop))
        async with asyncio.TaskGroup() as work:
            for name, partition in (("timed", timed), ("sized", sized)):
                work.create_task(produce_idempotently(world, name, partition, f"idem-{name}", 12, pause_s=0.3))
                work.create_task(produce_plainly(world, name, partition, f"plain-{name}", 10, pause_s=0.3))
        stop.set()
    await world.heal()
    logs = [*await read_logs(world, "timed", [timed]), *await read_logs(world, "sized", [sized])]
    check_retention(
        world.history.appends, world.history.fetches, timed, time_ms=lambda time: START_MS + int(time * 1000),
        retention_ms=RETENTION_MS,
    )  # fmt: skip
    check_log(world, logs)
    if any(log.log_start for log in logs):
        world.marks.reach("log start moved")
    await settle(world)
    logs = [*await read_logs(world, "timed", [timed]), *await read_logs(world, "sized", [sized])]
    check_log(world, logs)
    assert logs[0].log_start == logs[0].high_watermark, "records are kept beyond their retention"
    world.marks.reach("everything expired")
    left = sum(len(batch.data) for batch in logs[1].batches)
    largest = max((len(append.data) for append in world.history.appends), default=0)
    assert left <= 20_000 + 12 * largest, f"{left} bytes are kept of at most 20000"
