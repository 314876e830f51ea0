"""Client telemetry (KIP-714): GetTelemetrySubscriptions, PushTelemetry.

The state of clients is soft state of one agent, as in Kafka: a client that connects to another agent is new there. When
there are many, the least recently used are dropped. There are no timers.

Metrics are parsed on a worker thread, one push at a time, because clients determine how long that takes. The queue in
front of it is bounded; beyond that, pushes are dropped.
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
from penstock.telemetry.model import (
    ClientState,
    Subscription,
    TelemetryClient,
    combined_subscription,
    subscription_matches,
)
from penstock.telemetry.sinks import Apply, ClientKey, Sink
from penstock.wire.compression import Compression, decompress
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.get_telemetry_subscriptions import (
    GetTelemetrySubscriptionsRequest,
    GetTelemetrySubscriptionsResponse,
)
from penstock.wire.messages.push_telemetry import PushTelemetryRequest, PushTelemetryResponse
from penstock.wire.primitives import Malformed

CLIENTS_MAX = 16_384
DECOMPRESSED_MAX_BYTES = 8 * 1024 * 1024
"""The largest push after decompression. Real pushes have some hundred kilobytes."""
READING_MAX_BYTES = 8 * 1024 * 1024
"""The most bytes of pushes, as received, that wait to be parsed."""
EXPIRY_INTERVALS = 3
"""The metrics of a client expire after so many push intervals."""
EXPIRY_MIN_S = 60.0
_RESERVED = (bytes(16), bytes(15) + b"\x01")
"""Ids reserved by Kafka."""
_ACCEPTED = (Compression.ZSTD, Compression.LZ4, Compression.GZIP, Compression.SNAPPY)
OnThread = Callable[[Callable[[], Apply]], Awaitable[Apply]]
"""Runs work on a worker thread."""
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
        self._states: OrderedDict[tuple[int, bytes], ClientState] = OrderedDict()
        self.pushes = self.refusals = 0
        """Counted since the process started."""

    async def get_telemetry_subscriptions(
        self, context: RequestContext, request: GetTelemetrySubscriptionsRequest
    ) -> GetTelemetrySubscriptionsResponse:
        """GetTelemetrySubscriptions, key 71, v0 (KIP-714). Served if client metrics have a destination (`penstock up
        --client-metrics`). A client without an id gets one."""
        instance_id = request.client_instance_id
        if instance_id == bytes(16):
            instance_id = new_uuid(self._randomness)
        key = context.cluster_id, instance_id
        subscription = await self._subscription(context, instance_id)
        state = transitions.current(self._states.get(key), subscription)
        state, error = transitions.get(state, self._now_ms())
        self._remember(key, state)
        if error:
            return GetTelemetrySubscriptionsResponse(error_code=error)
        return GetTelemetrySubscriptionsResponse(
            client_instance_id=instance_id, subscription_id=subscription.subscription_id,
            accepted_compression_types=[int(each) for each in _ACCEPTED], push_interval_ms=subscription.interval_ms,
            telemetry_max_bytes=self._max_bytes, delta_temporality=self._sink.deltas,
            requested_metrics=list(subscription.metrics),
        )  # fmt: skip

    async def push_telemetry(self, context: RequestContext, request: PushTelemetryRequest) -> PushTelemetryResponse:
        """PushTelemetry, key 72, v0 (KIP-714): metrics in OTLP, compressed or not. Errors: 117 if the subscription has
        changed, 89 if it is too early, 118 if it is too large, 87 if it is not OTLP."""
        instance_id = request.client_instance_id
        if instance_id in _RESERVED:
            return PushTelemetryResponse(error_code=ErrorCode.INVALID_REQUEST)
        key = context.cluster_id, instance_id
        subscription = await self._subscription(context, instance_id)
        state = transitions.current(self._states.get(key), subscription)
        state, error = transitions.push(
            state, self._now_ms(), subscription_id=request.subscription_id, compression=request.compression_type,
            size_bytes=len(request.metrics), max_bytes=self._max_bytes, terminating=request.terminating,
        )  # fmt: skip
        self._remember(key, state)
        if not error and request.metrics:
            error = await self._forward(context, request, state)
        self.pushes += 1
        self.refusals += bool(error)
        return PushTelemetryResponse(error_code=error)

    async def _forward(self, context: RequestContext, request: PushTelemetryRequest, state: ClientState) -> ErrorCode:
        size = len(request.metrics)
        if self._reading_bytes + size > READING_MAX_BYTES:
            self._sink.dropped += 1
            return ErrorCode.NONE
        expires_s = max(state.interval_ms * EXPIRY_INTERVALS / 1000, EXPIRY_MIN_S)
        client = context.cluster_id, bytes(request.client_instance_id)
        labels = self._labels(context, request.client_instance_id)
        self._reading_bytes += size
        try:
            apply = await self._on_thread(lambda: self._read(request, client, labels, expires_s))
        except Malformed as problem:
            _log.info("metrics of client id %r cannot be read: %s", context.client_id, problem)
            return ErrorCode.INVALID_RECORD
        finally:
            self._reading_bytes -= size
        apply()
        return ErrorCode.NONE

    def _read(
        self, request: PushTelemetryRequest, client: ClientKey, labels: Mapping[str, str], expires_s: float
    ) -> Apply:
        """On a worker thread."""
        payload = decompress(
            request.metrics, Compression.parse(request.compression_type), max_bytes=DECOMPRESSED_MAX_BYTES
        )
        return self._sink.read(client, labels, payload, expires_s)

    async def _subscription(self, context: RequestContext, instance_id: bytes) -> Subscription:
        cluster_id, kind = context.cluster_id, ConfigResource.CLIENT_METRICS
        client, subscriptions = client_of(context, instance_id), list[Mapping[str, str]]()
        for number, name in enumerate(self._topics.configured(cluster_id, kind)):
            if number:  # Pattern matching may be slow.
                await asyncio.sleep(0)
            overrides = self._topics.overrides(cluster_id, kind, name)
            if subscription_matches(client, overrides):
                subscriptions.append(overrides)
        return combined_subscription(client, subscriptions)

    def _labels(self, context: RequestContext, instance_id: bytes) -> Mapping[str, str]:
        """Labels that the agent adds to the metrics of a client."""
        attributes = client_of(context, instance_id).attributes
        known = {name: text for name, text in attributes.items() if text is not None}
        return {
            **known, "principal": context.principal, "broker_id": str(self._broker_id),
            "virtual_cluster": str(context.cluster_id),
        }  # fmt: skip

    def _remember(self, key: tuple[int, bytes], state: ClientState) -> None:
        self._states[key] = state
        self._states.move_to_end(key)
        if len(self._states) > CLIENTS_MAX:
            self._states.popitem(last=False)

    def _now_ms(self) -> int:
        return int(self._clock.monotonic() * 1000)


def client_of(context: RequestContext, instance_id: bytes) -> TelemetryClient:
    """The client that sent a request."""
    return TelemetryClient(
        instance_id=instance_id, client_id=context.client_id, software_name=context.client_software_name,
        software_version=context.client_software_version, address=context.client_host, port=context.client_port,
    )  # fmt: skip
