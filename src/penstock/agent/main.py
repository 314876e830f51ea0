"""The process behind `penstock up`: one agent, its HTTP side, signals, and what is printed."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import sys

from penstock.agent.agent import Agent
from penstock.base.options import UpOptions

_log = logging.getLogger("penstock")


def run(options: UpOptions) -> int:
    """Run one agent until it is told to stop; its exit code. Raises `PlatformError` when it cannot start."""
    logging.basicConfig(
        level=os.environ.get("PENSTOCK_LOG_LEVEL", "INFO").upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    raise_file_limit()
    return asyncio.run(_serve(options))


def raise_file_limit() -> None:
    """Take as many file descriptors as this user may have: each connection needs one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def settle_memory() -> None:
    """Keep the collector away from what lives as long as the process, and from running often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


async def _serve(options: UpOptions) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    agent = Agent(options)
    await agent.start()
    try:
        # The HTTP stack takes a while to import: clients of Kafka need not wait for it.
        from penstock.agent.http import application, serving
        from penstock.agent.metrics import exposition

        app = application(lambda: agent.ready, lambda: exposition(agent))
        async with serving(app, options.http_host, options.http_port) as http_port:
            settle_memory()
            _announce(agent, options, http_port)
            await stopping.wait()
            print("stopping: finishing what was accepted", file=sys.stderr)
    finally:
        await agent.stop()
    return 0


def _announce(agent: Agent, options: UpOptions, http_port: int) -> None:
    where = "memory, gone when this process ends" if options.data_dir is None else str(options.data_dir.absolute())
    promise = {"disk": "acknowledged means fsynced", "process": "acknowledged means handed to the operating system"}
    lines = (
        f"Kafka   {options.kafka_host}:{agent.kafka_port}",
        f"HTTP    http://{options.http_host}:{http_port}  (/healthz /readyz /metrics)",
        f"Data    {where}  ({promise[options.durability]})",
        "Next    echo hello | penstock produce greetings && penstock consume greetings",
    )
    print("\n".join(lines), flush=True)
