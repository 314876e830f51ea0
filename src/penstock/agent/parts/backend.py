"""The parts of an agent that its API handlers are built from."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from penstock.agent.parts.access import AccessControl
from penstock.agent.parts.coordinators import GroupCoordinators
from penstock.agent.parts.limits import ClientLimits
from penstock.agent.parts.log import Log
from penstock.agent.parts.runtime import Runtime
from penstock.agent.parts.stores import Stores
from penstock.base.dataclasses import dataclass
from penstock.clusters.service import Clusters
from penstock.keys.service import DataKeys
from penstock.log.brokers import SingleBroker
from penstock.log.producer_ids import ProducerIds
from penstock.log.topics import Topics
from penstock.transactions.service import TransactionService

if TYPE_CHECKING:
    from penstock.audit.service import AuditLog
    from penstock.telemetry.handlers import TelemetryHandlers


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """Everything behind the handlers. Of the connections in front of them it knows only when one has ended."""

    runtime: Runtime
    stores: Stores
    clusters: Clusters
    topics: Topics
    keys: DataKeys
    log: Log
    brokers: SingleBroker
    producer_ids: ProducerIds
    transactions: TransactionService
    access: AccessControl
    coordinators: GroupCoordinators
    limits: ClientLimits
    telemetry: TelemetryHandlers | None
    audit: AuditLog | None
    on_closed: list[Callable[[int], None]]
    """Called with the id of every connection that ended."""
