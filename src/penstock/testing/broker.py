"""A broker in a thread of its own: one agent, one event loop, nothing shared with other brokers of the process.

`start` waits until clients can connect, `stop` until the thread has ended, so a test never sees half a broker. The
modules of the agent are imported by the first start: importing this one costs next to nothing.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from penstock.base.collector import without_collector
from penstock.base.context import DEFAULT_CLUSTER_ID
from penstock.base.errors import InvalidRequest, Unavailable
from penstock.base.options import ListenerOptions, TlsOptions, UpOptions

if TYPE_CHECKING:
    from tempfile import TemporaryDirectory

    from penstock.agent.agent import Agent

Setting = str | int | float | bool
_HOST = "127.0.0.1"


class Broker:
    """A Kafka broker on a free port of 127.0.0.1, for as long as the `with` or `async with` block lasts.

    Without `data_dir` everything is in memory and gone afterwards. With it, the records are there again when another
    broker is started on the same directory. `durability` is `process` (the default here: an acknowledged record
    survives this process) or `disk` (it survives a power cut, and every acknowledgement waits for the disk).

    `settings` are Kafka's broker settings by name, such as `{"num.partitions": 3}`. A `port` is only needed where
    something expects one; a broker that is started again after `stop` listens where it did before.

    With `users` (names and passwords), clients have to authenticate with SASL PLAIN or SCRAM. Users may do everything,
    unless `settings` name `super.users`: then ACLs apply to all others. With `tls`, clients speak TLS and verify the
    broker with `ca_file`. `client_config` returns what librdkafka's clients need to connect.
    """

    def __init__(
        self,
        *,
        data_dir: str | Path | None = None,
        durability: str = "process",
        settings: Mapping[str, Setting] | None = None,
        port: int = 0,
        users: Mapping[str, str] | None = None,
        tls: bool = False,
    ) -> None:
        if durability not in ("disk", "process"):
            raise InvalidRequest(f"durability is either disk or process, not {durability!r}")
        self._options = UpOptions(
            data_dir=None if data_dir is None else Path(data_dir),
            kafka_host=_HOST,
            kafka_port=port,
            durability=durability,
            settings={name: _text(value) for name, value in (settings or {}).items()},
        )
        self._users, self._tls = dict(users or {}), tls
        if self._users:
            everybody = ";".join(f"User:{name}" for name in self._users)
            self._options = replace(self._options, settings={"super.users": everybody, **self._options.settings})
        self._port = port
        self._run: _Run | None = None
        self._certificates: TemporaryDirectory[str] | None = None

    @property
    def bootstrap_servers(self) -> str:
        """The address that clients connect to: `host:port`."""
        return f"{self.host}:{self.port}"

    @property
    def host(self) -> str:
        """The address listened on."""
        return _HOST

    @property
    def port(self) -> int:
        """The port listened on; raises `InvalidRequest` before the first start, unless one was asked for."""
        if not self._port:
            raise InvalidRequest("the broker has no port before it is started: use it in a with block")
        return self._port

    @property
    def ca_file(self) -> Path:
        """The certificate authority (PEM) that clients verify this broker with. Only while it runs with TLS."""
        if self._certificates is None:
            raise InvalidRequest("only a broker that runs with tls=True has a certificate")
        return Path(self._certificates.name) / "ca.pem"

    def client_config(self, user: str | None = None) -> dict[str, str]:
        """The configuration for a librdkafka client, as the given user or, by default, the first one."""
        config = {"bootstrap.servers": self.bootstrap_servers, "security.protocol": self._protocol}
        if self._users:
            name = next(iter(self._users)) if user is None else user
            if name not in self._users:
                raise InvalidRequest(f"there is no user {name!r}")
            config |= {"sasl.mechanism": "PLAIN", "sasl.username": name, "sasl.password": self._users[name]}
        if self._tls:
            config["ssl.ca.location"] = str(self.ca_file)
        return config

    @property
    def _protocol(self) -> str:
        return f"{'SASL_' if self._users else ''}{'SSL' if self._tls else 'PLAINTEXT'}"

    @property
    def running(self) -> bool:
        """Whether clients can connect."""
        return self._run is not None

    def start(self) -> Self:
        """Start, and return once clients can connect."""
        run = self._begin()
        try:
            self._port = run.ready.result()
        except BaseException:
            run.stop()
            self._join(run)
            raise
        self._run = run
        return self

    def stop(self) -> None:
        """Stop cleanly: finish and answer what was accepted. Does nothing if the broker is not running."""
        if self._run is not None:
            run, self._run = self._run, None
            if run.is_ours:
                run.stop()
            self._join(run)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        import asyncio

        run = self._begin()
        try:
            self._port = await asyncio.shield(asyncio.wrap_future(run.ready))
        except BaseException:
            run.stop()
            self._join(run)
            raise
        self._run = run
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        import asyncio

        if self._run is not None:
            run, self._run = self._run, None
            if run.is_ours:
                run.stop()
                await asyncio.wrap_future(run.ended)
            self._join(run)

    def _begin(self) -> _Run:
        if self._run is not None:
            raise InvalidRequest(f"the broker at {self.bootstrap_servers} is already running")
        options = replace(self._options, kafka_port=self._port)
        if self._users or self._tls:
            tls = self._make_certificate() if self._tls else None
            listener = ListenerOptions(protocol=self._protocol, host=_HOST, port=self._port, tls=tls)
            options = replace(options, listeners=(listener,))
        return _Run(options, self._users)

    def _make_certificate(self) -> TlsOptions:
        from tempfile import TemporaryDirectory

        from penstock.testing.certificates import Authority

        self._certificates = TemporaryDirectory(prefix="penstock-certificates-")
        certificate, key = Authority(Path(self._certificates.name)).server()
        return TlsOptions(certificate=certificate, key=key)

    def _join(self, run: _Run) -> None:
        if not run.is_ours:
            return
        try:
            run.join()
        finally:
            if self._certificates is not None:
                self._certificates.cleanup()
                self._certificates = None


class _Run:
    """One run of a broker, from `start` to `stop`: the thread, and how it reports back."""

    def __init__(self, options: UpOptions, users: Mapping[str, str]) -> None:
        self._options, self._users = options, users
        self.ready: Future[int] = Future()
        """The port, once clients can connect; or why they never will."""
        self.ended: Future[None] = Future()
        self._stop: Callable[[], object] | None = None
        self._stopped = False
        self._lock = threading.Lock()
        self._process = os.getpid()
        # A broker that nobody stopped must not keep the process from ending.
        self._thread = threading.Thread(target=self._main, name="penstock-broker", daemon=True)
        self._thread.start()

    @property
    def is_ours(self) -> bool:
        """Whether the thread belongs to this process, rather than to the one that this was forked from."""
        return self._process == os.getpid()

    def stop(self) -> None:
        """Ask the thread to end, which it does even if the broker has not started yet."""
        with self._lock:
            self._stopped = True
            if self._stop is not None:
                with contextlib.suppress(RuntimeError):  # The loop has ended already.
                    self._stop()

    def join(self) -> None:
        """Wait for the thread to end. Raises what ended it, unless that was `stop`."""
        self._thread.join()
        self.ended.result()

    def _main(self) -> None:
        try:
            with without_collector():  # Of the first start only: the others have nothing left to import.
                import asyncio

                from penstock.agent.agent import Agent
                from penstock.agent.turns import TurnLoop

            with asyncio.Runner(loop_factory=TurnLoop) as runner:
                runner.run(self._serve(Agent(self._options)))
        except BaseException as problem:  # noqa: BLE001  # told to whoever waits for this thread
            if self.ready.done():
                self.ended.set_exception(problem)
            else:
                self.ready.set_exception(problem)
                self.ended.set_result(None)
        else:
            if not self.ready.done():
                self.ready.set_exception(Unavailable("the broker was stopped while it started"))
            self.ended.set_result(None)

    async def _serve(self, agent: Agent) -> None:
        import asyncio

        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        with self._lock:
            self._stop = lambda: loop.call_soon_threadsafe(stopping.set)
            if self._stopped:
                return
        await agent.start()
        try:
            for name, password in self._users.items():
                await agent.access.identities.set_password(DEFAULT_CLUSTER_ID, name, password)
            self.ready.set_result(agent.kafka_port)
            await stopping.wait()
        finally:
            await agent.stop()


def _text(value: Setting) -> str:
    """A setting as Kafka writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
