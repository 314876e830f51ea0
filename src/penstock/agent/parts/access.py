"""Authorization on an agent: who may do what. Authentication is in `sasl.py`."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from penstock.agent.listeners import needing_users
from penstock.agent.parts.runtime import Runtime
from penstock.agent.parts.stores import Stores
from penstock.authorization.authorizer import Authorizer, is_super_user
from penstock.authorization.service import AclService
from penstock.authorization.settings import AuthorizationSettings
from penstock.base.context import ANONYMOUS, DEFAULT_CLUSTER_ID, RequestContext
from penstock.base.dataclasses import dataclass
from penstock.base.errors import InvalidRequest
from penstock.base.lazy import lazy_import, lazy_object
from penstock.base.shielded import ShieldedTasks
from penstock.identity.model import USER

if TYPE_CHECKING:
    from penstock.identity import service as identity_service
else:
    identity_service = lazy_import("penstock.identity.service")


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessControl:
    """Users, ACLs, and who is above them."""

    identities: identity_service.Identities
    changes: ShieldedTasks
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
    runtime: Runtime, stores: Stores, revoked: Callable[[Collection[str], int], None]
) -> AccessControl:  # fmt: skip
    """Load what there is of ACLs. `revoked` is told of keys and tokens by which nobody may go on being in."""
    asks = any(listener.asks_for_credentials for listener in runtime.listeners)
    chosen = AuthorizationSettings.of(runtime.settings, asks_for_credentials=asks)
    acls = AclService(stores.database)
    await acls.open()
    authorizer: Authorizer | None = None
    changes = ShieldedTasks()
    if chosen.is_on:
        authorizer = Authorizer(acls, super_users=chosen.super_users, allow_everyone=chosen.allow_everyone)
        acls.listen(authorizer.forget)
    runtime.closing.push_async_callback(acls.close)
    runtime.closing.push_async_callback(changes.close)
    access = AccessControl(
        identities=lazy_object(
            lambda: identity_service.Identities(
                database=stores.database,
                clock=runtime.clock,
                randomness=runtime.randomness,
                revoked=revoked,
                changes=changes,
            )
        ),
        changes=changes,
        acls=acls,
        authorizer=authorizer,
        super_users=chosen.super_users,
        asks_for_credentials=asks,
    )
    await _check_somebody_gets_in(runtime, access)
    return access


async def _check_somebody_gets_in(runtime: Runtime, access: AccessControl) -> None:
    """Refuse to start if other machines are asked for credentials and nobody has any. (With data in memory, users can
    only be created while the agent runs.)"""
    listener, data_dir = needing_users(runtime.listeners), runtime.options.data_dir
    if listener is None or data_dir is None or await access.identities.has_credentials():
        return
    also = "" if runtime.options.metadata_url is None else ", with the same PENSTOCK_METADATA"
    raise InvalidRequest(
        f"listener {listener.name} at {listener.host} can be reached from other machines, and there is no user yet"
        f" who could log in. Create the first one, then start: penstock user create NAME --data-dir {data_dir}"
        f"{also}"
    )
