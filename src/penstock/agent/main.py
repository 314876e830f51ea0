"""The process behind `penstock up`."""

from __future__ import annotations

from penstock.base.errors import Unavailable
from penstock.base.options import UpOptions


def run(options: UpOptions) -> int:
    """Run one agent until it is told to stop; its exit code."""
    raise Unavailable(f"this release cannot listen on {options.kafka_host}:{options.kafka_port} yet: it has no agent")
