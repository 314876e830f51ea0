"""The SQL of topics: scripts for the metadata port. Guards and counters only; rules are elsewhere.

Every script may run twice, because a commit's answer can be lost: what it finds done by its own first run counts as
done. Partition ids come from a counter row inside the transaction, so agents that create topics concurrently never
share one.

`delete` and `trim` change rows that commits update continuously. They must be run as `locking` transactions: they first
update what commits update first, the shard's row, and so queue up with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from penstock.base.config_values import ConfigResource
from penstock.base.dataclasses import dataclass
from penstock.metadata.database import Rows, Script
from penstock.metadata.names import long_name, name_key, name_of

_INSERT_PARTITIONS = """
INSERT INTO partition (partition_id, cluster_id, shard_id, topic_id, partition_index)
WITH RECURSIVE n (i) AS (SELECT CAST($5 AS INTEGER) UNION ALL SELECT i + 1 FROM n WHERE i + 1 < CAST($6 AS INTEGER))
SELECT CAST($1 AS BIGINT) + i - CAST($5 AS INTEGER), topic.cluster_id, CAST($3 AS INTEGER), topic.topic_id, i
FROM n CROSS JOIN topic WHERE topic.cluster_id = $2 AND topic.topic_id = $4
"""
"""One statement for any number of partitions. Ids come from the topic's row, which determines their types."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicRow:
    """A topic to write."""

    topic_id: bytes
    name: str
    partition_count: int
    replication_factor: int
    overrides: Mapping[str, str]
    created_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTopics:
    """All topics and configuration, as loaded at start."""

    topics: Rows
    """cluster_id, topic_id, name, replication_factor, created_ms"""
    partitions: Rows
    """topic_id, partition_id, partition_index, next_offset, log_start, segmented_to, size_bytes, cleaned_to"""
    configs: Rows
    """cluster_id, kind, name, key, value"""


def load() -> Script[StoredTopics]:
    """Read all topics, partitions and configuration."""
    topics = yield "SELECT cluster_id, topic_id, name, replication_factor, created_ms FROM topic", ()
    partitions = yield (
        "SELECT topic_id, partition_id, partition_index, next_offset, log_start, segmented_to, size_bytes, cleaned_to"
        " FROM partition ORDER BY topic_id, partition_index",
        (),
    )
    configs = yield "SELECT cluster_id, kind, name, long_name, key, value FROM config", ()
    named = [(cluster_id, kind, name_of(name, long), *rest) for cluster_id, kind, name, long, *rest in configs]
    return StoredTopics(topics=topics, partitions=partitions, configs=named)


def create(cluster_id: int, shard_id: int, topics: Sequence[TopicRow]) -> Script[list[int | None]]:
    """Write topics with their configuration and partitions. For each the first partition id, or None if its name is
    taken; the others are created all the same."""
    answers: list[int | None] = []
    for topic in topics:
        written = yield (
            "INSERT INTO topic (cluster_id, topic_id, name, replication_factor, created_ms)"
            " VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING RETURNING name",
            (cluster_id, topic.topic_id, topic.name, topic.replication_factor, topic.created_ms),
        )
        if not written:
            answers.append((yield from _first_partition(cluster_id, topic)))
            continue
        yield from _insert_configs(cluster_id, ConfigResource.TOPIC, topic.name, topic.overrides)
        answers.append((yield from _insert_partitions(cluster_id, shard_id, topic.topic_id, 0, topic.partition_count)))
    return answers


def _first_partition(cluster_id: int, topic: TopicRow) -> Script[int | None]:
    """The first partition id if an earlier run of the same creation wrote the topic; None if the name is another's."""
    rows = yield (
        "SELECT MIN(partition_id) FROM partition WHERE cluster_id = $1 AND topic_id = $2",
        (cluster_id, topic.topic_id),
    )
    return None if rows[0][0] is None else int(rows[0][0])


def _insert_partitions(cluster_id: int, shard_id: int, topic_id: bytes, start: int, end: int) -> Script[int]:
    # The counter row is locked until the commit, which serializes the creation of partitions.
    rows = yield (
        "UPDATE counter SET value = value + $1 WHERE name = 'partition' RETURNING value",
        (end - start,),
    )
    first = int(rows[0][0]) - (end - start)
    yield _INSERT_PARTITIONS, (first, cluster_id, shard_id, topic_id, start, end)
    return first


def add_partitions(cluster_id: int, shard_id: int, topic_id: bytes, count: int) -> Script[list[tuple[int, int]] | None]:
    """Extend a topic to `count` partitions; all (index, partition id), or None when the topic is gone.

    A topic that has more by now keeps them.
    """
    # An update, to lock the topic's row against a concurrent deletion.
    topic = yield (
        "UPDATE topic SET name = name WHERE cluster_id = $1 AND topic_id = $2 RETURNING name",
        (cluster_id, topic_id),
    )
    if not topic:
        return None
    rows = yield (
        "SELECT COUNT(*) FROM partition WHERE cluster_id = $1 AND topic_id = $2",
        (cluster_id, topic_id),
    )
    present = int(rows[0][0])
    if present < count:
        yield from _insert_partitions(cluster_id, shard_id, topic_id, present, count)
    rows = yield (
        "SELECT partition_index, partition_id FROM partition WHERE cluster_id = $1 AND topic_id = $2"
        " ORDER BY partition_index",
        (cluster_id, topic_id),
    )
    return [(index, partition_id) for index, partition_id in rows]


def delete(cluster_id: int, topics: Sequence[tuple[bytes, str]], now_ms: int) -> Script[None]:
    """Remove topics, given by id and name, and record their partitions for the removal of their segments."""
    for topic_id, _ in topics:
        yield (
            "UPDATE shard SET commit_seq = commit_seq WHERE shard_id IN"
            " (SELECT shard_id FROM partition WHERE cluster_id = $1 AND topic_id = $2)",
            (cluster_id, topic_id),
        )
    for topic_id, name in topics:
        rows = yield "DELETE FROM topic WHERE cluster_id = $1 AND topic_id = $2 RETURNING name", (cluster_id, topic_id)
        if not rows:
            continue
        yield (
            "INSERT INTO topic_deletion (partition_id, cluster_id, topic_id, deleted_ms)"
            " SELECT partition_id, cluster_id, topic_id, CAST($3 AS BIGINT) FROM partition"
            " WHERE cluster_id = $1 AND topic_id = $2",
            (cluster_id, topic_id, now_ms),
        )
        yield (
            "DELETE FROM producer_state WHERE partition_id IN"
            " (SELECT partition_id FROM partition WHERE cluster_id = $1 AND topic_id = $2)",
            (cluster_id, topic_id),
        )
        yield "DELETE FROM partition WHERE cluster_id = $1 AND topic_id = $2", (cluster_id, topic_id)
        yield from _delete_configs(cluster_id, ConfigResource.TOPIC, name)


def alter_configs(
    cluster_id: int, kind: int, name: str, change: Callable[[Mapping[str, str]], Mapping[str, str]]
) -> Script[Mapping[str, str]]:
    """Replace a resource's overrides by what `change` makes of them; returns the result.

    If `change` raises, nothing is written. It may be called more than once, and not on the event loop's thread.
    """
    rows = yield (
        "SELECT key, value FROM config WHERE cluster_id = $1 AND kind = $2 AND name = $3",
        (cluster_id, int(kind), name_key(name)),
    )
    before = {row[0]: row[1] for row in rows}
    after = change(before)
    if after != before:
        yield from _delete_configs(cluster_id, kind, name)
        yield from _insert_configs(cluster_id, kind, name, after)
    return after


def _delete_configs(cluster_id: int, kind: int, name: str) -> Script[None]:
    yield (
        "DELETE FROM config WHERE cluster_id = $1 AND kind = $2 AND name = $3",
        (cluster_id, int(kind), name_key(name)),
    )


def _insert_configs(cluster_id: int, kind: int, name: str, overrides: Mapping[str, str]) -> Script[None]:
    for key, value in overrides.items():
        yield (
            "INSERT INTO config (cluster_id, kind, name, key, value, long_name) VALUES ($1, $2, $3, $4, $5, $6)",
            (cluster_id, int(kind), name_key(name), key, value, long_name(name)),
        )


def trim(cluster_id: int, marks: Sequence[tuple[int, int]]) -> Script[None]:
    """Move the log starts of partitions forward to the given offsets, never back.

    In the order of partition ids, so that agents that trim the same partitions cannot deadlock.
    """
    for partition_id, _ in marks[:1]:
        yield (
            "UPDATE shard SET commit_seq = commit_seq"
            " WHERE shard_id = (SELECT shard_id FROM partition WHERE cluster_id = $1 AND partition_id = $2)",
            (cluster_id, partition_id),
        )
    for partition_id, offset in sorted(marks):
        yield (
            "UPDATE partition SET log_start = $3 WHERE cluster_id = $1 AND partition_id = $2 AND log_start < $3",
            (cluster_id, partition_id, offset),
        )


def take_producer_ids(count: int) -> Script[int]:
    """Reserve producer ids; the first of them."""
    rows = yield (
        "UPDATE counter SET value = value + $1 WHERE name = 'producer' RETURNING value",
        (count,),
    )
    return int(rows[0][0]) - count
