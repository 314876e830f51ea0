"""What there is: virtual clusters, topics and configuration."""

from __future__ import annotations

from penstock.agent.metadata import bring_in_commits
from penstock.agent.parts.runtime import Runtime
from penstock.agent.parts.stores import Stores
from penstock.agent.tuning import NODE_ID, SHARD_ID
from penstock.base.settings import LiveSettings
from penstock.clusters.limits import LimitKey
from penstock.clusters.service import Clusters
from penstock.log.registry import Registry
from penstock.log.topics import Topics


async def open_topics(runtime: Runtime, stores: Stores) -> tuple[Clusters, Topics]:
    """Load them, once the database has what was committed."""
    database, clock, randomness = stores.database, runtime.clock, runtime.randomness
    topics = Topics(
        database=database, registry=Registry(), settings=LiveSettings(runtime.settings), clock=clock,
        randomness=randomness, node_id=NODE_ID,
    )  # fmt: skip
    runtime.closing.push_async_callback(topics.close)
    await bring_in_commits(
        stores.metadata, stores.wal, randomness=randomness, shard_id=SHARD_ID,
        give_up_from=runtime.options.give_up_commits_from,
    )  # fmt: skip
    clusters = Clusters(database=database, clock=clock, randomness=randomness, shard_id=SHARD_ID)
    await clusters.open(stores.kafka_cluster_id)
    runtime.closing.push_async_callback(clusters.close)
    topics.partition_limit = clusters.limit(LimitKey.PARTITIONS)
    await topics.load()
    return clusters, topics
