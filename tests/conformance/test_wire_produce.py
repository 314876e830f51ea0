"""Produce on the wire: what a batch must be, and which code says that it is not."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from fixtures.wire import ZERO_ID, Wire, batch, patched, records_of

from penstock.wire.api_keys import ApiKey
from penstock.wire.compression import Compression
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import produce
from penstock.wire.records import Record, build_batch

Connect = Callable[..., Wire]

INVALID = ErrorCode.INVALID_RECORD
CORRUPT = ErrorCode.CORRUPT_MESSAGE
HOUR_MS = 3_600_000

# Positions in a batch's header.
BASE_OFFSET, LENGTH, EPOCH, MAGIC, ATTRIBUTES, LAST_DELTA, MAX_TIMESTAMP = 0, 8, 12, 16, 21, 23, 35
PRODUCER_ID, PRODUCER_EPOCH, SEQUENCE, COUNT = 43, 51, 53, 57


def _now() -> int:
    return int(time.time() * 1000)


@pytest.mark.parametrize("version", range(3, 14))
def test_every_version_appends(wire: Wire, fresh_name: Callable[..., str], version: int) -> None:
    name = fresh_name()
    topic_id = wire.create_topic(name)
    for turn in range(2):
        answer = wire.produce(name if version < 13 else topic_id, batch(b"a", b"b"), version=version)
        assert (answer.error_code, answer.base_offset) == (0, turn * 2)
        assert answer.log_append_time_ms == -1
        if version >= 5:
            assert answer.log_start_offset == 0
    assert [record.value for record in wire.fetch_records(name)] == [b"a", b"b"] * 2


@pytest.mark.parametrize("acks", [0, 1, -1])
def test_acknowledgements(wire: Wire, topic: str, acks: int) -> None:
    if acks:
        assert wire.produce(topic, batch(b"x"), acks=acks).error_code == 0
    else:
        wire.send_produce(topic, batch(b"x"), acks=0)  # No response at all: the next one is of the next request.
    assert wire.produce(topic, batch(b"y")).base_offset == 1


@pytest.mark.parametrize("acks", [2, -2, 32767])
def test_unknown_acknowledgements(wire: Wire, topic: str, acks: int) -> None:
    assert wire.produce(topic, batch(b"x"), acks=acks).error_code == ErrorCode.INVALID_REQUIRED_ACKS
    assert wire.list_offset(topic, -1).offset == 0


@pytest.mark.parametrize("fault", ["crc", "topic"])
def test_errors_without_acknowledgement_close_the_connection(
    connect: Connect, topic: str, fresh_name: Callable[..., str], fault: str
) -> None:
    client = connect()
    bad = patched(batch(b"x"), 17, ">I", 1, fix_crc=False) if fault == "crc" else batch(b"x")
    client.send_produce(topic if fault == "crc" else fresh_name(), bad, acks=0)
    assert client.is_closed_by_broker()


def _truncated(data: bytes) -> bytes:
    return data[:-3]


WELL_FORMED = batch(b"one", b"two", timestamps=[1_700_000_000_000] * 2)


@pytest.mark.parametrize(
    ("records", "code"),
    [
        pytest.param(WELL_FORMED + WELL_FORMED, INVALID, id="two batches"),
        pytest.param(patched(WELL_FORMED, BASE_OFFSET, ">q", 5), INVALID, id="base offset"),
        pytest.param(patched(WELL_FORMED, COUNT, ">i", 1), INVALID, id="count"),
        pytest.param(patched(WELL_FORMED, COUNT, ">i", 3), INVALID, id="count above"),
        pytest.param(patched(WELL_FORMED, LAST_DELTA, ">i", 7), INVALID, id="last delta"),
        pytest.param(b"", INVALID, id="no bytes"),
        pytest.param(_truncated(WELL_FORMED), INVALID, id="truncated"),
        pytest.param(batch(b"x", is_control=True), INVALID, id="control batch"),
        pytest.param(patched(WELL_FORMED, PRODUCER_ID, ">qhi", 7, 0, -1), INVALID, id="producer without sequence"),
        pytest.param(patched(WELL_FORMED, 17, ">I", 1, fix_crc=False), CORRUPT, id="crc"),
        pytest.param(patched(WELL_FORMED, len(WELL_FORMED) - 2, ">b", 1, fix_crc=False), CORRUPT, id="bit flip"),
        pytest.param(patched(WELL_FORMED, MAGIC, ">b", 3), CORRUPT, id="magic 3"),
    ],
)  # fmt: skip
def test_bad_batches(wire: Wire, topic: str, records: bytes, code: int) -> None:
    assert wire.produce(topic, records).error_code == code
    assert wire.list_offset(topic, -1).offset == 0, "nothing was appended"
    assert wire.produce(topic, WELL_FORMED).base_offset == 0


@pytest.mark.parametrize("magic", [0, 1])
def test_old_message_formats(wire: Wire, topic: str, magic: int) -> None:
    assert wire.produce(topic, patched(WELL_FORMED, MAGIC, ">b", magic)).error_code in (INVALID, CORRUPT)
    assert wire.list_offset(topic, -1).offset == 0


@pytest.mark.parametrize("codec", [5, 6, 7])
def test_unknown_compression(wire: Wire, topic: str, codec: int) -> None:
    answer = wire.produce(topic, patched(WELL_FORMED, ATTRIBUTES, ">h", codec))
    # Apache Kafka fails with -1; a code that says what is wrong and is not retried is better.
    assert answer.error_code in (-1, ErrorCode.UNSUPPORTED_COMPRESSION_TYPE, INVALID)
    assert wire.list_offset(topic, -1).offset == 0


@pytest.mark.differs("Apache Kafka never answers a request with null records")
def test_null_records_are_answered(wire: Wire, topic: str) -> None:
    assert wire.produce(topic, None).error_code != 0
    assert wire.produce(topic, WELL_FORMED).base_offset == 0


def test_tail_after_a_whole_batch_is_ignored(wire: Wire, topic: str) -> None:
    assert wire.produce(topic, WELL_FORMED + _truncated(WELL_FORMED)).error_code == 0
    assert wire.list_offset(topic, -1).offset == 2
    assert wire.produce(topic, WELL_FORMED).base_offset == 2


def test_zstd_needs_version_seven(wire: Wire, topic: str) -> None:
    zstd = batch(b"x" * 100, compression=Compression.ZSTD)
    assert wire.produce(topic, zstd, version=6).error_code == ErrorCode.UNSUPPORTED_COMPRESSION_TYPE
    assert wire.produce(topic, zstd, version=7).error_code == 0


@pytest.mark.parametrize("compression", list(Compression))
def test_compressed_batches_are_stored_as_sent(wire: Wire, topic: str, compression: Compression) -> None:
    sent = batch(*[b"value %d " % number * 20 for number in range(50)], compression=compression)
    assert wire.produce(topic, sent).error_code == 0
    stored = bytes(wire.fetch(topic).records)
    assert stored[MAGIC:] == sent[MAGIC:], "everything under the checksum is unchanged"


def test_topic_compression_recompresses(wire: Wire, fresh_name: Callable[..., str]) -> None:
    name = fresh_name()
    wire.create_topic(name, configs={"compression.type": "lz4"})
    values = [b"value %d " % number * 20 for number in range(50)]
    assert wire.produce(name, batch(*values, compression=Compression.GZIP)).error_code == 0
    assert wire.produce(name, batch(*values)).error_code == 0
    stored = bytes(wire.fetch(name).records)
    assert stored[ATTRIBUTES + 1] & 7 == Compression.LZ4
    assert [record.value for record in records_of(stored)] == values * 2


def test_what_is_too_large_once_recompressed(wire: Wire, fresh_name: Callable[..., str]) -> None:
    name = fresh_name()
    wire.create_topic(name, configs={"compression.type": "uncompressed", "max.message.bytes": "1000"})
    large = batch(b"x" * 5000, compression=Compression.GZIP)
    assert len(large) < 1000
    assert wire.produce(name, large).error_code == ErrorCode.MESSAGE_TOO_LARGE
    assert wire.produce(name, batch(b"x" * 500, compression=Compression.GZIP)).base_offset == 0


def test_compacted_topic_needs_keys(wire: Wire, fresh_name: Callable[..., str]) -> None:
    name = fresh_name()
    wire.create_topic(name, configs={"cleanup.policy": "compact"})
    mixed = build_batch(
        [Record(offset=0, timestamp=_now(), key=b"k", value=b"v"), Record(offset=1, timestamp=_now(), value=b"v")]
    )
    answer = wire.produce(name, mixed)
    assert answer.error_code == INVALID
    assert [error.batch_index for error in answer.record_errors] == [1]
    assert answer.error_message
    assert wire.produce(name, batch(b"v", key=b"k")).base_offset == 0


def test_create_time_may_not_be_far_in_the_future(wire: Wire, topic: str) -> None:
    answer = wire.produce(topic, batch(b"a", b"b", timestamps=[_now(), _now() + 2 * HOUR_MS]))
    assert answer.error_code == ErrorCode.INVALID_TIMESTAMP
    assert [error.batch_index for error in answer.record_errors] == [1]
    assert wire.produce(topic, batch(b"a", timestamps=[_now() + HOUR_MS // 2])).error_code == 0
    assert wire.produce(topic, batch(b"a", timestamps=[1])).error_code == 0, "the past has no limit by default"
    assert wire.produce(topic, batch(b"a", timestamps=[-1])).error_code == 0, "no timestamp is exempt"


def test_create_time_may_not_be_far_in_the_past_if_configured(wire: Wire, fresh_name: Callable[..., str]) -> None:
    name = fresh_name()
    wire.create_topic(name, configs={"message.timestamp.before.max.ms": "1000"})
    assert wire.produce(name, batch(b"a", timestamps=[_now() - HOUR_MS])).error_code == ErrorCode.INVALID_TIMESTAMP
    assert wire.produce(name, batch(b"a")).error_code == 0


def test_create_time_may_be_as_late_as_there_is(wire: Wire, fresh_name: Callable[..., str]) -> None:
    name = fresh_name()
    wire.create_topic(name, configs={"message.timestamp.after.max.ms": str(2**63 - 1)})
    for offset in range(3):  # The second one like the first.
        answer = wire.produce(name, batch(b"a", timestamps=[2**62]))
        assert (answer.error_code, answer.base_offset) == (0, offset)


def test_log_append_time(wire: Wire, fresh_name: Callable[..., str]) -> None:
    name = fresh_name()
    wire.create_topic(name, configs={"message.timestamp.type": "LogAppendTime"})
    began = _now()
    answer = wire.produce(name, batch(b"a", b"b", timestamps=[1, 2]))
    assert answer.error_code == 0
    assert began - 1000 <= answer.log_append_time_ms <= _now() + 1000
    data = wire.fetch(name)
    assert bytes(data.records)[ATTRIBUTES + 1] & 8
    assert {record.timestamp for record in records_of(data.records)} == {answer.log_append_time_ms}
    assert wire.produce(name, batch(b"a", timestamps=[_now() + 9 * HOUR_MS])).error_code == 0
    newest = wire.list_offset(name, -3)
    assert newest.offset in (0, 2)


def test_a_client_cannot_claim_log_append_time(wire: Wire, topic: str) -> None:
    now = _now()
    claimed = patched(batch(b"a", timestamps=[now]), ATTRIBUTES, ">h", 8)
    assert wire.produce(topic, claimed).error_code == 0
    stored = bytes(wire.fetch(topic).records)
    assert stored[ATTRIBUTES + 1] & 8 == 0
    assert records_of(stored)[0].timestamp == now


def test_too_large(wire: Wire, topic: str, fresh_name: Callable[..., str]) -> None:
    assert wire.produce(topic, batch(b"x" * 1_048_588)).error_code == ErrorCode.MESSAGE_TOO_LARGE
    assert wire.produce(topic, batch(b"x" * 1_000_000)).error_code == 0
    name = fresh_name()
    wire.create_topic(name, configs={"max.message.bytes": "1000"})
    assert wire.produce(name, batch(b"x" * 1000)).error_code == ErrorCode.MESSAGE_TOO_LARGE
    assert wire.produce(name, batch(b"x" * 900)).error_code == 0


def test_exactly_the_largest_batch(wire: Wire, topic: str) -> None:
    def of(size: int) -> bytes:
        shell = len(batch(b"x" * 1_000_000)) - 1_000_000
        return batch(b"x" * (size - shell))

    assert len(of(1_048_588)) == 1_048_588
    assert wire.produce(topic, of(1_048_588)).error_code == 0
    assert wire.produce(topic, of(1_048_589)).error_code == ErrorCode.MESSAGE_TOO_LARGE


def test_transactional_batch_needs_a_transactional_id(wire: Wire, topic: str) -> None:
    flagged = batch(b"x", producer_id=wire.producer_id(), producer_epoch=0, base_sequence=0, is_transactional=True)
    assert wire.produce(topic, flagged).error_code == ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED


def test_unknown_topics_and_partitions(wire: Wire, topic: str, fresh_name: Callable[..., str]) -> None:
    unknown = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert wire.produce(fresh_name(), WELL_FORMED).error_code == unknown
    assert wire.produce(topic, WELL_FORMED, partition=9).error_code == unknown
    assert wire.produce(b"\x09" * 16, WELL_FORMED).error_code == ErrorCode.UNKNOWN_TOPIC_ID
    assert wire.produce(ZERO_ID, WELL_FORMED).error_code == ErrorCode.UNKNOWN_TOPIC_ID


def test_one_bad_partition_does_not_spoil_the_others(wire: Wire, fresh_name: Callable[..., str]) -> None:
    name = fresh_name()
    wire.create_topic(name, partitions=3)
    corrupt = patched(WELL_FORMED, 17, ">I", 1, fix_crc=False)
    data = [
        produce.PartitionProduceData(index=index, records=records)
        for index, records in ((0, WELL_FORMED), (1, corrupt), (2, WELL_FORMED), (8, WELL_FORMED))
    ]
    request = produce.ProduceRequest(
        acks=-1, timeout_ms=20_000, topic_data=[produce.TopicProduceData(name=name, partition_data=data)]
    )
    partitions: Any = wire.call(ApiKey.PRODUCE, 9, request).responses[0].partition_responses
    assert {partition.index: partition.error_code for partition in partitions} == {
        0: 0, 1: CORRUPT, 2: 0, 8: ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
    }  # fmt: skip
    assert [wire.list_offset(name, -1, partition=number).offset for number in range(3)] == [2, 0, 2]


def _liars() -> tuple[bytes, bytes]:
    """Compressed batches that are right on the outside: one has fewer records than it says, one cannot be decoded."""
    packed = batch(b"one", b"two", key=b"k", compression=Compression.GZIP)
    lying = patched(patched(packed, COUNT, ">i", 3), LAST_DELTA, ">i", 2)
    return lying, patched(packed, len(packed) - 12, ">q", 0)


def test_wrong_inner_counts_where_the_topic_looks_inside(wire: Wire, fresh_name: Callable[..., str]) -> None:
    topic = fresh_name()
    wire.create_topic(topic, configs={"cleanup.policy": "compact"})
    for data in _liars():
        assert wire.produce(topic, data).error_code in (INVALID, -1)
    assert wire.list_offset(topic, -1).offset == 0


@pytest.mark.differs("batches stay opaque: docs/decisions/0001-batches-stay-opaque.md")
def test_wrong_inner_counts_are_passed_through(wire: Wire, topic: str) -> None:
    lying, undecodable = _liars()
    assert wire.produce(topic, lying).base_offset == 0
    assert wire.produce(topic, undecodable).base_offset == 3
    assert wire.list_offset(topic, -1).offset == 5
    stored = b"".join(bytes(wire.fetch(topic, offset).records) for offset in (0, 3))
    assert lying[21:] in stored
    assert undecodable[21:] in stored
    assert wire.list_offset(topic, _now() - 60_000).offset in (2, 4), "a search by time is not stopped by it"


# ---- idempotent producers ------------------------------------------------------------------------------------


class _Producer:
    """Sends single-record batches of one producer id."""

    def __init__(self, wire: Wire, topic: str) -> None:
        self._wire, self._topic = wire, topic
        self.producer_id = wire.producer_id()

    def send(self, sequence: int, *, epoch: int = 0, count: int = 1) -> tuple[int, int]:
        """The error code and base offset."""
        values = [b"%d" % (sequence + number) for number in range(count)]
        data = batch(
            *values, timestamps=[_now()] * count, producer_id=self.producer_id, producer_epoch=epoch,
            base_sequence=sequence,
        )  # fmt: skip
        answer = self._wire.produce(self._topic, data)
        return answer.error_code, answer.base_offset


@pytest.fixture
def producer(wire: Wire, topic: str) -> _Producer:
    return _Producer(wire, topic)


OUT_OF_ORDER = ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER


def test_duplicates_of_the_last_five_batches_get_their_offset(producer: _Producer, wire: Wire, topic: str) -> None:
    for sequence in range(7):
        assert producer.send(sequence) == (0, sequence)
    for sequence in range(2, 7):
        assert producer.send(sequence) == (0, sequence)
    assert producer.send(1)[0] == OUT_OF_ORDER
    assert wire.list_offset(topic, -1).offset == 7


def test_gaps_and_overlaps(producer: _Producer) -> None:
    assert producer.send(0, count=3) == (0, 0)
    assert producer.send(4)[0] == OUT_OF_ORDER
    assert producer.send(1, count=2)[0] == OUT_OF_ORDER
    assert producer.send(0, count=4)[0] == OUT_OF_ORDER
    assert producer.send(3) == (0, 3)


def test_producer_epochs(producer: _Producer) -> None:
    assert producer.send(0) == (0, 0)
    assert producer.send(1, epoch=1)[0] == OUT_OF_ORDER, "a new epoch starts at zero"
    assert producer.send(0, epoch=1) == (0, 1)
    assert producer.send(1, epoch=0)[0] == ErrorCode.INVALID_PRODUCER_EPOCH
    assert producer.send(1, epoch=1) == (0, 2)


def test_sequence_wraps(producer: _Producer) -> None:
    assert producer.send(2**31 - 2) == (0, 0), "an unknown producer may start anywhere"
    assert producer.send(2**31 - 1) == (0, 1)
    assert producer.send(1)[0] == OUT_OF_ORDER
    assert producer.send(0) == (0, 2)


def test_pipelined_batches_behind_a_refused_one_are_refused(wire: Wire, topic: str) -> None:
    """Later batches in flight may not overtake one that failed: the producer sends them again in order."""
    producer_id = wire.producer_id()

    def data(sequence: int) -> bytes:
        return batch(b"%d" % sequence, producer_id=producer_id, producer_epoch=0, base_sequence=sequence)

    assert wire.produce(topic, data(0)).error_code == 0
    sent = [wire.send_produce(topic, patched(data(1), 17, ">I", 1, fix_crc=False))]
    sent += [wire.send_produce(topic, data(sequence)) for sequence in (2, 3)]
    codes = [
        wire.receive(ApiKey.PRODUCE, version, correlation_id).responses[0].partition_responses[0].error_code
        for version, correlation_id in sent
    ]
    assert codes == [CORRUPT, OUT_OF_ORDER, OUT_OF_ORDER]
    assert [wire.produce(topic, data(sequence)).base_offset for sequence in (1, 2, 3)] == [1, 2, 3]


def test_init_producer_id_gives_a_fresh_one_each_time(wire: Wire) -> None:
    assert wire.producer_id() != wire.producer_id()
