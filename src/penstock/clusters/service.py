"""The virtual clusters of a deployment: stored in the database, cached in memory.

A change is decided on the cached state, made durable, applied, and only then answered; changes are serialized, and a
cancelled caller does not interrupt them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

from penstock.base.clock import Clock
from penstock.base.errors import OutcomeUnknown
from penstock.base.randomness import Randomness, new_uuid, uuid_text
from penstock.base.shielded import ShieldedTasks
from penstock.clusters import store, transitions
from penstock.clusters.failures import AlreadyExists, Forbidden
from penstock.clusters.limits import LimitKey, Limits, changed_limits
from penstock.clusters.model import Cluster, ClusterState, Environment
from penstock.metadata.database import Database, Script

T = TypeVar("T")


class Clusters:
    """The only writer of clusters and environments."""

    def __init__(self, *, database: Database, clock: Clock, randomness: Randomness, shard_id: int = 1) -> None:
        self._database, self._clock, self._randomness, self._shard_id = database, clock, randomness, shard_id
        self._by_id: dict[int, Cluster] = {}
        self._by_name: dict[str, Cluster] = {}
        self._environments: dict[str, Environment] = {}
        self.on_change: Callable[[Cluster], None] = lambda cluster: None
        """Called after a cluster was created or changed."""
        self._lock = asyncio.Lock()
        self._changes = ShieldedTasks()

    async def open(self, kafka_cluster_id: str) -> None:
        """Create the permanent clusters, and load all. The id is that of the default cluster."""
        now_ms, platform_id = self._clock.now_ms(), uuid_text(new_uuid(self._randomness))
        await self._commit(lambda: store.create_permanent(platform_id, kafka_cluster_id, self._shard_id, now_ms))
        stored = await self._database.read(store.load)
        self._environments = {environment.name: environment for environment in stored.environments}
        for cluster in stored.clusters:
            self._put(cluster)

    async def refresh(self) -> None:
        """Load what another agent has changed.

        A cluster that another agent has removed is treated as being deleted: the same steps clear this agent's caches.
        """
        async with self._lock:
            stored = await self._database.read(store.load)
            self._environments = {environment.name: environment for environment in stored.environments}
            found = {cluster.cluster_id for cluster in stored.clusters}
            for cluster in list(self._by_id.values()):
                if cluster.cluster_id not in found and cluster.state is ClusterState.ACTIVE:
                    self._put(replace(cluster, deleted_ms=self._clock.now_ms()))
            for cluster in stored.clusters:
                if cluster != self._by_id.get(cluster.cluster_id):
                    self._put(cluster)

    async def close(self) -> None:
        """Wait for changes in flight, whose callers may be gone."""
        await self._changes.close()

    # ---- look-ups -------------------------------------------------------------------------------------------------

    def all(self) -> list[Cluster]:
        """Every cluster by name, including those being deleted."""
        return [self._by_name[name] for name in sorted(self._by_name)]

    def by_id(self, cluster_id: int) -> Cluster | None:
        """The cluster with that id, or None."""
        return self._by_id.get(cluster_id)

    def by_name(self, name: str) -> Cluster | None:
        """The cluster of that name; None if there is none, or if it is being deleted."""
        cluster = self._by_name.get(name)
        return cluster if cluster is not None and cluster.state is ClusterState.ACTIVE else None

    def id_of(self, name: str) -> int | None:
        """The id of the cluster of that name, or None."""
        cluster = self.by_name(name)
        return None if cluster is None else cluster.cluster_id

    def found(self, name: str) -> Cluster:
        """The cluster of that name. Raises `NotFound`, or `Forbidden` if it is being deleted."""
        return transitions.found(self._by_name, name)

    def is_open(self, cluster_id: int) -> bool:
        """Whether the cluster exists and is not being deleted."""
        cluster = self._by_id.get(cluster_id)
        return cluster is not None and cluster.state is ClusterState.ACTIVE

    def kafka_id(self, cluster_id: int) -> str:
        """The cluster id that Kafka clients see."""
        cluster = self._by_id.get(cluster_id)
        return "" if cluster is None else cluster.kafka_id

    def limits(self, cluster_id: int) -> Limits:
        """The limits of a cluster."""
        cluster = self._by_id.get(cluster_id)
        return {} if cluster is None else cluster.limits

    def limit(self, key: LimitKey) -> Callable[[int], float | None]:
        """A function that returns one limit of a cluster; None: no limit."""
        return lambda cluster_id: self.limits(cluster_id).get(key)

    def environments(self) -> list[Environment]:
        """Every environment, by name."""
        return [self._environments[name] for name in sorted(self._environments)]

    # ---- changes --------------------------------------------------------------------------------------------------

    async def create(
        self, name: str, environment: str, description: str = "", limits: Mapping[str, float | None] | None = None
    ) -> Cluster:
        """Create a cluster. Raises `InvalidRequest` or a subclass."""
        return await self._changes.run(self._create(name, environment, description, limits or {}))

    async def _create(
        self, name: str, environment: str, description: str, changes: Mapping[str, float | None]
    ) -> Cluster:
        async with self._lock:
            transitions.check_new(self._by_name, self._environments, name, environment)
            transitions.check_description(description)
            limits = changed_limits({}, changes)
            now_ms, kafka_id = self._clock.now_ms(), uuid_text(new_uuid(self._randomness))
            cluster_id = await self._commit(
                lambda: store.create(
                    name, kafka_id, environment, description, limits, shard_id=self._shard_id, now_ms=now_ms
                )
            )
            if cluster_id is None:
                raise AlreadyExists(f"cluster {name!r} or environment {environment!r} was changed by another agent")
            cluster = Cluster(
                cluster_id=cluster_id, name=name, kafka_id=kafka_id, created_ms=now_ms, environment=environment,
                description=description, limits=limits,
            )  # fmt: skip
            self._put(cluster)
            return cluster

    async def alter(self, name: str, description: str | None, changes: Mapping[str, float | None]) -> Cluster:
        """Change a cluster's description and limits; None removes a limit. Raises `InvalidRequest`."""
        return await self._changes.run(self._alter(name, description, changes))

    async def _alter(self, name: str, description: str | None, changes: Mapping[str, float | None]) -> Cluster:
        async with self._lock:
            cluster = self.found(name)
            if description is not None:
                transitions.check_description(description)
            limits = changed_limits(cluster.limits, changes)
            await self._commit(lambda: store.alter(cluster.cluster_id, description, changes))
            after = replace(
                cluster, limits=limits, description=cluster.description if description is None else description
            )
            self._put(after)
            return after

    async def begin_deletion(self, name: str) -> None:
        """Begin to delete a cluster: it is inaccessible from now on. Raises `InvalidRequest` or a subclass."""
        await self._changes.run(self._begin_deletion(name))

    async def _begin_deletion(self, name: str) -> None:
        async with self._lock:
            cluster = self.found(name)
            transitions.check_deletable(cluster)
            now_ms = self._clock.now_ms()
            await self._commit(lambda: store.begin_deletion(cluster.cluster_id, now_ms))
            self._put(replace(cluster, deleted_ms=now_ms))

    def deleting(self) -> list[Cluster]:
        """The clusters that are being deleted."""
        return [cluster for cluster in self._by_id.values() if cluster.state is ClusterState.DELETING]

    async def forget(self, cluster: Cluster) -> None:
        """Remove a deleted cluster, nothing of whose contents is left."""
        await self._changes.run(self._forget(cluster))

    async def _forget(self, cluster: Cluster) -> None:
        async with self._lock:
            await self._commit(lambda: store.delete(cluster.cluster_id))
            self._by_id.pop(cluster.cluster_id, None)
            called = self._by_name.get(cluster.name)
            if called is not None and called.cluster_id == cluster.cluster_id:
                del self._by_name[cluster.name]  # Otherwise another agent has created a new one of that name.

    async def create_environment(self, name: str) -> None:
        """Create an environment. Raises `InvalidRequest` or a subclass."""
        await self._changes.run(self._create_environment(name))

    async def _create_environment(self, name: str) -> None:
        async with self._lock:
            transitions.check_new_environment(self._environments, name)
            environment = Environment(name=name, created_ms=self._clock.now_ms())
            await self._commit(lambda: store.create_environment(environment))
            self._environments[name] = environment

    async def delete_environment(self, name: str) -> None:
        """Delete an environment without clusters. Raises `InvalidRequest` or a subclass."""
        await self._changes.run(self._delete_environment(name))

    async def _delete_environment(self, name: str) -> None:
        async with self._lock:
            transitions.check_deletable_environment(self._environments, self._by_id.values(), name)
            if not await self._commit(lambda: store.delete_environment(name)):
                raise Forbidden(f"environment {name!r} has clusters")
            del self._environments[name]

    # ---- applying changes -----------------------------------------------------------------------------------------

    def _put(self, cluster: Cluster) -> None:
        self._by_id[cluster.cluster_id] = cluster
        self._by_name[cluster.name] = cluster
        self.on_change(cluster)

    async def _commit(self, script: Callable[[], Script[T]]) -> T:
        try:
            return await self._database.transaction(script)
        except OutcomeUnknown:
            return await self._database.transaction(script)
