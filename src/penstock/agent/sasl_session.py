"""The SASL state of a connection. Its transitions are in `sasl.py`."""

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
    """One connection's, from its first request on."""

    cluster_id: int
    """The virtual cluster in which a user name is looked up that does not name one."""
    is_bound: bool = False
    """Whether only users of that cluster can authenticate."""
    stage: SaslStage = SaslStage.HANDSHAKE
    version_requests: int = 0
    mechanism: str = ""
    is_wrapped: bool = False
    exchange: SaslExchange | None = None
    reauthenticates: bool = False
    """Whether this is a re-authentication."""
    doomed: str | None = None
    """Why authentication fails, whatever the next token is."""
    subject: bytes = b""
    """A hash of the claimed user or credential, once it is known."""
    looked_s: float = 0.0
    """When evaluating its last token began."""
    ends_s: float | None = None
    """When the session ends, by the monotonic clock."""
    proven: Identity | None = None
    """Who authenticated, in the cluster of the credential: the connection may have entered another one since."""
    reauthenticated_s: float | None = None
    """When the last re-authentication began."""
