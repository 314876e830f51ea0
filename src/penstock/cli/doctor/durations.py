"""Where the time of a running agent goes: read from what it shows under `/metrics`. Pure: texts in, checks out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from penstock.base.dataclasses import dataclass, field, replace
from penstock.cli.doctor.verdicts import Check, check
from penstock.cli.output import Json
from penstock.cli.text_formats.quantities import milliseconds_text, plural

SLOW_MS, HELD_UP_MS = 100.0, 50.0
"""From where on requests, and turns of the event loop, deserve a warning."""
ENOUGH = 100
"""Of fewer requests one is slow for a reason of its own: the first of its kind, say."""
COLLECTOR_SHARE = 0.05
"""Of the time of all turns."""
WAITING = ("join_group", "sync_group", "share_fetch")
"""Whose answers wait for other members, or for records: that they take long says nothing."""
STAGES = {
    "wait": "waiting for the flush before",
    "prepare": "preparing",
    "write": "writing and syncing",
    "answer": "answering",
}
HINTS = {
    "wait": "Flushes queue up behind each other: see which other stage is long",
    "prepare": "Batches are many and small: linger.ms=5 and a larger batch.size in producers",
    "write": "Each acknowledgement is a synchronous write. Another disk, or --durability process",
    "answer": "Batches are many and small: linger.ms=5 and a larger batch.size in producers",
}
_SAMPLE = re.compile(r"(\w+?)(_bucket|_sum|_total)?(?:\{(.*)\})? (-?\d+(?:\.\d+)?(?:e[-+]?\d+)?)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Histogram:
    """A histogram of durations, with the cumulative buckets of Prometheus."""

    counts: Mapping[float, float] = field(default_factory=dict)
    """How many took as many seconds at most."""
    total_s: float = 0.0

    @property
    def count(self) -> int:
        """How many there were."""
        return round(max(self.counts.values(), default=0))

    @property
    def mean_ms(self) -> float:
        """How long one took on average."""
        return 1000 * self.total_s / self.count if self.count else 0.0

    def quantile_ms(self, part: float) -> float:
        """How long that part of them took at most, about: within its bucket it is guessed, as Prometheus does."""
        wanted, rows = part * self.count, [(0.0, 0.0), *sorted(self.counts.items())]
        for (low_s, below), (high_s, count) in pairwise(rows):
            if count >= wanted and count > below:
                if high_s == float("inf"):
                    return 1000 * low_s
                return 1000 * (low_s + (high_s - low_s) * (wanted - below) / (count - below))
        return 0.0

    def since(self, before: Histogram) -> Histogram:
        """What has come after that."""
        counts = {bound: count - before.counts.get(bound, 0) for bound, count in self.counts.items()}
        return Histogram(counts, self.total_s - before.total_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentMetrics:
    """What an agent exports, as far as durations are concerned."""

    version: str
    started_s: float
    """In seconds since 1970."""
    lost_commits: int = 0
    """How many its start has given up."""
    histograms: Mapping[tuple[str, str], Histogram]
    """By name, without what all of them begin and end with, and by label; an empty one where there is none."""

    def of(self, name: str) -> dict[str, Histogram]:
        """All of a name that have counted something, by label."""
        return {label: one for (found, label), one in self.histograms.items() if found == name and one.count}

    def since(self, before: AgentMetrics) -> AgentMetrics:
        """What has been counted since an earlier scrape of the same agent."""
        if before.started_s != self.started_s:
            return self
        histograms = {
            key: one.since(before.histograms[key]) if key in before.histograms else one
            for key, one in self.histograms.items()
        }  # fmt: skip
        return replace(self, histograms=histograms)


def parse_metrics(text: str) -> AgentMetrics | None:
    """Metrics in Prometheus' text format; None if they are not Penstock's."""
    version, started_s, lost_commits = None, 0.0, 0
    counts: dict[tuple[str, str], dict[float, float]] = {}
    totals: dict[tuple[str, str], float] = {}
    for sample in map(_SAMPLE.fullmatch, text.splitlines()):
        if sample is None:
            continue
        name, kind, value = sample[1], sample[2], float(sample[4])
        labels = dict(_LABEL.findall(sample[3] or ""))
        if name == "penstock_build_info":
            version = labels.get("version", "")
        elif name == "process_start_time_seconds":
            started_s = value
        elif name == "penstock_wal_lost_commits":
            lost_commits = round(value)
        elif name.startswith("penstock_") and name.endswith("_seconds") and kind in ("_bucket", "_sum"):
            bound = labels.pop("le", "inf")
            key = name.removeprefix("penstock_").removesuffix("_seconds"), next(iter(labels.values()), "")
            if kind == "_sum":
                totals[key] = value
            else:
                counts.setdefault(key, {})[float(bound)] = value
    if version is None:
        return None
    histograms = {key: Histogram(found, totals.get(key, 0.0)) for key, found in counts.items()}
    return AgentMetrics(version=version, started_s=started_s, lost_commits=lost_commits, histograms=histograms)


def duration_checks(metrics: AgentMetrics, disk: str | None = None) -> Iterator[Check]:
    """What is slow, and where the time goes. `disk` says how long a synchronous write takes here."""
    requests = metrics.of("request_duration")
    produce, fetch = requests.pop("produce", None), requests.pop("fetch", None)
    if produce is not None:
        yield _of_produce(produce, metrics.of("flush_stage"), disk)
    if fetch is not None:
        waits = metrics.of("fetch_wait").get("")
        waited = f"; {plural(waits.count, 'long poll')} not included" if waits else ""
        slow = _is_slow(fetch) and "Old records are read from files: see the object store"
        yield check("fetch", _latency_text(fetch) + waited, warn=slow or None)
    others = {name: one for name, one in requests.items() if name not in WAITING}
    if others:
        yield _of_others(others)
    yield from _of_loop(metrics)
    yield from _of_stores(metrics)
    yield from _of_clients(metrics)


def _of_produce(produce: Histogram, stages: Mapping[str, Histogram], disk: str | None) -> Check:
    found, longest = _latency_text(produce), None
    ordered = sorted(stages, key=lambda stage: -stages[stage].total_s)
    if ordered:
        longest = ordered[0]
        all_s = sum(one.total_s for one in stages.values()) or 1.0
        parts = [
            f"{stages[stage].total_s / all_s:.0%} {STAGES.get(stage, stage)}"
            f" (p99 {milliseconds_text(stages[stage].quantile_ms(0.99))})"
            for stage in ordered
        ]  # fmt: skip
        found += f". Time of a flush: {', '.join(parts)}"
        rest_ms = produce.quantile_ms(0.99) - sum(one.quantile_ms(0.99) for one in stages.values())
        if rest_ms > SLOW_MS:
            longest = None
    if disk is not None:
        found += f". A synced write on this disk: {disk}"
    hint = "Most of the time is not spent in flushes: see the event loop" if longest is None else HINTS.get(longest)
    return check("produce", found, warn=hint if _is_slow(produce) else None)


def _of_others(others: Mapping[str, Histogram]) -> Check:
    slowest = sorted(others, key=lambda name: -others[name].quantile_ms(0.99))[:3]
    found = ", ".join(f"{name} {milliseconds_text(others[name].quantile_ms(0.99))}" for name in slowest)
    slow = any(_is_slow(others[name]) for name in slowest)
    return check(
        "other requests", f"the slowest at p99: {found}",
        warn="They wait for the database or for the event loop: see there" if slow else None,
    )  # fmt: skip


def _of_loop(metrics: AgentMetrics) -> Iterator[Check]:
    turns = metrics.of("loop_turn").get("")
    if turns is None:
        return
    held_up = turns.quantile_ms(0.999) > HELD_UP_MS
    found = f"turns take p99 {_at(turns, 0.99)}, p99.9 {_at(turns, 0.999)}"
    yield check(
        "event loop", found,
        warn="Nobody else is served during a turn. The agent is busy, or its machine is" if held_up else None,
    )  # fmt: skip
    collections = metrics.of("garbage_collection")
    spent_s = sum(one.total_s for one in collections.values())
    if collections:
        share = spent_s / (turns.total_s or 1.0)
        yield check(
            "garbage collector", f"{share:.1%} of the event loop's time",
            warn="Too many objects in memory: use fewer partitions, members or producers"
            if share > COLLECTOR_SHARE else None,
        )  # fmt: skip


def _of_stores(metrics: AgentMetrics) -> Iterator[Check]:
    for name, title, hint in (
        ("database_operation", "database", "It is busy, far away, or on a slow disk"),
        ("object_operation", "object store", "It is busy, far away, or on a slow disk"),
    ):
        kinds = metrics.of(name)
        if kinds:
            found = ", ".join(f"{kind} p50 {_at(one, 0.5)}, p99 {_at(one, 0.99)}" for kind, one in kinds.items())
            slow = any(one.quantile_ms(0.5) > SLOW_MS for kind, one in kinds.items() if kind in ("write", "read"))
            yield check(title, found, warn=hint if slow else None)


def _of_clients(metrics: AgentMetrics) -> Iterator[Check]:
    throttled, stalled = metrics.of("throttle").get(""), metrics.of("response_stall").get("")
    if throttled is not None:
        found = f"clients paused {plural(throttled.count, 'time')}, {throttled.total_s:,.1f} s in total"
        yield check("quotas", found, warn="These clients exceed a quota: penstock quota list")
    if stalled is not None:
        found = f"responses waited for clients {plural(stalled.count, 'time')}, p99 {_at(stalled, 0.99)}"
        yield check("slow readers", found)


def _is_slow(one: Histogram) -> bool:
    return one.count >= ENOUGH and one.quantile_ms(0.99) > SLOW_MS


def _latency_text(one: Histogram) -> str:
    return f"p50 {_at(one, 0.5)}, p99 {_at(one, 0.99)} ({plural(one.count, 'request')})"


def _at(one: Histogram, part: float) -> str:
    return milliseconds_text(one.quantile_ms(part))


def rows_of(metrics: AgentMetrics) -> Sequence[Mapping[str, Json]]:
    """All of it in numbers."""
    return [
        {
            "what": name, "of": label or None, "count": one.count, "mean_ms": round(one.mean_ms, 3),
            "p50_ms": round(one.quantile_ms(0.5), 3), "p99_ms": round(one.quantile_ms(0.99), 3),
        }
        for (name, label), one in metrics.histograms.items() if one.count
    ]  # fmt: skip
