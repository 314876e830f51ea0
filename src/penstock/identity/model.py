"""The identity of a connection, once it is authenticated."""

from __future__ import annotations

from collections.abc import Callable

from penstock.base.context import ANONYMOUS, DEFAULT_CLUSTER_ID, RequestContext
from penstock.base.dataclasses import dataclass, replace

USER = "User"
"""Kafka's principal type."""
PLATFORM_ADMIN = "PlatformAdmin"
"""The principal type of platform administrators inside a tenant's cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """An authenticated principal and the virtual cluster that its credential opens."""

    principal: str = ANONYMOUS
    cluster_id: int = DEFAULT_CLUSTER_ID
    expires_ms: int | None = None
    """When the credential expires, in wall-clock time; None: never."""
    token_authenticated: bool = False
    """Whether the credential is a delegation token. Such a connection may not request more tokens."""
    credential_id: str | None = None
    """The id of the API key or delegation token that was used, if one was."""
    is_bound: bool = False
    """Whether the cluster was requested by name: no credential of another one counts."""
    server_name: str | None = None
    """The name by which the cluster was requested."""
    is_platform_admin: bool = False
    """Whether a platform administrator has entered the cluster."""

    def inside(self, cluster_id: int) -> Identity:
        """The same platform administrator inside a virtual cluster, under a name that no tenant can create."""
        _, _, name = self.principal.partition(":")
        return replace(self, principal=f"{PLATFORM_ADMIN}:{name}", cluster_id=cluster_id, is_platform_admin=True)


MayChange = Callable[[RequestContext, str], bool]
"""Whether a caller whom ACLs let change credentials may change those of this principal of its cluster."""
PLATFORM_ADMINS_ONLY = "Only platform administrators may change credentials of platform administrators."
NO_CLUSTER_ID = -1
"""A virtual cluster id that is never used."""
ANONYMOUS_IDENTITY = Identity()
"""A connection without credentials."""


def user(name: str) -> str:
    """The principal of a user's name."""
    return f"{USER}:{name}"
