"""How far a connection has come with SASL. What may follow on what is in `sasl.py`."""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

from penstock.base.dataclasses import dataclass
from penstock.identity.model import Identity

if TYPE_CHECKING:
    from penstock.identity.authenticator import SaslExchange


class SaslStage(Enum):
    """What is expected next."""

    HANDSHAKE = auto()
    TOKEN = auto()
    DONE = auto()


@dataclass(slots=True)
class SaslSession:
    """The session of one connection, from its first request on."""

    cluster_id: int
    """The virtual cluster in which names are looked up that do not say so themselves."""
    is_bound: bool = False
    """Whether nobody of another one can log in here."""
    stage: SaslStage = SaslStage.HANDSHAKE
    version_requests: int = 0
    mechanism: str = ""
    is_wrapped: bool = False
    exchange: SaslExchange | None = None
    reauthenticates: bool = False
    """Whether it belongs to somebody already, and only proves so again."""
    doomed: str | None = None
    """Why the next message fails whatever it is."""
    subject: bytes = b""
    """A hash of whom or what its client claims, once it has."""
    looked_s: float = 0.0
    """When what it sent last began to be looked at."""
    ends_s: float | None = None
    """When the session ends, by the monotonic clock."""
    proven: Identity | None = None
    """Whom it was proven to be, wherever that one has gone since."""
    reauthenticated_s: float | None = None
    """When it was last begun to prove it again."""
