"""Attempts to authenticate, as facts for listeners (the audit log)."""

from __future__ import annotations

from typing import Protocol

from penstock.base.context import DEFAULT_CLUSTER_ID
from penstock.base.dataclasses import dataclass
from penstock.identity.model import Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt and its outcome. It contains nothing secret."""

    mechanism: str
    """The security protocol, with the SASL mechanism: `SASL_SSL/PLAIN`; or `SSL`."""
    client_host: str
    connection_id: int = 0
    """0 if it failed before there was one."""
    cluster_id: int = DEFAULT_CLUSTER_ID
    """The cluster in which names were looked up, if authentication failed."""
    identity: Identity | None = None
    """The authenticated identity; None if it failed."""
    claimed: str | None = None
    """The claimed name, if it exists. Other names are not kept: people type passwords there by mistake."""
    is_unknown: bool = False
    """Whether the claimed name does not exist."""
    message: str = ""
    """Why it failed."""


class AttemptListener(Protocol):
    """Notified during an attempt: must not wait, nor fail."""

    def on_attempt(self, attempt: Attempt) -> None:
        """An attempt was made."""
