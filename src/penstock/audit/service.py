"""Captures facts during requests, and turns them into events in the background.

Capturing adds a fact to a bounded queue and never waits: if there is no room the fact is dropped and counted, and an
event says how many of which cluster were. Whatever goes wrong here, the request continues.

One task collects facts for a moment, makes events of them in short slices, and appends them; it ends when nothing is
left, so an idle agent pays nothing. Events that the log does not take now are retried, and those it never will are
dropped like the rest.

All facts are numbered, dropped ones included, so that gaps in the log can be seen. An agent that has logged anything
says so when it stops: a run without such an end was interrupted, and its last facts may be missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable, Sequence, Set
from contextvars import ContextVar
from typing import Any, Protocol
from uuid import UUID

from penstock.audit.changes import CHANGES, ChangeResult, RequestedChange, requested_changes
from penstock.audit.events import SUCCESS, UNAUTHENTICATED, UNKNOWN_USER, Names, Origin, encoded, event_of
from penstock.audit.model import (
    TOPIC,
    Attempted,
    Caller,
    CapturedFact,
    Changed,
    Decided,
    Ended,
    Fact,
    Json,
    Lost,
    Resource,
    caller_of,
    cut,
)
from penstock.audit.outcomes import DENIED, DENYING_HANDLERS, error_codes_of, outcome_of
from penstock.audit.policy import Policy
from penstock.audit.queue import FactQueue, Losses
from penstock.authorization.authorizer import Decision
from penstock.authorization.rules import DEFAULT_DENY
from penstock.base.acls import CLUSTER_NAME, ResourceType
from penstock.base.clock import Clock
from penstock.base.context import RequestContext
from penstock.base.cooperative import CHEAP_ITEMS_PER_TURN, free_lists, yield_if_due
from penstock.base.dataclasses import dataclass, field
from penstock.base.errors import InvalidRequest, PlatformError
from penstock.base.log_throttle import LogThrottle
from penstock.base.randomness import Randomness, new_uuid
from penstock.base.shielded import ShieldedTasks
from penstock.identity.attempts import Attempt
from penstock.wire.api_keys import ApiKey

QUEUE_MAX = 10_000
QUEUE_BYTES = 16 * 1024 * 1024
"""The most facts queued. Each takes some hundred bytes, so normally the number is the limit; with the longest texts
that clients can choose one takes some 30 KiB, and then the size is."""
BATCH_EVENTS = 500
BATCH_LOSSES = 100
"""Clusters with dropped facts, with one event each."""
BATCH_BYTES = 512 * 1024
SLICE = 25
"""Events made without yielding: less than a millisecond."""
RECORDED_AT_ONCE = 50
"""Changes of one request that are recorded before yielding to the event loop. All of them are recorded even if the
client disconnects meanwhile."""
GATHER_S = 0.05
"""How long facts are collected. With a full batch each time this also bounds the rate: 10,000 events a second."""
RETRY_S, RETRY_MAX_S = 0.1, 5.0
CLOSE_S = 2.0
"""How long a stop waits for queued events."""
COMPLAIN_EVERY_S = 60.0
KINDS: dict[type[Fact], str] = {
    Attempted: "authentication", Decided: "authorization", Changed: "request", Lost: "loss", Ended: "end",
}  # fmt: skip
REMEMBERED = 1_000
"""Repeated changes that are logged once per connection."""

Handle = Callable[[RequestContext, Any], Coroutine[Any, Any, Any]]
_DENIED: ContextVar[set[ResourceType] | None] = ContextVar("denied", default=None)
"""Resource types that were denied during the request of this task."""
_log = logging.getLogger(__name__)


class Appender(Protocol):
    """Stores events."""

    async def append(self, events: Sequence[bytes]) -> None:
        """Store events, in order. Raises `InvalidRequest` if that will never work, another `PlatformError` if it may
        later."""


@dataclass(slots=True)
class AuditStats:
    """Counted since the process started."""

    events: dict[str, int] = field(default_factory=dict)
    """Stored events, by type."""
    lost_by_cluster: dict[int, int] = field(default_factory=dict)

    @property
    def lost(self) -> int:
        """Facts that were dropped, of all clusters."""
        return sum(self.lost_by_cluster.values())


class AuditLog:
    """Captures attempts, decisions and changes."""

    def __init__(
        self, *, policy: Policy, appender: Appender, names: Names, home_cluster_id: int,
        correlation_id: Callable[[int], int | None], clock: Clock, randomness: Randomness, agent: str = "1",
        queue_max: int = QUEUE_MAX, queue_bytes: int = QUEUE_BYTES, gather_s: float = GATHER_S,
    ) -> None:  # fmt: skip
        self._policy, self._appender = policy, appender
        self._correlation_id = correlation_id
        """The correlation id of the request that a connection is processing."""
        self._names, self._home_cluster_id = names, home_cluster_id
        self._origin, self._last_number = Origin(agent, randomness.token(8).hex()), 0
        """The run, and the number of its last fact."""
        self._clock, self._randomness = clock, randomness
        self._gather_s = gather_s
        self._queue = FactQueue(facts_max=queue_max, bytes_max=queue_bytes)
        self._losses = Losses()
        self._logged_once: OrderedDict[tuple[Any, ...], None] = OrderedDict()
        self._task: asyncio.Task[None] | None = None
        self._recording = ShieldedTasks()
        self._in_flight: list[CapturedFact] = []
        self._reporting: list[Lost] = []
        self._stop = asyncio.Event()
        self._log_throttle = LogThrottle(clock, COMPLAIN_EVERY_S)
        self._has_ended = False
        self.stats = AuditStats()

    @property
    def waiting(self) -> int:
        """Facts that are not stored as events yet."""
        return len(self._queue)

    # ---- capturing -----------------------------------------------------------------------------------------------

    def on_attempt(self, attempt: Attempt) -> None:
        """An authentication was attempted."""
        try:
            identity = attempt.identity
            status, principal, cluster_id = SUCCESS, "", attempt.cluster_id
            if identity is not None:
                principal, cluster_id = identity.principal, identity.cluster_id
            else:
                status = UNKNOWN_USER if attempt.is_unknown else UNAUTHENTICATED
            caller = Caller(cluster_id, cut(principal), None, attempt.client_host, attempt.connection_id)
            claimed = None if attempt.claimed is None else cut(attempt.claimed)
            self._record(
                Attempted(self._clock.now_ms(), caller, attempt.mechanism, claimed, status, cut(attempt.message))
            )
        except Exception:  # noqa: BLE001  # a bug here may cost an event, never a login
            self._on_internal_error()

    def on_decision(self, context: RequestContext, decision: Decision) -> None:
        """A request was authorized or denied."""
        try:
            verdict, api_key = decision.verdict, decision.api_key
            denied = _DENIED.get()
            if denied is not None and not verdict.allowed:
                denied.add(decision.resource_type)
            if verdict.allowed and not self._policy.wants(api_key, self._randomness):
                return
            self._record(
                Decided(
                    self._clock.now_ms(), self._caller(context), api_key, decision.operation, decision.resource_type,
                    cut(decision.resource_name), verdict,
                )
            )  # fmt: skip
        except Exception:  # noqa: BLE001  # a bug here may cost an event, never a request
            self._on_internal_error()

    def audited(self, api_key: int, handle: Handle) -> Handle:
        """Wrap an API so that its changes, and its handler's own denials, are logged."""
        if api_key not in CHANGES and api_key not in DENYING_HANDLERS:
            return handle

        async def answer(context: RequestContext, request: Any) -> Any:
            asked, response = await self._requested(api_key, request), None
            if not asked and api_key not in DENYING_HANDLERS:
                return await handle(context, request)
            denied: set[ResourceType] = set()
            _DENIED.set(denied)
            # Taken now: the client may disconnect before the change, which is completed nevertheless, is done.
            caller = self._caller(context)
            try:
                response = await handle(context, request)
            finally:
                recording = self._record_outcome(context, caller, api_key, asked, response, denied)
                await (recording if len(asked) < RECORDED_AT_ONCE else self._recording.run(recording))
            return response

        return answer

    async def _record_outcome(
        self, context: RequestContext, caller: Caller, api_key: int, asked: list[RequestedChange], response: Any | None,
        denied: Set[ResourceType],
    ) -> None:  # fmt: skip
        """Log the outcome of a request. Yields in between if the request is large."""
        if response is not None and api_key in DENYING_HANDLERS:
            await self._record_handler_denial(context, api_key, response, denied)
        if asked:
            await self._on_change(caller, api_key, asked, response, denied)
            await free_lists(asked)

    async def _record_handler_denial(
        self, context: RequestContext, api_key: int, response: Any, denied: Set[ResourceType]
    ) -> None:
        """Log what a handler denied without the authorizer, or although it allowed it."""
        try:
            if ResourceType.CLUSTER in denied:
                return
            for number, code in enumerate(error_codes_of(api_key, response)):
                await yield_if_due(number, CHEAP_ITEMS_PER_TURN)
                if code == DENIED:
                    break
            else:
                return
            self.on_decision(
                context,
                Decision(
                    api_key=api_key, operation=DENYING_HANDLERS[api_key], resource_type=ResourceType.CLUSTER,
                    resource_name=CLUSTER_NAME, verdict=DEFAULT_DENY,
                ),
            )  # fmt: skip
        except Exception:  # noqa: BLE001  # as above
            self._on_internal_error(context.cluster_id)

    async def _requested(self, api_key: int, request: Any) -> list[RequestedChange]:
        asked: list[RequestedChange] = []
        if api_key not in CHANGES:
            return asked
        try:
            for number, one in enumerate(requested_changes(api_key, request)):
                asked.append(one)
                await yield_if_due(number)
        except Exception:  # noqa: BLE001  # as above
            self._on_internal_error()
            return []
        return asked

    def on_topic_created(self, context: RequestContext, name: str, partition_count: int, *, because: str) -> None:
        """A topic was auto-created, without a request of its own for it."""
        try:
            details: dict[str, Json] = {"num_partitions": partition_count, "automatic": because}
            topic = Resource(TOPIC, cut(name))
            self._record(Changed(self._clock.now_ms(), self._caller(context), ApiKey.CREATE_TOPICS, topic, 0, details))
        except Exception:  # noqa: BLE001  # as above
            self._on_internal_error(context.cluster_id)

    async def _on_change(
        self,
        caller: Caller,
        api_key: int,
        asked: list[RequestedChange],
        response: Any | None,
        denied: Set[ResourceType],
    ) -> None:
        try:
            now_ms, answers, reader = self._clock.now_ms(), dict[Hashable, ChangeResult](), CHANGES[api_key]
            for number, answer in enumerate(() if response is None else reader.results(response)):
                answers[answer.key] = answer
                await yield_if_due(number)
            for number, one in enumerate(asked):
                await yield_if_due(number, RECORDED_AT_ONCE)
                outcome = outcome_of(one, answers.get(one.key), denied)
                if outcome is None:
                    continue
                resource, error, details = outcome
                if reader.is_repeated and self._was_logged((caller.connection_id, api_key, resource, error)):
                    continue
                self._record(Changed(now_ms, caller, api_key, resource, error, details))
            told = list(answers.values())
            answers.clear()
            await free_lists(told)
        except Exception:  # noqa: BLE001  # as above
            self._on_internal_error()

    def _was_logged(self, key: tuple[Any, ...]) -> bool:
        if key in self._logged_once:
            self._logged_once.move_to_end(key)
            return True
        self._logged_once[key] = None
        if len(self._logged_once) > REMEMBERED:
            self._logged_once.popitem(last=False)
        return False

    def _caller(self, context: RequestContext) -> Caller:
        return caller_of(context, self._correlation_id(context.connection_id))

    # ---- queue ---------------------------------------------------------------------------------------------------

    def _record(self, fact: CapturedFact) -> None:
        self._last_number += 1
        fact = fact._replace(number=self._last_number)
        if self._stop.is_set():
            self._drop(fact.caller.cluster_id)
            return
        self._drop_all(self._queue.add(fact))
        if self._task is None and self._queue:
            self._start_task()

    def _start_task(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and task.exception() is not None:
            _log.error("audit events could not be written", exc_info=task.exception())
        self._losses.put_back(self._reporting)
        self._drop_all(self._in_flight)
        self._in_flight, self._reporting = [], []
        if self._queue and not self._stop.is_set():
            self._start_task()

    def _drop(self, cluster_id: int) -> None:
        self._losses.add(cluster_id, 1, self._clock.now_ms())
        lost = self.stats.lost_by_cluster
        lost[cluster_id] = lost.get(cluster_id, 0) + 1
        if self._log_throttle.is_due():
            _log.warning("audit events were dropped, %d in total", self.stats.lost)

    def _drop_all(self, facts: Sequence[CapturedFact]) -> None:
        for fact in facts:
            self._drop(fact.caller.cluster_id)

    def _on_internal_error(self, cluster_id: int | None = None) -> None:
        _log.exception("an audit event could not be recorded")
        self._drop(self._home_cluster_id if cluster_id is None else cluster_id)

    # ---- writing ---------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        is_refused = False
        while self._queue or (self._losses and not is_refused):
            # Drops caused by a failing log are logged with the next successful batch, not recursively.
            await self._pause(self._gather_s)
            self._reporting = self._losses.take(BATCH_LOSSES, self._clock.now_ms())
            self._in_flight = self._queue.take(BATCH_EVENTS)
            events = await self._events()
            if not events:
                continue
            is_refused = not await self._append(events)
            if is_refused:
                self._losses.put_back(self._reporting)
                self._drop_all(self._in_flight)
            else:
                self._count((*self._reporting, *self._in_flight))
            self._in_flight, self._reporting = [], []

    def _count(self, facts: Sequence[Fact]) -> None:
        for fact in facts:
            kind = KINDS[type(fact)]
            self.stats.events[kind] = self.stats.events.get(kind, 0) + 1

    async def _pause(self, seconds: float) -> None:
        """Sleep, unless it is time to stop."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)

    async def _events(self) -> list[bytes]:
        """Make the events of the facts in flight; facts that would make the batch too large go back to the queue, and
        those that no event can be made of are dropped."""
        events, told, size = [self._event(lost) for lost in self._reporting], 0, 0
        for number, fact in enumerate(tuple(self._in_flight)):
            try:
                event = self._event(fact)
            except Exception:  # noqa: BLE001  # a bug here may cost this event, and not the others
                del self._in_flight[told]
                self._on_internal_error(fact.caller.cluster_id)
                continue
            size += len(event)
            if told and size > BATCH_BYTES:
                self._queue.put_back(self._in_flight[told:])
                del self._in_flight[told:]
                break
            events.append(event)
            told += 1
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)
        return events

    def _event(self, fact: Fact) -> bytes:
        event_id = str(UUID(bytes=new_uuid(self._randomness)))
        return encoded(event_of(fact, event_id, self._names, self._origin))

    async def _append(self, events: list[bytes]) -> bool:
        """Append events; False if that will never work."""
        delay_s = RETRY_S
        while True:
            try:
                await self._appender.append(events)
            except InvalidRequest as problem:
                _log.warning("audit events were refused by the log: %s", problem)
                return False
            except PlatformError as problem:
                if self._stop.is_set():
                    _log.warning("the last audit events could not be stored: %s", problem)
                    return False
                await self._pause(delay_s)
                delay_s = min(delay_s * 2, RETRY_MAX_S)
            else:
                return True

    async def close(self) -> None:
        """Log what is queued, if that does not take long, and stop capturing."""
        await self._recording.close()
        self._stop.set()
        task = self._task
        if task is not None:
            await asyncio.wait((task,), timeout=CLOSE_S)
            was_running = not task.done()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        else:
            was_running = False
        self._drop_all(self._queue.take(len(self._queue)))
        if self._last_number and not was_running and not self._has_ended:
            await self._end()
        if self._losses:
            _log.warning("%d audit events were dropped, and no event in the log says so", self._losses.number)

    async def _end(self) -> None:
        """Log the end of the run. If that cannot be stored, the run looks interrupted."""
        self._has_ended = True
        self._last_number += 1
        end = Ended(self._clock.now_ms(), self._home_cluster_id, self._last_number)
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._appender.append([self._event(end)])
        except (PlatformError, TimeoutError) as problem:
            _log.warning("the end event of the audit log could not be stored: %s", problem)
        else:
            self._count((end,))
