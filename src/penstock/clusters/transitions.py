"""The rules for creating and deleting virtual clusters and environments. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from penstock.base.context import PERMANENT_CLUSTER_IDS
from penstock.base.errors import InvalidRequest
from penstock.clusters.failures import AlreadyExists, Forbidden, NotFound
from penstock.clusters.model import DEFAULT_ENVIRONMENT, Cluster, ClusterState, Environment

MAX_DESCRIPTION_CHARS = 512
MAX_CLUSTERS = 100_000
MAX_ENVIRONMENTS = 10_000
_NAME = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"


def check_name(name: str) -> None:
    """Raise `InvalidRequest` unless this is a valid name for a cluster or environment."""
    if not re.fullmatch(_NAME, name):
        raise InvalidRequest(
            f"{name[:80]!r} is not a valid name: use up to 63 lower-case letters, digits and hyphens, with a letter"
            " or digit at both ends"
        )


def check_description(text: str) -> None:
    """Raise `InvalidRequest` unless this is a valid description."""
    if len(text) > MAX_DESCRIPTION_CHARS or "\0" in text:
        raise InvalidRequest(f"a description has at most {MAX_DESCRIPTION_CHARS} characters, and no NUL characters")


def found(clusters: Mapping[str, Cluster], name: str) -> Cluster:
    """The active cluster of that name. Raises `NotFound`, or `Forbidden` if it is being deleted."""
    cluster = clusters.get(name)
    if cluster is None:
        raise NotFound(f"there is no cluster {name[:80]!r}")
    if cluster.state is ClusterState.DELETING:
        raise Forbidden(f"cluster {name!r} is being deleted")
    return cluster


def check_new(
    clusters: Mapping[str, Cluster], environments: Mapping[str, Environment], name: str, environment: str
) -> None:
    """Raise `InvalidRequest` unless a cluster of that name can be created in that environment."""
    check_name(name)
    if name in clusters:
        deleting = " and is being deleted" if clusters[name].state is ClusterState.DELETING else ""
        raise AlreadyExists(f"cluster {name!r} exists already{deleting}")
    if environment not in environments:
        raise NotFound(f"there is no environment {environment[:80]!r}")
    if len(clusters) >= MAX_CLUSTERS:
        raise Forbidden(f"there are {MAX_CLUSTERS} clusters already")


def check_deletable(cluster: Cluster) -> None:
    """Raise `Forbidden` for a permanent cluster."""
    if cluster.cluster_id in PERMANENT_CLUSTER_IDS:
        raise Forbidden(f"cluster {cluster.name!r} is part of the deployment and cannot be deleted")


def check_new_environment(environments: Mapping[str, Environment], name: str) -> None:
    """Raise `InvalidRequest` unless an environment of that name can be created."""
    check_name(name)
    if name in environments:
        raise AlreadyExists(f"environment {name!r} exists already")
    if len(environments) >= MAX_ENVIRONMENTS:
        raise Forbidden(f"there are {MAX_ENVIRONMENTS} environments already")


def check_deletable_environment(
    environments: Mapping[str, Environment], clusters: Iterable[Cluster], name: str
) -> None:
    """Raise `InvalidRequest` unless an environment of that name exists and has no clusters."""
    if name not in environments:
        raise NotFound(f"there is no environment {name[:80]!r}")
    if name == DEFAULT_ENVIRONMENT:
        raise Forbidden(f"environment {name!r} is part of the deployment and cannot be deleted")
    inside = sorted(cluster.name for cluster in clusters if cluster.environment == name)
    if inside:
        more = f" and {len(inside) - 3} more" if len(inside) > 3 else ""
        raise Forbidden(f"environment {name!r} has clusters: {', '.join(inside[:3])}{more}")
