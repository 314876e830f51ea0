"""Whether there is an audit log: all that a process without one imports."""

from __future__ import annotations

from typing import Protocol


class Texts(Protocol):
    """Broker-wide settings."""

    def text(self, name: str) -> str | None:
        """The effective text."""


def is_audited(settings: Texts, *, asks_for_credentials: bool) -> bool:
    """Unless it is set, the audit log is on where clients must authenticate."""
    asked = settings.text("audit.enable")
    return asked == "true" or (not asked and asks_for_credentials)
