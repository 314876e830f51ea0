"""Connections, framing and version negotiation on the wire (KIP-511, KIP-482)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from struct import pack

import pytest
from fixtures.raw_client import ConnectionClosed, request_bytes
from fixtures.server import Server
from fixtures.waiting import eventually
from fixtures.wire import Wire, batch

from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.api_versions import ApiVersionsRequest
from penstock.wire.messages.metadata import MetadataRequest
from penstock.wire.primitives import encode_uvarint

Connect = Callable[..., Wire]

# What every client of section D of the protocol notes needs, oldest and newest version.
NEEDED = {
    ApiKey.PRODUCE: (0, 13), ApiKey.FETCH: (4, 18), ApiKey.LIST_OFFSETS: (1, 11), ApiKey.METADATA: (0, 13),
    ApiKey.OFFSET_COMMIT: (2, 10), ApiKey.OFFSET_FETCH: (1, 10), ApiKey.FIND_COORDINATOR: (0, 6),
    ApiKey.JOIN_GROUP: (0, 9), ApiKey.HEARTBEAT: (0, 4), ApiKey.LEAVE_GROUP: (0, 5), ApiKey.SYNC_GROUP: (0, 5),
    ApiKey.DESCRIBE_GROUPS: (0, 6), ApiKey.LIST_GROUPS: (0, 5), ApiKey.API_VERSIONS: (0, 4),
    ApiKey.CREATE_TOPICS: (2, 7), ApiKey.DELETE_TOPICS: (1, 6), ApiKey.DELETE_RECORDS: (0, 2),
    ApiKey.INIT_PRODUCER_ID: (0, 5), ApiKey.OFFSET_FOR_LEADER_EPOCH: (2, 4), ApiKey.DESCRIBE_CONFIGS: (1, 4),
    ApiKey.ALTER_CONFIGS: (0, 2), ApiKey.DESCRIBE_LOG_DIRS: (1, 4), ApiKey.CREATE_PARTITIONS: (0, 3),
    ApiKey.DELETE_GROUPS: (0, 2), ApiKey.ELECT_LEADERS: (0, 2), ApiKey.INCREMENTAL_ALTER_CONFIGS: (0, 1),
    ApiKey.ALTER_PARTITION_REASSIGNMENTS: (0, 1), ApiKey.LIST_PARTITION_REASSIGNMENTS: (0, 0),
    ApiKey.OFFSET_DELETE: (0, 0), ApiKey.DESCRIBE_CLUSTER: (0, 2), ApiKey.DESCRIBE_PRODUCERS: (0, 0),
    ApiKey.DESCRIBE_TOPIC_PARTITIONS: (0, 0),
}  # fmt: skip
CONTROLLER_ONLY = {52, 53, 54, 56, 58, 59, 62, 63, 67, 70, 73, 82}


def _software(**fields: str) -> ApiVersionsRequest:
    return ApiVersionsRequest(**{"client_software_name": "raw", "client_software_version": "1.0", **fields})


def _frame(header_and_body: bytes) -> bytes:
    return pack(">i", len(header_and_body)) + header_and_body


@pytest.mark.parametrize("version", range(5))
def test_api_versions_lists_every_needed_api(wire: Wire, version: int) -> None:
    response = wire.call(ApiKey.API_VERSIONS, version, _software())
    assert response.error_code == 0
    got = {api.api_key: (api.min_version, api.max_version) for api in response.api_keys}
    for key, (oldest, newest) in NEEDED.items():
        assert got[key][0] <= oldest, key.name
        assert got[key][1] >= newest, key.name
    assert not CONTROLLER_ONLY & got.keys()
    assert got[ApiKey.INIT_PRODUCER_ID][1] == 5, "version 6 is not stable"


def test_produce_is_advertised_from_zero_and_fetch_from_four(wire: Wire) -> None:
    keys = {api.api_key: api for api in wire.call(ApiKey.API_VERSIONS, 3, _software()).api_keys}
    assert keys[ApiKey.PRODUCE].min_version == 0  # KAFKA-18659: librdkafka drops features otherwise.
    assert keys[ApiKey.FETCH].min_version == 4


def test_unknown_version_of_api_versions_is_answered_in_version_zero(connect: Connect) -> None:
    client = connect()
    client.send_bytes(_frame(pack(">hhih3sb", 18, 99, 7, 3, b"raw", 0) + b"\x02x\x02y\x00"))
    correlation_id, response = 7, client.receive(ApiKey.API_VERSIONS, 0, 7)
    assert correlation_id == 7
    assert response.error_code == ErrorCode.UNSUPPORTED_VERSION
    (own,) = [api for api in response.api_keys if api.api_key == ApiKey.API_VERSIONS]
    assert own.min_version == 0
    assert own.max_version >= 4
    # The client goes on, on the same connection, with a version found there.
    assert client.call(ApiKey.API_VERSIONS, 4, _software()).error_code == 0


@pytest.mark.parametrize("name", ["", " ", "-raw", "raw-", "ra w", "ra/w", "é"])
def test_software_name_must_be_well_formed(wire: Wire, name: str) -> None:
    assert wire.call(ApiKey.API_VERSIONS, 3, _software(client_software_name=name)).error_code == 42
    assert wire.call(ApiKey.API_VERSIONS, 3, _software(client_software_version=name)).error_code == 42
    assert wire.call(ApiKey.API_VERSIONS, 3, _software()).error_code == 0


def test_features_with_a_minimum_of_zero_are_hidden_from_old_clients(wire: Wire) -> None:
    old = wire.call(ApiKey.API_VERSIONS, 3, _software())
    assert all(feature.min_version > 0 for feature in old.supported_features)


@pytest.mark.parametrize(
    ("key", "version"), [(ApiKey.PRODUCE, 2), (ApiKey.FETCH, 3), (ApiKey.METADATA, 99), (999, 0), (-1, 0), (4, 0)]
)
def test_unknown_api_or_version_closes_the_connection(connect: Connect, key: int, version: int) -> None:
    client = connect()
    client.send_bytes(_frame(pack(">hhih3s", key, version, 1, 3, b"raw") + b"\0" * 16))
    assert client.is_closed_by_broker()


@pytest.mark.parametrize("size", [-1, -(2**31), 100 * 1024 * 1024 + 1, 2**31 - 1])
def test_impossible_frame_size_closes_the_connection(connect: Connect, size: int) -> None:
    client = connect()
    client.send_bytes(pack(">i", size))
    assert client.is_closed_by_broker()


def test_malformed_body_closes_the_connection(connect: Connect) -> None:
    client = connect()
    whole = request_bytes(ApiKey.METADATA, 12, MetadataRequest(topics=None))
    client.send_bytes(_frame(whole[4:-2]))
    assert client.is_closed_by_broker()


def test_array_longer_than_the_frame_closes_the_connection(connect: Connect) -> None:
    client = connect()
    client.send_bytes(_frame(pack(">hhih3si", 3, 1, 1, 3, b"raw", 2**31 - 1)))
    assert client.is_closed_by_broker()


def test_unknown_tagged_fields_are_skipped(connect: Connect) -> None:
    client = connect()
    tags = b"\x02" + encode_uvarint(500) + b"\x03abc" + encode_uvarint(501) + b"\x00"
    body = b"\x00" + b"\x00\x00" + tags  # topics null, no auto creation, no authorised operations
    client.send_bytes(_frame(pack(">hhih3s", 3, 12, 9, 3, b"raw") + tags + body))
    assert client.receive(ApiKey.METADATA, 12, 9).cluster_id


def test_bytes_after_the_last_field_are_ignored(wire: Wire) -> None:
    """librdkafka writes the null array of "all topics" as four bytes too many in flexible versions."""
    wire.send_bytes(_frame(pack(">hhih3sx", 3, 13, 9, 3, b"raw") + b"\0\0\0\0\1\0\0"))
    assert wire.receive(ApiKey.METADATA, 13, 9).brokers


def test_the_log_says_why_a_connection_is_closed(tmp_path: Path) -> None:
    reasons = {
        pack(">ihhih9sx", 20, 3, 99, 1, 9, b"impatient"): "METADATA v99 is not served (client id 'impatient')",
        pack(">ihhih9s", 19, 999, 0, 1, 9, b"impatient"): "API 999 v0 is not served (client id 'impatient')",
        pack(">ihhih3si", 17, 3, 1, 1, 3, b"odd", 2**31 - 1): "(client id 'odd')",
        pack(">i", -1): "a frame announces -1 bytes",
    }
    server = Server(tmp_path)
    server.start()
    for sent, reason in reasons.items():
        printed = server.log_size()
        with Wire(server.bootstrap) as client:
            client.send_bytes(sent)
            assert client.is_closed_by_broker()
        eventually(lambda printed=printed, reason=reason: reason in server.log_tail(since=printed), what=reason)
        assert " WARNING penstock.agent.connection: connection " in server.log_tail(since=printed)
    printed = server.log_size()
    for _ in range(100):
        with Wire(server.bootstrap) as client:
            client.send_bytes(pack(">i", -1))
            assert client.is_closed_by_broker()
    assert server.log_tail(since=printed).count("WARNING") < 30, "strangers must not fill the log"
    server.stop()


def test_null_client_id_is_served(connect: Connect) -> None:
    assert connect(client_id=None).call(ApiKey.METADATA, 12, MetadataRequest(topics=[])).brokers


def test_responses_leave_in_request_order(wire: Wire, topic: str) -> None:
    """A slow fetch in front holds everything behind it back; nothing overtakes."""
    sent = [wire.send_produce(topic, batch(b"%d" % number)) for number in range(20)]
    slow = wire.send(ApiKey.METADATA, 12, MetadataRequest(topics=[]))
    later = [wire.send_produce(topic, batch(b"%d" % number)) for number in range(20)]
    offsets = [_base_offset(wire, *one) for one in sent]
    wire.receive(ApiKey.METADATA, 12, slow)
    offsets += [_base_offset(wire, *one) for one in later]
    assert offsets == list(range(40))
    assert [record.value for record in wire.fetch_records(topic)] == [b"%d" % n for n in range(20)] * 2


def _base_offset(wire: Wire, version: int, correlation_id: int) -> int:
    answer = wire.receive(ApiKey.PRODUCE, version, correlation_id).responses[0].partition_responses[0]
    assert answer.error_code == 0
    return int(answer.base_offset)


def test_a_request_in_one_byte_pieces_is_served(wire: Wire) -> None:
    for byte in request_bytes(ApiKey.METADATA, 12, MetadataRequest(topics=[])):
        wire.send_bytes(bytes([byte]))
    assert wire.receive(ApiKey.METADATA, 12).brokers


def test_half_closed_connection_still_gets_no_harm_done(connect: Connect, wire: Wire) -> None:
    client = connect()
    client.send_bytes(b"\0\0\0\x20half")
    client.close()
    assert wire.metadata([]).brokers
    with pytest.raises((ConnectionClosed, OSError)):
        client.metadata([])
