"""Background work: what the log does for itself, and where other parts add chores of their own."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.agent.idle_memory import IdleMemory
from penstock.agent.parts.log import Log
from penstock.agent.parts.runtime import Runtime
from penstock.agent.parts.stores import Stores
from penstock.agent.tuning import SHARD_ID
from penstock.base.dataclasses import dataclass
from penstock.keys.service import DataKeys
from penstock.log.topics import Topics
from penstock.log.upkeep.background import Background, Chore
from penstock.log.upkeep.chores import Upkeep
from penstock.log.upkeep.spent_keys import SpentKeys
from penstock.log.upkeep.uploads import Uploads
from penstock.log.upkeep.wal_compaction import WalCompaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Maintenance:
    """The chores."""

    background: Background
    """Gives them their turns."""
    upkeep: Upkeep
    """The chores of the log."""
    compaction: WalCompaction
    idle_memory: IdleMemory


def open_maintenance(runtime: Runtime, stores: Stores, topics: Topics, keys: DataKeys, log: Log) -> Maintenance:
    """Begin with the chores of the log."""
    clock, closing = runtime.clock, runtime.closing
    executor = runtime.executor("background")
    upkeep = Upkeep(
        database=stores.database, registry=log.registry, topics=topics, segments=log.segments, objects=stores.objects,
        uploads=Uploads(runtime.randomness), settings=topics.settings, clock=clock, executor=executor,
        shard_id=SHARD_ID, store_rows=log.commit_path.store_rows, sealing=log.sealing,
        pass_flush=log.writer.pass_flush, activity=log.activity,
    )  # fmt: skip

    def on_segments(partition_ids: Iterable[int]) -> None:
        upkeep.on_segments(partition_ids)
        background.wake(idle_memory.name)

    compaction = WalCompaction(
        upkeep.changes, wal=stores.wal, registry=log.registry, backlog=log.backlog, on_segments=on_segments
    )
    idle_memory = IdleMemory(
        activity=log.activity, held_bytes=lambda: log.tail.size_bytes, drop=log.drop_memory, now=clock.monotonic
    )
    spent_keys = SpentKeys(upkeep.changes, keys, lambda: log.backlog.last_seq)
    chores: list[Chore] = [compaction, *upkeep.chores, idle_memory, spent_keys]
    background = Background(chores, clock=clock, randomness=runtime.randomness)
    keys.on_replaced = lambda key_id: background.wake(spent_keys.name)
    log.backlog.wake = background.waker(compaction.name)
    upkeep.bind(background.wake)
    closing.callback(upkeep.close)
    closing.push_async_callback(background.stop)
    background.start()
    return Maintenance(background=background, upkeep=upkeep, compaction=compaction, idle_memory=idle_memory)
