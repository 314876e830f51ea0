"""Settings of client metrics, under Kafka's names."""

from __future__ import annotations

from penstock.base.config_values import INT
from penstock.base.settings import declare, setting

SETTINGS = declare(
    setting(
        "telemetry.max.bytes", INT, "1048576", at_least=1,
        doc="The largest push of client metrics, as compressed by the client.",
    ),
)  # fmt: skip
