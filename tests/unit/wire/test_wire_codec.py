"""The codec's door: headers, versions, unknown tags, buffers that are not copied."""

from __future__ import annotations

from weakref import ref

import pytest

from penstock.base.errors import InvalidRequest
from penstock.wire import codec
from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.api_versions import ApiVersion, ApiVersionsResponse
from penstock.wire.messages.fetch import FetchableTopicResponse, FetchResponse, LeaderIdAndEpoch, PartitionData
from penstock.wire.messages.heartbeat import HeartbeatResponse
from penstock.wire.messages.metadata import MetadataRequest, MetadataRequestTopic
from penstock.wire.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from penstock.wire.primitives import UNLIMITED, Message, let_go, room


def test_the_response_header_of_api_versions_is_never_flexible() -> None:
    message = ApiVersionsResponse(api_keys=[ApiVersion(api_key=18, max_version=4)])
    (frame,) = codec.encode_response(ApiKey.API_VERSIONS, 4, 9, message)
    assert bytes(frame[4:8]) == b"\0\0\0\x09"
    assert codec.read_response_header(ApiKey.API_VERSIONS, 4, frame, 4) == (9, 8)
    assert codec.read_response(ApiKey.API_VERSIONS, 4, frame, 8) == message


def test_unstable_versions_are_not_among_the_versions_but_can_be_read() -> None:
    assert codec.versions(ApiKey.INIT_PRODUCER_ID) == range(6)
    assert codec.versions(ApiKey.PRODUCE) == range(3, 14)
    assert codec.versions(4) == range(0)
    body = b"\0" + b"\0\0\0\1" + b"\xff" * 10 + b"\1\0" + b"\0"
    assert codec.read_request(ApiKey.INIT_PRODUCER_ID, 6, body, 0).enable2_pc is True


@pytest.mark.parametrize(("api_key", "version"), [(4, 0), (ApiKey.PRODUCE, 2), (ApiKey.FETCH, 19), (99, 0)])
def test_unknown_versions_are_refused(api_key: int, version: int) -> None:
    with pytest.raises(codec.UnsupportedVersion):
        codec.read_request(api_key, version, b"", 0)
    assert issubclass(codec.UnsupportedVersion, InvalidRequest)
    assert not issubclass(codec.UnsupportedVersion, codec.Malformed)


def test_a_request_header_of_an_unknown_api_can_still_be_read() -> None:
    header = codec.read_request_header(bytes.fromhex("0fff 0003 00000005 0002 6869 00"), 0)
    assert (header.api_key, header.api_version, header.correlation_id) == (0x0FFF, 3, 5)
    assert (header.client_id, header.body) == ("hi", 12)


def test_the_client_id_is_never_compact_and_may_be_null() -> None:
    (frame,) = codec.encode_request(ApiKey.METADATA, 12, 1, None, MetadataRequest(topics=None))
    header = codec.read_request_header(frame, 4)
    assert header.client_id is None
    assert codec.read_request(ApiKey.METADATA, 12, frame, header.body).topics is None


@pytest.mark.parametrize(
    "header",
    ["", "0000", "0000 0009 00000001 0005 6869", "0000 0009 00000001 0002 6869", "0000 0003 00000001 0005 6869"],
)
def test_a_request_header_that_is_cut_short_is_malformed(header: str) -> None:
    with pytest.raises(codec.Malformed):
        codec.read_request_header(bytes.fromhex(header), 0)


def test_unknown_tags_are_skipped_at_every_level() -> None:
    tags = "02 05 03 aabbcc 8101 00"
    body = bytes.fromhex(f"00 ffff 00000001 02 0274 02 00000007 0361 62 {tags} {tags} {tags}")
    request = codec.read_request(ApiKey.PRODUCE, 9, body, 0)
    (partition,) = request.topic_data[0].partition_data
    assert (partition.index, bytes(partition.records)) == (7, b"ab")


def test_a_tag_section_that_runs_over_the_end_is_malformed() -> None:
    for tags in ("01 05 7f", "ffffffff0f", "ffffffffff01", "01 05 ffffffff0f"):
        with pytest.raises(codec.Malformed):
            codec.read_request(ApiKey.HEARTBEAT, 4, bytes.fromhex(f"0261 00000001 0261 00 {tags}"), 0)


def test_trailing_bytes_of_a_request_are_ignored_as_kafka_does() -> None:
    (frame,) = codec.encode_request(ApiKey.METADATA, 12, 1, "c", MetadataRequest())
    body = codec.read_request_header(frame, 4).body
    assert codec.read_request(ApiKey.METADATA, 12, bytes(frame) + b"\0\1\0", body) == MetadataRequest()


def test_trailing_bytes_of_a_response_are_malformed() -> None:
    (frame,) = codec.encode_response(ApiKey.HEARTBEAT, 4, 1, HeartbeatResponse())
    _, body = codec.read_response_header(ApiKey.HEARTBEAT, 4, frame, 4)
    with pytest.raises(codec.Malformed, match="1 bytes too many"):
        codec.read_response(ApiKey.HEARTBEAT, 4, bytes(frame) + b"\0", body)


def test_record_data_is_handed_through_without_a_copy() -> None:
    first, second = memoryview(bytes(5000)), memoryview(bytes(6000))
    prefix = b"p" * 16
    partitions = [PartitionData(records=first), PartitionData(records=[prefix, second])]
    message = FetchResponse(responses=[FetchableTopicResponse(topic="t", partitions=partitions)])
    frame = codec.encode_response(ApiKey.FETCH, 12, 1, message)
    assert frame[1] is first
    assert frame[3] is second
    assert len(frame) == 5
    whole = b"".join(frame)
    _, body = codec.read_response_header(ApiKey.FETCH, 12, whole, 4)
    read = codec.read_response(ApiKey.FETCH, 12, whole, body).responses[0].partitions
    assert [len(partition.records) for partition in read] == [5000, 6016]
    assert read[0].records.obj is whole


def test_small_record_data_is_joined_with_its_surroundings() -> None:
    partition = PartitionProduceData(records=b"r" * 100)
    message = ProduceRequest(topic_data=[TopicProduceData(name="t", partition_data=[partition] * 50)])
    assert len(codec.encode_request(ApiKey.PRODUCE, 9, 1, "c", message)) == 1


def test_a_tagged_struct_at_its_defaults_is_not_written() -> None:
    def frame(leader: LeaderIdAndEpoch | None) -> bytes:
        partition = PartitionData(current_leader=leader)
        message = FetchResponse(responses=[FetchableTopicResponse(topic="t", partitions=[partition])])
        return b"".join(codec.encode_response(ApiKey.FETCH, 12, 1, message))

    assert frame(LeaderIdAndEpoch()) == frame(None)
    assert len(frame(LeaderIdAndEpoch(leader_id=1))) > len(frame(None))


def test_messages_compare_by_value_and_hide_record_data() -> None:
    assert HeartbeatResponse(error_code=ErrorCode.NONE) == HeartbeatResponse()
    assert HeartbeatResponse(error_code=27) != HeartbeatResponse()
    assert repr(PartitionProduceData(records=b"secret")) == "PartitionProduceData(index=0, records=<6 bytes>)"
    assert MetadataRequest().topics is not MetadataRequest().topics


def test_error_codes_are_complete() -> None:
    assert [code.value for code in ErrorCode] == list(range(-1, 137))


def test_a_request_of_many_elements_is_not_read_where_only_a_short_one_is_wanted() -> None:
    request = MetadataRequest(topics=[MetadataRequestTopic(name=f"t{number}") for number in range(10)])
    (frame,) = codec.encode_request(ApiKey.METADATA, 9, 1, None, request)
    body = codec.read_request_header(frame, 4).body
    assert codec.read_short_request(ApiKey.METADATA, 9, frame, body, 10) == request
    assert codec.read_short_request(ApiKey.METADATA, 9, frame, body, 9) is None
    assert codec.read_short_request(ApiKey.METADATA, 9, frame[:-5], body, 10) is None
    assert room.left == UNLIMITED


def test_a_long_answer_is_the_same_however_it_is_written() -> None:
    records = [b"r" * size for size in (1, codec.COPY_BELOW - 1, codec.COPY_BELOW, 100_000, 3)]
    partitions = [PartitionData(partition_index=index, records=data) for index, data in enumerate(records * 3)]
    response = FetchResponse(responses=[FetchableTopicResponse(topic=name, partitions=partitions) for name in "abc"])
    for version in (4, 12):
        frames = [codec.encode_response(ApiKey.FETCH, version, 7, response, is_long=how) for how in (False, True)]
        assert list(map(bytes, frames[0])) == list(map(bytes, frames[1]))


def test_what_is_let_go_of_is_gone_and_what_others_hold_is_not_touched() -> None:
    class Held(str):
        """A text that tells whether it is there."""

    shared = [MetadataRequestTopic(name="shared")]
    name = Held("alone")
    there = ref(name)
    held: list[Message] = [MetadataRequest(topics=[MetadataRequestTopic(name=name)]), MetadataRequest(topics=shared)]
    del name
    let_go(held)
    assert held == []
    assert there() is None
    assert shared == [MetadataRequestTopic(name="shared")]
