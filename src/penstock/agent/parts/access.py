"""Authorization on an agent: who may do what. Authentication is in `gate.py`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from penstock.agent.listeners import Listener
from penstock.agent.parts.stores import Stores
from penstock.authorization.authorizer import Authorizer, is_super_user
from penstock.authorization.service import AclService
from penstock.authorization.settings import AuthorizationSettings
from penstock.base.clock import Clock
from penstock.base.context import ANONYMOUS, DEFAULT_CLUSTER_ID, RequestContext
from penstock.base.dataclasses import dataclass
from penstock.base.later import later, made_late
from penstock.base.randomness import Randomness
from penstock.base.settings import BrokerSettings
from penstock.base.undivided import Undivided
from penstock.identity.model import USER

if TYPE_CHECKING:
    from penstock.identity import service as identity_service
else:
    identity_service = later("penstock.identity.service")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Users, ACLs, and who is above them."""

    identities: identity_service.Identities
    changes: Undivided
    """Those of identities that are under way."""
    acls: AclService
    authorizer: Authorizer | None
    """None where everybody who can connect may do everything."""
    super_users: frozenset[str]
    asks_for_credentials: bool
    """Whether any listener does."""

    def administers_platform(self, context: RequestContext) -> bool:
        """Whether a caller may do everything in every virtual cluster. If any listener asks for credentials, a caller
        without any is never one."""
        if context.is_platform_admin or is_super_user(context.cluster_id, context.principal, self.super_users):
            return True
        return (
            not self.asks_for_credentials
            and self.authorizer is None
            and (context.cluster_id, context.principal) == (DEFAULT_CLUSTER_ID, ANONYMOUS)
        )

    def may_change_proofs(self, context: RequestContext, principal: str) -> bool:
        """Whether a caller may change the credentials of a principal of their cluster, ACLs permitting. Those of
        platform administrators may only be changed by platform administrators, or an ACL could make anybody one. The
        same goes for principals that are not users, as platform administrators within a cluster are not."""
        is_reserved = not principal.startswith(f"{USER}:") or is_super_user(
            context.cluster_id, principal, self.super_users
        )
        return not is_reserved or self.administers_platform(context)


async def open_access(
    stores: Stores, settings: BrokerSettings, listeners: Sequence[Listener], *, clock: Clock, randomness: Randomness,
    revoked: Callable[[Collection[str], int], None],
) -> Access:  # fmt: skip
    """Load what there is of ACLs. `revoked` is told of keys and tokens by which nobody may go on being in."""
    asks = any(listener.asks_for_credentials for listener in listeners)
    chosen = AuthorizationSettings.of(settings, asks_for_credentials=asks)
    acls = AclService(stores.database)
    await acls.open()
    authorizer: Authorizer | None = None
    changes = Undivided()
    if chosen.is_on:
        authorizer = Authorizer(acls, super_users=chosen.super_users, allow_everyone=chosen.allow_everyone)
        acls.listen(authorizer.forget)
    return Access(
        identities=made_late(
            lambda: identity_service.Identities(
                database=stores.database, clock=clock, randomness=randomness, revoked=revoked, changes=changes
            )
        ),
        changes=changes,
        acls=acls,
        authorizer=authorizer,
        super_users=chosen.super_users,
        asks_for_credentials=asks,
    )
