"""Asks an agent that runs on this machine where its time goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException

from penstock.base.clock import Clock
from penstock.cli.doctor.durations import AgentMetrics, duration_checks, parse_metrics
from penstock.cli.doctor.verdicts import Check, check
from penstock.cli.text_formats.addresses import Address

TIMEOUT_S = 3.0
PAGE_MAX_BYTES = 16 * 1024 * 1024


def scrape(address: Address) -> AgentMetrics | None:
    """What the agent there shows now; None where there is none."""
    connection = HTTPConnection(address.host, address.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        text = answer.read(PAGE_MAX_BYTES).decode("utf-8", "replace") if answer.status == 200 else ""
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()
    return parse_metrics(text)


def scrape_over(address: Address, watch_s: float) -> AgentMetrics | None:
    """What it has shown since it was started; or in the next so many seconds, if there are any."""
    before = scrape(address)
    if before is None or not watch_s:
        return before
    time.sleep(watch_s)  # noqa: TID251  # there is no loop in a command
    after = scrape(address)
    return None if after is None else after.since(before)


def agent_checks(metrics: AgentMetrics, clock: Clock, watch_s: float, disk: str | None) -> Iterator[Check]:
    """Everything that it says."""
    since_s = clock.now_ms() / 1000 - metrics.started_s
    over = f"of the last {watch_s:g} s" if watch_s else f"since its start {_age_text(since_s)} ago"
    yield check("agent", f"Penstock {metrics.version}; durations {over}")
    if metrics.lost_commits:
        yield check(
            "lost commits", f"{metrics.lost_commits:,}, which its start has given up",
            warn="The disk has lost what it had acknowledged: look for the reason before you trust it with more",
        )  # fmt: skip
    yield from duration_checks(metrics, disk)


def _age_text(age_s: float) -> str:
    for unit, unit_s in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if age_s >= 2 * unit_s:
            return f"{age_s / unit_s:,.0f} {unit}"
    return f"{age_s:,.0f} seconds"
