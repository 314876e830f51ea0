"""The connections of clients, and where they come in."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from penstock.agent.checks import slow_request_s
from penstock.agent.parts.backend import Backend
from penstock.agent.parts.log import DRAIN_S
from penstock.agent.parts.requests import Requests
from penstock.agent.parts.runtime import Runtime
from penstock.agent.parts.stores import Stores
from penstock.agent.request_times import RequestTimes
from penstock.agent.server import Server
from penstock.agent.shared_io import SharedIo
from penstock.agent.tls import ServerTls
from penstock.agent.tuning import NODE_ID
from penstock.clusters.service import Clusters
from penstock.log.brokers import SingleBroker

if TYPE_CHECKING:
    from penstock.agent.sasl import SaslServer

STOP_GRACE_S = 2.0


def brokers_of(runtime: Runtime, stores: Stores, clusters: Clusters) -> SingleBroker:
    """What clients are told of who serves them. `listen` adds where."""
    brokers = SingleBroker(
        kafka_cluster_id=stores.kafka_cluster_id, node_id=NODE_ID, host=runtime.options.kafka_host,
        port=runtime.options.kafka_port,
    )  # fmt: skip
    brokers.kafka_id_of = clusters.kafka_id
    return brokers


def open_server(backend: Backend, requests: Requests, sasl: SaslServer | None) -> Server:
    """Build it, in front of the backend. It does not listen yet."""
    runtime, log, limits = backend.runtime, backend.log, backend.limits
    settings, closing = runtime.settings, runtime.closing
    shared = SharedIo(
        clock=runtime.clock,
        times=RequestTimes(runtime.clock, slow_s=slow_request_s(settings), last_flush=log.writer.stages.summary),
        pending_bytes=lambda: log.writer.pending_bytes + requests.produce.decoding_bytes,
        memory=runtime.memory,
        max_frame_bytes=settings.whole("socket.request.max.bytes"),
    )
    server = Server(
        shared=shared,
        dispatch=requests.dispatcher,
        throttled_ms=limits.throttles.on_connection,
        admit=None if sasl is None else sasl.admit,
        cluster_connections=limits.cluster_connections,
        pinned_bytes=log.pinned_bytes,
        max_connections=settings.whole("max.connections"),
        max_connections_per_host=settings.whole("max.connections.per.ip"),
        idle_s=settings.whole("connections.max.idle.ms") / 1000,
        on_closed=backend.on_closed,
    )
    server.listener = backend.audit
    log.writer.on_drained = shared.make_room

    async def finish_long() -> None:
        """What is produced in portions waits for flushes, of which there may be none any more."""
        if not log.writer.has_stopped:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(requests.dispatcher.drain(), DRAIN_S)

    # A stop takes no new requests, answers those there are, and then closes the connections.
    closing.push_async_callback(server.close, STOP_GRACE_S)
    closing.push_async_callback(log.drain)
    closing.push_async_callback(backend.coordinators.dead_letters.close)
    closing.push_async_callback(requests.produce.drain)
    closing.push_async_callback(finish_long)
    closing.callback(server.stop_listening)
    return server


def listen(runtime: Runtime, server: Server, brokers: SingleBroker, clusters: Clusters) -> Mapping[str, int]:
    """Let clients come; the ports of the listeners, by name."""
    ports = dict[str, int]()
    for listener in runtime.listeners:
        tls = None
        if listener.tls is not None:
            tls = ServerTls(listener.tls, runtime.clock, domain=listener.sni_domain, cluster_named=clusters.id_of)
        port = ports[listener.name] = server.listen(listener, tls)
        host, advertised_port = listener.advertised or (listener.host, port)
        brokers.advertise(host, advertised_port, listener.name)
    return ports
