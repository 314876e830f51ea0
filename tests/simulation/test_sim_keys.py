"""Key compaction under faults: the latest value of each key survives, whatever dies in the middle of a pass."""

from __future__ import annotations

import asyncio

from simulation.checkers.fetches import check_fetches
from simulation.checkers.keys import check_cleaned, check_keys, check_reads
from simulation.checkers.objects import check_named, check_segments
from simulation.checkers.offsets import check_commits_dense
from simulation.checkers.usage import check_usage
from simulation.checkers.watermarks import check_watermarks
from simulation.clients import Admin
from simulation.faults import SOME
from simulation.guards import SKEW_MS
from simulation.history import PartitionKey
from simulation.logs import StoredLog
from simulation.scenarios import (
    EAGER,
    follow,
    kill_now_and_then,
    produce_idempotently,
    produce_plainly,
    read_logs,
    settle,
)
from simulation.seeds import simulate
from simulation.world import World

DELETE_RETENTION_MS = 2_000
KEYS = [f"key-{number}".encode() for number in range(6)]


@simulate(reach=("killed", "database: after", "objects: crash after", "records removed", "tombstone removed"))
async def test_the_latest_value_of_each_key_stays(world: World) -> None:
    world.upkeep = EAGER
    world.settings["log.cleaner.backoff.ms"] = "300"
    await world.open()
    topic_id = await Admin(world, "admin").create_topic(
        "table",
        partitions=1,
        cleanup_policy="compact",
        min_cleanable_dirty_ratio="0.05",
        delete_retention_ms=str(DELETE_RETENTION_MS),
    )
    partition = PartitionKey(topic_id, 0)
    world.faults = SOME
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as background:
        background.create_task(kill_now_and_then(world, stop, every_s=1.2))
        background.create_task(follow(world, "table", partition, "consumer", stop))
        async with asyncio.TaskGroup() as work:
            keyed = {"keys": KEYS, "tombstones": 0.2, "pause_s": 0.2}
            work.create_task(produce_idempotently(world, "table", partition, "idem-0", 15, **keyed))
            work.create_task(produce_idempotently(world, "table", partition, "idem-1", 15, **keyed))
            work.create_task(produce_plainly(world, "table", partition, "plain", 10, **keyed))
        stop.set()
    await world.heal()
    (log,) = await read_logs(world, "table", [partition])
    check_table(world, log)
    await settle(world)
    (log,) = await read_logs(world, "table", [partition])
    check_table(world, log)
    assert world.agent is not None
    topic = world.agent.registry.by_name(1, "table")
    assert topic is not None
    check_cleaned(log, topic.partitions[0].cleaned_to)
    note_what_happened(world, log)


def check_table(world: World, log: StoredLog) -> None:
    """Everything that must hold of a compacted log."""
    history, commits = world.history, world.witness.commits(world.database)
    check_commits_dense(commits)
    kept_since_ms = world.clock.now_ms() - DELETE_RETENTION_MS + SKEW_MS
    check_keys(history.appends, log, tombstones_kept_since_ms=kept_since_ms)
    check_reads(history.fetches)
    check_fetches(history.fetches, with_gaps=True)
    check_watermarks(history.fetches, history.appends)
    check_usage(world.database, commits)
    world.guards.check()
    check_named(world.database, world.object_store, world.wal_store)
    check_segments(world.database)


def note_what_happened(world: World, log: StoredLog) -> None:
    """Say that there was something to remove, and that it went."""
    left = {record.offset for batch in log.batches for record in batch.records}
    for append in world.history.acknowledged:
        for number, value in enumerate(append.values):
            if append.base_offset + number not in left:
                world.marks.reach("tombstone removed" if value is None else "records removed")
