"""Authentication on an agent, where listeners ask for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from penstock.agent.cluster_connections import ClusterConnections
from penstock.agent.connection import RequestHandler
from penstock.agent.parts.runtime import Runtime
from penstock.agent.parts.stores import Stores
from penstock.agent.sasl import SaslServer
from penstock.base.lazy import lazy_import
from penstock.base.options import OAuthOptions
from penstock.base.threads import on_thread_of
from penstock.clusters.service import Clusters
from penstock.identity.authenticator import CHECKS_AT_ONCE, Authenticator
from penstock.identity.guess_limits import GuessLimiter
from penstock.identity.issuer import Issuer
from penstock.identity.penalties import Penalties

if TYPE_CHECKING:
    from penstock.agent import web
    from penstock.audit.service import AuditLog
else:
    web = lazy_import("penstock.agent.web")


def open_sasl(
    runtime: Runtime, stores: Stores, clusters: Clusters, cluster_connections: ClusterConnections,
    dispatch: RequestHandler, audit: AuditLog | None,
) -> SaslServer:  # fmt: skip
    """Build what clients authenticate to, before `dispatch` gets their requests."""
    clock, randomness, settings = runtime.clock, runtime.randomness, runtime.settings
    delay_s = settings.whole("connection.failed.authentication.delay.ms") / 1000

    authenticator = Authenticator(
        database=stores.database,
        clock=clock,
        randomness=randomness,
        on_thread=on_thread_of(runtime.executor("password-check", CHECKS_AT_ONCE)),
        bearer_tokens=_issuers(runtime, clusters),
        token_rules=runtime.token_rules,
        cluster_named=clusters.id_of,
    )
    runtime.closing.push_async_callback(authenticator.close)

    sasl = SaslServer(
        authenticator=authenticator,
        dispatch=dispatch,
        clock=clock,
        penalties=Penalties(clock, delay_s),
        guesses=GuessLimiter(clock, randomness, is_on=delay_s > 0),
        max_receive_bytes=settings.whole("sasl.server.max.receive.size"),
        max_session_ms=settings.whole("connections.max.reauth.ms"),
        cluster_connections=cluster_connections,
    )
    sasl.listener = audit
    return sasl


def _issuers(runtime: Runtime, clusters: Clusters) -> Mapping[str, Issuer]:
    """The issuers that vouch for tokens, by listener."""
    listeners = runtime.listeners
    issuers: dict[OAuthOptions, Issuer] = {}
    for options in dict.fromkeys(listener.oauth for listener in listeners if listener.oauth is not None):
        # Not the threads of passwords: an issuer that does not answer must not keep others from proving theirs, nor
        # those who have tokens of another one.
        fetches = runtime.executor("token-issuer")
        issuers[options] = Issuer(
            options, fetch=web.HttpsClient(fetches, options.ca).get, clock=runtime.clock, cluster_named=clusters.id_of
        )
        runtime.closing.push_async_callback(issuers[options].close)
    return {listener.name: issuers[listener.oauth] for listener in listeners if listener.oauth is not None}
