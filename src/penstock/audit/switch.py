"""Whether there is an audit log: all that processes without one have to know of it."""

from __future__ import annotations

from typing import Protocol


class Texts(Protocol):
    """Broker-wide settings."""

    def text(self, name: str) -> str | None:
        """The text that counts."""


def is_audited(settings: Texts, *, asks_for_credentials: bool) -> bool:
    """Where nothing is said, it is on when clients have to prove who they are."""
    asked = settings.text("audit.enable")
    return asked == "true" or (not asked and asks_for_credentials)
