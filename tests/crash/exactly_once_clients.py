"""Those who write exactly once: relays, transactional producers of both versions, plain idempotent producers.

Each starts anew whenever something is beyond repair, as an application does, and remembers what it was told became of
its transactions.
"""

from __future__ import annotations

import random
import threading
import time
from abc import abstractmethod

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition
from fixtures.raw_client import ConnectionClosed
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

IN_PARTITIONS, OUT_PARTITIONS = 2, 3
QUIET = {"log_level": 0}
UNASSIGNED_S = 15
"""After so long without partitions a consumer is made anew: librdkafka may have stopped asking for its coordinator."""


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

    @abstractmethod
    def work(self) -> None:
        """Until told to end."""


class RawProducer(Worker):
    """A transactional producer of version 2, request by request."""

    def start_anew(self, wire: Wire) -> None:
        """Get the id. What was left open is aborted by that, so offsets are stable afterwards."""
        request = InitProducerIdRequest(transactional_id=self.label, transaction_timeout_ms=20_000)
        answer = wire.call(ApiKey.INIT_PRODUCER_ID, 5, request)
        expect(answer.error_code)
        self.producer, self.sequences = (answer.producer_id, answer.producer_epoch), [0] * OUT_PARTITIONS

    def send(self, wire: Wire, topic_id: bytes, partition: int, values: list[bytes]) -> None:
        """Write to one partition."""
        producer_id, epoch = self.producer
        data = batch(
            *values, producer_id=producer_id, producer_epoch=epoch, base_sequence=self.sequences[partition],
            is_transactional=True,
        )  # fmt: skip
        expect(wire.produce(topic_id, data, partition=partition, transactional_id=self.label).error_code)
        self.sequences[partition] += len(values)

    def end(self, wire: Wire, *, commit: bool) -> None:
        """End the transaction and go on with the next epoch."""
        producer_id, epoch = self.producer
        end = EndTxnRequest(
            transactional_id=self.label, producer_id=producer_id, producer_epoch=epoch, committed=commit
        )  # fmt: skip
        answer = wire.call(ApiKey.END_TXN, 5, end)
        expect(answer.error_code)
        self.producer, self.sequences = (answer.producer_id, answer.producer_epoch), [0] * OUT_PARTITIONS
        self.committed += commit
        self.aborted += not commit


class Relay(RawProducer):
    """Consume, transform, produce: request by request."""

    def work(self) -> None:
        with Wire(self.bootstrap, timeout_s=10) as wire:
            ids = {topic.name: bytes(topic.topic_id) for topic in wire.metadata(["in", "out"]).topics}
            self.start_anew(wire)
            places = [("in", partition) for partition in range(IN_PARTITIONS)]
            offsets = {index: max(offset, 0) for (_, index), offset in wire.committed(self.label, places).items()}
            while not self.ending.is_set():
                for partition in range(IN_PARTITIONS):
                    offsets[partition] = self.relay(wire, ids, partition, offsets[partition])

    def relay(self, wire: Wire, ids: dict[str, bytes], partition: int, offset: int) -> int:
        """One transaction; where to go on."""
        records = wire.fetch_records("in", offset, partition=partition, max_wait_ms=100, isolation_level=1)[:100]
        if not records:
            return offset
        values = [bytes(record.value or b"") for record in records]
        for out in range(OUT_PARTITIONS):
            share = [value for value in values if int(value) % OUT_PARTITIONS == out]
            if share:
                self.send(wire, ids["out"], out, share)
        following = int(records[-1].offset) + 1
        place = TxnOffsetCommitRequestPartition(partition_index=partition, committed_offset=following)
        producer_id, epoch = self.producer
        request = TxnOffsetCommitRequest(
            transactional_id=self.label, group_id=self.label, producer_id=producer_id, producer_epoch=epoch,
            topics=[TxnOffsetCommitRequestTopic(name="in", partitions=[place])],
        )  # fmt: skip
        expect(wire.call(ApiKey.TXN_OFFSET_COMMIT, 5, request).topics[0].partitions[0].error_code)
        commit = self.chance.random() < 0.8
        self.end(wire, commit=commit)
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
                "heartbeat.interval.ms": 500, "reconnect.backoff.max.ms": 200, "metadata.recovery.strategy": "none",
                **QUIET,
            }
        )  # fmt: skip
        consumer.subscribe(["in"])
        assigned_s = time.monotonic()
        try:
            while not self.ending.is_set():
                if consumer.assignment():
                    assigned_s = time.monotonic()
                elif time.monotonic() - assigned_s > UNASSIGNED_S:
                    raise Refused("no partitions")
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


class Many:
    """Transactions of one record in each partition, all with the same number."""

    label: str
    number = 0

    def __init__(self) -> None:
        self.decided: dict[str, bool] = {}
        """What became of each transaction, where that is known."""

    def next(self) -> str:
        """The value of the next transaction's records."""
        self.number += 1
        return f"{self.label}/{self.number}"


class ManyByClient(Many, Worker):
    """With librdkafka, in version 1."""

    def __init__(self, bootstrap: str, label: str) -> None:
        Worker.__init__(self, bootstrap, label)
        Many.__init__(self)

    def work(self) -> None:
        producer = transactional(self.bootstrap, self.label)
        while not self.ending.is_set():
            value = self.next()
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


class ManyByRequest(Many, RawProducer):
    """Request by request, in version 2."""

    def __init__(self, bootstrap: str, label: str) -> None:
        RawProducer.__init__(self, bootstrap, label)
        Many.__init__(self)

    def work(self) -> None:
        with Wire(self.bootstrap, timeout_s=10) as wire:
            topic_id = bytes(wire.metadata(["many"]).topics[0].topic_id)
            self.start_anew(wire)
            while not self.ending.is_set():
                value, commit = self.next(), self.chance.random() < 0.6
                for partition in range(OUT_PARTITIONS):
                    self.send(wire, topic_id, partition, [value.encode()])
                self.end(wire, commit=commit)
                self.decided[value] = commit


class Plain(threading.Thread):
    """An idempotent producer, which goes on through everything."""

    def __init__(self, label: str) -> None:
        super().__init__(daemon=True)
        self.label, self.number, self.failed = label, 0, list[str]()
        self.ending = threading.Event()


class PlainByClient(Plain):
    """One of librdkafka's, with its defaults."""

    def __init__(self, bootstrap: str, label: str) -> None:
        super().__init__(label)
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 1,
                "message.timeout.ms": 120_000, "reconnect.backoff.max.ms": 200, **QUIET,
            }
        )  # fmt: skip

    def run(self) -> None:
        while not self.ending.wait(0.002):
            self._producer.produce(
                "plain", f"{self.label}/{self.number}", partition=self.number % OUT_PARTITIONS, on_delivery=self._told
            )
            self.number += 1
            self._producer.poll(0)
        assert self._producer.flush(120) == 0

    def _told(self, error: object, _: Message) -> None:
        if error is not None:
            self.failed.append(str(error))


class PlainByRequest(Plain):
    """Request by request. It sends some batches again although they were answered, as if that answer had been lost."""

    def __init__(self, bootstrap: str, label: str) -> None:
        super().__init__(label)
        self._address, self._chance, self._producer_id = bootstrap, random.Random(label), -1

    def run(self) -> None:
        while not self.ending.is_set():
            try:
                with Wire(self._address, timeout_s=10) as wire:
                    self._work(wire)
            except (ConnectionClosed, OSError):
                self.ending.wait(0.05)

    def _work(self, wire: Wire) -> None:
        topic_id = bytes(wire.metadata(["plain"]).topics[0].topic_id)
        if self._producer_id == -1:
            self._producer_id = wire.producer_id()
        while not self.ending.wait(0.01):
            partition, sequence = self.number % OUT_PARTITIONS, self.number // OUT_PARTITIONS
            data = batch(
                f"{self.label}/{self.number}".encode(), producer_id=self._producer_id, producer_epoch=0,
                base_sequence=sequence,
            )  # fmt: skip
            for _ in range(self._chance.choice((1, 1, 2))):
                error = wire.produce(topic_id, data, partition=partition).error_code
                if error:
                    self.failed.append(ErrorCode(error).name)
            self.number += 1
