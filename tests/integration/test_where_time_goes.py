"""Where the time goes, as a running process shows it, and as the doctor reads it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from cli_session import promised_shape, shape_of
from click.testing import CliRunner
from fixtures.server import Server
from fixtures.waiting import eventually
from fixtures.wire import Wire, batch

from penstock.cli.main import cli

SAMPLE = re.compile(r"^(penstock_\w+_seconds)_(bucket|count|sum)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
WAIT_MS = 50


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(
        tmp_path_factory.mktemp("durations"), durability="disk", settings={"slow.request.log.ms": "0"}
    )  # fmt: skip
    server.start()
    with Wire(server.bootstrap) as wire:
        wire.create_topic("orders")
        for number in range(5):
            wire.produce("orders", batch(b"%d" % number))
        assert len(wire.fetch_records("orders")) == 5
        wire.fetch("orders", 5, max_wait_ms=WAIT_MS)
    yield server
    assert server.stop() == 0


Series = dict[tuple[str, str], dict[str, float]]


def scraped(server: Server) -> Series:
    """Histograms by name and label: what each bucket has, and `count` and `sum`."""
    found: Series = {}
    for name, kind, text, value in SAMPLE.findall(server.http_text("/metrics")):
        labels = dict(re.findall(r'(\w+)="(.*?)"', text))
        bound = labels.pop("le", kind)
        found.setdefault((name, next(iter(labels.values()), "")), {})[bound] = float(value)
    return found


def test_a_scrape_has_everything(server: Server) -> None:
    found = scraped(server)

    def count(name: str, labels: str = "") -> float:
        return found[f"penstock_{name}_seconds", labels]["count"]

    assert count("request_duration", "produce") == 5
    assert count("request_duration", "fetch") == 2
    assert count("request_duration", "create_topics") == 1
    assert count("fetch_wait") == 1
    assert found["penstock_fetch_wait_seconds", ""]["sum"] >= WAIT_MS / 1000
    assert {count("flush_stage", stage) for stage in ("wait", "prepare", "write", "answer")} == {5}
    assert count("database_operation", "write") > 0
    assert count("database_operation", "read") > 0
    assert count("loop_turn") > 10
    assert {count("throttle"), count("response_stall")} == {0}
    for operation in ("put", "commit", "adopt", "read", "delete"):
        assert count("object_operation", operation) >= 0
    for generation in range(3):
        assert count("garbage_collection", str(generation)) >= 0


def test_histograms_are_histograms(server: Server) -> None:
    for values in scraped(server).values():
        buckets = [value for bound, value in values.items() if bound not in ("count", "sum")]
        assert len(buckets) == 19
        assert all(below <= above for below, above in pairwise(buckets))
        assert values["+Inf"] == values["count"]
        assert values["sum"] >= 0
        assert values["count"] or not values["sum"]


def test_requests_and_durations_agree(server: Server) -> None:
    def counts() -> tuple[dict[str, float], dict[str, float]]:
        page = server.http_text("/metrics")
        counted = re.findall(r'^penstock_requests_total\{api="(\w+)"\} (\S+)$', page, re.MULTILINE)
        timed = re.findall(r'^penstock_request_duration_seconds_count\{api="(\w+)"\} (\S+)$', page, re.MULTILINE)
        return dict(counted), dict(timed)

    eventually(lambda: counts()[0] == counts()[1], what="every request being answered")


def test_the_doctor_says_where_the_time_goes(server: Server, tmp_path: Path) -> None:
    words = ("doctor", "--kafka", "127.0.0.1:0", "--http", f"127.0.0.1:{server.http_port}", "-o", "json")
    result = CliRunner().invoke(cli, (*words, "--data-dir", str(tmp_path)))
    found = json.loads(result.stdout)
    assert shape_of(found) == promised_shape("doctor")
    checks = {check["name"]: check for check in found["checks"]}
    assert checks["agent"]["found"].startswith("Penstock ")
    produce = checks["produce"]["found"]
    assert "(5 requests)" in produce
    assert "writing and syncing" in produce
    assert "A synced write on this disk: p50 " in produce
    assert {"fetch", "other requests", "event loop", "database"} <= set(checks)
    rows = {(row["what"], row["of"]): row for row in found["durations"]}
    assert rows["flush_stage", "write"]["count"] == 5
    assert 0 < rows["flush_stage", "write"]["p50_ms"] <= rows["flush_stage", "write"]["p99_ms"]


def test_it_can_look_at_what_happens_now(server: Server, tmp_path: Path) -> None:
    words = ("doctor", "--kafka", "127.0.0.1:0", "--http", f"127.0.0.1:{server.http_port}", "-o", "json")
    result = CliRunner().invoke(cli, (*words, "--data-dir", str(tmp_path / "none"), "--watch", "100ms"))
    checks = {check["name"]: check for check in json.loads(result.stdout)["checks"]}
    assert checks["agent"]["found"].endswith("durations of the last 0.1 s")
    assert "produce" not in checks


def test_the_log_tells_of_slow_requests(server: Server) -> None:
    """From 0 ms on: of the first one, and then seldom."""
    told = [line for line in server.log_path.read_text().splitlines() if "penstock.agent.requests" in line]
    assert told
    assert re.search(r"[A-Z_]+ of client '.*' at 127\.0\.0\.1 took \d+ ms", told[0])
    assert len(told) < 10
