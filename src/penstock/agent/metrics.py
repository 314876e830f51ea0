"""What an agent counts, in Prometheus' format. Counters live where the work is done; this only reads them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector

from penstock.agent.agent import Agent
from penstock.version import __version__
from penstock.wire.api_keys import ApiKey


class _AgentCollector:
    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def describe(self) -> Iterable[Metric]:
        """Nothing in advance: collecting is cheap, and only done when asked."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every figure there is."""
        agent = self._agent
        info = GaugeMetricFamily("penstock_info", "This agent's release.", labels=["version"])
        info.add_metric([__version__], 1)
        yield info
        requests = CounterMetricFamily("penstock_requests", "Requests by Kafka API.", labels=["api"])
        for key, count in enumerate(agent.dispatcher.requests):
            if count:
                requests.add_metric([ApiKey(key).name.lower()], count)
        yield requests
        writer, reader, server = agent.writer.stats, agent.reader, agent.server
        for name, text, value in (
            ("penstock_commits", "Flushes made durable.", writer.commits),
            ("penstock_commit_failures", "Flushes that failed.", writer.failures),
            ("penstock_batches", "Record batches appended.", writer.batches),
            ("penstock_appended_bytes", "Bytes of record batches appended.", writer.bytes),
            ("penstock_cold_reads", "Reads that memory could not serve.", reader.cold_reads),
            ("penstock_cold_read_bytes", "Bytes of those reads.", reader.cold_bytes),
            ("penstock_connections_accepted", "Connections accepted.", server.accepted),
        ):
            yield CounterMetricFamily(name, text, value)
        for name, text, value in (
            ("penstock_connections", "Connections now.", server.connection_count),
            ("penstock_pending_bytes", "Accepted bytes that wait for a flush.", agent.writer.pending_bytes),
            ("penstock_partial_frame_bytes", "Bytes of frames that have not arrived completely.", server.partial_bytes),
            ("penstock_tail_bytes", "Memory that holds recent batches.", agent.tail.size_bytes),
            ("penstock_partitions", "Partitions.", sum(len(topic.partitions) for topic in agent.registry.topics())),
        ):
            yield GaugeMetricFamily(name, text, value)


def exposition(agent: Agent) -> bytes:
    """The whole page."""
    registry = CollectorRegistry()
    registry.register(_AgentCollector(agent))
    ProcessCollector(registry=registry)
    return generate_latest(registry)
