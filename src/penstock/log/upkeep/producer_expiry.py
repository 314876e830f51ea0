"""Expiry of idempotent producers that wrote nothing for `producer.id.expiration.ms`.

Stored states are removed first, then those in memory. A producer that writes in between keeps its state in memory; its
next fold stores it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from penstock.base.clock import Clock
from penstock.base.settings import LiveSettings
from penstock.log import segment_store
from penstock.log.model import Partition
from penstock.log.producers import idle_producers
from penstock.log.registry import Registry
from penstock.metadata.database import Database

CHECK_INTERVAL_MS = 600_000
PARTITIONS_AT_ONCE = 200


class ProducerExpiry:
    """The chore: goes through all partitions at intervals, some in each step."""

    name = "producer expiry"

    def __init__(
        self, *, database: Database, registry: Registry, settings: LiveSettings, clock: Clock,
        interval_ms: int = CHECK_INTERVAL_MS,
    ) -> None:  # fmt: skip
        self._database, self._registry, self._settings, self._clock = database, registry, settings, clock
        self._interval_ms = interval_ms
        self._waiting: list[Partition] = []
        self._next_pass_at = clock.monotonic()
        self.expired_producers = 0

    async def run(self) -> float | None:
        """Expire producers of some partitions."""
        now = self._clock.monotonic()
        if not self._waiting:
            if now < self._next_pass_at:
                return self._next_pass_at - now
            self._next_pass_at = now + self._interval_ms / 1000
            self._waiting = [partition for partition in self._registry.partitions() if partition.producers]
            self._waiting.sort(key=lambda partition: (partition.topic.cluster_id, partition.partition_id))
        some, self._waiting = self._waiting[:PARTITIONS_AT_ONCE], self._waiting[PARTITIONS_AT_ONCE:]
        for cluster_id, partitions in groupby(some, lambda partition: partition.topic.cluster_id):
            await self._expire(cluster_id, list(partitions))
        return 0.0 if self._waiting else max(0.0, self._next_pass_at - self._clock.monotonic())

    async def _expire(self, cluster_id: int, partitions: Sequence[Partition]) -> None:
        before_ms = self._clock.now_ms() - self._settings.of(cluster_id).whole("producer.id.expiration.ms")
        quiet = [
            partition
            for partition in partitions
            if any(state.last_ms < before_ms for state in partition.producers.values())
        ]
        if not quiet:
            return
        partition_ids = [partition.partition_id for partition in quiet]
        await self._database.transaction(
            lambda: segment_store.forget_producers(partition_ids, before_ms), background=True
        )
        for partition in quiet:
            gone = idle_producers(partition.producers, before_ms, kept=partition.transactions)
            partition.forget_producers(gone)
            self.expired_producers += len(gone)
