"""The keys of encrypted clusters, and where they are kept."""

from __future__ import annotations

from functools import partial

from penstock.agent.checks import master_key_file
from penstock.agent.parts.log import forget_cluster
from penstock.agent.parts.runtime import Runtime
from penstock.agent.parts.stores import Stores
from penstock.base.context import DEFAULT_CLUSTER_ID
from penstock.base.threads import on_thread_of
from penstock.clusters.service import Clusters
from penstock.keys.local_file import LocalKeyFile
from penstock.keys.port import KeyService, NoKeyService
from penstock.keys.service import DataKeys
from penstock.log.registry import Registry


async def open_keys(runtime: Runtime, stores: Stores, clusters: Clusters, registry: Registry) -> DataKeys:
    """Have the current keys. One that cannot be had keeps its cluster from writing, and nobody else."""
    service: KeyService = NoKeyService()
    path = master_key_file(runtime.options)
    if path is not None:
        service = LocalKeyFile(path, runtime.randomness, on_thread_of(stores.cold_reads))
    keys = DataKeys(database=stores.database, service=service, clock=runtime.clock, randomness=runtime.randomness)
    runtime.closing.push_async_callback(keys.close)
    keys.on_erased, keys.stays = partial(forget_cluster, registry), clusters.is_open
    await keys.open()
    if runtime.options.encrypt:
        await keys.encrypt(DEFAULT_CLUSTER_ID)
    return keys
