"""What an agent counts, in Prometheus' format. Counters live where the work is done; this only reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector

from penstock.agent.agent import Agent
from penstock.agent.sasl import SaslStats
from penstock.agent.turns import TurnLoop
from penstock.base.context import PLATFORM_CLUSTER_ID
from penstock.base.durations import BOUNDS_S, Durations
from penstock.keys.model import LockReason
from penstock.telemetry.sinks import MetricsPage
from penstock.version import __version__
from penstock.wire.api_keys import ApiKey

Reading = tuple[str, str, Callable[[Agent], float]]
"""A metric without labels: its name, what it says, and where it is read."""


def _sasl(agent: Agent) -> SaslStats:
    return SaslStats() if agent.sasl is None else agent.sasl.stats


_COUNTERS: tuple[Reading, ...] = (
    ("commits", "Flushes made durable.", lambda agent: agent.log.writer.stats.commits),
    ("commit_failures", "Flushes that failed.", lambda agent: agent.log.writer.stats.failures),
    (
        "produce_timeouts", "Produce requests that timed out before their outcome was known.",
        lambda agent: agent.log.writer.timeouts.count,
    ),
    ("batches", "Record batches appended.", lambda agent: agent.log.writer.stats.batches),
    ("appended_bytes", "Bytes of record batches appended.", lambda agent: agent.log.writer.stats.bytes),
    ("cold_reads", "Reads that memory could not serve.", lambda agent: agent.log.reader.cold_reads),
    ("cold_read_bytes", "Bytes of reads that memory could not serve.", lambda agent: agent.log.reader.cold_bytes),
    ("connections_accepted", "Connections accepted.", lambda agent: agent.server.accepted),
    ("authentications", "Successful authentications.", lambda agent: _sasl(agent).succeeded),
    ("authentication_failures", "Failed authentications.", lambda agent: _sasl(agent).failed),
    (
        "authentications_throttled",
        "Authentication attempts that were not looked at: too many had failed from that address or for that name, or"
        " the database did not answer.",
        lambda agent: _sasl(agent).throttled,
    ),
    ("reauthentications", "Successful re-authentications (KIP-368).", lambda agent: _sasl(agent).reauthenticated),
    (
        "expired_sessions", "Connections closed because their SASL session expired.",
        lambda agent: _sasl(agent).expired,
    ),
    (
        "dead_letters", "Records of share groups that were written to a dead letter queue.",
        lambda agent: agent.coordinators.dead_letters.stats.written,
    ),
    (
        "dead_letters_lost", "Records given up that could not be written to a dead letter queue.",
        lambda agent: agent.coordinators.dead_letters.stats.lost,
    ),
)  # fmt: skip
_GAUGES: tuple[Reading, ...] = (
    ("connections", "Connections now.", lambda agent: agent.server.connection_count),
    ("pending_bytes", "Accepted bytes that wait for a flush.", lambda agent: agent.log.writer.pending_bytes),
    (
        "partial_frame_bytes", "Bytes of requests that have arrived in part.",
        lambda agent: agent.server.shared.partial_bytes,
    ),
    ("tail_bytes", "Memory that holds recent batches.", lambda agent: agent.log.tail.size_bytes),
    ("encrypted_clusters", "Clusters that are encrypted, or were.", lambda agent: len(agent.keys.clusters)),
    (
        "locked_clusters", "Encrypted clusters that cannot write because the key service does not answer.",
        lambda agent: sum(lock is LockReason.WAITING for lock in agent.keys.locked.values()),
    ),
    (
        "dead_letter_partitions", "Partitions with records that wait to be written to a dead letter queue.",
        lambda agent: agent.coordinators.dead_letters.waiting,
    ),
    (
        "fenced", "1 if another process on the same database has taken over the log: this one ends.",
        lambda agent: agent.log.writer.fenced is not None,
    ),
    ("partitions", "Partitions.", lambda agent: sum(len(topic.partitions) for topic in agent.registry.topics())),
)  # fmt: skip


class _AgentCollector:
    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def collect(self) -> Iterator[Metric]:
        """Every figure there is."""
        agent = self._agent
        info = GaugeMetricFamily("penstock_build_info", "This agent's release.", labels=["version"])
        info.add_metric([__version__], 1)
        yield info
        requests = CounterMetricFamily("penstock_requests", "Requests by Kafka API.", labels=["api"])
        for key, count in agent.requests.dispatcher.requests.items():
            if count:
                requests.add_metric([ApiKey(key).name.lower()], count)
        yield requests
        for name, text, reading in _COUNTERS:
            yield CounterMetricFamily(f"penstock_{name}", text, reading(agent))
        for name, text, reading in _GAUGES:
            yield GaugeMetricFamily(f"penstock_{name}", text, reading(agent))
        yield from _durations(agent)
        yield from _memory(agent)
        yield from _limits(agent)
        yield from _tenants(agent)
        yield from _audit(agent)
        yield from _background(agent)
        yield from _of_clients(agent)


def _durations(agent: Agent) -> Iterator[Metric]:
    """Where the time goes."""
    times, loop, by_generation = agent.server.shared.times, agent.server.loop, agent.collections.by_generation
    answered = {
        ApiKey(key).name.lower(): durations for key, durations in times.answered.items() if durations.count
    }  # fmt: skip
    turns = loop.turn_durations if isinstance(loop, TurnLoop) else Durations()
    rows: tuple[tuple[str, str, str, Mapping[str, Durations]], ...] = (
        (
            "request_duration",
            "From the arrival of a request until its response is ready, without the long poll of a fetch.",
            "api", answered,
        ),
        ("fetch_wait", "Long polls: how long fetches waited for data.", "", {"": agent.requests.fetch.waits}),
        ("throttle", "Pauses imposed on clients that exceeded a quota.", "", {"": times.throttled}),
        ("response_stall", "How long responses waited for a client to read them.", "", {"": times.stalled}),
        (
            "flush_stage",
            "Stages of flushes: wait (for the flush before), prepare, write (sync and commit included), answer.",
            "stage", agent.log.writer.stages.by_name(),
        ),
        (
            "object_operation", "Operations of the object store.", "operation", agent.stores.objects.durations,
        ),
        (
            "database_operation", "Database operations, with the time in its queue.", "kind",
            agent.stores.database.durations,
        ),
        ("loop_turn", "Turns of the event loop; nobody else is served meanwhile.", "", {"": turns}),
        (
            "garbage_collection", "Runs of Python's garbage collector.", "generation",
            {str(generation): durations for generation, durations in enumerate(by_generation)},
        ),
    )  # fmt: skip
    for name, text, label, counted in rows:
        family = HistogramMetricFamily(f"penstock_{name}_seconds", text, labels=[label] if label else [])
        for value, durations in counted.items():
            family.add_metric([value] if label else [], _buckets(durations), durations.total_s)
        yield family


def _buckets(durations: Durations) -> list[tuple[str, float]]:
    bounds = [*map(str, BOUNDS_S), "+Inf"]
    return list(zip(bounds, durations.cumulative(), strict=True))


def _memory(agent: Agent) -> Iterator[Metric]:
    """What clients make it hold, kind by kind, and how much that may be."""
    log, server = agent.log, agent.server
    pinned = log.tail.pinned_bytes + log.cold.pinned_bytes
    held = {
        "tail": log.tail.size_bytes - log.tail.pinned_bytes, "pending": log.writer.pending_bytes,
        "partial": server.shared.partial_bytes, "queued": server.shared.queued_bytes,
        "cold": log.cold.size_bytes - log.cold.pinned_bytes, "pinned": pinned, "unread": server.unread_bytes,
    }  # fmt: skip
    for name, text, values in (
        ("penstock_memory_bytes", "Memory held on behalf of clients, by kind.", held.items()),
        ("penstock_memory_max_bytes", "The limit of each kind of memory.", agent.runtime.memory.kinds()),
    ):
        family = GaugeMetricFamily(name, text, labels=["kind"])
        for kind, size_bytes in values:
            family.add_metric([kind], size_bytes)
        yield family


def _limits(agent: Agent) -> Iterator[Metric]:
    throttled = CounterMetricFamily(
        "penstock_throttled", "Throttled requests, by the quota that was exceeded.", labels=["quota"]
    )
    for key, count in agent.limits.throttles.throttled.items():
        throttled.add_metric([key], count)
    yield throttled
    entities = sum(agent.limits.quotas.counts.values())
    yield GaugeMetricFamily("penstock_quota_entities", "Users, clients and addresses that have quotas.", entities)
    meters = agent.limits.throttles.meter_count
    yield GaugeMetricFamily("penstock_quota_meters", "Active meters of users, clients and addresses.", meters)


def _tenants(agent: Agent) -> Iterator[Metric]:
    yield GaugeMetricFamily("penstock_clusters", "Virtual clusters.", len(agent.clusters.all()))
    counts = GaugeMetricFamily("penstock_cluster_connections", "Connections of a virtual cluster.", labels=["cluster"])
    refused = CounterMetricFamily(
        "penstock_cluster_connections_refused", "Connections refused beyond the limits of a virtual cluster.",
        labels=["cluster", "limit"],
    )  # fmt: skip
    for cluster_id, count in agent.limits.cluster_connections.counts.items():
        counts.add_metric([_name_of(agent, cluster_id)], count)
    for (cluster_id, limit), count in agent.limits.cluster_connections.refused.items():
        refused.add_metric([_name_of(agent, cluster_id), limit], count)
    yield from (counts, refused)


def _name_of(agent: Agent, cluster_id: int) -> str:
    cluster = agent.clusters.by_id(cluster_id)
    return str(cluster_id) if cluster is None else cluster.name


def _audit(agent: Agent) -> Iterator[Metric]:
    audit = agent.audit
    events = CounterMetricFamily("penstock_audit_events", "Events written to the audit log.", labels=["type"])
    for kind, count in (audit.stats.events if audit else {}).items():
        events.add_metric([kind], count)
    yield events
    lost = CounterMetricFamily(
        "penstock_audit_events_lost",
        "Audit events that were lost, by the virtual cluster they are about.",
        labels=["cluster"],
    )
    for cluster_id, count in ({PLATFORM_CLUSTER_ID: 0} | (audit.stats.lost_by_cluster if audit else {})).items():
        lost.add_metric([_name_of(agent, cluster_id)], count)
    yield lost
    waiting = audit.waiting if audit else 0
    yield GaugeMetricFamily("penstock_audit_events_queued", "Audit events that are not written yet.", waiting)


def _of_clients(agent: Agent) -> Iterator[Metric]:
    telemetry, sink = agent.telemetry, agent.client_metrics
    for name, text, value in (
        ("pushes", "Pushes of metrics by clients.", telemetry.pushes if telemetry else 0),
        ("rejected_pushes", "Pushes that were rejected.", telemetry.refusals if telemetry else 0),
        (
            "dropped_pushes",
            "Pushes that were not forwarded, or not shown here, completely.",
            sink.dropped if sink else 0,
        ),
    ):
        yield CounterMetricFamily(f"penstock_client_metrics_{name}", text, value)
    if isinstance(sink, MetricsPage):
        families: dict[str, Metric] = {}
        for series in sink.series():
            # A prefix of their own, because clients choose the rest.
            name = f"client_{series.name}"
            family = families.get(name)
            if family is None:
                family = families[name] = Metric(name, "Pushed by clients.", "unknown" if series.is_sum else "gauge")
            family.add_sample(name, dict(series.labels), series.value)
        yield from families.values()


def _background(agent: Agent) -> Iterator[Metric]:
    compaction, backlog = agent.maintenance.compaction.stats, agent.log.backlog
    for name, text, value in (
        ("compaction_passes", "Passes of WAL compaction.", compaction.passes),
        ("compaction_commits", "Commits that moved from the WAL into segments.", compaction.commits),
        ("compaction_segments", "Segments written by WAL compaction.", compaction.segments),
        ("compaction_written_bytes", "Bytes written by WAL compaction.", compaction.written_bytes),
        (
            "compaction_adopted_bytes",
            "Bytes of WAL files that became objects without a copy.",
            compaction.adopted_bytes,
        ),
        ("compaction_read_bytes", "Bytes that WAL compaction read from disk.", compaction.read_bytes),
        (
            "compaction_unreadable_bytes",
            "Bytes of the WAL that cannot be read from its disk, left where they are.",
            compaction.unreadable_bytes,
        ),
        ("wal_waits", "Flushes that waited because the WAL was almost full.", backlog.waits),
        *agent.maintenance.upkeep.counters(),
    ):
        yield CounterMetricFamily(f"penstock_{name}", text, value)
    for name, text, reading in (
        ("wal_bytes", "Bytes of the log that are only in the WAL.", backlog.size_bytes),
        (
            "wal_limit_bytes", "How much of the log may be only in the WAL before flushes wait for compaction.",
            backlog.limit_bytes,
        ),
        ("wal_commits", "Commits that are only in the WAL.", backlog.rows),
        ("wal_age_seconds", "Age of the oldest commit that is only in the WAL: how late compaction is.", backlog.age_s),
        (
            "wal_lost_commits", "Acknowledged commits that the last start has given up: the disk has lost them.",
            agent.stores.metadata.lost_commits,
        ),
        (
            "uncleanable_partitions", "Partitions that key compaction gave up on because they are damaged.",
            agent.maintenance.upkeep.uncleanable_partitions,
        ),
    ):  # fmt: skip
        yield GaugeMetricFamily(f"penstock_{name}", text, reading)
    chore = ["chore"]
    runs = CounterMetricFamily("penstock_chore_runs", "Steps of background work, by chore.", labels=chore)
    failures = CounterMetricFamily("penstock_chore_failures", "Steps of background work that failed.", labels=chore)
    seconds = CounterMetricFamily("penstock_chore_seconds", "Seconds spent on background work.", labels=chore)
    last = GaugeMetricFamily(
        "penstock_chore_last_seconds", "Seconds of the last step of background work.", labels=chore
    )
    waits = GaugeMetricFamily(
        "penstock_chore_backlog", "How much background work waits, in the chore's own unit.", labels=chore
    )
    for name, stats in agent.maintenance.background.stats().items():
        labels = [name.replace(" ", "_")]
        runs.add_metric(labels, stats.runs)
        failures.add_metric(labels, stats.failures)
        seconds.add_metric(labels, stats.total_duration_s)
        last.add_metric(labels, stats.last_duration_s)
        waits.add_metric(labels, stats.backlog)
    yield from (runs, failures, seconds, last, waits)


def families(agent: Agent) -> Iterable[Metric]:
    """What is on the page of the agent itself; the process has more."""
    return _AgentCollector(agent).collect()


class _CollectedBefore:
    """What was collected before."""

    def __init__(self, collected: Iterable[Metric]) -> None:
        self._collected = collected

    def describe(self) -> Iterable[Metric]:
        """Nothing in advance."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """All of it."""
        return self._collected


def written(collected: Iterable[Metric]) -> bytes:
    """The whole page. Takes longer than collecting, and may be done beside the event loop."""
    registry = CollectorRegistry()
    registry.register(_CollectedBefore(collected))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


def exposition(agent: Agent) -> bytes:
    """The whole page, at once."""
    return written(families(agent))
