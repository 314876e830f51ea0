"""The agent's index of topics and partitions, of all virtual clusters, in memory.

It mirrors durable metadata and contains nothing else: `penstock.log.topics` adds and removes entries after the
transaction that decided the change. Everything runs on the event loop's thread; answers are as current as the last
transaction applied.
"""

from __future__ import annotations

from collections.abc import Iterable

from penstock.log.model import Partition, ProducerCounts, Topic
from penstock.log.topic_names import metric_name


class Registry:
    """Topics by name and by id within their virtual cluster; partitions by id."""

    __slots__ = ("_by_id", "_by_metric_name", "_by_name", "_partition_totals", "_partitions", "_producer_counts")

    def __init__(self) -> None:
        self._by_name: dict[int, dict[str, Topic]] = {}
        self._by_metric_name: dict[tuple[int, str], str] = {}
        self._by_id: dict[int, dict[bytes, Topic]] = {}
        self._partitions: dict[int, Partition] = {}
        self._partition_totals: dict[int, int] = {}
        self._producer_counts: dict[int, ProducerCounts] = {}

    def by_name(self, cluster_id: int, name: str) -> Topic | None:
        """The topic of that name, or None."""
        topics = self._by_name.get(cluster_id)
        return None if topics is None else topics.get(name)

    def by_id(self, cluster_id: int, topic_id: bytes) -> Topic | None:
        """The topic with that id, or None."""
        topics = self._by_id.get(cluster_id)
        return None if topics is None else topics.get(topic_id)

    def all(self, cluster_id: int) -> list[Topic]:
        """Every topic of a virtual cluster, by name."""
        topics = self._by_name.get(cluster_id)
        return [] if topics is None else [topics[name] for name in sorted(topics)]

    def names(self, cluster_id: int) -> list[str]:
        """The name of every topic of a virtual cluster, in order."""
        return sorted(self._by_name.get(cluster_id, ()))

    def partition_total(self, cluster_id: int) -> int:
        """How many partitions all topics of a virtual cluster have together."""
        return self._partition_totals.get(cluster_id, 0)

    def producer_counts(self, cluster_id: int) -> ProducerCounts:
        """The tally of a virtual cluster's producer ids: of its partitions here, and of others that register
        themselves."""
        producer_counts = self._producer_counts.get(cluster_id)
        if producer_counts is None:
            producer_counts = self._producer_counts[cluster_id] = ProducerCounts()
        return producer_counts

    def producer_total(self, cluster_id: int) -> int:
        """How many distinct producer ids a virtual cluster has."""
        producer_counts = self._producer_counts.get(cluster_id)
        return 0 if producer_counts is None else len(producer_counts)

    def forget_cluster(self, cluster_id: int) -> None:
        """Drop what is left of a deleted virtual cluster that has no topics and no producers."""
        if self._by_id.get(cluster_id) or self.producer_total(cluster_id):
            return
        for kept in (self._by_name, self._by_id, self._partition_totals, self._producer_counts):
            kept.pop(cluster_id, None)

    def partition(self, partition_id: int) -> Partition | None:
        """The partition with that id, whatever cluster it belongs to, or None."""
        return self._partitions.get(partition_id)

    def partitions(self) -> Iterable[Partition]:
        """Every partition of every virtual cluster: a live view, copy it before awaiting."""
        return self._partitions.values()

    def topics(self) -> list[Topic]:
        """Every topic of every virtual cluster."""
        return [topic for topics in self._by_id.values() for topic in topics.values()]

    def add(self, topic: Topic) -> None:
        """Index a topic and its partitions; for an indexed topic, its new partitions."""
        self._by_name.setdefault(topic.cluster_id, {})[topic.name] = topic
        self._by_metric_name[topic.cluster_id, metric_name(topic.name)] = topic.name
        self._by_id.setdefault(topic.cluster_id, {})[topic.topic_id] = topic
        producer_counts, added = self.producer_counts(topic.cluster_id), 0
        for partition in topic.partitions:
            if partition.partition_id not in self._partitions:
                self._partitions[partition.partition_id] = partition
                partition.count_producers(producer_counts)
                added += 1
        self._partition_totals[topic.cluster_id] = self.partition_total(topic.cluster_id) + added

    def remove(self, topic: Topic) -> None:
        """Remove a topic and its partitions, if it is indexed."""
        by_id = self._by_id.get(topic.cluster_id, {})
        if by_id.pop(topic.topic_id, None) is None:
            return
        by_name = self._by_name[topic.cluster_id]
        if by_name.get(topic.name) is topic:
            del by_name[topic.name]
            self._by_metric_name.pop((topic.cluster_id, metric_name(topic.name)), None)
        removed = 0
        for partition in topic.partitions:
            if self._partitions.pop(partition.partition_id, None) is not None:
                partition.count_producers(None)
                removed += 1
        self._partition_totals[topic.cluster_id] -= removed

    def metric_twin(self, cluster_id: int, name: str) -> str | None:
        """Another topic whose name is the same in metrics (`.` and `_` collide), or None."""
        twin = self._by_metric_name.get((cluster_id, metric_name(name)))
        return None if twin == name else twin

    def topic_id(self, cluster_id: int, name: str) -> bytes | None:
        """The id of the topic of that name, or None."""
        topic = self.by_name(cluster_id, name)
        return None if topic is None else topic.topic_id

    def topic_name(self, cluster_id: int, topic_id: bytes) -> str | None:
        """The name of the topic with that id, or None."""
        topic = self.by_id(cluster_id, topic_id)
        return None if topic is None else topic.name

    def partition_count(self, cluster_id: int, topic_id: bytes) -> int | None:
        """How many partitions the topic with that id has, or None when there is no such topic."""
        topic = self.by_id(cluster_id, topic_id)
        return None if topic is None else len(topic.partitions)
