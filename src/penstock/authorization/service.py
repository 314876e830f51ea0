"""The ACLs of all virtual clusters: stored in the database, indexed in memory for decisions.

A change is decided on the index, made durable, and then applied to the index; one at a time. If another agent has
changed something before, or meanwhile, or if the outcome of a change is unknown, all ACLs are loaded again. A cancelled
caller does not interrupt a change.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from penstock.authorization import store
from penstock.authorization.rules import AclIndex
from penstock.authorization.validation import invalid_acl_reason
from penstock.base.acls import Acl, AclFilter
from penstock.base.cooperative import distinct, yield_if_due
from penstock.base.errors import InvalidRequest, PlatformError
from penstock.base.shielded import ShieldedTasks
from penstock.metadata.database import Database, Script

MAX_ACLS = 100_000
"""The most ACLs of one virtual cluster: each takes some 500 bytes of memory."""
MAX_CHANGES = 10_000
"""The most ACLs that one request may add or remove, as in Kafka."""

_NONE = AclIndex()

MAX_COMPARED = 1_000_000
"""The most comparisons of ACLs with the filters of one request: half a second."""
COMPARED_AT_ONCE = 5_000
CHANGED_AT_ONCE = 1_000
EXCESSIVE = "Unable to perform excessively large batch operation."
"""Kafka's message with POLICY_VIOLATION."""


class AclService:
    """The only writer of ACLs."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._clusters: dict[int, AclIndex] = {}
        self._lock, self._changes = asyncio.Lock(), ShieldedTasks()
        self._is_stale = False
        self._version = -1
        self._listeners: list[Callable[[int | None], None]] = []

    def listen(self, on_change: Callable[[int | None], None]) -> None:
        """Call this after every change, with the virtual cluster whose ACLs have changed; None: any may have."""
        self._listeners.append(on_change)

    async def open(self) -> None:
        """Load all ACLs."""
        async with self._lock:
            await self._load()

    async def refresh(self) -> None:
        """Load all ACLs again, if another agent has changed some."""
        async with self._lock:
            await self._catch_up()

    def index(self, cluster_id: int) -> AclIndex:
        """The ACLs of a virtual cluster. The caller must neither change the index nor keep it."""
        return self._clusters.get(cluster_id, _NONE)

    async def matching(self, cluster_id: int, asked: AclFilter) -> list[Acl]:
        """The ACLs that a filter matches."""
        index = self.index(cluster_id)
        if index.cost(asked) <= COMPARED_AT_ONCE:
            return index.matching(asked)
        found: list[Acl] = []
        for number, acl in enumerate(list(index)):
            await yield_if_due(number, COMPARED_AT_ONCE)
            if asked.matches(acl):
                found.append(acl)
        return found

    async def close(self) -> None:
        """Wait for changes in flight, whose callers may be gone."""
        await self._changes.close()

    async def create(self, cluster_id: int, acls: Sequence[Acl]) -> list[str | None]:
        """Add ACLs; for each why it is invalid, or None. An existing ACL counts as added."""
        return await self._changes.run(self._create(cluster_id, acls))

    async def _create(self, cluster_id: int, acls: Sequence[Acl]) -> list[str | None]:
        async with self._lock:
            await self._catch_up()
            present = self.index(cluster_id)
            complaints, fresh = list[str | None](), dict[Acl, None]()
            for number, acl in enumerate(acls):
                await yield_if_due(number)
                complaint = invalid_acl_reason(acl)
                complaints.append(complaint)
                if complaint is None and acl not in present:
                    fresh[acl] = None
            added = list(fresh)
            if len(added) > MAX_CHANGES or len(present) + len(added) > MAX_ACLS:
                limit = f"At most {MAX_CHANGES} ACLs are changed at once, and a cluster may have {MAX_ACLS}"
                return [complaint or limit for complaint in complaints]
            if added and await self._change(lambda: store.create(cluster_id, added)):
                index = self._clusters.setdefault(cluster_id, AclIndex())
                for number, acl in enumerate(added):
                    await yield_if_due(number)
                    index.add(acl)
                self._changed(cluster_id)
        return complaints

    async def delete(self, cluster_id: int, filters: Iterable[AclFilter]) -> list[list[Acl]]:
        """Remove the ACLs that filters match; returns the matches of each. Raises `InvalidRequest` for too many."""
        return await self._changes.run(self._delete(cluster_id, list(filters)))

    async def _delete(self, cluster_id: int, filters: Sequence[AclFilter]) -> list[list[Acl]]:
        async with self._lock:
            await self._catch_up()
            index = self.index(cluster_id)
            # Bounded because changes of all clusters wait for the lock.
            if len(filters) > MAX_CHANGES or sum(map(index.cost, filters)) > max(MAX_COMPARED, len(index)):
                raise _too_large()
            picked, found, compared = list[list[Acl]](), 0, 0
            for asked in filters:
                compared += index.cost(asked)
                if compared > COMPARED_AT_ONCE:
                    compared = 0
                    await asyncio.sleep(0)
                picked.append(await self.matching(cluster_id, asked))
                found += len(picked[-1])
                if found > MAX_CHANGES:
                    raise _too_large()
            await self._remove(cluster_id, list(await distinct(acl for acls in picked for acl in acls)))
        return picked

    async def remove_some(self, cluster_id: int) -> bool:
        """Remove some ACLs of a cluster that is being deleted; whether none is left."""
        return await self._changes.run(self._remove_some(cluster_id))

    async def _remove_some(self, cluster_id: int) -> bool:
        async with self._lock:
            await self._catch_up()
            await self._remove(cluster_id, list(islice(self.index(cluster_id), CHANGED_AT_ONCE)))
            if len(self.index(cluster_id)):
                return False
            self._clusters.pop(cluster_id, None)
            return True

    async def _remove(self, cluster_id: int, removed: Sequence[Acl]) -> None:
        if removed and await self._change(lambda: store.delete(cluster_id, removed)):
            index = self.index(cluster_id)
            for number, acl in enumerate(removed):
                await yield_if_due(number, CHANGED_AT_ONCE)
                index.remove(acl)
            self._changed(cluster_id)

    async def _catch_up(self) -> None:
        if self._is_stale or await self._database.read(store.version) != self._version:
            await self._load()

    async def _change(self, script: Callable[[], Script[int]]) -> bool:
        """Make a change durable; whether the caller has to apply it to the index, which was not loaded anew."""
        try:
            version = await self._database.transaction(script)
        except PlatformError:
            self._is_stale = True
            raise
        if version == self._version + 1:
            self._version = version
            return True
        # Another agent's change came between. It must not be missed: it may be a denial.
        self._is_stale = True
        await self._load()
        return False

    async def _load(self) -> None:
        version, acls = await self._database.read(store.load)
        clusters: dict[int, AclIndex] = {}
        for number, (cluster_id, acl) in enumerate(acls):
            await yield_if_due(number)
            if cluster_id not in clusters:
                clusters[cluster_id] = AclIndex()
            clusters[cluster_id].add(acl)
        self._clusters, self._version, self._is_stale = clusters, version, False
        self._changed()

    def _changed(self, cluster_id: int | None = None) -> None:
        for listener in self._listeners:
            listener(cluster_id)


def _too_large() -> InvalidRequest:
    return InvalidRequest(EXCESSIVE)
