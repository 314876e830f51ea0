"""Exactly once, while the process is killed again and again.

A relay reads `in`, writes what it read to `out`, and commits its offsets, all in one transaction each; some it aborts
and does again. Another does the same to `again`, with librdkafka and a consumer group. Beside them, writers of
transactions over several partitions, which they commit or abort. Whoever reads only what is committed sees every
record of `in` in `out` and in `again` once, and of each transaction all or nothing.
`PENSTOCK_CRASHES` says how often the process is killed.
"""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition
from fixtures.raw_client import ConnectionClosed
from fixtures.server import Server
from fixtures.waiting import eventually
from fixtures.wire import Wire, batch

from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.end_txn import EndTxnRequest
from penstock.wire.messages.init_producer_id import InitProducerIdRequest
from penstock.wire.messages.txn_offset_commit import (
    TxnOffsetCommitRequest,
    TxnOffsetCommitRequestPartition,
    TxnOffsetCommitRequestTopic,
)

CRASHES = int(os.environ.get("PENSTOCK_CRASHES", "10"))
SMALL = (str(Path(__file__).with_name("small_log.py")),)
INPUTS, IN_PARTITIONS, OUT_PARTITIONS = 6_000, 2, 3
QUIET = {"log_level": 0}


def transactional(bootstrap: str, name: str) -> Producer:
    """A producer that has its id, however long that takes."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap, "transactional.id": name, "transaction.timeout.ms": 20_000, "linger.ms": 1,
            "reconnect.backoff.max.ms": 200,
            # Else it may wait for ever for a coordinator it has forgotten: librdkafka's issue 5511.
            "metadata.recovery.strategy": "none",
            **QUIET,
        }
    )  # fmt: skip
    producer.init_transactions(60)
    return producer


def again_while_retriable(action: object, *args: object) -> None:
    """Call it until it is through, or failed for good."""
    while True:
        try:
            action(*args)  # type: ignore[operator]
            return
        except KafkaException as problem:
            if not problem.args[0].retriable():
                raise


class Worker(threading.Thread):
    """A client that starts anew whenever something is beyond repair."""

    def __init__(self, bootstrap: str, label: str) -> None:
        super().__init__(daemon=True)
        self.bootstrap, self.label, self.chance = bootstrap, label, random.Random(label)
        self.ending = threading.Event()
        self.restarts = self.committed = self.aborted = 0

    def run(self) -> None:
        while not self.ending.is_set():
            try:
                self.work()
            except (KafkaException, ConnectionClosed, OSError, Refused):
                self.restarts += 1
                self.ending.wait(0.05)

    def work(self) -> None:
        """Until told to end."""
        raise NotImplementedError


class Relay(Worker):
    """Consume, transform, produce: request by request, as clients of version 2 do it."""

    def work(self) -> None:
        with Wire(self.bootstrap, timeout_s=10) as wire:
            ids = {topic.name: bytes(topic.topic_id) for topic in wire.metadata(["in", "out"]).topics}
            self.start_anew(wire)
            places = [("in", partition) for partition in range(IN_PARTITIONS)]
            offsets = {index: max(offset, 0) for (_, index), offset in wire.committed("relay", places).items()}
            while not self.ending.is_set():
                for partition in range(IN_PARTITIONS):
                    offsets[partition] = self.relay(wire, ids, partition, offsets[partition])

    def start_anew(self, wire: Wire) -> None:
        """Get the id. What was left open is aborted by that, so offsets are stable afterwards."""
        request = InitProducerIdRequest(transactional_id="relay", transaction_timeout_ms=20_000)
        answer = wire.call(ApiKey.INIT_PRODUCER_ID, 5, request)
        expect(answer.error_code)
        self.producer, self.sequences = (answer.producer_id, answer.producer_epoch), [0] * OUT_PARTITIONS

    def relay(self, wire: Wire, ids: dict[str, bytes], partition: int, offset: int) -> int:
        """One transaction; where to go on."""
        records = wire.fetch_records("in", offset, partition=partition, max_wait_ms=100, isolation_level=1)[:100]
        if not records:
            return offset
        values = [bytes(record.value or b"") for record in records]
        producer_id, epoch = self.producer
        for out in range(OUT_PARTITIONS):
            share = [value for value in values if int(value) % OUT_PARTITIONS == out]
            if share:
                data = batch(
                    *share, producer_id=producer_id, producer_epoch=epoch, base_sequence=self.sequences[out],
                    is_transactional=True,
                )  # fmt: skip
                expect(wire.produce(ids["out"], data, partition=out, transactional_id="relay").error_code)
                self.sequences[out] += len(share)
        following = int(records[-1].offset) + 1
        place = TxnOffsetCommitRequestPartition(partition_index=partition, committed_offset=following)
        topic = TxnOffsetCommitRequestTopic(name="in", partitions=[place])
        request = TxnOffsetCommitRequest(
            transactional_id="relay", group_id="relay", producer_id=producer_id, producer_epoch=epoch, topics=[topic]
        )
        expect(wire.call(ApiKey.TXN_OFFSET_COMMIT, 5, request).topics[0].partitions[0].error_code)
        commit = self.chance.random() < 0.8
        end = EndTxnRequest(transactional_id="relay", producer_id=producer_id, producer_epoch=epoch, committed=commit)
        answer = wire.call(ApiKey.END_TXN, 5, end)
        expect(answer.error_code)
        self.producer, self.sequences = (answer.producer_id, answer.producer_epoch), [0] * OUT_PARTITIONS
        self.committed += commit
        self.aborted += not commit
        return following if commit else offset


class ClientRelay(Worker):
    """Consume, transform, produce, with librdkafka, whose transactions have version 1. Its group's members are given up
    quickly, so that a new client need not wait for the partitions of the one before."""

    def work(self) -> None:
        producer = transactional(self.bootstrap, "client relay")
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap, "group.id": "client relay", "enable.auto.commit": False,
                "auto.offset.reset": "earliest", "isolation.level": "read_committed", "session.timeout.ms": 6_000,
                "heartbeat.interval.ms": 500, "reconnect.backoff.max.ms": 200, **QUIET,
            }
        )  # fmt: skip
        consumer.subscribe(["in"])
        try:
            while not self.ending.is_set():
                messages = [message for message in consumer.consume(100, 0.2) if message.error() is None]
                if messages:
                    self.relay(producer, consumer, messages)
        finally:
            consumer.close()

    def relay(self, producer: Producer, consumer: Consumer, messages: list[Message]) -> None:
        """One transaction; if it is aborted, the consumer goes back."""
        producer.begin_transaction()
        offsets: dict[int, int] = {}
        for message in messages:
            producer.produce("again", message.value(), partition=int(message.value()) % OUT_PARTITIONS)
            offsets[message.partition()] = message.offset() + 1
        places = [TopicPartition("in", partition, offset) for partition, offset in offsets.items()]
        try:
            again_while_retriable(producer.send_offsets_to_transaction, places, consumer.consumer_group_metadata(), 30)
            if self.chance.random() < 0.8:
                again_while_retriable(producer.commit_transaction, 30)
                self.committed += 1
                return
        except KafkaException as problem:
            if not problem.args[0].txn_requires_abort():
                raise
        again_while_retriable(producer.abort_transaction, 30)
        self.aborted += 1
        for partition in offsets:
            first = min(message.offset() for message in messages if message.partition() == partition)
            consumer.seek(TopicPartition("in", partition, first))


class Refused(Exception):
    """An answer that makes the relay start anew."""


def expect(error_code: int) -> None:
    """Go on only without error."""
    if error_code:
        raise Refused(ErrorCode(error_code).name)


class Many(Worker):
    """Transactions of one record in each partition, all with the same number."""

    def __init__(self, bootstrap: str, name: str) -> None:
        super().__init__(bootstrap, name)
        self.number = 0
        self.decided: dict[str, bool] = {}
        """What became of each transaction, where that is known."""

    def work(self) -> None:
        producer = transactional(self.bootstrap, self.label)
        while not self.ending.is_set():
            self.number += 1
            value = f"{self.label}/{self.number}"
            producer.begin_transaction()
            for partition in range(OUT_PARTITIONS):
                producer.produce("many", value=value, partition=partition)
            commit = self.chance.random() < 0.6
            try:
                if commit:
                    again_while_retriable(producer.commit_transaction, 30)
                    self.decided[value] = True
                    self.committed += 1
                    continue
            except KafkaException as problem:
                if not problem.args[0].txn_requires_abort():
                    raise
            again_while_retriable(producer.abort_transaction, 30)
            self.decided[value] = False
            self.aborted += 1


def read_committed(bootstrap: str, topic: str) -> dict[int, list[str]]:
    """Everything a reader of committed data finds, by partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap, "group.id": "checker", "enable.auto.commit": False,
            "isolation.level": "read_committed", "enable.partition.eof": True, **QUIET,
        }
    )  # fmt: skip
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(OUT_PARTITIONS)])
    found: dict[int, list[str]] = {partition: [] for partition in range(OUT_PARTITIONS)}
    ended: set[int] = set()

    def read() -> bool:
        for message in consumer.consume(1_000, 0.2):
            if message.error() is None:
                found[message.partition()].append(message.value().decode())
            else:
                ended.add(message.partition())
        return len(ended) == OUT_PARTITIONS

    try:
        eventually(read, within_s=60, what=f"reading {topic}")
    finally:
        consumer.close()
    return found


@pytest.fixture(params=["process", "disk"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """A server with small files, so that transactions are folded into tables while they are open."""
    one = Server(tmp_path, durability=request.param, program=SMALL)
    yield one
    if one.running:
        one.kill()


@pytest.mark.timeout(120 + 20 * CRASHES)
def test_exactly_once_through_crashes(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.start()
    with Wire(server.bootstrap) as wire:
        wire.create_topic("in", partitions=IN_PARTITIONS)
        for name in ("out", "again", "many"):
            wire.create_topic(name, partitions=OUT_PARTITIONS)
    source = Producer({"bootstrap.servers": server.bootstrap, "enable.idempotence": True, "linger.ms": 5, **QUIET})
    relays = [Relay(server.bootstrap, "relay"), ClientRelay(server.bootstrap, "client relay")]
    workers = [*relays, Many(server.bootstrap, "one"), Many(server.bootstrap, "two")]
    for worker in workers:
        worker.start()
    chance = random.Random("exactly once")
    for crash in range(CRASHES):
        for number in range(crash * INPUTS // CRASHES, (crash + 1) * INPUTS // CRASHES):
            source.produce("in", value=str(number), partition=number % IN_PARTITIONS)
            source.poll(0)
        goal = sum(worker.committed for worker in workers) + chance.choice((1, 5, 20))
        eventually(lambda goal=goal: sum(one.committed for one in workers) >= goal, within_s=60, what="commits")
        server.kill()
        server.start()
    assert source.flush(60) == 0

    def relayed() -> bool:
        with Wire(server.bootstrap) as wire:
            places = [("in", partition) for partition in range(IN_PARTITIONS)]
            ends = {place: wire.list_offset(place[0], -1, partition=place[1]).offset for place in places}
            return all(wire.committed(relay.label, places) == ends for relay in relays)

    eventually(relayed, within_s=90, what="everything being relayed")
    for worker in workers:
        worker.ending.set()
    for worker in workers:
        worker.join(60)
        assert not worker.is_alive()
    server.kill()
    server.start()
    check(server.bootstrap, workers)
    assert server.stop() == 0
    with capsys.disabled():
        print(
            f"\n{CRASHES} crashes ({server.durability}): {sum(one.committed for one in workers)} transactions"
            f" committed, {sum(one.aborted for one in workers)} aborted,"
            f" {sum(one.restarts for one in workers)} new clients"
        )


def check(bootstrap: str, workers: list[Worker]) -> None:
    """Once each, and all or nothing."""
    for topic in ("out", "again"):
        counts = Counter(int(value) for values in read_committed(bootstrap, topic).values() for value in values)
        assert [number for number, count in counts.items() if count > 1] == [], topic
        assert set(counts) == set(range(INPUTS)), topic
    many = read_committed(bootstrap, "many")
    times = Counter(value for values in many.values() for value in values)
    assert {value: count for value, count in times.items() if count != OUT_PARTITIONS} == {}
    for worker in workers:
        if isinstance(worker, Many):
            seen = {value for value in times if value.startswith(worker.label + "/")}
            for value, is_committed in worker.decided.items():
                assert (value in seen) == is_committed, value
            for values in many.values():
                numbers = [int(value.split("/")[1]) for value in values if value.startswith(worker.label + "/")]
                assert numbers == sorted(numbers)
