"""What readers saw and what must hold of it: nothing lost, duplicated, torn or reordered.

Readers of both kinds read along while the broker is killed. At the end everything is read again, as committed data and
as it is. Then the history is one if

- whatever a reader saw at an offset is there, and it left nothing out of what it passed;
- readers of committed data saw nothing that is not committed;
- each record that was relayed is there once, and those of one partition in their order;
- each transaction is visible in all of its partitions or in none, as its producer was told, and in its order;
- each record of an idempotent producer is there once, in its order.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from confluent_kafka import Consumer, TopicPartition
from exactly_once_clients import IN_PARTITIONS, OUT_PARTITIONS, QUIET, Many, Plain
from fixtures.waiting import eventually

Place = tuple[str, int]
"""Topic and partition."""
Log = dict[Place, dict[int, str]]
"""Values by offset."""
TOPICS = ("out", "again", "many", "plain")


@dataclass
class Seen:
    """What one reader was given, in its order."""

    committed_only: bool
    records: dict[Place, list[tuple[int, str]]] = field(default_factory=dict)


class Reader(threading.Thread):
    """Reads along from the beginning, and never goes back."""

    def __init__(self, bootstrap: str, *, committed_only: bool) -> None:
        super().__init__(daemon=True)
        self.seen = Seen(committed_only)
        self.ending = threading.Event()
        self._consumer = consumer(bootstrap, committed_only=committed_only)

    def run(self) -> None:
        self._consumer.assign([TopicPartition(*place, 0) for place in places()])
        while not self.ending.is_set():
            for message in self._consumer.consume(500, 0.2):
                if message.error() is None:
                    place = (message.topic(), message.partition())
                    self.seen.records.setdefault(place, []).append((message.offset(), message.value().decode()))
        self._consumer.close()


def places() -> list[Place]:
    """Everything that is read."""
    return [(topic, partition) for topic in TOPICS for partition in range(OUT_PARTITIONS)]


def consumer(bootstrap: str, *, committed_only: bool) -> Consumer:
    """One that is told what to read."""
    return Consumer(
        {
            "bootstrap.servers": bootstrap, "group.id": "checker", "enable.auto.commit": False,
            "isolation.level": "read_committed" if committed_only else "read_uncommitted",
            "enable.partition.eof": True, "auto.offset.reset": "earliest", "reconnect.backoff.max.ms": 200, **QUIET,
        }
    )  # fmt: skip


def read_all(bootstrap: str, *, committed_only: bool) -> Log:
    """Everything there is."""
    reader = consumer(bootstrap, committed_only=committed_only)
    reader.assign([TopicPartition(*place, 0) for place in places()])
    found: Log = {place: {} for place in places()}
    ended: set[Place] = set()

    def read() -> bool:
        for message in reader.consume(1_000, 0.2):
            place = (message.topic(), message.partition())
            if message.error() is None:
                found[place][message.offset()] = message.value().decode()
            else:
                ended.add(place)
        return len(ended) == len(found)

    try:
        eventually(read, within_s=60, what="reading everything")
    finally:
        reader.close()
    return found


def check(
    *, everything: Log, committed: Log, seen: Iterable[Seen], inputs: int, many: Iterable[Many], plain: Iterable[Plain]
) -> None:
    """All of it. Raises `AssertionError` with what is wrong."""
    for place, values in committed.items():
        assert values.items() <= everything[place].items(), f"{place}: committed data that is not there"
    for one in seen:
        _check_reader(one, everything, committed)
    for topic in ("out", "again"):
        counts = Counter(int(value) for place in _of(topic, committed) for value in place)
        assert [number for number, count in counts.items() if count > 1] == [], f"relayed twice to {topic}"
        assert set(counts) == set(range(inputs)), f"not relayed to {topic}"
        for values in _of(topic, committed):
            for source in range(IN_PARTITIONS):
                numbers = [int(value) for value in values if int(value) % IN_PARTITIONS == source]
                assert numbers == sorted(numbers), f"relayed to {topic} in another order"
    _check_many(_of("many", committed), many)
    for producer in plain:
        assert producer.failed == [], producer.failed[:3]
        _check_plain(_of("plain", committed), producer)


def _of(topic: str, log: Log) -> list[list[str]]:
    return [list(log[topic, partition].values()) for partition in range(OUT_PARTITIONS)]


def _check_reader(seen: Seen, everything: Log, committed: Log) -> None:
    visible = committed if seen.committed_only else everything
    kind = "committed" if seen.committed_only else "all"
    for place, records in seen.records.items():
        offsets = [offset for offset, _ in records]
        assert offsets == sorted(set(offsets)), f"{place}: a reader of {kind} data went back"
        for offset, value in records:
            assert visible[place].get(offset) == value, f"{place}: a reader of {kind} data saw {value} at {offset}"
        passed = [offset for offset in visible[place] if offsets[0] <= offset <= offsets[-1]]
        assert len(passed) == len(offsets), f"{place}: a reader of {kind} data missed {len(passed) - len(offsets)}"


def _check_many(partitions: Sequence[Sequence[str]], producers: Iterable[Many]) -> None:
    times = Counter(value for values in partitions for value in values)
    torn = {value: count for value, count in times.items() if count != OUT_PARTITIONS}
    assert torn == {}, f"transactions in part, or twice: {torn}"
    for producer in producers:
        own = producer.label + "/"
        for value, is_committed in producer.decided.items():
            assert (value in times) == is_committed, f"{value} was {'committed' if is_committed else 'aborted'}"
        for values in partitions:
            numbers = [int(value.split("/")[1]) for value in values if value.startswith(own)]
            assert numbers == sorted(numbers), f"transactions of {producer.label} are in another order"


def _check_plain(partitions: Sequence[Sequence[str]], producer: Plain) -> None:
    for partition, values in enumerate(partitions):
        numbers = [int(value.split("/")[1]) for value in values if value.startswith(producer.label + "/")]
        expected = list(range(partition, producer.number, OUT_PARTITIONS))
        assert numbers == expected, f"{producer.label} in {partition}: lost, twice, or in another order"
