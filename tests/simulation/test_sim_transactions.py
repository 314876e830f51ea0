"""Transactions of both generations, their readers and their groups, while everything fails and the log is compacted."""

from __future__ import annotations

import asyncio

from simulation.checkers.fetches import check_fetches
from simulation.checkers.transactions import check_latest, check_stable, check_transactions
from simulation.clients import Admin, Consumer
from simulation.faults import SOME
from simulation.history import Fetched, Outcome, PartitionKey
from simulation.links import ConnectionLost
from simulation.logs import batches_of, read_log
from simulation.scenarios import EAGER, check_log, follow, kill_now_and_then, produce_plainly, read_logs, settle
from simulation.seeds import simulate
from simulation.transactors import SHORT_MS, TransactionalProducer
from simulation.world import World
from test_sim_shared import all_know, check_shared_log

from penstock.log import aborted

PARTITIONS, TRANSACTIONS = 2, 4


async def watch_offsets(producer: TransactionalProducer, stop: asyncio.Event) -> None:
    """Look at what a producer's group has, again and again."""
    while not stop.is_set():
        await asyncio.sleep(producer.world.workload.uniform(0.02, 0.3))
        try:
            await producer.look_at_offsets()
        except ConnectionLost:
            continue


async def read_committed(world: World, partition: PartitionKey, *, compacted: bool = False) -> list[Fetched]:
    """Everything that readers of committed data get, once nothing is open any more."""
    consumer = Consumer(world, "reader of what is committed", "orders", partition)
    consumer.read_committed = True

    async def all_decided() -> bool | None:
        fetched = await consumer.fetch()
        return True if not fetched.error and fetched.last_stable_offset == fetched.high_watermark else None

    await world.eventually(all_decided, "the end of all transactions")
    answers: list[Fetched] = []
    while not answers or consumer.position < answers[-1].last_stable_offset:
        fetched = await consumer.fetch(max_bytes=world.workload.choice((2_000, 64_000)))
        assert not fetched.error, fetched.error
        is_end = compacted or consumer.position == fetched.last_stable_offset
        assert fetched.records or is_end, "nothing more can be read"
        answers.append(fetched)
        if compacted and not fetched.records:
            break
        for batch in batches_of(fetched.records):
            consumer.position = batch.header.last_offset + 1
    return answers


async def transact_under_faults(world: World) -> None:
    """A producer of each generation, one that leaves, readers of both kinds."""
    world.upkeep = EAGER
    await world.open()
    topic_id = await Admin(world, "admin").create_topic("orders", partitions=PARTITIONS)
    partitions = [PartitionKey(topic_id, index) for index in range(PARTITIONS)]
    producers = [
        TransactionalProducer(world, f"txn-{version}", "orders", partitions, version=version) for version in (1, 2)
    ]
    gone = TransactionalProducer(
        world, "gone", "orders", partitions, version=world.workload.choice((1, 2))
    )  # fmt: skip
    world.faults = SOME
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as background:
        background.create_task(kill_now_and_then(world, stop, every_s=0.5))
        for number, partition in enumerate(partitions):
            name = f"consumer-{number}"
            background.create_task(follow(world, "orders", partition, name, stop, read_committed=number == 0))
        for producer in producers:
            background.create_task(watch_offsets(producer, stop))
        async with asyncio.TaskGroup() as work:
            for producer in producers:
                work.create_task(producer.run(TRANSACTIONS))
            work.create_task(gone.leave_open())
            work.create_task(produce_plainly(world, "orders", partitions[0], "plain", 6))
        stop.set()
    await world.heal()
    await check(world, partitions, producers)
    if world.is_shared:
        await world.crash()  # Log objects of other agents are left alone, so some garbage stays.
    else:
        await settle(world)
    await check(world, partitions, producers)
    check_log(world, await read_logs(world, "orders", partitions))
    if any(fetched.aborted for fetched in world.history.fetches):
        world.marks.reach("aborted batches read")
    if not all(commit.entries for commit in world.witness.commits(world.database)):
        world.marks.reach("offsets alone told by a record")
    if world.database._connection.execute("SELECT COUNT(*) FROM aborted_txn").fetchone()[0]:
        world.marks.reach("aborted transactions stored")


@simulate(
    seeds=100,
    reach=(
        "killed", "database: after", "decided under the lock", "answer looked up", "decided again",
        "another coordinator", "zombie refused", "application restarted", "aborted batches read",
    ),
)  # fmt: skip
async def test_transactions_over_two_agents(world: World) -> None:
    """Batches go to either agent, and whoever starts takes all ids from the other, who goes on without knowing."""
    world.is_shared = True
    await world.open()
    topic_id = await Admin(world, "admin").create_topic("orders", partitions=PARTITIONS)
    partitions = [PartitionKey(topic_id, index) for index in range(PARTITIONS)]
    await world.add_agent()
    producers = [
        TransactionalProducer(world, f"txn-{version}", "orders", partitions, version=version) for version in (1, 2)
    ]
    gone = TransactionalProducer(world, "gone", "orders", partitions, version=world.workload.choice((1, 2)))
    world.faults = SOME
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as background:
        background.create_task(kill_now_and_then(world, stop, every_s=0.4))
        for place in world.places:
            name = f"consumer-{place.number}"
            background.create_task(follow(world, "orders", partitions[0], name, stop, place=place, read_committed=True))
        for producer in producers:
            background.create_task(watch_offsets(producer, stop))
        async with asyncio.TaskGroup() as work:
            for producer in producers:
                work.create_task(producer.run(TRANSACTIONS))
            work.create_task(gone.leave_open())
            work.create_task(produce_plainly(world, "orders", partitions[0], "plain", 6))
        stop.set()
    await world.heal()
    await abort_what_is_left(world)
    await world.eventually(lambda: all_know(world), "agents hearing of each other's last commits")
    await check(world, partitions, producers)
    for place in world.places:
        check_shared_log(world, [await read_log(world, "orders", partition, place=place) for partition in partitions])
        assert place.agent is not None
        stats = place.agent.commit_path.stats
        for mark, count in (
            ("decided under the lock", stats.slow), ("answer looked up", stats.settled),
            ("decided again", stats.outdated),
        ):  # fmt: skip
            if count:
                world.marks.reach(mark)
    if any(fetched.aborted for fetched in world.history.fetches):
        world.marks.reach("aborted batches read")


async def abort_what_is_left(world: World) -> None:
    """Here nothing works in the background: look at transactions that may have timed out."""
    await asyncio.sleep(SHORT_MS / 1000 + 1)
    for place in world.places:
        agent = place.agent
        assert agent is not None
        agent.transactions.abort_timed_out()
        await agent.writer.drain()


@simulate(seeds=60, reach=("killed", "database: after", "aborted batches read", "aborted transactions stored"))
async def test_transactions_of_one_agent_that_may_not_be_alone(world: World) -> None:
    """As with metadata in PostgreSQL: commits as of several agents, by one, whose log is compacted."""
    world.is_shared = True
    kept, aborted.KEPT_ABORTED = aborted.KEPT_ABORTED, 2
    try:
        await transact_under_faults(world)
    finally:
        aborted.KEPT_ABORTED = kept


async def check(world: World, partitions: list[PartitionKey], producers: list[TransactionalProducer]) -> None:
    """What must hold of transactions when all is over."""
    final = [fetched for partition in partitions for fetched in await read_committed(world, partition)]
    for place in {fetched.place for fetched in world.history.fetches}:
        check_stable([fetched for fetched in world.history.fetches if fetched.place == place])
    groups = [await world.eventually(producer.look_at_offsets, "the offsets being read") for producer in producers]
    check_transactions(world.history, final, groups)


@simulate(
    reach=(
        "killed", "connection cut", "database: before", "database: after", "database: crash before",
        "database: crash after", "application restarted", "epoch raised by its producer",
        "end of a transaction not known", "aborted batches read", "aborted transactions stored",
        "zombie refused", "offsets alone told by a record",
    )
)  # fmt: skip
async def test_transactions_are_all_or_nothing(world: World) -> None:
    kept, aborted.KEPT_ABORTED = aborted.KEPT_ABORTED, 2
    try:
        await transact_under_faults(world)
    finally:
        aborted.KEPT_ABORTED = kept


@simulate(seeds=20, reach=("killed", "database: after", "aborted batches read"))
async def test_transactions_are_all_or_nothing_inline_commits(world: World) -> None:
    world.inline = True
    await transact_under_faults(world)


async def run_with_a_pause(producer: TransactionalProducer) -> None:
    """So that there is something to clean when the markers of what came before it are old enough to go."""
    await producer.run(8)
    await asyncio.sleep(2.0)
    await producer.run(3)


@simulate(seeds=30, reach=("killed", "database: after", "cleaned", "markers removed"))
async def test_transactions_in_a_compacted_topic(world: World) -> None:
    world.upkeep = EAGER
    world.settings["log.cleaner.backoff.ms"] = "300"
    await world.open()
    topic_id = await Admin(world, "admin").create_topic(
        "orders", partitions=1, cleanup_policy="compact", min_cleanable_dirty_ratio="0.05", delete_retention_ms="1000"
    )
    partition = PartitionKey(topic_id, 0)
    producers = [
        TransactionalProducer(world, f"txn-{version}", "orders", [partition], version=version) for version in (1, 2)
    ]
    for producer in producers:
        producer.keys = [f"key-{number}".encode() for number in range(6)]
    world.faults = SOME
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as background:
        background.create_task(kill_now_and_then(world, stop, every_s=1.0))
        background.create_task(follow(world, "orders", partition, "consumer", stop, read_committed=True))
        async with asyncio.TaskGroup() as work:
            for producer in producers:
                work.create_task(run_with_a_pause(producer))
        stop.set()
    await settle(world)
    final = await read_committed(world, partition, compacted=True)
    check_latest(world.history, final)
    check_stable(world.history.fetches)
    check_fetches(world.history.fetches, with_gaps=True)
    (log,) = await read_logs(world, "orders", [partition])
    markers = sum(batch.header.is_control for batch in log.batches)
    ends = sum(one.outcome is Outcome.ACKNOWLEDGED and bool(one.appends) for one in world.history.transactions)
    if markers < ends:
        world.marks.reach("markers removed")
    assert world.agent is not None
    topic = world.agent.registry.by_name(1, "orders")
    assert topic is not None
    if topic.partitions[0].cleaned_to:
        world.marks.reach("cleaned")
