"""What to measure, and what came out: plain values and pure arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.base.dataclasses import dataclass
from penstock.cli.output import Json
from penstock.cli.text_formats.quantities import percentile
from penstock.wire.compression import Compression

MIN_RECORD_BYTES = 16
"""Room for the time a record of the latency phase was due."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run."""

    topic: str
    partitions: int
    record_bytes: int
    batch_bytes: int
    duration_s: float
    rate: int
    acks: int
    compression: Compression

    @property
    def records_per_batch(self) -> int:
        """At least one, however large a record is."""
        return max(1, self.batch_bytes // self.record_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """What went through in a time."""

    records: int
    size_bytes: int
    seconds: float
    latencies_ms: Sequence[float] = ()

    def document(self) -> dict[str, Json]:
        """For machines."""
        seconds = max(self.seconds, 1e-9)
        return {
            "records": self.records,
            "bytes": self.size_bytes,
            "seconds": round(self.seconds, 3),
            "records_per_second": round(self.records / seconds, 1),
            "bytes_per_second": round(self.size_bytes / seconds, 1),
            **percentiles(self.latencies_ms),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """From when a record was due to be sent until a consumer had it."""

    rate: int
    sent: int
    seconds: float
    latencies_ms: Sequence[float]
    warm_up: int
    lost: int

    def document(self) -> dict[str, Json]:
        """For machines."""
        return {
            "rate": self.rate,
            "records": len(self.latencies_ms),
            "warm_up": self.warm_up,
            "lost": self.lost,
            "records_per_second": round(self.sent / max(self.seconds, 1e-9), 1),
            **percentiles(self.latencies_ms),
        }


def percentiles(latencies_ms: Sequence[float]) -> dict[str, Json]:
    """Percentiles, or nulls where nothing was measured."""
    names: dict[str, float] = {"p50_ms": 50, "p90_ms": 90, "p99_ms": 99, "p999_ms": 99.9, "max_ms": 100}
    if not latencies_ms:
        return dict.fromkeys(names)
    ordered = sorted(latencies_ms)
    return {name: round(percentile(ordered, percent), 3) for name, percent in names.items()}
