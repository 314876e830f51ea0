"""The SQL of virtual clusters and environments. Every script is idempotent when it is run again at once.

Each change increments the counter `clusters`: agents that cache clusters poll it to know when to load them again.
"""

from __future__ import annotations

from collections.abc import Mapping

from penstock.base.context import DEFAULT_CLUSTER_ID, PLATFORM_CLUSTER_ID
from penstock.base.dataclasses import dataclass
from penstock.clusters.model import Cluster, Environment
from penstock.metadata.database import Script

_CHANGED = (
    "INSERT INTO counter (name, value) VALUES ('clusters', 1)"
    " ON CONFLICT (name) DO UPDATE SET value = counter.value + 1"
)
_CLUSTER = "cluster_id, name, kafka_id, created_ms, environment, description, encryption, deleted_ms"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """The stored clusters and environments."""

    clusters: list[Cluster]
    environments: list[Environment]


def load() -> Script[Stored]:
    """All clusters and environments."""
    limits: dict[int, dict[str, float]] = {}
    for cluster_id, key, value in (yield "SELECT cluster_id, key, value FROM cluster_limit", ()):
        limits.setdefault(int(cluster_id), {})[str(key)] = float(value)
    clusters = [
        Cluster(
            cluster_id=int(cluster_id), name=str(name), kafka_id=str(kafka_id), created_ms=int(created_ms),
            environment=str(environment), description=str(description), limits=limits.get(int(cluster_id), {}),
            encryption=encryption, deleted_ms=deleted_ms,
        )
        for cluster_id, name, kafka_id, created_ms, environment, description, encryption, deleted_ms in (
            yield f"SELECT {_CLUSTER} FROM cluster ORDER BY cluster_id", ()
        )
    ]  # fmt: skip
    rows = yield "SELECT name, created_ms FROM environment ORDER BY name", ()
    return Stored(
        clusters=clusters,
        environments=[Environment(name=str(name), created_ms=int(created_ms)) for name, created_ms in rows],
    )


def create_permanent(platform_kafka_id: str, default_kafka_id: str, shard_id: int, now_ms: int) -> Script[None]:
    """Create the two permanent clusters, unless an earlier start did."""
    yield (
        "INSERT INTO cluster (cluster_id, name, shard_id, kafka_id, created_ms) VALUES ($1, 'default', $2, $3, $4)"
        " ON CONFLICT DO NOTHING",
        (DEFAULT_CLUSTER_ID, shard_id, default_kafka_id, now_ms),
    )
    yield (
        "UPDATE cluster SET kafka_id = $2, created_ms = $3 WHERE cluster_id = $1 AND kafka_id = ''",
        (PLATFORM_CLUSTER_ID, platform_kafka_id, now_ms),
    )
    yield "UPDATE environment SET created_ms = $1 WHERE created_ms = 0", (now_ms,)


def create(
    name: str, kafka_id: str, environment: str, description: str, limits: Mapping[str, float], *, shard_id: int,
    now_ms: int,
) -> Script[int | None]:  # fmt: skip
    """Store a new cluster; its id, or None if the name is taken or the environment does not exist."""
    yield _CHANGED, ()
    # An update: it locks the row, so that the environment cannot be deleted meanwhile.
    there = yield "UPDATE environment SET name = name WHERE name = $1 RETURNING name", (environment,)
    if not there:
        return None
    rows = yield "UPDATE counter SET value = value + 1 WHERE name = 'cluster' RETURNING value", ()
    written = yield (
        "INSERT INTO cluster (cluster_id, name, shard_id, kafka_id, created_ms, environment, description)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING RETURNING cluster_id",
        (int(rows[0][0]), name, shard_id, kafka_id, now_ms, environment, description),
    )
    if not written:
        written = yield "SELECT cluster_id FROM cluster WHERE name = $1 AND kafka_id = $2", (name, kafka_id)
        return int(written[0][0]) if written else None
    cluster_id = int(written[0][0])
    yield from _set_limits(cluster_id, limits)
    return cluster_id


def alter(cluster_id: int, description: str | None, limits: Mapping[str, float | None]) -> Script[None]:
    """Change a cluster's description (None: unchanged) and limits (None: remove)."""
    yield _CHANGED, ()
    if description is not None:
        yield "UPDATE cluster SET description = $2 WHERE cluster_id = $1", (cluster_id, description)
    for key, value in limits.items():
        if value is None:
            yield "DELETE FROM cluster_limit WHERE cluster_id = $1 AND key = $2", (cluster_id, key)
    yield from _set_limits(cluster_id, {key: value for key, value in limits.items() if value is not None})


def _set_limits(cluster_id: int, limits: Mapping[str, float]) -> Script[None]:
    for key, value in limits.items():
        yield (
            "INSERT INTO cluster_limit (cluster_id, key, value) VALUES ($1, $2, $3)"
            " ON CONFLICT (cluster_id, key) DO UPDATE SET value = excluded.value",
            (cluster_id, key, value),
        )


def begin_deletion(cluster_id: int, now_ms: int) -> Script[None]:
    """Begin to delete a cluster."""
    yield _CHANGED, ()
    yield (
        "UPDATE cluster SET deleted_ms = $2 WHERE cluster_id = $1 AND deleted_ms IS NULL", (cluster_id, now_ms)
    )  # fmt: skip


def delete(cluster_id: int) -> Script[None]:
    """Delete the row of a cluster whose contents are deleted."""
    yield _CHANGED, ()
    yield "DELETE FROM cluster_limit WHERE cluster_id = $1", (cluster_id,)
    yield "DELETE FROM cluster WHERE cluster_id = $1 AND deleted_ms IS NOT NULL", (cluster_id,)


def create_environment(environment: Environment) -> Script[bool]:
    """Store a new environment; False if the name is taken."""
    yield _CHANGED, ()
    rows = yield (
        "INSERT INTO environment (name, created_ms) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING name",
        (environment.name, environment.created_ms),
    )
    return bool(rows)


def delete_environment(name: str) -> Script[bool]:
    """Delete an environment; False if it has clusters."""
    yield _CHANGED, ()
    rows = yield (
        "DELETE FROM environment WHERE name = $1"
        " AND NOT EXISTS (SELECT 1 FROM cluster WHERE cluster.environment = environment.name) RETURNING name",
        (name,),
    )
    if rows:
        return True
    left = yield "SELECT 1 FROM environment WHERE name = $1", (name,)
    return not left
