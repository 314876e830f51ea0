"""The keys of encrypted clusters, and where they are kept."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack

from penstock.agent.checks import master_key_file
from penstock.agent.parts.stores import Stores
from penstock.base.clock import Clock
from penstock.base.context import DEFAULT_CLUSTER_ID
from penstock.base.options import UpOptions
from penstock.base.randomness import Randomness
from penstock.base.threads import on_thread_of
from penstock.clusters.service import Clusters
from penstock.keys.local_file import LocalKeyFile
from penstock.keys.port import KeyService, NoKeyService
from penstock.keys.service import DataKeys


async def open_keys(
    stores: Stores, clusters: Clusters, on_erased: Callable[[int], None], *, options: UpOptions, clock: Clock,
    randomness: Randomness, closing: AsyncExitStack,
) -> DataKeys:  # fmt: skip
    """Have the current keys. One that cannot be had keeps its cluster from writing, and nobody else."""
    service: KeyService = NoKeyService()
    path = master_key_file(options)
    if path is not None:
        service = LocalKeyFile(path, randomness, on_thread_of(stores.cold_reads))
    keys = DataKeys(database=stores.database, service=service, clock=clock, randomness=randomness)
    closing.push_async_callback(keys.close)
    keys.on_erased, keys.stays = on_erased, clusters.is_open
    await keys.open()
    if options.encrypt:
        await keys.encrypt(DEFAULT_CLUSTER_ID)
    return keys
