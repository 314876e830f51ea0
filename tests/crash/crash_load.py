"""Clients that go on through every crash of the broker, and what the log must hold when they are done.

Producers and consumers are librdkafka's, which reconnect and retry by themselves. What each record was is computed
again from who wrote it and its number, so nothing has to be kept but numbers and offsets.
"""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition
from fixtures.wire import Wire, records_of

from penstock.wire.records import HEADER_BYTES, parse_header

Place = tuple[str, int]
"""A topic and a partition."""

_COMMIT_EVERY = 150
_SIZES = (0, 10, 10, 100, 100, 1_000, 1_000, 1_000, 10_000, 200_000)
_QUICK = {"reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 200, "retry.backoff.ms": 50, "log_level": 0}


def value_of(writer: str, place: Place, number: int) -> bytes:
    """What a writer writes as its record of that number."""
    chance = random.Random(f"{writer}/{place}/{number}")
    size = chance.choice(_SIZES) if number % 50 == 0 else chance.choice(_SIZES[:-2])
    return b"%s|%d|" % (writer.encode(), number) + chance.randbytes(size)


@dataclass
class Sent:
    """What one producer did to one partition."""

    count: int = 0
    acknowledged: list[tuple[int, int]] = field(default_factory=list)
    """Number and offset, in the order of acknowledgements."""


class ProducerLoad(threading.Thread):
    """Writes to several partitions until it is stopped, and then until everything is answered."""

    def __init__(
        self, bootstrap: str, name: str, places: Iterable[Place], *, idempotent: bool, keys: int = 0, **options: Any
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.idempotent = idempotent
        self.keys = keys
        self.places = list(places)
        self.sent: dict[Place, Sent] = defaultdict(Sent)
        self.acknowledged = 0
        self.failures: list[str] = []
        self._stopping = threading.Event()
        config = {"bootstrap.servers": bootstrap, "acks": "all", "linger.ms": 1, "enable.idempotence": idempotent}
        if not idempotent:
            # Sent once: there is no telling duplicates from retries otherwise.
            config |= {"retries": 0}
        config |= {"message.timeout.ms": 120_000, "queue.buffering.max.messages": 3_000}
        self._producer = Producer(config | _QUICK | options)

    def run(self) -> None:
        chance = random.Random(self.name)
        while not self._stopping.is_set():
            for _ in range(chance.choice((1, 5, 40))):
                self._write(chance.choice(self.places))
            self._producer.poll(chance.choice((0.001, 0.01, 0.03)))
        while self._producer.flush(1):
            pass

    def stop(self) -> None:
        """Write no more; join it afterwards."""
        self._stopping.set()

    def key_of(self, number: int) -> bytes | None:
        """The key of the record of that number."""
        return b"%d" % (number % self.keys) if self.keys else None

    def _write(self, place: Place) -> None:
        number = self.sent[place].count

        def answered(error: Any, message: Message) -> None:
            if error is None:
                self.acknowledged += 1
                self.sent[place].acknowledged.append((number, message.offset()))
            elif self.idempotent:
                self.failures.append(str(error))

        try:
            self._producer.produce(
                place[0],
                value_of(self.name, place, number),
                key=self.key_of(number),
                partition=place[1],
                on_delivery=answered,
            )
        except BufferError:  # The broker is away: the queue is full.
            self._producer.poll(0.05)
        else:
            self.sent[place].count += 1


class MemberLoad(threading.Thread):
    """A member of a group. It sees every record of its partitions once, commits, and is never told to rebalance."""

    def __init__(self, bootstrap: str, group: str, topics: list[str]) -> None:
        super().__init__(daemon=True)
        self.assigned: list[Place] = []
        self.rebalances = 0
        self.next_offset: dict[Place, int] = {}
        self.committed: dict[Place, int] = {}
        """The last acknowledged commit."""
        self.tried: dict[Place, int] = {}
        """The last commit that was sent: after a crash, one of the two is what the broker has."""
        self.problems: list[str] = []
        self._stopping = threading.Event()
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False,
                "auto.offset.reset": "earliest", "check.crcs": True, "session.timeout.ms": 45_000,
                "heartbeat.interval.ms": 500, "fetch.wait.max.ms": 100,
            } | _QUICK
        )  # fmt: skip
        self._consumer.subscribe(topics, on_assign=self._on_assign, on_revoke=self._on_revoke)

    def run(self) -> None:
        seen = 0
        while not self._stopping.is_set():
            for message in self._consumer.consume(100, timeout=0.1):
                if message.error() is None:
                    seen += 1
                    self._see(message)
            if seen >= _COMMIT_EVERY:
                seen = 0
                self._commit()
        self._consumer.close()

    def stop(self) -> None:
        """Leave the group; join it afterwards."""
        self._stopping.set()

    def _on_assign(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self.rebalances += 1
        self.assigned = [(partition.topic, partition.partition) for partition in partitions]

    def _on_revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        if not self._stopping.is_set():
            self.rebalances += 1
            # Whoever gets these partitions commits them from now on.
            self.committed.clear()
            self.tried.clear()
        self.next_offset.clear()

    def _see(self, message: Message) -> None:
        place = message.topic(), message.partition()
        offset, expected = message.offset(), self.next_offset.get(place)
        if expected is not None and offset != expected:
            self.problems.append(f"{place}: offset {offset} came after {expected - 1}")
        writer, number, _ = message.value().split(b"|", 2)
        if message.value() != value_of(writer.decode(), place, int(number)):
            self.problems.append(f"{place}: the record at {offset} has other bytes than were sent")
        self.next_offset[place] = offset + 1

    def _commit(self) -> None:
        self.tried.update(self.next_offset)
        offsets = [TopicPartition(*place, offset) for place, offset in self.next_offset.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException:  # The broker was killed meanwhile.
            return
        self.committed.update(self.tried)


def read_all(wire: Wire, place: Place) -> list[bytes]:
    """Every value of a partition; offsets must be dense and start at 0."""
    topic, partition = place
    end = wire.list_offset(topic, -1, partition=partition).offset
    values: list[bytes] = []
    while len(values) < end:
        data = wire.fetch(topic, len(values), partition=partition, partition_max_bytes=4 << 20)
        assert data.error_code == 0, (place, len(values), data.error_code)
        records = [record for record in records_of(data.records) if record.offset >= len(values)]
        assert records, f"{place}: nothing at {len(values)} of {end}"
        for record in records:
            assert record.offset == len(values), f"{place}: {record.offset} where {len(values)} was due"
            values.append(bytes(record.value or b""))
    return values


def check_compacted(wire: Wire, place: Place, producer: ProducerLoad) -> int:
    """A partition that key compaction works on: what is left is as it was sent, and of every key the latest is there.

    Returns how many records are left.
    """
    topic, partition = place
    sent = producer.sent[place]
    number_at = {offset: number for number, offset in sent.acknowledged}
    end = wire.list_offset(topic, -1, partition=partition).offset
    latest: dict[bytes, int] = {}
    position = left = 0
    while position < end:
        data = wire.fetch(topic, position, partition=partition, partition_max_bytes=4 << 20)
        assert data.error_code == 0, (place, position, data.error_code)
        for record in records_of(data.records):
            if record.offset < position:
                continue
            number = number_at[record.offset]
            assert record.key == producer.key_of(number)
            assert record.value == value_of(producer.name, place, number), f"{place}: other bytes at {record.offset}"
            latest[bytes(record.key)] = number
            left += 1
        following = end_of(data.records)
        assert following > position, f"{place}: nothing at {position} of {end}"
        position = following
    assert sent.count == len(sent.acknowledged)
    assert latest == {producer.key_of(number): number for number in range(sent.count)}
    return left


def end_of(data: bytes) -> int:
    """The offset after the last whole batch; batches may have lost their last records, or all."""
    position, following = 0, -1
    while position + HEADER_BYTES <= len(data):
        header = parse_header(data, position)
        if position + header.size_bytes > len(data):
            break
        following = header.base_offset + header.last_offset_delta + 1
        position += header.size_bytes
    return following


def check_log(place: Place, values: list[bytes], producers: Iterable[ProducerLoad]) -> None:
    """The partition holds exactly what it must: acknowledged records at their offsets, each once, in order."""
    found: dict[str, list[int]] = defaultdict(list)
    for offset, value in enumerate(values):
        writer, number, _ = value.split(b"|", 2)
        found[writer.decode()].append(int(number))
        assert value == value_of(writer.decode(), place, int(number)), f"{place}: other bytes at {offset}"
    for producer in producers:
        numbers, sent = found.get(producer.name, []), producer.sent[place]
        assert all(before < after for before, after in pairwise(numbers)), (
            f"{place}: records of {producer.name} are out of order or there twice"
        )
        for number, offset in sent.acknowledged:
            expected = value_of(producer.name, place, number)
            assert offset < len(values), f"{place}: acknowledged record {number} of {producer.name} was lost"
            assert values[offset] == expected, f"{place}: record {number} of {producer.name} is not at {offset}"
        if producer.idempotent:
            assert producer.failures == []
            assert numbers == list(range(sent.count)), f"{place}: {producer.name} has gaps"
