"""Configuring a topology with the existing topics: how many tasks it has, and which topics are missing. Pure.

Repartition topics without a partition count get that of the inputs of the subtopology that writes them, which may
themselves be repartition topics; then copartition groups are made equal. Changelog topics have as many partitions as
their subtopology has tasks. An existing topic with a different count is left alone, and there are no tasks until an
operator has fixed that.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from heapq import heappop, heappush
from typing import NamedTuple

from penstock.groups.streams.model import (
    MAX_TASKS,
    ConfiguredTopology,
    InternalTopic,
    StatusCode,
    StreamsStatus,
    Subtopology,
    Topology,
)
from penstock.log.refusals import Refused
from penstock.wire.error_codes import ErrorCode

PartitionCountOf = Callable[[str], int | None]
"""The partition count of a topic; None if it does not exist."""

_NAMED_IN_MESSAGES = 3


class _Misconfigured(Exception):
    """The existing topics do not fit the topology."""

    def __init__(self, status: StreamsStatus) -> None:
        super().__init__(status.detail)
        self.status = status


def configure(topology: Topology, existing: PartitionCountOf) -> ConfiguredTopology:
    """The topology as it can run now. Raises `Refused` when no set of topics could make it run."""
    try:
        return _configure(topology, existing)
    except _Misconfigured as problem:
        return ConfiguredTopology(problem=problem.status)


def _configure(topology: Topology, existing: PartitionCountOf) -> ConfiguredTopology:
    parts = topology.subtopologies
    absent = sorted({topic for part in parts for topic in part.sources if existing(topic) is None})
    if absent:
        detail = f"Source topics {_summary(absent)} are missing."
        raise _Misconfigured(StreamsStatus(StatusCode.MISSING_SOURCE_TOPICS, detail))
    decided: dict[str, int] = _repartition_counts(parts, existing)

    def count(topic: str) -> int:
        found = existing(topic)
        found = decided.get(topic) if found is None else found
        if found is None:
            raise _invalid(f"The number of partitions of topic {topic} cannot be told.")
        return found

    repartitions = [topic for part in parts for topic in part.repartition_sources]
    internal = _Internal(
        names=frozenset(topic.name for topic in repartitions),
        fixed=(fixed := frozenset(topic.name for topic in repartitions if topic.partitions != 0)),
        counts=frozenset(map(count, fixed)),
    )
    for part in parts:
        for group in filter(None, part.copartitions):
            decided.update(_copartitioned(group, internal, count))
    task_counts: dict[str, int] = {}
    for part in sorted(parts, key=lambda part: part.subtopology_id):
        if not part.inputs:
            raise _invalid(f"No source topics found for subtopology {part.subtopology_id}")
        task_counts[part.subtopology_id] = max(map(count, part.inputs))
        decided.update(dict.fromkeys((topic.name for topic in part.changelogs), task_counts[part.subtopology_id]))
    tasks = sum(task_counts.values())
    if tasks > MAX_TASKS:
        raise _invalid(f"The topology has {tasks} tasks; at most {MAX_TASKS} are possible.")
    missing = _missing(parts, decided, existing)
    problem = None
    if missing:
        detail = f"Internal topics are missing: {_summary(topic.name for topic in missing)}"
        problem = StreamsStatus(StatusCode.MISSING_INTERNAL_TOPICS, detail)
    return ConfiguredTopology(task_counts=task_counts, partition_counts=decided, missing=missing, problem=problem)


def _repartition_counts(parts: Sequence[Subtopology], existing: PartitionCountOf) -> dict[str, int]:
    """The partition count of each repartition topic: its own, or derived from its writers' inputs."""
    decided = {
        topic.name: topic.partitions for part in parts for topic in part.repartition_sources if topic.partitions != 0
    }
    readers: dict[str, list[int]] = {}
    known: dict[int, int] = {}
    """By index of the subtopology: the partition count of its inputs, as far as known."""
    sinks: list[str] = []
    sinks_of: list[range] = []
    for number, part in enumerate(parts):
        sinks_of.append(range(len(sinks), len(sinks) + len(part.repartition_sinks)))
        sinks += part.repartition_sinks
        for topic in part.repartition_sources:
            readers.setdefault(topic.name, []).append(number)
        counts = [found for topic in part.sources if (found := existing(topic)) is not None]
        counts += (decided[topic.name] for topic in part.repartition_sources if topic.name in decided)
        if counts:
            known[number] = max(counts)
    # Rounds over all sinks, until every count is derived from those known so far.
    writers = {sink: number for number, of_part in enumerate(sinks_of) for sink in of_part}
    turns = [(1, sink) for number in sorted(known) for sink in sinks_of[number]]
    while turns:
        turn, sink = heappop(turns)
        if sinks[sink] in decided:
            continue
        count = decided[sinks[sink]] = known[writers[sink]]
        for reader in readers.get(sinks[sink], ()):
            if reader not in known:
                for other in sinks_of[reader]:
                    heappush(turns, (turn + (other <= sink), other))
            known[reader] = max(known.get(reader, 0), count)
    if not all(sink in decided for sink in sinks):
        raise _invalid(
            "Failed to compute number of partitions for all repartition topics. There may be loops in the topology"
            " that cannot be resolved."
        )
    for part in parts:
        if any(topic.name not in decided for topic in part.repartition_sources):
            raise _invalid(
                "Failed to compute number of partitions for all repartition topics, because a repartition source topic"
                " is never used as a sink topic."
            )
    return decided


class _Internal(NamedTuple):
    """What copartitioning needs to know about repartition topics; read only."""

    names: frozenset[str]
    fixed: frozenset[str]
    """Those with a partition count of their own."""
    counts: frozenset[int]
    """All counts."""


def _copartitioned(group: frozenset[str], internal: _Internal, count: Callable[[str], int]) -> Mapping[str, int]:
    """The partition counts of the repartition topics in a copartition group."""
    repartitions = {name: count(name) for name in sorted(group & internal.names)}
    others = {name: count(name) for name in sorted(group - internal.names)}
    if others:
        wanted = _common_count(set(others.values()), shown=others)
    elif internal.fixed:
        wanted = _common_count(internal.counts, shown=repartitions)
    else:
        wanted = max(repartitions.values(), default=0)
    for name, found in repartitions.items():
        if name in internal.fixed and found != wanted:
            raise _Misconfigured(
                StreamsStatus(
                    StatusCode.INCORRECTLY_PARTITIONED_TOPICS,
                    f"Number of partitions [{found}] of repartition topic [{name}] doesn't match number of partitions"
                    f" [{wanted}] of the source topic.",
                )
            )
    return dict.fromkeys(repartitions, wanted)


def _common_count(counts: Collection[int], *, shown: Mapping[str, int]) -> int:
    if len(counts) > 1:
        listed = ", ".join(f"{name}={found}" for name, found in shown.items())
        detail = f"Following topics do not have the same number of partitions: [{{{listed}}}]"
        raise _Misconfigured(StreamsStatus(StatusCode.INCORRECTLY_PARTITIONED_TOPICS, detail))
    return next(iter(counts))


def _missing(
    parts: Iterable[Subtopology], decided: Mapping[str, int], existing: PartitionCountOf
) -> tuple[InternalTopic, ...]:
    """The internal topics that do not exist, with their partition counts."""
    internal = {
        topic.name: replace(topic, partitions=topic.partitions or decided[topic.name])
        for part in parts
        for topic in (*part.repartition_sources, *part.changelogs)
    }
    for name in sorted(internal):
        found = existing(name)
        if found is not None and found != internal[name].partitions:
            raise _Misconfigured(
                StreamsStatus(
                    StatusCode.INCORRECTLY_PARTITIONED_TOPICS,
                    f"Existing topic {name} has different number of partitions: expected {internal[name].partitions},"
                    f" found {found}",
                )
            )
    return tuple(internal[name] for name in sorted(internal) if existing(name) is None)


def _invalid(message: str) -> Refused:
    return Refused(ErrorCode.STREAMS_INVALID_TOPOLOGY, message)


def _summary(topics: Iterable[str]) -> str:
    names = list(topics)
    more = len(names) - _NAMED_IN_MESSAGES
    return ", ".join(names[:_NAMED_IN_MESSAGES]) + (f" and {more} additional topics" if more > 0 else "")
