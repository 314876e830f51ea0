"""Pieces that scenarios are put together from."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from simulation.checkers.appends import check_appends
from simulation.checkers.fetches import check_fetches
from simulation.checkers.idempotence import check_idempotence
from simulation.checkers.offsets import check_commits_dense, check_dense, check_never_reused
from simulation.checkers.usage import check_usage
from simulation.checkers.watermarks import check_watermarks
from simulation.clients import Consumer, IdempotentProducer, Producer
from simulation.history import PartitionKey
from simulation.links import ConnectionLost
from simulation.logs import StoredLog, batches_of, read_log
from simulation.world import World

from penstock.wire.error_codes import ErrorCode


async def produce_plainly(world: World, topic: str, partition: PartitionKey, name: str, batches: int) -> None:
    """A producer without idempotence."""
    producer = Producer(world, name, topic)
    for _ in range(batches):
        count, size = world.workload.randint(1, 3), world.workload.choice((20, 20, 300, 3000))
        await producer.append(producer.batch(partition, records=count, size=size))
        await asyncio.sleep(world.workload.uniform(0, 0.02))


async def produce_idempotently(world: World, topic: str, partition: PartitionKey, name: str, batches: int) -> None:
    """A producer as Kafka's are by default."""
    producer = IdempotentProducer(world, name, topic, partition)
    await producer.open()
    await producer.produce(batches, pause_s=0.02)


async def follow(world: World, topic: str, partition: PartitionKey, name: str, stop: asyncio.Event) -> None:
    """A consumer that reads along, from the beginning, and begins anew now and then."""
    consumer = Consumer(world, name, topic, partition)
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
    """Power cuts at moments of nobody's choosing."""
    while not stop.is_set():
        await asyncio.sleep(world.source.between(0.05, 2 * every_s))
        if world.agent is not None and not stop.is_set():
            await world.crash()


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
