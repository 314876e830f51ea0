"""The network between clients and agents: connections that delay, end, and lose what is under way.

A link carries messages both ways in order, as TCP does. When it ends, a suffix of what was under way is lost in each
direction: the client does not know whether its last requests arrived. On the agent's side a link treats requests as
`penstock.agent.connection` does: Produce requests are all under way at once, every other request holds those behind
it, and answers leave in the order of the requests.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, NamedTuple, Protocol

from fixtures.sim_loop import Host
from simulation.faults import FaultSource

from penstock.base.context import DEFAULT_CLUSTER_ID, RequestContext
from penstock.wire.api_keys import ApiKey

Done = Callable[[Any], None]


class ConnectionLost(Exception):
    """The connection has ended; what became of the request is not known."""


class Answering(Protocol):
    """The agent's end."""

    host: Host

    def handle(self, context: RequestContext, key: int, request: Any, done: Done) -> Callable[[], None] | None:
        """Begin answering; how to give up, where that is possible."""

    def closed(self, connection_id: int) -> None:
        """A connection has ended."""


class _Request(NamedTuple):
    key: int
    context: RequestContext
    body: Any
    reply: asyncio.Future[Any]


class _Slot:
    __slots__ = ("answer", "is_filled", "reply")

    def __init__(self, reply: asyncio.Future[Any]) -> None:
        self.reply, self.answer, self.is_filled = reply, None, False


class Link:
    """A connection from a client to one life of an agent."""

    def __init__(
        self, agent: Answering, source: FaultSource, client_id: str, connection_id: int,
        cluster_id: int = DEFAULT_CLUSTER_ID,
    ) -> None:  # fmt: skip
        self._agent, self._source = agent, source
        self._client_id, self._connection_id, self._cluster_id = client_id, connection_id, cluster_id
        self._loop = asyncio.get_running_loop()
        self._client = copy_context()
        self.lost = self._cut = False
        self._outbound: deque[_Request] = deque()
        self._waiting: dict[asyncio.Future[Any], None] = {}
        # The agent's side.
        self._closed = False
        self._queue: deque[_Request] = deque()
        self._slots: deque[_Slot] = deque()
        self._inbound: deque[_Slot] = deque()
        self._busy = False
        self._give_up: Callable[[], None] | None = None

    # ---- the client's side ---------------------------------------------------------------------------------------

    def send(self, key: ApiKey, version: int, body: Any) -> asyncio.Future[Any]:
        """Send a request; its response, or `ConnectionLost`."""
        reply: asyncio.Future[Any] = self._loop.create_future()
        if self.lost:
            reply.set_exception(ConnectionLost())
            return reply
        context = RequestContext(
            client_id=self._client_id, api_version=version, connection_id=self._connection_id,
            cluster_id=self._cluster_id,
        )  # fmt: skip
        if self._cut or self._source.cut():
            # What was sent before still arrives; this, and whatever is sent before the end is noticed, does not.
            if not self._cut:
                self._cut = True
                self._loop.call_later(self._source.transit_s(), self.lose)
        else:
            self._outbound.append(_Request(key, context, body, reply))
            self._loop.call_later(self._source.transit_s(), self._arrive, context=self._agent.host.context)
        self._waiting[reply] = None
        reply.add_done_callback(lambda done: self._waiting.pop(done, None))
        return reply

    @property
    def life(self) -> int:
        """Which life of an agent is at the other end."""
        return id(self._agent)

    def lose(self) -> None:
        """The connection ends, as the client sees it."""
        if self.lost:
            return
        self.lost = True
        for reply in list(self._waiting):
            if not reply.done():
                reply.set_exception(ConnectionLost())
                # Whoever sent it may have stopped to care.
                reply.exception()
        self._loop.call_later(self._source.transit_s(), self._close, context=self._agent.host.context)

    def _deliver(self) -> None:
        slot = self._inbound.popleft()
        if not slot.reply.done():
            slot.reply.set_result(slot.answer)

    # ---- the agent's side ----------------------------------------------------------------------------------------

    def _arrive(self) -> None:
        request = self._outbound.popleft()
        if self._closed:
            return
        if self._busy or self._queue:
            self._queue.append(request)
        else:
            self._begin(request)

    def _begin(self, request: _Request) -> None:
        slot = _Slot(request.reply)
        self._slots.append(slot)
        holds = request.key != ApiKey.PRODUCE
        self._busy = holds

        def done(answer: Any) -> None:
            if self._closed:
                return
            self._fill(slot, answer)
            if holds:
                self._busy = False
                self._give_up = None
                self._go_on()

        give_up = self._agent.handle(request.context, request.key, request.body, done)
        if self._busy:
            self._give_up = give_up

    def _go_on(self) -> None:
        while self._queue and not self._busy and not self._closed:
            self._begin(self._queue.popleft())

    def _fill(self, slot: _Slot, answer: Any) -> None:
        slot.answer, slot.is_filled = answer, True
        while self._slots and self._slots[0].is_filled:
            ready = self._slots.popleft()
            if self._source.cut():
                self.hang_up()
                return
            self._inbound.append(ready)
            self._loop.call_later(self._source.transit_s(), self._deliver, context=self._client)

    def hang_up(self) -> None:
        """The agent closes the connection."""
        self._loop.call_soon(self.lose, context=self._client)
        self._close()

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._queue.clear()
        self._slots.clear()
        if self._give_up is not None:
            self._give_up()
            self._give_up = None
        self._agent.closed(self._connection_id)
