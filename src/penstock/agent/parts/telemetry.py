"""Metrics of clients, which `penstock up --client-metrics` sends over HTTP to an OTLP receiver, or shows on the page.

Requests to a receiver run on a thread of their own: it may be slow, or not there. Its address may hold a password,
which is sent as what it is for and shown nowhere.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from penstock.agent.checks import ON_THE_PAGE
from penstock.agent.parts.runtime import Runtime
from penstock.agent.tuning import NODE_ID
from penstock.base.lazy import lazy_import
from penstock.log.topics import Topics

if TYPE_CHECKING:
    from penstock.agent import web
    from penstock.telemetry import handlers, sinks
else:
    web = lazy_import("penstock.agent.web")
    handlers, sinks = lazy_import("penstock.telemetry.handlers"), lazy_import("penstock.telemetry.sinks")


def open_sink(runtime: Runtime) -> sinks.Sink | None:
    """The destination; None where nobody wants any metrics."""
    text, clock, closing = runtime.options.client_metrics, runtime.clock, runtime.closing
    if text is None:
        return None
    if text == ON_THE_PAGE:
        return sinks.MetricsPage(clock)
    executor = ThreadPoolExecutor(1, thread_name_prefix="client-metrics")
    closing.callback(executor.shutdown, wait=False)
    receiver = web.OtlpClient(urlsplit(text), executor)
    forwarder = sinks.OtlpForwarder(receiver.post, clock)
    closing.push_async_callback(forwarder.close)
    return forwarder


def open_telemetry(runtime: Runtime, sink: sinks.Sink | None, topics: Topics) -> handlers.TelemetryHandlers | None:
    """The APIs that fill the destination; None where there is none. Pushes are read on a thread of their own."""
    if sink is None:
        return None
    return handlers.TelemetryHandlers(
        topics, sink, on_thread=runtime.thread("client-metrics-read"), clock=runtime.clock,
        randomness=runtime.randomness, max_bytes=runtime.settings.whole("telemetry.max.bytes"), broker_id=NODE_ID,
    )  # fmt: skip
