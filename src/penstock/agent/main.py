"""The process behind `penstock up`: one agent, its HTTP side, signals, and what is printed.

The first SIGINT or SIGTERM stops cleanly: what was accepted is finished and answered. The second ends the process at
once, which loses nothing acknowledged either: it is what a crash is, and the next start recovers from it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
import shutil
import signal
import sys
from functools import partial
from importlib import import_module
from pathlib import Path

from penstock.agent.agent import Agent
from penstock.agent.checks import checked_settings, master_key_file
from penstock.agent.listeners import Listener
from penstock.agent.metadata import place_of
from penstock.agent.tuning import Tuning
from penstock.agent.turns import TurnLoop
from penstock.agent.warm_up import warm_up
from penstock.base.collector import FrozenSurvivors
from penstock.base.options import UpOptions

FORCED_EXIT_CODE = 1
DEFAULT_KAFKA_PORT = 9092
SWITCH_INTERVAL_S = 0.0005


def check(options: UpOptions) -> None:
    """Raise `InvalidRequest`, with the cure, when the options are wrong in themselves."""
    checked_settings(options)


def run(options: UpOptions, tuning: Tuning | None = None) -> int:
    """Run one agent until it is told to stop; its exit code. Raises `PlatformError` when it cannot start."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=os.environ.get("PENSTOCK_LOG_LEVEL", "INFO").upper(), handlers=[handler])
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    raise_file_limit()
    share_the_interpreter()
    with asyncio.Runner(loop_factory=TurnLoop) as runner:
        return runner.run(_serve(options, tuning))


class OneLineFormatter(logging.Formatter):
    """Messages as one line, whatever is in the names that clients choose. What is traced has its own lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # the library's name
        """A message in its line."""
        line = super().formatMessage(record)
        if line.isprintable():
            return line
        return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)


def raise_file_limit() -> None:
    """Take as many file descriptors as this user may have: each connection needs one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def share_the_interpreter() -> None:
    """Let the loop have the interpreter back soon when another thread computes, a compaction say.

    Each time the loop comes back from a system call meanwhile, it waits this long; with Python's 5 ms, requests that
    take several calls took 20 ms and more.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def settle_memory() -> None:
    """Keep the collector away from what lives long. Of all that a start makes only some hundred objects are garbage: to
    find them would take longer than anything else it does."""
    FrozenSurvivors(asyncio.get_running_loop().call_soon_threadsafe).begin()


async def _serve(options: UpOptions, tuning: Tuning | None) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _on_signal, stopping)
    agent = Agent(options, tuning=tuning)
    agent.on_broken = stopping.set
    await agent.start()
    try:
        # What it stands on takes a while to import. Clients of Kafka need not wait for it, nor be held up meanwhile.
        http = await asyncio.to_thread(import_module, "penstock.agent.http")
        app = http.application(lambda: agent.why_not_ready, partial(_metrics, agent))
        async with http.serving(app, options.http_host, options.http_port) as http_port:
            settle_memory()
            await _announce(agent, options, http_port)
            warming = asyncio.create_task(warm_up(agent.requests.dispatcher.table))
            await stopping.wait()
            warming.cancel()
            await agent.stop()  # `/readyz` says that it is stopping meanwhile.
    finally:
        await agent.stop()
        gc.freeze()  # What is left goes with the process: at its end Python would look through all of it.
    return 1 if agent.has_failed else 0


async def _metrics(agent: Agent) -> bytes:
    # What writes them takes a while to import: not before somebody asks, and beside the loop.
    metrics = await asyncio.to_thread(import_module, "penstock.agent.metrics")
    page: bytes = await asyncio.to_thread(metrics.written, list(metrics.families(agent)))
    return page


def _on_signal(stopping: asyncio.Event) -> None:
    if stopping.is_set():
        print("stopped at once: what was not acknowledged is given up", file=sys.stderr, flush=True)
        os._exit(FORCED_EXIT_CODE)
    stopping.set()
    print("stopping: finishing what was accepted; once more to stop at once", file=sys.stderr, flush=True)


async def _announce(agent: Agent, options: UpOptions, http_port: int) -> None:
    where = "memory, gone when this process ends" if options.data_dir is None else str(options.data_dir.absolute())
    promise = {"disk": "acknowledged means fsynced", "process": "acknowledged means handed to the operating system"}
    program = _program()
    first = agent.runtime.listeners[0]
    kafka = _address(first.host, agent.kafka_port)
    there = "" if agent.kafka_port == DEFAULT_KAFKA_PORT else f" -b {kafka}"
    metadata = place_of(options)
    if first.protocol != "PLAINTEXT":
        there += " --client-config FILE"
    lines = (
        *(
            f"Kafka   {_address(listener.host, agent.ports[listener.name])}{_manner(listener)}"
            for listener in agent.runtime.listeners
        ),
        f"HTTP    http://{_address(options.http_host, http_port)}  (/healthz /readyz /metrics)",
        f"Data    {where}  ({promise[options.durability]})",
        *((f"Meta    {metadata}",) if metadata else ()),
        *_keys(options),
        *await _who_may_come(agent, options, program),
        f"Next    echo hello | {program} produce greetings{there} && {program} consume greetings{there}",
    )
    try:
        print("\n".join(lines), flush=True)
    except OSError:
        # That nobody reads it, or that there is no room for it, is no reason to stop. What was not written never is.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _manner(listener: Listener) -> str:
    """How one connects there, unless it is the plain way, and which address its clients are told, if it is another."""
    told = "" if listener.advertised is None else f"  advertised as {_address(*listener.advertised)}"
    if listener.protocol == "PLAINTEXT":
        return told
    return f"  ({' '.join((listener.protocol, *listener.mechanisms))}){told}"


def _keys(options: UpOptions) -> tuple[str, ...]:
    """Where the keys are without which nothing can be read."""
    file = master_key_file(options) if options.encrypt else None
    return () if file is None else (f"Keys    {file.absolute()}  (keep a copy: without it nothing can be read)",)


async def _who_may_come(agent: Agent, options: UpOptions, program: str) -> tuple[str, ...]:
    """What to do where credentials are asked for and nobody has any."""
    asked = any(set(listener.mechanisms) - {"OAUTHBEARER"} for listener in agent.runtime.listeners)
    if not asked or options.data_dir is None or await agent.access.identities.has_credentials():
        return ()
    return (f"Users   none yet. Stop, then: {program} user create NAME --data-dir {options.data_dir}",)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _program() -> str:
    """What to type to run this program."""
    if shutil.which("penstock"):
        return "penstock"
    started = Path(sys.argv[0])
    return f"{sys.executable} -m penstock" if started.name == "__main__.py" else str(started)
