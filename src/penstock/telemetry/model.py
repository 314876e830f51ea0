"""Subscriptions to client metrics, and the state of a client that pushes them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from penstock.base.checksums import crc32c
from penstock.base.dataclasses import dataclass
from penstock.base.randomness import uuid_text
from penstock.telemetry.configs import CLIENT_METRICS_KEYS, client_matches
from penstock.wire.error_codes import ErrorCode

ALL_METRICS = "*"
NEVER_MS = -(2**62)


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryClient:
    """A client, with the attributes that subscriptions can match."""

    instance_id: bytes
    client_id: str | None = None
    software_name: str | None = None
    software_version: str | None = None
    address: str = ""
    port: int = 0

    @property
    def attributes(self) -> Mapping[str, str | None]:
        """The attributes by their names in Kafka."""
        return {
            "client_instance_id": uuid_text(self.instance_id),
            "client_id": self.client_id,
            "client_software_name": self.software_name,
            "client_software_version": self.software_version,
            "client_source_address": self.address,
            "client_source_port": str(self.port),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """All subscriptions of one client, combined."""

    metrics: tuple[str, ...]
    """Prefixes of metric names; `*` for all metrics."""
    interval_ms: int
    subscription_id: int
    """Changes whenever metrics or interval change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientState:
    """The state of a client."""

    subscription_id: int
    interval_ms: int
    last_get_ms: int = NEVER_MS
    last_push_ms: int = NEVER_MS
    may_push: bool = False
    """Whether it has got its subscription since its last push, and so may push at once. Timestamps may be equal."""
    terminating: bool = False
    last_error: ErrorCode = ErrorCode.NONE


def combined_subscription(client: TelemetryClient, subscriptions: Sequence[Mapping[str, str]]) -> Subscription:
    """Combine the subscriptions that match a client; each is given as configured."""
    interval_ms = _interval_ms({})
    metrics: set[str] = set()
    for overrides in subscriptions:
        metrics.update(_words("metrics", overrides))
        interval_ms = min(interval_ms, _interval_ms(overrides))
    if ALL_METRICS in metrics:
        metrics = {ALL_METRICS}
    ordered = tuple(sorted(metrics))
    number = crc32c(f"{','.join(ordered)} {interval_ms}".encode()) ^ crc32c(client.instance_id)
    return Subscription(
        metrics=ordered, interval_ms=interval_ms, subscription_id=int.from_bytes(number.to_bytes(4), signed=True)
    )


def _interval_ms(overrides: Mapping[str, str]) -> int:
    key = CLIENT_METRICS_KEYS["interval.ms"]
    value = key.parse(overrides.get("interval.ms", key.default))
    assert isinstance(value, int)
    return value


def _words(name: str, overrides: Mapping[str, str]) -> tuple[str, ...]:
    value = CLIENT_METRICS_KEYS[name].parse(overrides.get(name, ""))
    assert isinstance(value, tuple)
    return value


def subscription_matches(client: TelemetryClient, overrides: Mapping[str, str]) -> bool:
    """Whether a subscription, given as configured, matches a client."""
    attributes = client.attributes
    for pair in _words("match", overrides):
        name, _, pattern = pair.partition("=")
        value = attributes.get(name.strip())
        if value is None or not client_matches(pattern.strip(), value):
            return False
    return True
