"""Virtual clusters and environments. Pure.

A virtual cluster is a tenant's own Kafka cluster: names of topics, groups, users and everything else are unique within
it. Its name is a DNS label, because TLS clients may select it by their server name (SNI). Two always exist: `platform`,
of the deployment itself, and `default`, where connections are unless their credential says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from penstock.base.dataclasses import dataclass, field

DEFAULT_ENVIRONMENT = "default"


class ClusterState(StrEnum):
    """The state of a cluster."""

    ACTIVE = "active"
    DELETING = "deleting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """One virtual cluster."""

    cluster_id: int
    name: str
    kafka_id: str
    """The cluster id that Kafka clients see."""
    created_ms: int
    environment: str = DEFAULT_ENVIRONMENT
    description: str = ""
    limits: Mapping[str, float] = field(default_factory=dict)
    """Limits by key; a missing key means no limit."""
    encryption: str | None = None
    """The encryption of its data; None: not encrypted."""
    deleted_ms: int | None = None

    @property
    def state(self) -> ClusterState:
        """Active until its deletion begins."""
        return ClusterState.ACTIVE if self.deleted_ms is None else ClusterState.DELETING


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A set of clusters."""

    name: str
    created_ms: int
