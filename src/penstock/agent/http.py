"""The HTTP side of an agent: is it alive, is it ready, what does it count.

It listens for this machine only and asks nobody who they are. A page of somebody's, in a browser on this machine, must
not get here because its name suddenly leads here (DNS rebinding): only who asks by a name of this machine is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn import Config, Server
from uvicorn.protocols.http.h11_impl import H11Protocol

from penstock.agent.listeners import is_loopback, listening_socket
from penstock.base.clock import SystemClock
from penstock.base.log_throttle import LogThrottle

MAX_CONNECTIONS = 64
"""At the same time: whoever can reach the address needs no credentials, and each has a file and memory."""
PATIENCE_S = 10.0
"""How long a request may take to come, and its answer to be taken."""
ACCEPTED_AT_ONCE = 16
"""asyncio tries as often in a row, even when each attempt fails because too many files are open."""
COMPLAIN_EVERY_S = 60.0
_HOST = r"(?i)(\[[0-9a-f:.]+\]|[^][:@/]+)(:[0-9]*)?"
_log = logging.getLogger(__name__)


class _HttpServer(Server):
    """Uvicorn without signal handlers, the process has its own, and without its ten ticks a second: idle is idle."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._stopping = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        """Uvicorn's ticks renew the date header, which is not sent, and look whether to stop."""
        await self.on_tick(0)
        await self._stopping.wait()

    def stop(self) -> None:
        """Finish what is being answered, and end."""
        self.should_exit = True
        self._stopping.set()


class _LimitedProtocol(H11Protocol):
    """A connection that is one of few, and makes progress or ends."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
        else:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._wait()

    def _wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self.transport.is_closing():
            self._timer = self.loop.call_later(PATIENCE_S, self.transport.abort)


def names_this_machine(host: str) -> bool:
    """Whether a `Host` header names what listens for this machine only."""
    match = re.fullmatch(_HOST, host)
    name = match[1].strip("[]").rstrip(".").lower() if match else ""
    return is_loopback(name) or name.endswith(".localhost")


class _LoopbackHostOnly:
    """Answers who asks by a name of this machine, or by none: that is no browser."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        host = Headers(scope=scope).get("host")
        if host is None or names_this_machine(host):
            await self._app(scope, receive, send)
        else:
            refusal = "Ask for this by 127.0.0.1 or localhost. A proxy must not hand on another Host.\n"
            await PlainTextResponse(refusal, status_code=421)(scope, receive, send)


def application(why_not_ready: Callable[[], str | None], metrics: Callable[[], Awaitable[bytes]]) -> Starlette:
    """`/healthz`, `/readyz`, `/metrics`. `why_not_ready`: None while requests are served."""

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        reason = why_not_ready()
        if reason is None:
            return PlainTextResponse("ready\n")
        return PlainTextResponse(f"{reason}\n", status_code=503)

    async def show_metrics(_: Request) -> Response:
        return Response(await metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", show_metrics),
        ],
        middleware=[Middleware(_LoopbackHostOnly)],
    )


@contextlib.asynccontextmanager
async def serving(app: Starlette, host: str, port: int) -> AsyncIterator[int]:
    """Serve for as long as the context lasts; the port. Raises `Unavailable` when the address is taken."""
    sock = listening_socket(host, port)
    config = Config(
        app, http=_LimitedProtocol, lifespan="off", log_config=None, access_log=False, server_header=False,
        date_header=False, timeout_keep_alive=5, backlog=ACCEPTED_AT_ONCE,
    )  # fmt: skip
    server = _HttpServer(config)
    loop = asyncio.get_running_loop()
    handler = loop.get_exception_handler()
    loop.set_exception_handler(_throttled_exception_handler())
    task = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        yield int(sock.getsockname()[1])
    finally:
        loop.set_exception_handler(handler)
        server.stop()
        await task
        sock.close()


def _throttled_exception_handler() -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]:
    """A handler of the loop's exceptions that logs at a limited rate that connections cannot be accepted: asyncio tries
    again and again, and what it logs each time would take the loop's time and fill the disk."""
    throttle = LogThrottle(SystemClock(), COMPLAIN_EVERY_S)

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if context.get("message") != "socket.accept() out of system resource":
            loop.default_exception_handler(context)
        elif throttle.is_due():
            _log.error("a connection of HTTP could not be accepted: %s", context.get("exception"))

    return handle
