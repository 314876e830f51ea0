"""Client telemetry (KIP-714): GetTelemetrySubscriptions, PushTelemetry.

What is remembered of clients is soft state of one agent, as in Kafka: a client that turns to another agent is new
there. What was not heard of for long is forgotten when there are many. No timer runs.

Metrics are read on a worker thread, one push at a time. Clients choose how long that takes, and nobody else has to wait
for it; what waits is bounded, and beyond that pushes are dropped.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping

from penstock.base.clock import Clock
from penstock.base.config_values import ConfigResource
from penstock.base.context import RequestContext
from penstock.base.randomness import Randomness, new_uuid
from penstock.log.topics import Topics
from penstock.telemetry import transitions
from penstock.telemetry.model import Client, Instance, Subscribed, concerns, subscribed
from penstock.telemetry.sinks import ClientKey, Sink, Taken
from penstock.wire.compression import Compression, decompress
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.get_telemetry_subscriptions import (
    GetTelemetrySubscriptionsRequest,
    GetTelemetrySubscriptionsResponse,
)
from penstock.wire.messages.push_telemetry import PushTelemetryRequest, PushTelemetryResponse
from penstock.wire.primitives import Malformed

INSTANCES_MAX = 16_384
DECOMPRESSED_MAX_BYTES = 8 * 1024 * 1024
"""Text that repeats itself compresses well, but not that well: a client's metrics are some hundred kilobytes."""
READING_MAX_BYTES = 8 * 1024 * 1024
"""Metrics that wait to be read, as they were sent."""
EXPIRY_INTERVALS = 3
"""A client that has not pushed for so many intervals is taken to be gone."""
EXPIRY_MIN_S = 60.0
_RESERVED = (bytes(16), bytes(15) + b"\x01")
"""Ids that Kafka keeps for itself."""
_ACCEPTED = (Compression.ZSTD, Compression.LZ4, Compression.GZIP, Compression.SNAPPY)
OnThread = Callable[[Callable[[], Taken]], Awaitable[Taken]]
"""Has something done on a worker thread."""
_log = logging.getLogger(__name__)


class TelemetryHandlers:
    """Kafka's telemetry APIs over the subscriptions in `Topics` and a sink."""

    def __init__(
        self, topics: Topics, sink: Sink, *, on_thread: OnThread, clock: Clock, randomness: Randomness, max_bytes: int,
        broker_id: int,
    ) -> None:  # fmt: skip
        self._topics, self._sink, self._clock, self._randomness = topics, sink, clock, randomness
        self._on_thread = on_thread
        self._reading_bytes = 0
        self._max_bytes, self._broker_id = max_bytes, broker_id
        self._instances: OrderedDict[tuple[int, bytes], Instance] = OrderedDict()
        self.pushes = self.refusals = 0
        """Counted since the process started."""

    async def get_telemetry_subscriptions(
        self, context: RequestContext, request: GetTelemetrySubscriptionsRequest
    ) -> GetTelemetrySubscriptionsResponse:
        """GetTelemetrySubscriptions, key 71, v0 (KIP-714). Served where metrics of clients are handed on (`penstock
        up --client-metrics`). A client without an id gets one."""
        instance_id = request.client_instance_id
        if instance_id == bytes(16):
            instance_id = new_uuid(self._randomness)
        key = context.cluster_id, instance_id
        wanted = await self._wanted(context, instance_id)
        instance = transitions.current(self._instances.get(key), wanted)
        instance, error = transitions.get(instance, self._now_ms())
        self._remember(key, instance)
        if error:
            return GetTelemetrySubscriptionsResponse(error_code=error)
        return GetTelemetrySubscriptionsResponse(
            client_instance_id=instance_id, subscription_id=wanted.subscription_id,
            accepted_compression_types=[int(each) for each in _ACCEPTED], push_interval_ms=wanted.interval_ms,
            telemetry_max_bytes=self._max_bytes, delta_temporality=self._sink.deltas,
            requested_metrics=list(wanted.metrics),
        )  # fmt: skip

    async def push_telemetry(self, context: RequestContext, request: PushTelemetryRequest) -> PushTelemetryResponse:
        """PushTelemetry, key 72, v0 (KIP-714): metrics in OTLP, compressed or not. 117 for who is asked for something
        else by now, 89 for who comes too early, 118 for too much of it, 87 for what is no OTLP."""
        instance_id = request.client_instance_id
        if instance_id in _RESERVED:
            return PushTelemetryResponse(error_code=ErrorCode.INVALID_REQUEST)
        key = context.cluster_id, instance_id
        wanted = await self._wanted(context, instance_id)
        instance = transitions.current(self._instances.get(key), wanted)
        instance, error = transitions.push(
            instance, self._now_ms(), subscription_id=request.subscription_id, compression=request.compression_type,
            size_bytes=len(request.metrics), max_bytes=self._max_bytes, terminating=request.terminating,
        )  # fmt: skip
        self._remember(key, instance)
        if not error and request.metrics:
            error = await self._hand_on(context, request, instance)
        self.pushes += 1
        self.refusals += bool(error)
        return PushTelemetryResponse(error_code=error)

    async def _hand_on(self, context: RequestContext, request: PushTelemetryRequest, instance: Instance) -> ErrorCode:
        size = len(request.metrics)
        if self._reading_bytes + size > READING_MAX_BYTES:
            self._sink.dropped += 1
            return ErrorCode.NONE
        expires_s = max(instance.interval_ms * EXPIRY_INTERVALS / 1000, EXPIRY_MIN_S)
        client = context.cluster_id, bytes(request.client_instance_id)
        labels = self._labels(context, request.client_instance_id)
        self._reading_bytes += size
        try:
            take = await self._on_thread(lambda: self._read(request, client, labels, expires_s))
        except Malformed as problem:
            _log.info("metrics of client id %r cannot be read: %s", context.client_id, problem)
            return ErrorCode.INVALID_RECORD
        finally:
            self._reading_bytes -= size
        take()
        return ErrorCode.NONE

    def _read(
        self, request: PushTelemetryRequest, client: ClientKey, labels: Mapping[str, str], expires_s: float
    ) -> Taken:
        """On a worker thread."""
        payload = decompress(
            request.metrics, Compression.parse(request.compression_type), max_bytes=DECOMPRESSED_MAX_BYTES
        )
        return self._sink.read(client, labels, payload, expires_s)

    async def _wanted(self, context: RequestContext, instance_id: bytes) -> Subscribed:
        cluster_id, kind = context.cluster_id, ConfigResource.CLIENT_METRICS
        client, subscriptions = client_of(context, instance_id), list[Mapping[str, str]]()
        for number, name in enumerate(self._topics.configured(cluster_id, kind)):
            if number:  # Comparing with patterns may take long.
                await asyncio.sleep(0)
            overrides = self._topics.overrides(cluster_id, kind, name)
            if concerns(client, overrides):
                subscriptions.append(overrides)
        return subscribed(client, subscriptions)

    def _labels(self, context: RequestContext, instance_id: bytes) -> Mapping[str, str]:
        """What clients do not say about themselves."""
        attributes = client_of(context, instance_id).attributes
        known = {name: text for name, text in attributes.items() if text is not None}
        return {
            **known, "principal": context.principal, "broker_id": str(self._broker_id),
            "virtual_cluster": str(context.cluster_id),
        }  # fmt: skip

    def _remember(self, key: tuple[int, bytes], instance: Instance) -> None:
        self._instances[key] = instance
        self._instances.move_to_end(key)
        if len(self._instances) > INSTANCES_MAX:
            self._instances.popitem(last=False)

    def _now_ms(self) -> int:
        return int(self._clock.monotonic() * 1000)


def client_of(context: RequestContext, instance_id: bytes) -> Client:
    """Whoever sent a request, by an id of its own."""
    return Client(
        instance_id=instance_id, client_id=context.client_id, software_name=context.client_software_name,
        software_version=context.client_software_version, address=context.client_host, port=context.client_port,
    )  # fmt: skip
