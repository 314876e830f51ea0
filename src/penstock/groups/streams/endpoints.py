"""Endpoint information for interactive queries: the partitions of each endpoint of a streams group. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.groups.rule_context import TopicView
from penstock.groups.streams.model import EndpointPartitions, StreamsGroup
from penstock.groups.streams.tasks import Task, by_subtopology


def endpoints_of(group: StreamsGroup, topics: TopicView) -> tuple[EndpointPartitions, ...]:
    """Members with an endpoint, with their active and standby partitions."""
    return tuple(
        (
            member.endpoint,
            _partitions(group, member.assigned.active, topics),
            _partitions(group, member.assigned.standby | member.assigned.warmup, topics),
        )
        for member in group.members.values()
        if member.endpoint is not None
    )


def _partitions(group: StreamsGroup, tasks: Iterable[Task], topics: TopicView) -> dict[str, tuple[int, ...]]:
    """By topic, the partitions that tasks read. A topic may have fewer than its subtopology has tasks."""
    inputs = (
        {} if group.topology is None else {part.subtopology_id: part.inputs for part in group.topology.subtopologies}
    )
    found: dict[str, tuple[int, ...]] = {}
    for subtopology_id, partitions in by_subtopology(tasks).items():
        for topic in inputs.get(subtopology_id, ()):
            topic_id = topics.topic_id(topic)
            count = 0 if topic_id is None else topics.partition_count(topic_id) or 0
            there = tuple(partition for partition in partitions if partition < count)
            if there:
                found[topic] = there
    return found
