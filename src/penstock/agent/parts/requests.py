"""What answers requests: the handlers of all APIs behind guards and the audit log, and who calls them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from penstock.agent.apis import Api, apis, audited, guarded
from penstock.agent.dispatch import Dispatcher
from penstock.agent.parts.backend import Backend
from penstock.agent.parts.handlers import handlers_of
from penstock.base.dataclasses import dataclass
from penstock.base.lazy import lazy_import
from penstock.log.aborted import StoredAborted
from penstock.log.fetch import FetchHandler
from penstock.log.fetch_sessions import FetchSessions
from penstock.log.produce import ProduceHandler

if TYPE_CHECKING:
    from penstock.authorization.guards import table as guard_table
else:
    guard_table = lazy_import("penstock.authorization.guards.table")


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """Who answers them."""

    produce: ProduceHandler
    fetch: FetchHandler
    dispatcher: Dispatcher
    """Calls these two, and the handlers of everything else."""


def open_requests(backend: Backend) -> Requests:
    """Build what answers requests."""
    runtime, log, limits = backend.runtime, backend.log, backend.limits
    clock, settings, authorizer = runtime.clock, runtime.settings, backend.access.authorizer
    sessions = FetchSessions(
        slots=settings.whole("max.incremental.fetch.session.cache.slots"), clock=clock, randomness=runtime.randomness
    )
    produce = ProduceHandler(registry=log.registry, writer=log.writer, clock=clock)
    produce.transactional_ids = backend.transactions
    fetch = FetchHandler(
        registry=log.registry, reader=log.reader, sessions=sessions, max_bytes=settings.whole("fetch.max.bytes"),
        aborted=StoredAborted(backend.stores.database), locked=backend.keys.locked,
    )  # fmt: skip
    dispatcher = Dispatcher(produce=produce, fetch=fetch, clock=clock)
    dispatcher.offload, produce.beside = runtime.thread("long-requests"), runtime.thread("record-checks")

    def enforce_quotas() -> None:
        """Have requests check limits only while there are any."""
        dispatcher.throttles = fetch.quota = limits.throttles if limits.throttles.limits_clients else None

    limits.quotas.on_change = enforce_quotas
    enforce_quotas()
    table: Mapping[int, Api] = apis(handlers_of(backend))
    if authorizer is not None:  # ACLs decide what clients may do.
        produce.authorizer = fetch.authorizer = authorizer
        guards = guard_table.Guards(authorizer=authorizer, topics=log.registry, settings=backend.topics.settings.of)
        table = guarded(table, guards)
    dispatcher.serve(table if backend.audit is None else audited(table, backend.audit))
    return Requests(produce=produce, fetch=fetch, dispatcher=dispatcher)
