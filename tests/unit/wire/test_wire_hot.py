"""The hand-tuned produce request and response against the ordinary codec: same bytes, same meaning, or not taken."""

from __future__ import annotations

from collections.abc import Callable
from struct import pack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.base.twins import reference
from penstock.log.answers import Appended
from penstock.log.produce import response_of_plain
from penstock.wire import codec, hot
from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.produce import (
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
    TopicProduceResponse,
)
from penstock.wire.primitives import MAX_ELEMENTS, ZERO_UUID, Malformed, encode_uvarint

VERSIONS = st.integers(hot.OLDEST_VERSION, hot.NEWEST_VERSION)
TOPIC_ID = bytes(range(16))
Way = Callable[[Callable[..., Any]], Callable[..., Any]]


def frame_of(
    version: int, *, correlation_id: int = 7, client_id: str | None = "app", acks: int = -1, name: str = "orders",
    index: int = 0, records: bytes = b"r" * 70, transactional_id: str | None = None, partitions: int = 1,
) -> bytes:  # fmt: skip
    shares = [PartitionProduceData(index=index + number, records=records) for number in range(partitions)]
    by_id = version >= hot.TOPIC_IDS_SINCE
    topic = TopicProduceData(
        name="" if by_id else name, topic_id=TOPIC_ID if by_id else ZERO_UUID, partition_data=shares
    )
    request = ProduceRequest(transactional_id=transactional_id, acks=acks, timeout_ms=30_000, topic_data=[topic])
    return b"".join(codec.encode_request(ApiKey.PRODUCE, version, correlation_id, client_id, request))[4:]


WAYS = pytest.mark.parametrize("way", [lambda function: function, reference], ids=["in use", "reference"])
"""With the compiled twin, where there is one, and without."""
TOPICS = st.dictionaries(
    st.text("abc.-_é", min_size=1, max_size=9) | st.just("n" * 200),
    st.dictionaries(
        st.integers(0, 2**31 - 1), st.binary(max_size=200) | st.just(bytes(20_000)), min_size=1, max_size=4
    ),
    min_size=1,
    max_size=3,
)
Topics = dict[str, dict[int, bytes]]
TRANSACTIONAL_IDS = st.none() | st.text(max_size=9) | st.just("é" * 100)


def topic_id_of(name: str) -> bytes:
    return name.encode()[:16].rjust(16, b"*")


def frame_of_topics(
    version: int, topics: Topics, *, correlation_id: int = 7, client_id: str | None = "app",
    transactional_id: str | None = None,
) -> bytes:  # fmt: skip
    by_id = version >= hot.TOPIC_IDS_SINCE
    request = ProduceRequest(
        transactional_id=transactional_id,
        acks=-1,
        timeout_ms=30_000,
        topic_data=[
            TopicProduceData(
                name="" if by_id else name,
                topic_id=topic_id_of(name) if by_id else ZERO_UUID,
                partition_data=[PartitionProduceData(index=index, records=data) for index, data in shares.items()],
            )
            for name, shares in topics.items()
        ],
    )
    return b"".join(codec.encode_request(ApiKey.PRODUCE, version, correlation_id, client_id, request))[4:]


def meaning(frame: bytes) -> tuple[Any, ...]:
    """What the codec reads in a frame, as `read_produce` would say it; raises `Malformed`."""
    header = codec.read_request_header(frame, 0)
    request = codec.read_request(ApiKey.PRODUCE, header.api_version, frame, header.body)
    shares = [
        (topic.name, topic.topic_id, share.index, bytes(share.records))
        for topic in request.topic_data
        for share in topic.partition_data
    ]
    head = (header.api_version, header.correlation_id, header.client_id, request.transactional_id, request.timeout_ms)
    return request, (*head, shares)


def said(found: hot.PlainProduce, frame: bytes) -> tuple[Any, ...]:
    shares = [(name, topic_id, index, frame[start:end]) for name, topic_id, index, start, end in found.shares]
    head = (found.version, found.correlation_id, found.client_id, found.transactional_id, found.timeout_ms)
    return (*head, shares)


@WAYS
@given(
    version=VERSIONS,
    topics=TOPICS,
    correlation_id=st.integers(-(2**31), 2**31 - 1),
    client_id=st.none() | st.text(max_size=20),
    transactional_id=TRANSACTIONAL_IDS,
)
def test_requests_of_many_partitions_are_read_as_the_codec_reads_them(
    way: Way, version: int, topics: Topics, correlation_id: int, client_id: str | None, transactional_id: str | None
) -> None:
    frame = frame_of_topics(
        version, topics, correlation_id=correlation_id, client_id=client_id, transactional_id=transactional_id
    )
    for buffer in (frame, memoryview(bytearray(frame))):
        found = way(hot.read_produce)(buffer)
        assert found is not None
        assert type(found) is hot.PlainProduce
        assert said(found, frame) == meaning(frame)[1]


@WAYS
@given(
    version=VERSIONS,
    topics=TOPICS,
    transactional_id=TRANSACTIONAL_IDS,
    changes=st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=3),
    cut=st.integers(0, 40),
    more=st.binary(max_size=3),
)
def test_a_damaged_request_is_never_misread(
    way: Way, version: int, topics: Topics, transactional_id: str | None, changes: list[tuple[int, int]], cut: int,
    more: bytes,
) -> None:  # fmt: skip
    """What is read means what the codec says; it is not more than the reference reads, and not less."""
    damaged = bytearray(frame_of_topics(version, topics, transactional_id=transactional_id))
    for position, byte in changes:
        damaged[position % min(len(damaged), 120)] = byte
    frame = bytes(damaged[: len(damaged) - cut]) + more
    found = way(hot.read_produce)(frame)
    assert found == reference(hot.read_produce)(frame)
    if found is not None:
        request, meant = meaning(frame)
        assert said(found, frame) == meant
        assert request.acks in (1, -1)


@WAYS
@pytest.mark.parametrize(
    "frame",
    [
        frame_of(8),
        frame_of(9, acks=0),
        frame_of(9)[:-1],
        frame_of(9) + b"\0",
        frame_of_topics(12, {}),
        frame_of_topics(12, {"a": {}}),
        frame_of_topics(13, {"a": {1: b"r"}}).replace(b"\2" + topic_id_of("a"), b"\3" + topic_id_of("a")),
        b"\0\3" + bytes(100),
        b"",
        b"\0\0",
    ],
)
def test_what_is_not_plain_is_left_to_the_codec(way: Way, frame: bytes) -> None:
    assert way(hot.read_produce)(frame) is None


@WAYS
def test_what_is_named_twice_is_left_to_the_codec(way: Way) -> None:
    share = PartitionProduceData(index=1, records=b"r")
    topic = TopicProduceData(name="a", partition_data=[share])
    others = TopicProduceData(name="a", partition_data=[PartitionProduceData(index=2, records=b"r")])
    for topics in ([topic, topic], [topic, others], [TopicProduceData(name="a", partition_data=[share, share])]):
        request = ProduceRequest(acks=1, topic_data=topics)
        frame = b"".join(codec.encode_request(ApiKey.PRODUCE, 9, 1, None, request))[4:]
        assert way(hot.read_produce)(frame) is None


@WAYS
@pytest.mark.parametrize("topics", [1, 4])
def test_no_request_has_more_partitions_than_others_have_elements(way: Way, topics: int) -> None:
    """Six bytes become objects of two hundred: a request of a hundred megabytes would be gigabytes."""
    each = MAX_ELEMENTS // topics

    def frame(more: int) -> bytes:
        head = pack(">hhih", 0, 9, 7, -1) + b"\0\0" + pack(">hi", -1, 1000) + encode_uvarint(topics + 1)
        parts = [head]
        for topic in range(topics):
            count = each + (more if topic == topics - 1 else 0)
            parts += [b"\2%d" % topic, encode_uvarint(count + 1)]
            parts += [pack(">i", index) + b"\1\0" for index in range(count)]
            parts.append(b"\0")
        return b"".join((*parts, b"\0"))

    plain = way(hot.read_produce)(frame(0))
    assert plain is not None
    assert len(plain.shares) == each * topics
    crowded = frame(1)
    assert way(hot.read_produce)(crowded) is None
    with pytest.raises(Malformed):
        codec.read_request(ApiKey.PRODUCE, 9, crowded, codec.read_request_header(crowded, 0).body)


@WAYS
@given(
    version=VERSIONS,
    topics=TOPICS,
    results=st.lists(
        st.tuples(st.just(0), st.integers(0, 2**63 - 1), st.integers(-1, 2**62), st.integers(-1, 2**62)), min_size=12
    ),
    throttle_ms=st.just(0) | st.integers(0, 2**31 - 1),
)
def test_the_answer_for_many_partitions_is_what_the_codec_writes(
    way: Way, version: int, topics: Topics, results: list[tuple[int, int, int, int]], throttle_ms: int
) -> None:
    plain = hot.read_produce(frame_of_topics(version, topics))
    assert plain is not None
    results = results[: len(plain.shares)]
    answered = [Appended(ErrorCode.NONE, *result[1:]) for result in results]
    response = response_of_plain(plain, answered)
    response.throttle_time_ms = throttle_ms
    expected = b"".join(codec.encode_response(ApiKey.PRODUCE, version, plain.correlation_id, response))
    assert way(hot.answer_produce)(plain, answered, throttle_ms) == expected
    assert [len(topic.partition_responses) for topic in response.responses] == [len(one) for one in topics.values()]
    answered[-1] = Appended(ErrorCode.CORRUPT_MESSAGE)
    assert way(hot.answer_produce)(plain, answered, throttle_ms) is None


@WAYS
@given(
    version=VERSIONS,
    correlation_id=st.integers(-(2**31), 2**31 - 1),
    client_id=st.none() | st.text(max_size=20),
    acks=st.sampled_from((1, -1)),
    name=st.text("abc.-_", min_size=1, max_size=100),
    index=st.integers(0, 2**31 - 1),
    records=st.binary(max_size=300) | st.integers(0, 20_000).map(bytes),
)
def test_the_common_request_is_read_as_the_codec_reads_it(
    way: Way, version: int, correlation_id: int, client_id: str | None, acks: int, name: str, index: int, records: bytes
) -> None:
    shape = hot.learn(frame_of(version, client_id=client_id, acks=acks, name=name))
    assert shape is not None
    frame = frame_of(
        version, correlation_id=correlation_id, client_id=client_id, acks=acks, name=name, index=index, records=records
    )
    taken = way(hot.take)(shape, frame)
    assert taken is not None
    header = codec.read_request_header(frame, 0)
    request = codec.read_request(ApiKey.PRODUCE, version, frame, header.body)
    (topic,) = request.topic_data
    (share,) = topic.partition_data
    assert (shape.version, shape.client_id, shape.acks) == (version, header.client_id, request.acks)
    assert (shape.topic_name, shape.topic_id) == (topic.name, topic.topic_id)
    assert (taken.correlation_id, taken.partition_index) == (header.correlation_id, share.index)
    assert frame[taken.start : taken.end] == bytes(share.records)


@WAYS
@pytest.mark.parametrize(
    "frame",
    [
        frame_of(8),
        frame_of(9, acks=0),
        frame_of(9, acks=5),
        frame_of(9, transactional_id="t"),
        frame_of(9, partitions=2),
        frame_of(9, name="n" * 200),
        frame_of(9)[:-1],
        frame_of(9) + b"\0",
        b"",
        b"\0\0",
    ],
)
def test_another_request_is_left_to_the_codec(way: Way, frame: bytes) -> None:
    assert hot.learn(frame) is None
    shape = hot.learn(frame_of(9))
    assert shape is not None
    assert way(hot.take)(shape, frame) is None


@WAYS
def test_null_records_are_left_to_the_codec(way: Way) -> None:
    shape = hot.learn(frame_of(9))
    whole = frame_of(9, records=b"")
    assert shape is not None
    nulled = whole[: shape.start + 4] + b"\0" + whole[shape.start + 5 :]
    assert way(hot.take)(shape, nulled) is None


@WAYS
@given(version=VERSIONS, position=st.integers(0, 200), byte=st.integers(0, 255), cut=st.just(0) | st.integers(0, 150))
def test_a_changed_byte_is_never_misread(way: Way, version: int, position: int, byte: int, cut: int) -> None:
    """What is taken means what the codec would have said; where the codec refuses, nothing is taken."""
    shape = hot.learn(frame_of(version))
    assert shape is not None
    changed = bytearray(frame_of(version))
    changed[position % len(changed)] = byte
    frame = bytes(changed)[: len(changed) - cut]
    taken = way(hot.take)(shape, frame)
    assert taken == reference(hot.take)(shape, frame)
    if taken is None:
        return
    try:
        header = codec.read_request_header(frame, 0)
        request = codec.read_request(ApiKey.PRODUCE, header.api_version, frame, header.body)
    except Malformed:
        pytest.fail("the codec refuses what was taken")
    (share,) = request.topic_data[0].partition_data
    assert (taken.correlation_id, taken.partition_index) == (header.correlation_id, share.index)
    assert frame[taken.start : taken.end] == bytes(share.records)


@WAYS
@given(
    version=VERSIONS,
    correlation_id=st.integers(-(2**31), 2**31 - 1),
    index=st.integers(0, 2**31 - 1),
    base_offset=st.integers(0, 2**63 - 1),
    append_time_ms=st.integers(-1, 2**62),
    log_start=st.integers(0, 2**62),
    throttle_ms=st.just(0) | st.integers(0, 2**31 - 1),
)
def test_the_answer_is_what_the_codec_writes(
    way: Way, version: int, correlation_id: int, index: int, base_offset: int, append_time_ms: int, log_start: int,
    throttle_ms: int,
) -> None:  # fmt: skip
    shape = hot.learn(frame_of(version))
    assert shape is not None
    share = PartitionProduceResponse(
        index=index, base_offset=base_offset, log_append_time_ms=append_time_ms, log_start_offset=log_start
    )
    topic = TopicProduceResponse(name=shape.topic_name, topic_id=shape.topic_id, partition_responses=[share])
    response = ProduceResponse(responses=[topic], throttle_time_ms=throttle_ms)
    expected = codec.encode_response(ApiKey.PRODUCE, version, correlation_id, response)
    found = way(hot.answer)(shape, correlation_id, index, base_offset, append_time_ms, log_start, throttle_ms)
    assert found == b"".join(expected)
