"""Attempts to prove who somebody is, for whoever wants to hear of them."""

from __future__ import annotations

from typing import Protocol

from penstock.base.context import DEFAULT_CLUSTER_ID
from penstock.base.dataclasses import dataclass
from penstock.identity.model import Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt, and what came of it. There is nothing in it that proves anything."""

    mechanism: str
    """The protocol, and what was spoken in it: `SASL_SSL/PLAIN`; or `SSL`."""
    client_host: str
    connection_id: int = 0
    """0 where there was none yet."""
    cluster_id: int = DEFAULT_CLUSTER_ID
    """Where names were looked up, if nobody was proven."""
    identity: Identity | None = None
    """Who was proven; None where that failed."""
    claimed: str | None = None
    """Who it claimed to be, if there is somebody of that name. What else people write there may be their password."""
    is_unknown: bool = False
    """Whether there is nobody of the name that was claimed."""
    message: str = ""
    """Why it failed."""


class AttemptListener(Protocol):
    """Hears of attempts, in the middle of them: it must not wait, nor fail."""

    def on_attempt(self, attempt: Attempt) -> None:
        """One was made."""
