"""Settings of the audit log, and whether there is one: all that a process without one imports."""

from __future__ import annotations

from penstock.base.config_values import DOUBLE, LIST, LONG, STRING, ConfigValue
from penstock.base.settings import BrokerSettings, declare, setting


def _audited(value: ConfigValue) -> str | None:
    words = value if isinstance(value, tuple) else ()
    if not words:
        return "There must be at least one"
    return "none and all stand alone" if len(words) > 1 and {"none", "all"}.intersection(words) else None


SETTINGS = declare(
    setting(
        "audit.enable", STRING, "", choices=("", "true", "false"),
        doc="Whether authentications, authorization decisions and administrative changes are written to the audit"
        " log. Empty: they are if any listener asks for credentials.",
    ),
    setting(
        "audit.allowed", LIST, "none", check=_audited,
        choices=(
            "none", "sampled", "all", "management", "produce", "consume", "heartbeat", "interbroker", "describe",
        ),
        doc="Which decisions that allow something are logged; denials always are. Classes of requests, all, or none;"
        " sampled, alone or with classes, logs only a sample of these.",
    ),
    setting(
        "audit.allowed.sample.ratio", DOUBLE, "0.01", at_least=0, at_most=1,
        doc="The share of decisions that is logged where audit.allowed says sampled.",
    ),
    setting(
        "audit.retention.ms", LONG, "604800000", at_least=-1,
        doc="retention.ms of the audit log's topic when it is created; -1: for ever.",
    ),
)  # fmt: skip


def is_audited(settings: BrokerSettings, *, asks_for_credentials: bool) -> bool:
    """Unless it is set, the audit log is on where clients must authenticate."""
    asked = settings.text("audit.enable")
    return asked == "true" or (not asked and asks_for_credentials)
