"""Fetch on the wire: limits, waiting, errors, sessions (KIP-227)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from fixtures.wire import ZERO_ID, Wire, batch, fetch_topic, records_of

from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import delete_records, fetch

Connect = Callable[..., Wire]


@pytest.fixture
def filled(wire: Wire, topic: str) -> str:
    """A topic with ten batches of two records each, about 1 kB a batch."""
    for number in range(10):
        assert wire.produce(topic, batch(b"%d" % number + b"a" * 500, b"%d" % number + b"b" * 500)).error_code == 0
    return topic


@pytest.mark.parametrize("version", range(4, 19))
def test_every_version_returns_the_records(wire: Wire, fresh_name: Callable[..., str], version: int) -> None:
    name = fresh_name()
    topic_id = wire.create_topic(name)
    wire.produce(name, batch(b"one", b"two", key=b"k"))
    data = wire.fetch(name if version < 13 else topic_id, version=version)
    assert data.error_code == 0
    assert (data.high_watermark, data.last_stable_offset) == (2, 2)
    assert [(record.offset, record.key, record.value) for record in records_of(data.records)] == [
        (0, b"k", b"one"),
        (1, b"k", b"two"),
    ]


def test_empty_at_the_end_waits_the_whole_time(wire: Wire, filled: str) -> None:
    began = time.monotonic()
    data = wire.fetch(filled, 20, max_wait_ms=300)
    assert 0.25 < time.monotonic() - began < 3
    assert data.error_code == 0
    assert data.high_watermark == 20
    assert data.records is not None
    assert len(data.records) == 0


def test_unmet_min_bytes_returns_what_is_there_after_the_wait(wire: Wire, filled: str) -> None:
    began = time.monotonic()
    data = wire.fetch(filled, 18, max_wait_ms=300, min_bytes=1 << 20)
    assert 0.25 < time.monotonic() - began < 3
    assert len(records_of(data.records)) == 2


def test_enough_bytes_answer_at_once(wire: Wire, filled: str) -> None:
    began = time.monotonic()
    assert records_of(wire.fetch(filled, 0, max_wait_ms=20_000, min_bytes=500).records)
    assert time.monotonic() - began < 5


def test_a_produce_wakes_a_waiting_fetch(wire: Wire, connect: Connect, topic: str) -> None:
    waiting = connect()
    wanted = fetch.FetchPartition(partition=0, fetch_offset=0, partition_max_bytes=1 << 20)
    request = fetch.FetchRequest(
        max_wait_ms=15_000, min_bytes=1, max_bytes=1 << 20, session_epoch=-1, topics=[fetch_topic(topic, [wanted])]
    )
    began = time.monotonic()
    sent = waiting.send(ApiKey.FETCH, 12, request)
    wire.produce(topic, batch(b"wake"))
    (found,) = records_of(waiting.receive(ApiKey.FETCH, 12, sent).responses[0].partitions[0].records)
    assert found.value == b"wake"
    assert time.monotonic() - began < 10


def test_an_error_in_one_partition_does_not_wait(wire: Wire, filled: str) -> None:
    began = time.monotonic()
    assert wire.fetch(filled, 21, max_wait_ms=15_000).error_code == ErrorCode.OFFSET_OUT_OF_RANGE
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("limits", [{"max_bytes": 1}, {"partition_max_bytes": 1}, {"max_bytes": 0}])
def test_the_first_batch_comes_whole_whatever_the_limits(wire: Wire, filled: str, limits: dict[str, int]) -> None:
    found = records_of(wire.fetch(filled, 0, **limits).records)
    assert [record.offset for record in found] == [0, 1]


def test_limits_bound_what_comes(wire: Wire, filled: str) -> None:
    data = wire.fetch(filled, 0, partition_max_bytes=2500)
    assert len(data.records) <= 2500
    assert [record.offset for record in records_of(data.records)] == [0, 1, 2, 3]


def test_only_the_first_partition_may_exceed_the_limit(wire: Wire, fresh_name: Callable[..., str]) -> None:
    name = fresh_name()
    wire.create_topic(name, partitions=2)
    for number in range(2):
        wire.produce(name, batch(b"x" * 3000), partition=number)
    wanted = [fetch.FetchPartition(partition=n, fetch_offset=0, partition_max_bytes=1 << 20) for n in range(2)]
    request = fetch.FetchRequest(
        max_wait_ms=0, min_bytes=1, max_bytes=100, session_epoch=-1, topics=[fetch_topic(name, wanted)]
    )
    partitions = wire.call(ApiKey.FETCH, 12, request).responses[0].partitions
    assert [len(records_of(partition.records)) for partition in partitions] == [1, 0]


def test_an_offset_inside_a_batch_returns_that_batch(wire: Wire, filled: str) -> None:
    found = records_of(wire.fetch(filled, 5, partition_max_bytes=1).records)
    assert [record.offset for record in found] == [4, 5]


@pytest.mark.parametrize("offset", [21, 2**62, -2, -1])
def test_offsets_outside_the_log(wire: Wire, filled: str, offset: int) -> None:
    data = wire.fetch(filled, offset)
    assert data.error_code == ErrorCode.OFFSET_OUT_OF_RANGE
    assert (data.high_watermark, data.last_stable_offset, data.log_start_offset) == (-1, -1, -1)


def test_offsets_below_the_start(wire: Wire, filled: str) -> None:
    trimmed = delete_records.DeleteRecordsPartition(partition_index=0, offset=4)
    request = delete_records.DeleteRecordsRequest(
        topics=[delete_records.DeleteRecordsTopic(name=filled, partitions=[trimmed])], timeout_ms=20_000
    )
    assert wire.call(ApiKey.DELETE_RECORDS, 2, request).topics[0].partitions[0].low_watermark == 4
    assert wire.fetch(filled, 3).error_code == ErrorCode.OFFSET_OUT_OF_RANGE
    data = wire.fetch(filled, 4)
    assert data.log_start_offset == 4
    assert records_of(data.records)[0].offset == 4


def test_unknown_topics_and_partitions(wire: Wire, filled: str, fresh_name: Callable[..., str]) -> None:
    assert wire.fetch(fresh_name()).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert wire.fetch(filled, partition=7).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert wire.fetch(b"\x09" * 16).error_code == ErrorCode.UNKNOWN_TOPIC_ID
    assert wire.fetch(ZERO_ID).error_code == ErrorCode.UNKNOWN_TOPIC_ID


def test_leader_epochs(wire: Wire, filled: str) -> None:
    epoch = wire.metadata([filled]).topics[0].partitions[0].leader_epoch
    assert wire.fetch(filled, current_leader_epoch=epoch).error_code == 0
    assert wire.fetch(filled, current_leader_epoch=-1).error_code == 0
    assert wire.fetch(filled, current_leader_epoch=epoch + 1).error_code == ErrorCode.UNKNOWN_LEADER_EPOCH
    assert wire.fetch(filled, last_fetched_epoch=epoch + 1).error_code == ErrorCode.OFFSET_OUT_OF_RANGE


def test_aborted_transactions_are_null_unless_read_committed(wire: Wire, filled: str) -> None:
    assert wire.fetch(filled).aborted_transactions is None
    data = wire.fetch(filled, isolation_level=1)
    assert data.aborted_transactions == []
    assert data.preferred_read_replica == -1
    assert len(records_of(data.records)) == 20


# ---- sessions ------------------------------------------------------------------------------------------------


def _session(
    wire: Wire, session_id: int, epoch: int, topics: list[Any], *, version: int = 12, forget: list[Any] | None = None
) -> Any:
    request = fetch.FetchRequest(
        max_wait_ms=0, min_bytes=1, max_bytes=1 << 20, session_id=session_id, session_epoch=epoch, topics=topics,
        forgotten_topics_data=forget or [],
    )  # fmt: skip
    return wire.call(ApiKey.FETCH, version, request)


def _wanted(topic: str | bytes, offset: int, partition: int = 0) -> Any:
    return fetch_topic(
        topic, [fetch.FetchPartition(partition=partition, fetch_offset=offset, partition_max_bytes=1 << 20)]
    )


def test_session_sends_only_what_changed(wire: Wire, fresh_name: Callable[..., str]) -> None:
    name = fresh_name()
    wire.create_topic(name, partitions=2)
    both = [fetch.FetchPartition(partition=n, fetch_offset=0, partition_max_bytes=1 << 20) for n in range(2)]
    full = _session(wire, 0, 0, [fetch_topic(name, both)])
    assert full.error_code == 0
    if full.session_id == 0:
        pytest.skip("the broker keeps no sessions, which clients take")
    assert {partition.partition_index for partition in full.responses[0].partitions} == {0, 1}
    assert _session(wire, full.session_id, 1, []).responses == []
    wire.produce(name, batch(b"news"), partition=1)
    changed = _session(wire, full.session_id, 2, [])
    assert changed.session_id == full.session_id
    ((partition,),) = [topic.partitions for topic in changed.responses]
    assert (partition.partition_index, partition.high_watermark) == (1, 1)
    assert _session(wire, full.session_id, 3, [_wanted(name, 1, 1)]).error_code == 0
    assert _session(wire, full.session_id, 4, []).responses == []
    # Forgotten partitions are not sent any more.
    wire.produce(name, batch(b"more"), partition=1)
    forgotten = [fetch.ForgottenTopic(topic=name, partitions=[1])]
    assert _session(wire, full.session_id, 5, [], forget=forgotten).responses == []
    closed = _session(wire, full.session_id, -1, [])
    assert (closed.error_code, closed.session_id) == (0, 0)
    assert _session(wire, full.session_id, 6, []).error_code == ErrorCode.FETCH_SESSION_ID_NOT_FOUND


def test_unknown_session_and_wrong_epoch(wire: Wire, topic: str) -> None:
    unknown = _session(wire, 123_456, 3, [_wanted(topic, 0)])
    assert unknown.error_code == ErrorCode.FETCH_SESSION_ID_NOT_FOUND
    assert (unknown.session_id, unknown.responses) == (0, [])
    full = _session(wire, 0, 0, [_wanted(topic, 0)])
    if full.session_id == 0:
        pytest.skip("the broker keeps no sessions, which clients take")
    wrong = _session(wire, full.session_id, 5, [])
    assert wrong.error_code == ErrorCode.INVALID_FETCH_SESSION_EPOCH
    assert (wrong.session_id, wrong.responses) == (0, [])


def test_session_by_topic_id_survives_an_unknown_id(wire: Wire, fresh_name: Callable[..., str]) -> None:
    name = fresh_name()
    topic_id = wire.create_topic(name)
    wire.produce(name, batch(b"x"))
    full = _session(wire, 0, 0, [_wanted(topic_id, 0), _wanted(b"\x05" * 16, 0)], version=13)
    assert full.error_code == 0
    codes = {bytes(topic.topic_id): topic.partitions[0].error_code for topic in full.responses}
    assert codes == {topic_id: 0, b"\x05" * 16: ErrorCode.UNKNOWN_TOPIC_ID}
