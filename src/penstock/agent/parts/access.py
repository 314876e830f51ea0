"""Who may do what on an agent, and how it is proven who somebody is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, TypeVar

from penstock.agent.dispatch import Dispatcher
from penstock.agent.gate import Gate
from penstock.agent.listeners import Listener
from penstock.agent.parts.stores import Stores
from penstock.agent.tenancy import Tenancy
from penstock.authorization.authorizer import Authorizer, is_super_user
from penstock.authorization.service import AclService
from penstock.authorization.settings import AuthorizationSettings
from penstock.base.clock import Clock
from penstock.base.context import ANONYMOUS, DEFAULT_CLUSTER_ID, RequestContext
from penstock.base.dataclasses import dataclass
from penstock.base.later import later
from penstock.base.options import OAuthOptions
from penstock.base.randomness import Randomness
from penstock.base.threads import on_thread_of
from penstock.clusters.service import Clusters
from penstock.identity.authenticator import CHECKS_AT_ONCE, Authenticator
from penstock.identity.guesses import Guesses
from penstock.identity.issuer import Issuer
from penstock.identity.model import USER
from penstock.identity.penalties import Penalties
from penstock.identity.service import Identities
from penstock.identity.tokens import TokenRules
from penstock.log.settings import BrokerSettings

if TYPE_CHECKING:
    from penstock.agent import web
else:
    web = later("penstock.agent.web")

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What an agent knows of people."""

    identities: Identities
    acls: AclService
    authorizer: Authorizer | None
    """None where everybody who can connect may do everything."""
    super_users: frozenset[str]
    asks_for_credentials: bool
    """Whether any listener does."""

    def administers_platform(self, context: RequestContext) -> bool:
        """Whether somebody may do everything in every virtual cluster. Where credentials are asked for anywhere,
        nobody is it who has none."""
        if context.is_platform_admin or is_super_user(context.cluster_id, context.principal, self.super_users):
            return True
        return (
            not self.asks_for_credentials
            and self.authorizer is None
            and (context.cluster_id, context.principal) == (DEFAULT_CLUSTER_ID, ANONYMOUS)
        )

    def may_change_proofs(self, context: RequestContext, principal: str) -> bool:
        """Whether somebody may decide how a principal of their cluster is proven, as far as ACLs let them: whoever can
        prove to be an administrator of the platform is one, and no ACL makes one. Nor does one make anybody who is not
        a user, as those administrators are not within a cluster."""
        is_reserved = not principal.startswith(f"{USER}:") or is_super_user(
            context.cluster_id, principal, self.super_users
        )
        return not is_reserved or self.administers_platform(context)


async def open_access(
    stores: Stores, settings: BrokerSettings, listeners: Sequence[Listener], *, clock: Clock, randomness: Randomness
) -> Access:
    """Load what there is of ACLs."""
    asks = any(listener.asks_for_credentials for listener in listeners)
    chosen = AuthorizationSettings.of(settings, asks_for_credentials=asks)
    acls = AclService(stores.database)
    await acls.open()
    authorizer: Authorizer | None = None
    if chosen.is_on:
        authorizer = Authorizer(acls, super_users=chosen.super_users, allow_everyone=chosen.allow_everyone)
        acls.listen(authorizer.forget)
    return Access(
        identities=Identities(database=stores.database, clock=clock, randomness=randomness),
        acls=acls,
        authorizer=authorizer,
        super_users=chosen.super_users,
        asks_for_credentials=asks,
    )


def open_gate(
    stores: Stores, dispatch: Dispatcher, clusters: Clusters, tenancy: Tenancy, *, settings: BrokerSettings,
    listeners: Sequence[Listener], token_rules: TokenRules | None, clock: Clock, randomness: Randomness,
    closing: AsyncExitStack,
) -> Gate:  # fmt: skip
    """Where clients prove who they are."""
    checks = ThreadPoolExecutor(CHECKS_AT_ONCE, thread_name_prefix="password-check")
    closing.callback(checks.shutdown)
    delay_s = settings.whole("connection.failed.authentication.delay.ms") / 1000

    return Gate(
        authenticator=Authenticator(
            database=stores.database,
            clock=clock,
            randomness=randomness,
            on_thread=on_thread_of(checks),
            bearer_tokens=_issuers(listeners, clusters, clock, closing),
            token_rules=token_rules,
            cluster_named=clusters.id_of,
        ),
        dispatch=dispatch,
        clock=clock,
        penalties=Penalties(clock, delay_s),
        guesses=Guesses(clock, randomness, is_on=delay_s > 0),
        max_receive_bytes=settings.whole("sasl.server.max.receive.size"),
        max_session_ms=settings.whole("connections.max.reauth.ms"),
        tenancy=tenancy,
    )


def _issuers(
    listeners: Sequence[Listener], clusters: Clusters, clock: Clock, closing: AsyncExitStack
) -> Mapping[str, Issuer]:
    """Who knows which tokens are good, by listener."""
    issuers: dict[OAuthOptions, Issuer] = {}
    for options in dict.fromkeys(listener.oauth for listener in listeners if listener.oauth is not None):
        # Not the threads of passwords: an issuer that does not answer must not keep others from proving theirs, nor
        # those who have tokens of another one.
        fetches = ThreadPoolExecutor(1, thread_name_prefix="token-issuer")
        closing.callback(fetches.shutdown)
        issuers[options] = Issuer(
            options, fetch=web.Web(fetches, options.ca).get, clock=clock, cluster_named=clusters.id_of
        )
    return {listener.name: issuers[listener.oauth] for listener in listeners if listener.oauth is not None}
