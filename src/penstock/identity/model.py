"""Who a connection belongs to, once that is proven."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.base.context import ANONYMOUS, DEFAULT_CLUSTER_ID

USER = "User"
"""The type of every principal that Kafka itself makes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A proven principal and the virtual cluster that its credential opens."""

    principal: str = ANONYMOUS
    cluster_id: int = DEFAULT_CLUSTER_ID
    expires_ms: int | None = None
    """When the credential ends by itself, in wall-clock time; None is never."""
    token_authenticated: bool = False
    """Whether a delegation token was the credential. Such a connection may not ask for more tokens."""


NOBODY = Identity()
"""A connection without credentials."""


def user(name: str) -> str:
    """The principal of a user's name."""
    return f"{USER}:{name}"
