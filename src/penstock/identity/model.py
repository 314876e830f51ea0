"""Who a connection belongs to, once that is proven."""

from __future__ import annotations

from collections.abc import Callable

from penstock.base.context import ANONYMOUS, DEFAULT_CLUSTER_ID, RequestContext
from penstock.base.dataclasses import dataclass, replace

USER = "User"
"""The type of every principal that Kafka itself makes."""
PLATFORM_ADMIN = "PlatformAdmin"
"""The type of principals who are at home outside the cluster that they are in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A proven principal and the virtual cluster that its credential opens."""

    principal: str = ANONYMOUS
    cluster_id: int = DEFAULT_CLUSTER_ID
    expires_ms: int | None = None
    """When the credential ends by itself, in wall-clock time; None is never."""
    token_authenticated: bool = False
    """Whether a delegation token was the credential. Such a connection may not ask for more tokens."""
    credential_id: str | None = None
    """Which API key or delegation token was the credential, if one was."""
    is_bound: bool = False
    """Whether the cluster was asked for by name: no credential of another one counts."""
    server_name: str | None = None
    """What the cluster was asked for by."""
    is_platform_admin: bool = False
    """Whether an administrator of the platform has entered the cluster."""

    def inside(self, cluster_id: int) -> Identity:
        """The same administrator of the platform in a virtual cluster, under a name that no tenant gives."""
        _, _, name = self.principal.partition(":")
        return replace(self, principal=f"{PLATFORM_ADMIN}:{name}", cluster_id=cluster_id, is_platform_admin=True)


MayChange = Callable[[RequestContext, str], bool]
"""Whether a caller, whom ACLs let change credentials, may change what proves this principal of its cluster."""
NOT_YOURS = "Only administrators of the platform change what proves one of them."
NOWHERE = -1
"""A virtual cluster that there never is."""
NOBODY = Identity()
"""A connection without credentials."""


def user(name: str) -> str:
    """The principal of a user's name."""
    return f"{USER}:{name}"
