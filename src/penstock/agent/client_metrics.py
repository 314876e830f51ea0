"""Where metrics of clients go, as `penstock up --client-metrics` says: over HTTP to an OTLP receiver, or onto the page.

Requests to a receiver run on a thread of their own: it may be slow, or not there. Its address may hold a password,
which is sent as what it is for and shown nowhere.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from penstock.base.clock import Clock
from penstock.base.errors import InvalidRequest
from penstock.base.later import later
from penstock.base.randomness import Randomness
from penstock.base.settings import BrokerSettings
from penstock.base.threads import on_thread_of
from penstock.log.topics import Topics

if TYPE_CHECKING:
    from penstock.agent import web
    from penstock.telemetry import handlers, sinks
else:
    web = later("penstock.agent.web")
    handlers, sinks = later("penstock.telemetry.handlers"), later("penstock.telemetry.sinks")

ON_THE_PAGE = "prometheus"


def check_destination(text: str | None) -> None:
    """Raise `InvalidRequest` unless metrics could go there."""
    if text is None or text == ON_THE_PAGE:
        return
    try:
        url = urlsplit(text)
        usable = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise InvalidRequest(
            "--client-metrics takes the URL of an OTLP receiver, such as http://127.0.0.1:4318/v1/metrics, or"
            f" {ON_THE_PAGE}"
        )


def open_sink(text: str | None, clock: Clock, closing: AsyncExitStack) -> sinks.Sink | None:
    """The destination, open until `closing` is; None where nobody wants any metrics."""
    if text is None:
        return None
    if text == ON_THE_PAGE:
        return sinks.MetricsPage(clock)
    executor = ThreadPoolExecutor(1, thread_name_prefix="client-metrics")
    closing.callback(executor.shutdown, wait=False)
    receiver = web.Receiver(urlsplit(text), executor)
    forwarder = sinks.OtlpForwarder(receiver.post, clock)
    closing.push_async_callback(forwarder.close)
    return forwarder


def open_telemetry(
    sink: sinks.Sink | None, topics: Topics, settings: BrokerSettings, *, broker_id: int, clock: Clock,
    randomness: Randomness, closing: AsyncExitStack,
) -> handlers.TelemetryHandlers | None:  # fmt: skip
    """The APIs that fill the destination; None where there is none. Pushes are read on a thread of their own."""
    if sink is None:
        return None
    executor = ThreadPoolExecutor(1, thread_name_prefix="client-metrics-read")
    closing.callback(executor.shutdown, wait=False, cancel_futures=True)
    return handlers.TelemetryHandlers(
        topics, sink, on_thread=on_thread_of(executor), clock=clock, randomness=randomness,
        max_bytes=settings.whole("telemetry.max.bytes"), broker_id=broker_id,
    )  # fmt: skip
