"""How fast agents commit to PostgreSQL: commits per second and latency, for one agent and for two.

    .venv/bin/python -m benchmarks.commits postgresql://user:password@host/database

The database must be empty. What is measured is the commit alone, in a closed loop: the statement, and what an agent
does before and after it. WAL objects stay in memory. "own": each agent writes to partitions of its own; "same": both
to the same ones. With idempotent producers every partition of a commit has a batch of one.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass
from itertools import product

from penstock.base.clock import SystemClock
from penstock.base.randomness import SystemRandomness
from penstock.log.commit_sql import take_over
from penstock.log.commits import CommitEntry, ProducerBatch, apply_entry
from penstock.log.follow import Follower
from penstock.log.model import Partition, Topic, TopicConfig
from penstock.log.registry import Registry
from penstock.log.shared_commit_path import SharedCommitPath
from penstock.metadata.database import Script
from penstock.metadata.migrate import migrate
from penstock.metadata.postgres import PostgresDatabase
from penstock.storage.memory import MemoryWal

PARTITIONS = 1_000
SECONDS, WARM_UP_COMMITS = 2.0, 50
BODY = memoryview(bytes(4096))


@dataclass(slots=True)
class Agent:
    """One agent's memory and its way to commit."""

    path: SharedCommitPath
    registry: Registry
    wal: MemoryWal
    first_partition: int
    producer_id: int

    async def commit(self, number: int, width: int, *, idempotent: bool) -> float:
        """Make a commit for so many partitions; how long it took."""
        entries = [self._entry(number, position, idempotent) for position in range(width)]
        began = time.perf_counter()
        commit = await self.path.commit(BODY, entries, ())
        for position, entry in enumerate(commit.entries):
            partition = self.registry.partition(entry.partition_id)
            assert partition is not None
            apply_entry(partition, commit, position)
        took = time.perf_counter() - began
        self.wal.release((commit.location,))
        return took

    def _entry(self, number: int, position: int, idempotent: bool) -> CommitEntry:
        partition_id = self.first_partition + position
        partition = self.registry.partition(partition_id)
        assert partition is not None
        batches: tuple[ProducerBatch, ...] = ()
        if idempotent:
            state = partition.producers.get(self.producer_id)
            sequence = state.batches[-1].last_sequence + 1 if state else 0
            batches = (ProducerBatch(self.producer_id, 0, sequence, 0, 0, number),)
        return CommitEntry(partition_id, 0, len(BODY), 1, 1, number, batches)


def _partitions() -> Script[None]:
    yield (
        "INSERT INTO partition (partition_id, cluster_id, shard_id, topic_id, partition_index)"
        " SELECT n, 1, 1, CAST('t' AS bytea), n FROM generate_series(1, $1::int) AS n",
        (PARTITIONS,),
    )


async def agents_of(database: PostgresDatabase, count: int, *, same: bool, round_number: int) -> list[Agent]:
    """Agents that know what is there."""
    epoch = await database.transaction(lambda: take_over(1))
    ((seq,),) = await database.statement("SELECT commit_seq FROM shard WHERE shard_id = 1")
    heads = dict(await database.statement("SELECT partition_id, next_offset FROM partition"))
    found = []
    for number in range(count):
        topic = Topic(
            cluster_id=1, topic_id=b"t", name="t", replication_factor=1, created_ms=0, overrides={},
            config=TopicConfig(),
        )  # fmt: skip
        topic.partitions = [Partition(partition_id=p, topic=topic, index=p, next_offset=heads[p]) for p in heads]
        registry, wal, randomness = Registry(), MemoryWal(1 << 30), SystemRandomness()
        registry.add(topic)
        follower = Follower(database=database, registry=registry, randomness=randomness, seq=seq)

        async def at_once(work):
            return work()

        path = SharedCommitPath(
            database=database, wal=wal, registry=registry, follower=follower, clock=SystemClock(),
            randomness=randomness, on_thread=at_once, epoch=epoch, agent_id=number + 1,
        )  # fmt: skip
        first = 1 if same else 1 + number * PARTITIONS // 2
        found.append(Agent(path, registry, wal, first, 1000 * round_number + number))
    return found


async def measure(agents: list[Agent], width: int, *, idempotent: bool) -> tuple[float, float, float, int]:
    """Commits per second, median and 99th percentile in ms, and how many took the slow path."""
    took: list[float] = []

    async def work(agent: Agent) -> None:
        for number in range(WARM_UP_COMMITS):
            await agent.commit(number, width, idempotent=idempotent)
        ends_at = time.perf_counter() + SECONDS
        while time.perf_counter() < ends_at:
            took.append(await agent.commit(0, width, idempotent=idempotent))

    await asyncio.gather(*(work(agent) for agent in agents))
    took.sort()
    slow = sum(agent.path.stats.slow for agent in agents)
    return len(took) / SECONDS, 1000 * took[len(took) // 2], 1000 * took[int(len(took) * 0.99)], slow


async def main(dsn: str) -> None:
    """Measure everything and print a table."""
    database = PostgresDatabase(dsn, randomness=SystemRandomness())
    await database.open()
    await migrate(database, SystemClock())
    await database.transaction(_partitions)
    await database.statement("ANALYZE partition")
    print("| agents | partitions | producers | M | commits/s | p50 ms | p99 ms | slow |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    cases = product(((1, False), (2, False), (2, True)), (False, True), (1, 10, 100))
    for round_number, ((count, same), idempotent, width) in enumerate(cases, 1):
        agents = await agents_of(database, count, same=same, round_number=round_number)
        rate, p50_ms, p99_ms, slow = await measure(agents, width, idempotent=idempotent)
        where = "same" if same else "own"
        kind = "idempotent" if idempotent else "plain"
        print(
            f"| {count} | {where} | {kind} | {width} | {rate:.0f} | {p50_ms:.2f} | {p99_ms:.2f} | {slow} |", flush=True
        )
    await database.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
