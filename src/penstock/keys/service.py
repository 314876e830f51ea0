"""The data keys of all clusters, unwrapped as far as they are needed.

`current` has, for each encrypted cluster, the key that what it writes is sealed by. Keys that only old data is sealed
by are unwrapped when something is read, and the ones used last are kept. Both are plain dictionaries that worker
threads may look into.

The key service may be far away, or away: it is asked a few times with a time-out, then callers get `Unavailable`, and
for a moment everybody gets it at once. Clusters whose current key is not there are `locked`; a task goes on asking
until none is, and until every master key that is to be destroyed has been.

Changes are decided, made durable, and only then true here; a caller who goes away stops none. Erasing is true in two
steps: first nobody gets a key any more, then the master key is destroyed, however often that takes asking.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from penstock.base.backoff import Backoff
from penstock.base.clock import Clock
from penstock.base.errors import Conflict, CorruptData, InvalidRequest, OutcomeUnknown, PlatformError, Unavailable
from penstock.base.randomness import Randomness
from penstock.base.shielded import ShieldedTasks
from penstock.keys import store, transitions
from penstock.keys.model import (
    SECRET_BYTES,
    ClusterKeys,
    DataKey,
    KeyDestroyed,
    KeysErased,
    KeyState,
    LockReason,
    WrappedKey,
    context_of,
)
from penstock.keys.port import KeyService
from penstock.keys.retrying import ATTEMPTS, TIMEOUT_S, RetryingKeyService
from penstock.metadata.database import Database, Script

T = TypeVar("T")

CACHED_KEYS = 1_000
"""Data keys kept in memory beside the current ones."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 30.0
_SHORT_S = 0.5
"""How long what another agent has changed waits for the key service."""
OPEN_S = 5.0
"""How long a start waits for the key service."""
_log = logging.getLogger(__name__)


class DataKeys:
    """The keys. On the loop's thread, but for looking into `current` and `peek`."""

    def __init__(
        self, *, database: Database, service: KeyService, clock: Clock, randomness: Randomness,
        cached_keys: int = CACHED_KEYS, timeout_s: float = TIMEOUT_S, open_s: float = OPEN_S,
    ) -> None:  # fmt: skip
        self._open_s = open_s
        self._database, self._clock, self._randomness = database, clock, randomness
        self._service = RetryingKeyService(service, clock=clock, randomness=randomness, timeout_s=timeout_s)
        self._cached_keys = cached_keys
        self.clusters: dict[int, ClusterKeys] = {}
        """Clusters that are encrypted, or were."""
        self.current: dict[int, DataKey] = {}
        self.locked: dict[int, LockReason] = {}
        """Clusters for which nothing can be sealed."""
        self.on_erased: Callable[[int], None] = lambda cluster_id: None
        """Called when nothing of a cluster may be read any more."""
        self.on_replaced: Callable[[int], None] = lambda key_id: None
        """Called when a data key has sealed its last."""
        self.stays: Callable[[int], bool] = lambda cluster_id: True
        """Whether there is such a cluster, and it is not being deleted."""
        self._wrapped: dict[int, WrappedKey] = {}
        self._cached: OrderedDict[int, DataKey] = OrderedDict()
        self._fetching: dict[int, asyncio.Task[DataKey]] = {}
        self._changing, self._changes = asyncio.Lock(), ShieldedTasks()
        self._revision = 0
        """Another number after every change, so that what was read before one is known to be outdated."""
        self._tried = asyncio.Event()
        """Whether everything that is to be asked for was asked for once."""
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Load what is stored, and get the current keys. What cannot be had now is waited for in the background."""
        await self._load()
        if self._has_work():
            self._wake()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._open_s):
                    await self._tried.wait()
            for cluster_id in self._waiting():
                _log.error("cluster %d is locked until the key service unwraps its data key", cluster_id)

    async def close(self) -> None:
        """Ask for nothing more."""
        tasks = [*self._fetching.values(), *([self._task] if self._task is not None else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._changes.abandon()

    # ---- using keys ------------------------------------------------------------------------------------------

    @property
    def is_on(self) -> bool:
        """Whether any cluster is, or was, encrypted."""
        return bool(self.clusters)

    def peek(self, key_id: int) -> DataKey | None:
        """A data key that is in memory. On any thread."""
        return self._cached.get(key_id)

    async def ready(self, key_ids: Collection[int]) -> None:
        """Have data keys in memory. Raises `Unavailable`, or `KeysErased` if one of them is gone for good."""
        for key_id in key_ids:
            if key_id in self._cached:
                self._cached.move_to_end(key_id)
            else:
                await self._fetch(key_id)

    async def _fetch(self, key_id: int) -> DataKey:
        """Unwrap a key, once for everybody who waits for it."""
        task = self._fetching.get(key_id)
        if task is None:
            task = self._fetching[key_id] = asyncio.get_running_loop().create_task(self._unwrap(key_id))
            task.add_done_callback(partial(self._fetched, key_id))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise Unavailable("the agent is stopping") from None
            raise

    def _fetched(self, key_id: int, task: asyncio.Task[DataKey]) -> None:
        self._fetching.pop(key_id, None)
        if not task.cancelled():
            task.exception()  # Those who waited may all have gone.

    async def _unwrap(self, key_id: int) -> DataKey:
        if key_id not in self._wrapped:
            await self._look_again()  # Another agent may have made it.
        wrapped = self._wrapped.get(key_id)
        if wrapped is None:
            raise KeysErased("the key that this is sealed by was erased")
        try:
            secret = await self._service.unwrap(wrapped.master_key_id, wrapped.wrapped, wrapped.context)
        except KeyDestroyed as problem:
            await self._look_again()
            anew = self._wrapped.get(key_id)
            if anew is None or anew.master_key_id == wrapped.master_key_id:
                raise KeysErased(str(problem)) from problem
            return await self._unwrap(key_id)  # Another agent has wrapped it by a new master key.
        except (InvalidRequest, CorruptData) as problem:
            # Whoever keeps the keys can see to that; what is sealed by them is none the worse.
            raise Unavailable(str(problem)) from problem
        if self._wrapped.get(key_id) is None:
            raise KeysErased("the key that this is sealed by was erased")
        return self._keep(DataKey(key_id, wrapped.cluster_id, secret))

    async def _look_again(self) -> None:
        """Load what is stored while changes may be made here."""
        for cluster in await self._read_stored():
            self._apply(cluster)

    def _keep(self, key: DataKey) -> DataKey:
        self._cached[key.key_id] = key
        current = {cluster.current_key_id for cluster in self.clusters.values()}
        while len(self._cached) > self._cached_keys + len(current):
            oldest = next((key_id for key_id in self._cached if key_id not in current), None)
            if oldest is None:
                break
            del self._cached[oldest]
        return key

    # ---- changes ---------------------------------------------------------------------------------------------

    async def encrypt(self, cluster_id: int) -> bool:
        """From now on, what a cluster writes is sealed; False if that was so before."""
        return await self._changes.run(self._encrypt(cluster_id))

    async def _encrypt(self, cluster_id: int) -> bool:
        async with self._changing:
            transitions.check_stays(self.stays(cluster_id))
            if cluster_id in self.clusters:
                transitions.check_usable(self.clusters[cluster_id])
                return False
            master_key_id = await self._service.create()
            first, secret = await self._new_key(cluster_id, master_key_id)
            # Whoever deletes it removes its keys under the same lock: from here on they will be found.
            if not self.stays(cluster_id):
                await self._service.destroy(master_key_id)
            transitions.check_stays(self.stays(cluster_id))
            keys = ClusterKeys(cluster_id, KeyState.ON, master_key_id, first.key_id)
            try:
                await self._store(lambda: store.begin(keys, first))
            except Conflict:
                if cluster_id in self.clusters:
                    return False  # Another agent was faster.
                raise
            self._wrapped[first.key_id] = first
            self._keep(secret)
            self._apply(keys)
            return True

    async def rotate(self, cluster_id: int) -> None:
        """Seal what is written from now on by a new data key."""
        await self._changes.run(self._rotate(cluster_id))

    async def _rotate(self, cluster_id: int) -> None:
        async with self._changing:
            before = transitions.check_usable(self.clusters.get(cluster_id))
            new, secret = await self._new_key(cluster_id, before.master_key_id)
            after = transitions.rotated(before, new.key_id)
            await self._store(lambda: store.change(before, after, (new,)))
            self._wrapped[new.key_id] = new
            self._keep(secret)
            self._apply(after)
            self.on_replaced(before.current_key_id)

    async def rewrap(self, cluster_id: int) -> None:
        """Wrap all data keys of a cluster by a new master key, and destroy the old one.

        Raises `CorruptData` with those that cannot be unwrapped, once it is done for all others. The old master key is
        kept for them, and asking again tries these alone.
        """
        await self._changes.run(self._rewrap(cluster_id))

    async def _rewrap(self, cluster_id: int) -> None:
        async with self._changing:
            before = transitions.check_usable(self.clusters.get(cluster_id))
            left = transitions.left_behind(before, self._wrapped.values())
            if not left:
                transitions.rewrapped(before, before.master_key_id)  # Before a master key is made for nothing.
            stored = left or [key for key in self._wrapped.values() if key.cluster_id == cluster_id]
            secrets, problems = await self._secrets_of(stored)
            if problems and (not secrets or before.current_key_id in problems):
                raise next(iter(problems.values()))
            after = before if left else transitions.rewrapped(before, await self._service.create())
            anew = [
                await self._wrap(key.key_id, cluster_id, after.master_key_id, secret, key.created_ms)
                for key, secret in secrets
            ]
            await self._store(lambda: store.change(before, after, anew))
            self._wrapped.update((key.key_id, key) for key in anew)
            self._apply(after)
        await self._destroy_some(cluster_id)
        if problems:
            which = ", ".join(f"{key_id} ({problem})" for key_id, problem in problems.items())
            raise CorruptData(
                f"{len(secrets)} of {len(stored)} data keys are wrapped by the new master key. The old one is kept for"
                f" those that it does not unwrap: {which}"
            )

    async def erase(self, cluster_id: int) -> bool:
        """Make everything that is sealed for a cluster unreadable for good; whether the key service has confirmed it.

        If it has not, it goes on being asked. Nobody gets a key either way.
        """
        return await self._changes.run(self._erase(cluster_id))

    async def _erase(self, cluster_id: int) -> bool:
        async with self._changing:
            await self._begin_erasing(cluster_id)
        await self._destroy_some(cluster_id)
        keys = self.clusters.get(cluster_id)
        return keys is None or keys.state is KeyState.ERASED

    async def _begin_erasing(self, cluster_id: int) -> None:
        before = self.clusters.get(cluster_id)
        after = transitions.erasing(before)
        assert before is not None
        await self._store(lambda: store.change(before, after))
        self._apply(after)

    async def remove(self, cluster_id: int) -> None:
        """Of a cluster that is being deleted: erase its keys, and then forget that it had any.

        Raises `Unavailable` until the key service has confirmed that its master key is destroyed. Meanwhile that is
        asked for in the background, also after a start: nobody waits for it here, nor for other changes.
        """
        keys = self.clusters.get(cluster_id)
        if self._changing.locked() or (keys is not None and keys.state is KeyState.ERASING):
            raise Unavailable("keys are still to be destroyed")
        async with self._changing:
            if cluster_id not in self.clusters:
                return
            if self.clusters[cluster_id].state is not KeyState.ERASED:
                await self._begin_erasing(cluster_id)
                raise Unavailable("its master key is being destroyed")
            await self._store(lambda: store.remove(cluster_id))
            del self.clusters[cluster_id]
            self.locked.pop(cluster_id, None)

    async def forget(self, key_ids: Collection[int]) -> None:
        """By these data keys nothing is sealed any more."""
        await self._database.transaction(lambda: store.forget(list(key_ids)), background=True)
        self._revision += 1
        for key_id in key_ids:
            self._wrapped.pop(key_id, None)
            self._cached.pop(key_id, None)
        if self._has_work():  # A master key may have been kept for one of them.
            self._wake()

    @property
    def stored(self) -> Mapping[int, WrappedKey]:
        """All data keys."""
        return self._wrapped

    async def _new_key(self, cluster_id: int, master_key_id: str) -> tuple[WrappedKey, DataKey]:
        key_id = (int.from_bytes(self._randomness.token(8)) >> 1) | 1
        secret = self._randomness.token(SECRET_BYTES)
        wrapped = await self._wrap(key_id, cluster_id, master_key_id, secret, self._clock.now_ms())
        return wrapped, DataKey(key_id, cluster_id, secret)

    async def _wrap(
        self, key_id: int, cluster_id: int, master_key_id: str, secret: bytes, created_ms: int
    ) -> WrappedKey:
        context = context_of(cluster_id, key_id)
        wrapped = await self._service.wrap(master_key_id, secret, context)
        return WrappedKey(key_id, cluster_id, master_key_id, wrapped, created_ms)

    async def _secrets_of(
        self, stored: Iterable[WrappedKey]
    ) -> tuple[list[tuple[WrappedKey, bytes]], dict[int, PlatformError]]:
        """Data keys with their secrets, and why those that are missing cannot be unwrapped."""
        secrets, problems = list[tuple[WrappedKey, bytes]](), dict[int, PlatformError]()
        for key in stored:
            try:
                secrets.append((key, await self._secret_of(key)))
            except PlatformError as problem:
                problems[key.key_id] = problem
        return secrets, problems

    async def _secret_of(self, key: WrappedKey) -> bytes:
        known = self._cached.get(key.key_id)
        return (known or await self._fetch(key.key_id)).secret

    async def _store(self, script: Callable[[], Script[None]]) -> None:
        """Make a change durable. It may be made twice, so a lost answer is asked for again, and a refusal tells that
        somebody else was faster."""
        for _ in range(ATTEMPTS):
            try:
                await self._database.transaction(script)
                self._revision += 1
                return
            except OutcomeUnknown:
                continue
            except Conflict:
                await self._load()
                raise
        raise OutcomeUnknown("whether the keys have changed is not known: the database loses its answers")

    # ---- state -----------------------------------------------------------------------------------------------

    async def refresh(self) -> None:
        """Have in memory what another agent has changed. Raises `Unavailable` while keys are being changed here."""
        if self._changing.locked():
            raise Unavailable("keys are being changed")
        async with self._changing:
            await self._load()

    async def _read_stored(self) -> list[ClusterKeys]:
        """The keys of all clusters, with their data keys taken over; what was read before a change undoes none."""
        while True:
            before = self._revision
            clusters, keys = await self._database.read(store.everything)
            if before == self._revision:
                break
        self._revision += 1
        self._wrapped = {key.key_id: key for key in keys}
        return clusters

    async def _load(self) -> None:
        """Load what is stored while nothing is changed here."""
        clusters = await self._read_stored()
        for cluster_id in self.clusters.keys() - {cluster.cluster_id for cluster in clusters}:
            # Another agent has removed it. It stays locked here until nothing is left of the cluster.
            self._apply(transitions.erased(self.clusters[cluster_id]))
        for cluster in clusters:
            if cluster.state is not KeyState.ON:
                self._apply(cluster)
        await self._prepare(cluster for cluster in clusters if cluster.cluster_id in self.current)
        for cluster in clusters:
            if cluster.state is KeyState.ON:
                self._apply(cluster)

    async def _prepare(self, clusters: Iterable[ClusterKeys]) -> None:
        """Where another key seals from now on, have it before nothing can be sealed without it, if that is soon."""
        fresh = [keys.current_key_id for keys in clusters if keys.current_key_id not in self._cached]
        if fresh:
            with suppress(TimeoutError):
                async with asyncio.timeout(_SHORT_S):
                    await asyncio.gather(*(self.ready((key_id,)) for key_id in fresh), return_exceptions=True)

    def _apply(self, keys: ClusterKeys) -> None:
        """Let memory follow the database."""
        cluster_id = keys.cluster_id
        self.clusters[cluster_id] = keys
        current = self._cached.get(keys.current_key_id) if keys.state is KeyState.ON else None
        lock = transitions.lock_of(keys, has_current=current is not None)
        if lock is None:
            assert current is not None
            self.current[cluster_id] = current
            self.locked.pop(cluster_id, None)
        else:
            # In this order: no other thread is to find neither, and leave open what it writes.
            was, self.locked[cluster_id] = self.locked.get(cluster_id), lock
            self.current.pop(cluster_id, None)
            if lock is LockReason.ERASED and was is not LockReason.ERASED:
                self._drop(cluster_id)
        if self._has_work():
            self._wake()

    def _drop(self, cluster_id: int) -> None:
        """Nobody gets a key of the cluster any more."""
        keys: tuple[dict[int, Any], ...] = (self._wrapped, self._cached)
        for known in keys:  # Of one that another agent has erased, only the latter has any.
            for key_id in [key_id for key_id, key in known.items() if key.cluster_id == cluster_id]:
                del known[key_id]
        self.on_erased(cluster_id)

    def _waiting(self) -> list[int]:
        return [cluster_id for cluster_id, lock in self.locked.items() if lock is LockReason.WAITING]

    def _has_work(self) -> bool:
        return bool(self._waiting()) or any(map(self._doomed, self.clusters.values()))

    def _doomed(self, keys: ClusterKeys) -> list[str]:
        return transitions.to_destroy(keys, self._wrapped.values())

    def _wake(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._keep_trying())
            self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and task.exception() is not None:
            _log.critical("keys are not looked after any more", exc_info=task.exception())
        elif not task.cancelled() and self._has_work():
            self._wake()

    async def _keep_trying(self) -> None:
        """Until every cluster has its current key and nothing is left to be destroyed."""
        backoff = Backoff(self._randomness, _FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        while self._has_work():
            await asyncio.gather(*(self._unlock(cluster_id) for cluster_id in self._waiting()))
            for cluster_id in list(self.clusters):
                await self._destroy_some(cluster_id)
            self._tried.set()
            if self._has_work():
                await backoff.wait()

    async def _unlock(self, cluster_id: int) -> None:
        try:
            await self._fetch(self.clusters[cluster_id].current_key_id)
        except PlatformError as problem:
            _log.debug("cluster %d stays locked: %s", cluster_id, problem)
            return
        keys = self.clusters.get(cluster_id)
        if keys is not None:
            self._apply(keys)
            _log.info("the data key of cluster %d is there", cluster_id)

    async def _destroy_some(self, cluster_id: int) -> None:
        """Destroy the master keys of a cluster that are to be, as far as the key service does it."""
        async with self._changing:
            before = self.clusters.get(cluster_id)
            doomed = [] if before is None else self._doomed(before)
            if before is None or not doomed:
                return
            try:
                for master_key_id in doomed:
                    await self._service.destroy(master_key_id)
                after = (
                    transitions.erased(before)
                    if before.state is KeyState.ERASING
                    else transitions.without_retired(before)
                )
                await self._store(lambda: store.change(before, after))
            except (Unavailable, OutcomeUnknown, Conflict, InvalidRequest, CorruptData) as problem:
                _log.error("a master key of cluster %d is still to be destroyed: %s", cluster_id, problem)
                return
            self._apply(after)
