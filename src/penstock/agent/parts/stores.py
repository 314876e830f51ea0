"""Where an agent's data is, and the threads that wait for its disks."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from penstock.agent.metadata import Metadata, kind_of, open_metadata
from penstock.agent.parts.runtime import Runtime
from penstock.agent.tuning import COLD_THREADS, MEMORY_WAL_MAX_BYTES, SHARD_ID
from penstock.base.dataclasses import dataclass
from penstock.base.lazy import lazy_import
from penstock.base.randomness import new_uuid, uuid_text
from penstock.storage.memory import MemoryObjectStore, MemoryWal
from penstock.storage.timed import TimedObjectStore
from penstock.storage.wal import WalStore

if TYPE_CHECKING:
    from penstock.metadata.postgres import PostgresDatabase
    from penstock.metadata.sqlite import SqliteDatabase
    from penstock.storage import directory as directories
    from penstock.storage import kernel_writes as kernel
    from penstock.storage import local, slabs
else:  # Of files, which not everybody has.
    directories, kernel = lazy_import("penstock.storage.directory"), lazy_import("penstock.storage.kernel_writes")
    local, slabs = lazy_import("penstock.storage.local"), lazy_import("penstock.storage.slabs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """What is opened first and closed last."""

    kafka_cluster_id: str
    wal: WalStore
    objects: TimedObjectStore
    metadata: Metadata
    cold_reads: ThreadPoolExecutor
    wal_writes: ThreadPoolExecutor

    @property
    def database(self) -> SqliteDatabase | PostgresDatabase:
        """The metadata's."""
        return self.metadata.database


async def open_stores(runtime: Runtime) -> Stores:
    """Open the data directory, or memory, and the database."""
    options, clock, randomness, closing = runtime.options, runtime.clock, runtime.randomness, runtime.closing
    cold_reads = runtime.executor("cold-read", COLD_THREADS)
    wal_writes = ThreadPoolExecutor(1, thread_name_prefix="wal-writer")
    wal: WalStore
    kernel_writes: kernel.KernelWrites | None = None
    directory: directories.DataDirectory | None = None
    objects: local.LocalObjectStore | MemoryObjectStore
    if options.data_dir is None:
        kafka_cluster_id = uuid_text(new_uuid(randomness))
        wal, objects = MemoryWal(MEMORY_WAL_MAX_BYTES), MemoryObjectStore()
    else:
        directory = directories.DataDirectory.open(options.data_dir, metadata=kind_of(options), randomness=randomness)
        closing.callback(directory.close)
        kafka_cluster_id = directory.cluster_id
        kernel_writes = kernel.KernelWrites.open()
        wal = slabs.SlabWal(
            directory.slabs, durability=options.durability, slab_bytes=runtime.tuning.slab_bytes,
            kernel_writes=kernel_writes,
        )  # fmt: skip
        objects = local.LocalObjectStore(directory.segments, sync=options.durability == "disk", now=clock.monotonic)
    closing.callback(wal.close)
    # Before its files are closed: what a stop has given up may still be writing to them.
    closing.callback(wal_writes.shutdown)
    if kernel_writes is not None:
        _attend(kernel_writes, closing)
    metadata = await open_metadata(
        options, directory, kafka_cluster_id, clock=clock, randomness=randomness, shard_id=SHARD_ID
    )
    closing.push_async_callback(metadata.close)
    return Stores(
        kafka_cluster_id=kafka_cluster_id, wal=wal, objects=TimedObjectStore(objects, clock.monotonic),
        metadata=metadata, cold_reads=cold_reads, wal_writes=wal_writes,
    )  # fmt: skip


def _attend(kernel_writes: kernel.KernelWrites, closing: AsyncExitStack) -> None:
    """Have the event loop tell whose writes have ended."""
    loop, descriptor = asyncio.get_running_loop(), kernel_writes.fileno()
    loop.add_reader(descriptor, kernel_writes.reap)
    closing.callback(kernel_writes.close)
    closing.callback(loop.remove_reader, descriptor)
