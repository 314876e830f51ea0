"""Pieces that scenarios are put together from."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from simulation.agents import UpkeepPlan
from simulation.checkers.appends import check_appends
from simulation.checkers.fetches import check_fetches
from simulation.checkers.idempotence import check_idempotence
from simulation.checkers.objects import check_named, check_no_garbage, check_segments
from simulation.checkers.offsets import check_commits_dense, check_dense, check_never_reused
from simulation.checkers.usage import check_usage
from simulation.checkers.watermarks import check_watermarks
from simulation.clients import Consumer, IdempotentProducer, Producer
from simulation.history import PartitionKey
from simulation.links import ConnectionLost
from simulation.logs import StoredLog, batches_of, read_log
from simulation.places import Place
from simulation.world import GRACE_MS, World

from penstock.log.upkeep.wal_backlog import CompactionPolicy
from penstock.wire.error_codes import ErrorCode

EAGER = UpkeepPlan(
    policy=CompactionPolicy(
        start_bytes=48 * 1024, start_rows=4, max_age_ms=200, sparse_ages=1, pass_rows=5, pass_changes=50
    ),
    grace_ms=GRACE_MS,
)  # fmt: skip
"""A background that finds something to do all the time."""


async def produce_plainly(
    world: World, topic: str, partition: PartitionKey, name: str, batches: int, *, pause_s: float = 0.02,
    timeout_ms: int = 20_000, **keyed: Any,
) -> None:  # fmt: skip
    """A producer without idempotence."""
    producer = Producer(world, name, topic, timeout_ms=timeout_ms)
    for _ in range(batches):
        count, size = world.workload.randint(1, 3), world.workload.choice((20, 20, 300, 3000))
        await producer.append(producer.batch(partition, records=count, size=size, **keyed))
        await asyncio.sleep(world.workload.uniform(0, pause_s))


async def produce_idempotently(
    world: World, topic: str, partition: PartitionKey, name: str, batches: int, *, pause_s: float = 0.02, **keyed: Any
) -> None:
    """A producer as Kafka's are by default."""
    producer = IdempotentProducer(world, name, topic, partition, **keyed)
    await producer.open()
    await producer.produce(batches, pause_s=pause_s)


async def follow(
    world: World, topic: str, partition: PartitionKey, name: str, stop: asyncio.Event, *, place: Place | None = None,
    read_committed: bool = False,
) -> None:  # fmt: skip
    """A consumer that reads along, from the beginning, and begins anew now and then."""
    consumer = Consumer(world, name, topic, partition, place=place)
    consumer.read_committed = read_committed
    while not stop.is_set():
        try:
            fetched = await consumer.fetch(
                max_wait_ms=world.workload.choice((0, 50, 500)), max_bytes=world.workload.choice((500, 8_000, 64_000))
            )
        except ConnectionLost:
            continue
        if fetched.error is ErrorCode.OFFSET_OUT_OF_RANGE:
            consumer.position = 0 if world.agent is None else _log_start(world, partition)
            continue
        if fetched.error is not ErrorCode.NONE:
            await asyncio.sleep(0.05)
            continue
        for batch in batches_of(fetched.records):
            consumer.position = batch.header.last_offset + 1
        if world.workload.random() < 0.05:
            consumer.position = world.workload.randint(0, consumer.position)


def _log_start(world: World, partition: PartitionKey) -> int:
    assert world.agent is not None
    topic = world.agent.registry.by_id(1, partition.topic_id)
    return 0 if topic is None else topic.partitions[partition.index].log_start


async def kill_now_and_then(world: World, stop: asyncio.Event, *, every_s: float = 1.0) -> None:
    """Power cuts at moments of nobody's choosing, and clocks that are set in between."""
    while not stop.is_set():
        await asyncio.sleep(world.source.between(0.02, every_s))
        world.set_a_clock()
        await asyncio.sleep(world.source.between(0.02, every_s))
        if not stop.is_set() and all(place.agent is not None for place in world.places):
            await world.crash()


async def replace_now_and_then(world: World, stop: asyncio.Event, *, every_s: float, lingers_s: float) -> None:
    """Another agent takes everything over, and the one before goes on for a while, and so do its clients."""
    while not stop.is_set():
        await asyncio.sleep(world.source.between(0.05, every_s))
        world.set_a_clock()
        await asyncio.sleep(world.source.between(0.05, every_s))
        if stop.is_set():
            break
        # One that is only starting would take everything back, and then be gone.
        await world.places[0].up.wait()
        old = await world.take_over()
        if old.agent is not None:
            world.marks.reach("the one before was still alive")
        await asyncio.sleep(world.source.between(0, lingers_s))
        old.retire()


async def read_logs(world: World, topic: str, partitions: Sequence[PartitionKey]) -> list[StoredLog]:
    """Every partition from start to end."""
    return [await read_log(world, topic, partition) for partition in partitions]


def check_log(world: World, logs: Sequence[StoredLog]) -> None:
    """Everything that must hold of logs nobody rewrote the records of."""
    history, commits = world.history, world.witness.commits(world.database)
    check_commits_dense(commits)
    check_dense(logs)
    check_appends(history.appends, logs)
    check_never_reused(history.fetches, logs)
    check_idempotence(logs)
    check_fetches(history.fetches)
    check_watermarks(history.fetches, history.appends)
    check_usage(world.database, commits)
    world.guards.check()
    check_named(world.database, world.object_store, world.wal_store)
    check_segments(world.database)


async def settle(world: World) -> None:
    """Let everything that the background still has to do be done; then nothing is left over."""
    await world.heal()
    await world.crash()
    # Sweeps and grace periods: time costs nothing here.
    await asyncio.sleep(8 * GRACE_MS / 1000)
    check_no_garbage(world.database, world.object_store, world.wal_store)
