"""The process's settings of the audit log. Which there are, and whether there is an audit log: `switch.py`."""

from __future__ import annotations

from penstock.audit.policy import Policy
from penstock.base.dataclasses import dataclass
from penstock.base.settings import BrokerSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSettings:
    """The settings of the audit log."""

    policy: Policy = Policy()
    retention_ms: int = 7 * 24 * 3600 * 1000

    @classmethod
    def of(cls, settings: BrokerSettings) -> AuditSettings:
        """From the settings of a process."""
        return cls(
            policy=Policy.of(settings.words("audit.allowed"), settings.fraction("audit.allowed.sample.ratio")),
            retention_ms=settings.whole("audit.retention.ms"),
        )
