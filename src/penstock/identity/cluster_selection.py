"""Which virtual cluster a token or a certificate opens. Pure.

Its authority decides: what the issuer wrote into it, within what the operator of the platform allows. What a client
requests, by an extension of OAUTHBEARER or by the TLS server name (SNI), selects among what its credential opens and
opens nothing by itself. A client that may not enter a cluster cannot tell whether that cluster exists.

The deployment's own clusters, whose administrators are platform administrators, are opened only where the configuration
says so explicitly, never by what a credential contains alone.
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
"""The most clusters that are read from a claim."""

ClusterNamed = Callable[[str], int | None]
"""The id of the cluster of that name, if it exists and is not being deleted."""


def clusters_of_token(options: OAuthOptions, claims: Mapping[str, Any], cluster_named: ClusterNamed) -> frozenset[int]:
    """The existing clusters that a token opens."""
    names: Sequence[str] = options.clusters
    if options.cluster_claim is not None:
        names = _names_in(claims.get(options.cluster_claim))
    found = ((name, cluster_named(name)) for name in names)
    return frozenset(
        cluster_id for name, cluster_id in found if cluster_id is not None and _is_allowed(options, name, cluster_id)
    )


def _is_allowed(options: OAuthOptions, name: str, cluster_id: int) -> bool:
    let = options.clusters or (EVERY_TENANT,)
    return name in let or (EVERY_TENANT in let and cluster_id not in PERMANENT_CLUSTER_IDS)


def _names_in(claim: object) -> Sequence[str]:
    """The names in a claim: a text, or a list of texts."""
    names = claim if isinstance(claim, list) else [claim]
    return [name for name in names[:MAX_CLAIMED] if isinstance(name, str)]


def select_cluster(opened: Collection[int], asked: Collection[int]) -> int | None:
    """The one cluster that a credential opens and that everything requested agrees on; without a request, the only one
    it opens. None: there is no such cluster."""
    fitting = [cluster_id for cluster_id in opened if all(cluster_id == one for one in asked)]
    return fitting[0] if len(fitting) == 1 else None


def cluster_of_certificate(rules: Sequence[Rule], name: str, cluster_named: ClusterNamed) -> int:
    """The cluster that a distinguished name opens by the first matching rule. Raises `Denied`."""
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
