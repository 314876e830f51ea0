"""Virtual clusters and environments as they are kept, and what is to be known of their limits. Pure.

A virtual cluster is a tenant's own Kafka cluster: everything that has a name has it within one. Its own name is that
of a host (a DNS label), because TLS clients may say by their server name where they want to. Two are always there: the
deployment's own, and the one that connections are in which nothing says otherwise of.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from penstock.base.dataclasses import dataclass, field

DEFAULT_ENVIRONMENT = "default"


class State(StrEnum):
    """What becomes of a cluster."""

    ACTIVE = "active"
    DELETING = "deleting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """One virtual cluster."""

    cluster_id: int
    name: str
    kafka_id: str
    """What Kafka's clients are shown as its id."""
    created_ms: int
    environment: str = DEFAULT_ENVIRONMENT
    description: str = ""
    limits: Mapping[str, float] = field(default_factory=dict)
    """How much it may have and do, by limit; what is not there is not limited."""
    encryption: str | None = None
    """How what it keeps is encrypted; None: it is not."""
    deleted_ms: int | None = None

    @property
    def state(self) -> State:
        """What becomes of it."""
        return State.ACTIVE if self.deleted_ms is None else State.DELETING


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A set of clusters."""

    name: str
    created_ms: int
