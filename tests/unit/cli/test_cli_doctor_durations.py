"""What the doctor reads from an agent's metrics, and what it makes of it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from penstock.base.dataclasses import replace
from penstock.base.durations import BOUNDS_S, Durations
from penstock.cli.doctor.agent import agent_checks, scrape, scrape_over
from penstock.cli.doctor.durations import AgentMetrics, Histogram, duration_checks, parse_metrics, rows_of
from penstock.cli.doctor.verdicts import Check, Status
from penstock.cli.text_formats.addresses import Address

TEXT = """\
# HELP penstock_build_info This agent's release.
penstock_build_info{version="1.2.3"} 1.0
# TYPE penstock_request_duration_seconds histogram
penstock_request_duration_seconds_bucket{api="produce",le="0.0001"} 0.0
penstock_request_duration_seconds_bucket{api="produce",le="0.0002"} 50.0
penstock_request_duration_seconds_bucket{api="produce",le="0.0004"} 100.0
penstock_request_duration_seconds_bucket{api="produce",le="+Inf"} 100.0
penstock_request_duration_seconds_count{api="produce"} 100.0
penstock_request_duration_seconds_sum{api="produce"} 0.025
penstock_loop_turn_seconds_bucket{le="0.0001"} 7.0
penstock_loop_turn_seconds_bucket{le="+Inf"} 7.0
penstock_loop_turn_seconds_sum 0.0001
penstock_chore_seconds_total{chore="a \\"quoted\\" one"} 3.0
penstock_wal_age_seconds 1.5
penstock_wal_lost_commits 3.0
process_start_time_seconds 1.7e+09
nonsense, and more
nonsense 1.2.3
"""


def counted(*durations_ms: float) -> Histogram:
    durations = Durations()
    for duration_ms in durations_ms:
        durations.add(duration_ms / 1000)
    return Histogram(dict(zip((*BOUNDS_S, float("inf")), durations.cumulative(), strict=True)), durations.total_s)


def page(**found: Mapping[str, Histogram] | Histogram) -> AgentMetrics:
    histograms = {}
    for name, value in found.items():
        for label, one in ({"": value} if isinstance(value, Histogram) else value).items():
            histograms[name, label] = one
    return AgentMetrics(version="1.2.3", started_s=0.0, histograms=histograms)


def told(page: AgentMetrics, disk: str | None = None) -> dict[str, Check]:
    checks = list(duration_checks(page, disk))
    # As with every check of the doctor's.
    assert all((one.change is None) == (one.status is Status.OK) for one in checks)
    return {one.name: one for one in checks}


def test_a_page_is_read() -> None:
    found = parse_metrics(TEXT)
    assert found is not None
    assert (found.version, found.started_s, found.lost_commits) == ("1.2.3", 1.7e9, 3)
    assert found.since(found).lost_commits == 3
    assert set(found.histograms) == {("request_duration", "produce"), ("loop_turn", "")}
    produce = found.of("request_duration")["produce"]
    assert (produce.count, produce.mean_ms) == (100, 0.25)
    assert produce.quantile_ms(0.5) == pytest.approx(0.2)
    assert produce.quantile_ms(0.75) == pytest.approx(0.3)
    assert [(row["what"], row["of"], row["count"]) for row in rows_of(found)] == [
        ("request_duration", "produce", 100), ("loop_turn", None, 7),
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "<html>", "other_info 1\n", 'http_seconds_bucket{le="1"} 1\n'])
def test_another_program_is_not_taken_for_an_agent(text: str) -> None:
    assert parse_metrics(text) is None


def test_quantiles_lie_in_their_buckets() -> None:
    assert counted().quantile_ms(0.99) == 0
    assert 51.2 <= counted(*[1] * 98, 60, 60).quantile_ms(0.99) <= 102.4
    # What is beyond the last bound is at least that.
    assert counted(60_000).quantile_ms(0.5) == 1000 * BOUNDS_S[-1]


def test_the_difference_of_two_pages() -> None:
    before, after = page(loop_turn=counted(1, 1)), page(loop_turn=counted(1, 1, 500, 500))
    assert after.since(before).of("loop_turn")[""].count == 2
    assert after.since(before).of("loop_turn")[""].quantile_ms(0.5) > 400
    restarted = AgentMetrics(version="1.2.3", started_s=9.0, histograms=after.histograms)
    assert restarted.since(before) is restarted


@pytest.mark.parametrize(
    ("slow", "cure"), [("write", "synchronous write"), ("wait", "behind each other"), ("prepare", "linger.ms")]
)
def test_a_slow_producer_is_told_which_stage_it_is(slow: str, cure: str) -> None:
    stages = {stage: counted(*[200.0 if stage == slow else 1.0] * 10) for stage in ("wait", "prepare", "write")}
    found = told(page(request_duration={"produce": counted(*[203.0] * 100)}, flush_stage=stages), "p50 150 ms")
    assert found["produce"].status is Status.WARN
    assert cure in (found["produce"].change or "")
    assert "A synced write on this disk: p50 150 ms" in found["produce"].found


def test_what_is_not_the_flush_is_the_loop() -> None:
    stages = {stage: counted(*[1.0] * 10) for stage in ("wait", "prepare", "write", "answer")}
    found = told(
        page(
            request_duration={"produce": counted(*[900.0] * 100)}, flush_stage=stages,
            loop_turn=counted(*[400.0] * 10), garbage_collection={"2": counted(*[300.0] * 10)},
        )
    )  # fmt: skip
    assert "event loop" in (found["produce"].change or "")
    assert found["event loop"].status is found["garbage collector"].status is Status.WARN


def test_what_is_quick_is_well() -> None:
    found = told(
        page(
            request_duration={
                "produce": counted(1), "fetch": counted(1), "metadata": counted(1), "join_group": counted(9_000),
            },
            fetch_wait=counted(500), flush_stage={"write": counted(1)}, loop_turn=counted(1),
            database_operation={"read": counted(1)}, object_operation={"read": counted(1)},
            garbage_collection={"0": counted(0.01)},
        )
    )  # fmt: skip
    assert {one.status for one in found.values()} == {Status.OK}
    assert "1 long poll" in found["fetch"].found
    assert "join_group" not in found["other requests"].found


def test_clients_that_are_slow_themselves() -> None:
    found = told(page(throttle=counted(500, 500), response_stall=counted(2_000)))
    assert found["quotas"].found == "clients paused 2 times, 1.0 s in total"
    assert found["slow readers"].status is Status.OK
    requests = dict.fromkeys(("fetch", "metadata"), counted(*[800.0] * 100))
    slow = told(page(request_duration=requests, database_operation={"read": counted(800)}))
    assert {one.status for one in slow.values()} == {Status.WARN}
    # A few may be slow for reasons of their own.
    few = told(page(request_duration=dict.fromkeys(("produce", "fetch", "metadata"), counted(800))))
    assert {one.status for one in few.values()} == {Status.OK}


def test_since_when() -> None:
    class Clock:
        def now_ms(self) -> int:
            return 7_200_000

        def monotonic(self) -> float:
            return 0.0

    first = next(agent_checks(page(), Clock(), 0.0, None))
    assert first.found == "Penstock 1.2.3; durations since its start 2 hours ago"
    assert next(agent_checks(page(), Clock(), 5.0, None)).found.endswith("of the last 5 s")
    lost = {one.name: one for one in agent_checks(replace(page(), lost_commits=3), Clock(), 0.0, None)}["lost commits"]
    assert (lost.status, lost.found) == (Status.WARN, "3, which its start has given up")


def test_nobody_there() -> None:
    nowhere = Address("127.0.0.1", 1)
    assert scrape(nowhere) is None
    assert scrape_over(nowhere, 60.0) is None
