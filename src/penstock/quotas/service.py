"""The quotas of all virtual clusters: stored in the database, cached in memory, in force at once.

A change is decided on the current table, made durable, applied, and only then answered; changes are serialized, and a
cancelled caller does not interrupt them. If another agent has changed something before, or meanwhile, everything is
loaded again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

from penstock.base.cooperative import yield_if_due
from penstock.base.errors import OutcomeUnknown
from penstock.base.shielded import ShieldedTasks
from penstock.log.refusals import Refused
from penstock.metadata.database import TransactionRunner
from penstock.quotas import store, transitions
from penstock.quotas.model import Entity, QuotaTable, evolve
from penstock.quotas.throttles import Throttles
from penstock.quotas.transitions import QuotaAlteration

T = TypeVar("T")


class Quotas:
    """The only writer of quotas."""

    def __init__(self, *, database: TransactionRunner, throttles: Throttles) -> None:
        self._database, self._throttles = database, throttles
        self._tables: dict[int, QuotaTable] = {}
        self._version = -1
        self._lock = asyncio.Lock()
        self._changes = ShieldedTasks()
        self.on_change: Callable[[], None] = lambda: None
        """Called after limits of a virtual cluster have changed."""

    async def load(self) -> None:
        """Load the stored limits and put them in force."""
        async with self._lock:
            await self._load()

    async def refresh(self) -> None:
        """Load what another agent has changed, if it has."""
        async with self._lock:
            await self._catch_up()

    async def _catch_up(self) -> None:
        if await self._database.read(store.version) != self._version:
            await self._load()

    async def _load(self) -> None:
        version, tables = await self._database.read(store.load)
        for cluster_id in {*tables, *self._tables}:
            table = tables.get(cluster_id, {})
            if table != self.table(cluster_id):
                self._put(cluster_id, table)
        self._version = version

    async def close(self) -> None:
        """Wait for changes in flight, whose callers may be gone."""
        await self._changes.close()

    def table(self, cluster_id: int) -> QuotaTable:
        """All limits of a virtual cluster."""
        return self._tables.get(cluster_id, {})

    @property
    def counts(self) -> Mapping[int, int]:
        """How many entities have limits, by virtual cluster."""
        return {cluster_id: len(table) for cluster_id, table in self._tables.items()}

    async def alter(
        self, cluster_id: int, changes: Sequence[QuotaAlteration], *, validate_only: bool = False
    ) -> Sequence[Refused | None]:
        """Change limits; for each change why it was refused, or None."""
        return await self._changes.run(self._alter(cluster_id, changes, validate_only))

    async def _alter(
        self, cluster_id: int, changes: Sequence[QuotaAlteration], validate_only: bool
    ) -> Sequence[Refused | None]:
        async with self._lock:
            await self._catch_up()
            table = self.table(cluster_id)
            altering = transitions.AlterationBatch(table)
            for number, change in enumerate(changes):
                await yield_if_due(number)
                altering.add(change)
            decision = altering.decision()
            if decision.records and not validate_only:
                try:
                    version = await self._database.transaction(lambda: store.write(cluster_id, decision.records))
                except OutcomeUnknown:
                    version = await self._database.transaction(lambda: store.write(cluster_id, decision.records))
                if version == self._version + 1:
                    self._version = version
                    changed = {record.entity for record in decision.records}
                    self._put(cluster_id, evolve(table, decision.records), changed)
                else:
                    await self._load()
            return decision.refusals

    def forget(self, cluster_id: int) -> None:
        """Drop the limits of a deleted virtual cluster from memory."""
        self._tables.pop(cluster_id, None)
        self._throttles.drop_cluster(cluster_id)
        self.on_change()

    def _put(self, cluster_id: int, table: QuotaTable, changed: Collection[Entity] | None = None) -> None:
        self._tables[cluster_id] = table
        self._throttles.set_quotas(cluster_id, table, changed)
        self.on_change()
