"""Which virtual cluster a token or a certificate opens. Pure.

Its authority decides: what the issuer wrote into it, as far as whoever runs the platform lets it. What a client asks
for, by an extension of OAUTHBEARER or by the server name of TLS, chooses among what its credential opens and opens
nothing by itself. One that may not have a cluster learns no more than that, be there one of that name or not.

The deployment's own clusters, whose administrators are those of the platform, are opened only where that is written in
the configuration itself, never by what a credential says alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from penstock.base.context import DEFAULT_CLUSTER_ID, PERMANENT_CLUSTER_IDS
from penstock.base.options import OAuthOptions
from penstock.identity.failures import Denied
from penstock.identity.principal_mapping import Rule

EVERY_TENANT = "*"
MAX_CLAIMED = 100
"""How many clusters of a claim are looked at."""

ClusterNamed = Callable[[str], int | None]
"""The id of the cluster of that name, if there is one that stays."""


def opened_by_token(options: OAuthOptions, claims: Mapping[str, Any], cluster_named: ClusterNamed) -> frozenset[int]:
    """The clusters that a token opens, of those that there are."""
    names: Sequence[str] = options.clusters
    if options.cluster_claim is not None:
        names = _names_in(claims.get(options.cluster_claim))
    found = ((name, cluster_named(name)) for name in names)
    return frozenset(
        cluster_id for name, cluster_id in found if cluster_id is not None and _is_let(options, name, cluster_id)
    )


def _is_let(options: OAuthOptions, name: str, cluster_id: int) -> bool:
    let = options.clusters or (EVERY_TENANT,)
    return name in let or (EVERY_TENANT in let and cluster_id not in PERMANENT_CLUSTER_IDS)


def _names_in(claim: object) -> Sequence[str]:
    """What a claim names: a text, or a list of texts."""
    names = claim if isinstance(claim, list) else [claim]
    return [name for name in names[:MAX_CLAIMED] if isinstance(name, str)]


def chosen(opened: Collection[int], asked: Collection[int]) -> int | None:
    """Of the clusters that a credential opens, the one that is asked for by everything that asks; the only one, where
    nothing does. None: there is no such one."""
    fitting = [cluster_id for cluster_id in opened if all(cluster_id == one for one in asked)]
    return fitting[0] if len(fitting) == 1 else None


def opened_by_certificate(rules: Sequence[Rule], name: str, cluster_named: ClusterNamed) -> int:
    """The cluster that a distinguished name opens by the first rule that applies. Raises `Denied`."""
    for rule in rules:
        if rule.pattern is None:
            return DEFAULT_CLUSTER_ID
        found = rule.apply(name)
        if found is None:
            continue
        cluster_id = cluster_named(found)
        if cluster_id is None or (rule.takes_of_name and cluster_id in PERMANENT_CLUSTER_IDS):
            raise Denied(f"its certificate is for a cluster {found[:80]!r}, which it does not open")
        return cluster_id
    raise Denied(f"no cluster mapping rule applies to {name!r}")
