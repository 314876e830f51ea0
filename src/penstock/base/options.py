"""What `penstock up` was asked for: plain values, their shape checked by the caller, their meaning by the agent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions:
    """How to run one agent."""

    data_dir: Path | None = Path("penstock-data")
    """Where slabs, segments and the embedded database live; None keeps everything in memory."""
    kafka_host: str = "127.0.0.1"
    kafka_port: int = 9092
    http_host: str = "127.0.0.1"
    http_port: int = 8080
    durability: str = "disk"
    """`disk`: acknowledged means fsynced. `process`: acknowledged means handed to the operating system."""
    metadata_url: str | None = field(default=None, repr=False)
    """`postgresql://…`, which may contain a password; None is SQLite in the data directory."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Broker-wide Kafka settings by name, such as `num.partitions`, as text."""
    advertised: tuple[str, int] | None = None
    """What clients are told to connect to; None is the address listened on."""
