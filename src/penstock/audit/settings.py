"""How the process is told whether, and what, to audit."""

from __future__ import annotations

from typing import Protocol

from penstock.audit.policy import Policy
from penstock.base.dataclasses import dataclass


class Texts(Protocol):
    """Broker-wide settings."""

    def text(self, name: str) -> str | None:
        """The text that counts."""

    def words(self, name: str) -> tuple[str, ...]:
        """The words of a list."""

    def whole(self, name: str) -> int:
        """The value of a setting that is a number."""

    def fraction(self, name: str) -> float:
        """The value of a setting that is a fraction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSettings:
    """What was decided about telling."""

    is_on: bool
    policy: Policy = Policy()
    retention_ms: int = 7 * 24 * 3600 * 1000

    @classmethod
    def of(cls, settings: Texts, *, asks_for_credentials: bool) -> AuditSettings:
        """Those of a process: where nothing is said, on when clients have to prove who they are."""
        asked = settings.text("audit.enable")
        return cls(
            is_on=asked == "true" or (not asked and asks_for_credentials),
            policy=Policy.of(settings.words("audit.allowed"), settings.fraction("audit.allowed.sample.ratio")),
            retention_ms=settings.whole("audit.retention.ms"),
        )
