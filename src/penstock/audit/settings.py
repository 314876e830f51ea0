"""The process's settings of the audit log. Whether there is one: `switch.py`."""

from __future__ import annotations

from typing import Protocol

from penstock.audit.policy import Policy
from penstock.base.dataclasses import dataclass


class Texts(Protocol):
    """Broker-wide settings."""

    def words(self, name: str) -> tuple[str, ...]:
        """The words of a list."""

    def whole(self, name: str) -> int:
        """The value of a setting that is a number."""

    def fraction(self, name: str) -> float:
        """The value of a setting that is a fraction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSettings:
    """The settings of the audit log."""

    policy: Policy = Policy()
    retention_ms: int = 7 * 24 * 3600 * 1000

    @classmethod
    def of(cls, settings: Texts) -> AuditSettings:
        """From the settings of a process."""
        return cls(
            policy=Policy.of(settings.words("audit.allowed"), settings.fraction("audit.allowed.sample.ratio")),
            retention_ms=settings.whole("audit.retention.ms"),
        )
