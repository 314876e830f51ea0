"""The log of an agent: what its partitions are written by and read from."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from penstock.agent.metadata import commit_path_of
from penstock.agent.parts.runtime import Runtime
from penstock.agent.parts.stores import Stores
from penstock.agent.tuning import NODE_ID, SHARD_ID
from penstock.agent.turns import at_turn_end
from penstock.base.dataclasses import dataclass
from penstock.base.errors import Unavailable
from penstock.keys.service import DataKeys
from penstock.log.reader import Reader
from penstock.log.record_first import RecordFirstCommitPath
from penstock.log.recovery import load_state
from penstock.log.registry import Registry
from penstock.log.sealing import Sealing
from penstock.log.segments import SegmentIndex
from penstock.log.timestamps import Timestamps
from penstock.log.upkeep.wal_backlog import Backlog
from penstock.log.upkeep.wal_store import waiting
from penstock.log.writer import Writer, forget_views
from penstock.storage.arena import Arena

if TYPE_CHECKING:
    from penstock.log.shared_commit_path import SharedCommitPath

DRAIN_S = 10.0
"""How long a stop waits for flushes. Only a database that does not answer makes one take that long."""
STORE_ROWS_S = 1.0
"""How long it then waits for the database to have what was committed."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """The write path and the read path, over one registry of partitions."""

    registry: Registry
    segments: SegmentIndex
    reader: Reader
    timestamps: Timestamps
    backlog: Backlog
    commit_path: RecordFirstCommitPath | SharedCommitPath
    writer: Writer
    sealing: Sealing
    tail: Arena
    cold: Arena

    def activity(self) -> int:
        """Changes with everything that is written or read."""
        return self.writer.stats.bytes + self.reader.cold_bytes + self.reader.tail_reads

    def pinned_bytes(self) -> int:
        """Memory beyond the budgets of the tail and of cold reads, which only unread responses keep."""
        self.tail.trim()
        self.cold.trim()
        return self.tail.pinned_bytes + self.cold.pinned_bytes

    def drop_memory(self) -> None:
        """Give back what can be read again."""
        self.tail.drop()
        self.cold.drop()
        self.sealing.drop_memory()

    async def drain(self) -> None:
        """Finish what was accepted. What a lost database keeps from being finished is not acknowledged."""
        try:
            await asyncio.wait_for(self.writer.drain(), DRAIN_S)
        except TimeoutError:
            _log.warning("stopping although the last flush has no outcome: its producers will try it again")
            self.writer.abandon()
        # The next start would do it as well.
        with contextlib.suppress(TimeoutError, Unavailable):
            await asyncio.wait_for(self.commit_path.store_rows(), STORE_ROWS_S)


def forget_cluster(registry: Registry, cluster_id: int) -> None:
    """Nothing of a cluster may be read any more, not even what is in memory."""
    for partition in list(registry.partitions()):
        if partition.topic.cluster_id == cluster_id:
            forget_views([(partition, span) for span in list(partition.spans)])
            partition.wake()


async def open_log(runtime: Runtime, stores: Stores, registry: Registry, keys: DataKeys) -> Log:
    """Bring the state back, and be ready to append and to read."""
    options, tuning, memory, clock = runtime.options, runtime.tuning, runtime.memory, runtime.clock
    database, wal, sealing = stores.database, stores.wal, Sealing(keys, runtime.randomness)
    seq = await load_state(database, registry, wal)
    segments, cold = SegmentIndex(database), Arena(memory.cold_bytes, huge=True)
    reader = Reader(
        segments=segments, wal=wal, objects=stores.objects, executor=stores.cold_reads, arena=cold, sealing=sealing,
        pinned_max_bytes=memory.pinned_bytes,
    )  # fmt: skip
    tail = Arena(
        tuning.tail_bytes or memory.tail_bytes, chunk_bytes=tuning.tail_chunk_bytes or memory.tail_chunk_bytes,
        huge=True, on_recycle=forget_views,
    )  # fmt: skip
    backlog = Backlog(
        await database.read(lambda: waiting(SHARD_ID, seq)), last_seq=seq, capacity_bytes=wal.capacity_bytes,
        clock=clock, policy=tuning.compaction,
    )  # fmt: skip
    commit_path = commit_path_of(
        stores.metadata, wal, registry, clock=clock, randomness=runtime.randomness, seq=seq,
        inline=options.durability == "process" or options.data_dir is None, executor=stores.wal_writes,
        shard_id=SHARD_ID, agent_id=NODE_ID, on_commit=backlog.on_commit,
    )  # fmt: skip
    runtime.closing.callback(commit_path.close)
    writer = Writer(
        arena=tail, commit_path=commit_path, clock=clock, on_commit=backlog.on_commit, room=backlog,
        soon=at_turn_end(asyncio.get_running_loop()), sealing=sealing,
    )  # fmt: skip
    return Log(
        registry=registry, segments=segments, reader=reader, timestamps=Timestamps(reader, segments), backlog=backlog,
        commit_path=commit_path, writer=writer, sealing=sealing, tail=tail, cold=cold,
    )  # fmt: skip
