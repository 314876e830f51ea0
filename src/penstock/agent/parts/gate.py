"""Authentication on an agent, where listeners ask for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from penstock.agent.dispatch import Dispatcher
from penstock.agent.gate import Gate
from penstock.agent.listeners import Listener
from penstock.agent.parts.stores import Stores
from penstock.agent.tenancy import Tenancy
from penstock.base.clock import Clock
from penstock.base.later import later
from penstock.base.options import OAuthOptions
from penstock.base.randomness import Randomness
from penstock.base.settings import BrokerSettings
from penstock.base.threads import on_thread_of
from penstock.clusters.service import Clusters
from penstock.identity.authenticator import CHECKS_AT_ONCE, Authenticator
from penstock.identity.guesses import Guesses
from penstock.identity.issuer import Issuer
from penstock.identity.penalties import Penalties
from penstock.identity.tokens import TokenRules

if TYPE_CHECKING:
    from penstock.agent import web
else:
    web = later("penstock.agent.web")


def open_gate(
    stores: Stores, dispatch: Dispatcher, clusters: Clusters, tenancy: Tenancy, *, settings: BrokerSettings,
    listeners: Sequence[Listener], token_rules: TokenRules | None, clock: Clock, randomness: Randomness,
    closing: AsyncExitStack,
) -> Gate:  # fmt: skip
    """Build the gate, where clients authenticate."""
    checks = ThreadPoolExecutor(CHECKS_AT_ONCE, thread_name_prefix="password-check")
    closing.callback(checks.shutdown)
    delay_s = settings.whole("connection.failed.authentication.delay.ms") / 1000

    authenticator = Authenticator(
        database=stores.database,
        clock=clock,
        randomness=randomness,
        on_thread=on_thread_of(checks),
        bearer_tokens=_issuers(listeners, clusters, clock, closing),
        token_rules=token_rules,
        cluster_named=clusters.id_of,
    )
    closing.push_async_callback(authenticator.close)

    return Gate(
        authenticator=authenticator,
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
    """The issuers that vouch for tokens, by listener."""
    issuers: dict[OAuthOptions, Issuer] = {}
    for options in dict.fromkeys(listener.oauth for listener in listeners if listener.oauth is not None):
        # Not the threads of passwords: an issuer that does not answer must not keep others from proving theirs, nor
        # those who have tokens of another one.
        fetches = ThreadPoolExecutor(1, thread_name_prefix="token-issuer")
        closing.callback(fetches.shutdown)
        issuers[options] = Issuer(
            options, fetch=web.Web(fetches, options.ca).get, clock=clock, cluster_named=clusters.id_of
        )
        closing.push_async_callback(issuers[options].close)
    return {listener.name: issuers[listener.oauth] for listener in listeners if listener.oauth is not None}
