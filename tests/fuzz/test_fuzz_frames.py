"""Malformed requests: each gets an answer or a closed connection, soon, and costs nobody else anything.

Everything is made from a seed. `PENSTOCK_FUZZ` multiplies how much is sent.
"""

from __future__ import annotations

import os
import socket
from random import Random
from struct import pack

import pytest
from canary import MIB, healthy
from fixtures.raw_client import request_bytes
from fixtures.server import Server
from fixtures.wire import Wire, batch
from hostile_frames import nonsense, spoilt, valid

from penstock.wire.api_keys import ApiKey
from penstock.wire.messages.api_versions import ApiVersionsRequest
from penstock.wire.primitives import encode_uvarint

MORE = int(os.environ.get("PENSTOCK_FUZZ", "1"))
ANSWER_S = 10
PROBE = request_bytes(
    ApiKey.API_VERSIONS, 3, ApiVersionsRequest(client_software_name="f", client_software_version="1"), 0x7E57
)
MAY_WAIT = {ApiKey.FETCH, ApiKey.JOIN_GROUP, ApiKey.SYNC_GROUP}
"""APIs whose well-formed requests may wait for others, for as long as they ask."""


def served_versions(server: Server) -> dict[int, range]:
    with Wire(server.bootstrap) as wire:
        request = ApiVersionsRequest(client_software_name="f", client_software_version="1")
        keys = wire.call(ApiKey.API_VERSIONS, 3, request).api_keys
    return {key.api_key: range(max(key.min_version, 3 if key.api_key == 0 else 0), key.max_version + 1) for key in keys}


def prepare(server: Server) -> None:
    """Topics of the names that random requests like to use, so that they get further than to an unknown topic."""
    with Wire(server.bootstrap) as wire:
        wire.metadata(["a", "orders"], auto_create=True)
        for topic in ("a", "orders"):
            wire.produce(topic, batch(b"one", b"two", key=b"key"))


def send(server: Server, data: bytes, *, may_wait: bool = False) -> bool:
    """Send bytes and a good request behind them; whether the connection lived. It must answer or close in time."""
    with socket.create_connection(("127.0.0.1", server.kafka_port), timeout=ANSWER_S) as client:
        try:
            client.sendall(data + PROBE)
            if may_wait:
                client.settimeout(0.02)
            else:
                client.shutdown(socket.SHUT_WR)
            alive = False
            while piece := client.recv(MIB):
                alive = alive or b"\x00\x00\x7e\x57" in piece
        except TimeoutError:
            assert may_wait, f"neither an answer nor an end: {data[:200].hex()}"
            return True
        except OSError:  # Closed by the server while we were sending.
            return False
        return alive


def test_every_api_survives_every_request(server: Server) -> None:
    random = Random("requests")
    with healthy(server, grows_mib=150):
        for api_key, versions in served_versions(server).items():
            prepare(server)
            for version in versions:
                for _ in range(3 * MORE):
                    send(server, valid(api_key, version, random), may_wait=api_key in MAY_WAIT)


def test_every_api_survives_spoilt_requests(server: Server) -> None:
    random = Random("spoilt")
    with healthy(server, grows_mib=150):
        for api_key, versions in served_versions(server).items():
            prepare(server)
            for version in versions:
                for _ in range(10 * MORE):
                    frame = spoilt(valid(api_key, version, random), random)
                    send(server, frame, may_wait=api_key in MAY_WAIT)


def test_bytes_that_are_no_requests(server: Server) -> None:
    random = Random("nonsense")
    with healthy(server, grows_mib=16):
        for _ in range(1_000 * MORE):
            send(server, nonsense(random))


@pytest.mark.parametrize("size", [-1, 0, -(2**31), 100 * MIB + 1, 2**31 - 1])
def test_sizes_that_cannot_be(server: Server, size: int) -> None:
    with Wire(server.bootstrap) as wire:
        wire.send_bytes(pack(">i", size) + bytes(100))
        assert wire.is_closed_by_broker()


def _bomb(api_key: int, version: int, body: bytes) -> bytes:
    frame = pack(">hhih", api_key, version, 1, -1) + b"\0" + body
    return pack(">i", len(frame)) + frame


def _array(count: int, element: bytes) -> bytes:
    return encode_uvarint(count + 1) + element * count


NOTHING = b"\x01\x01\x00"
"""A struct of an empty name, an empty array and no tags."""
PRODUCE = b"\x00\xff\xff" + bytes(4)
BOMBS = {
    "a million topics": _bomb(ApiKey.METADATA, 9, _array(1_000_000, b"\x01\x00") + bytes(4)),
    "a million groups": _bomb(ApiKey.DESCRIBE_GROUPS, 5, _array(1_000_000, b"\x01") + bytes(2)),
    "topics without partitions": _bomb(ApiKey.LIST_OFFSETS, 7, bytes(5) + _array(600_000, NOTHING) + b"\x00"),
    "partitions, named by four bytes": _bomb(
        ApiKey.OFFSET_FETCH, 8,
        _array(1, b"\x02g" + _array(1, b"\x02t" + _array(450_000, bytes(4)) + b"\x00") + b"\x00") + bytes(2),
    ),
    "arrays in arrays": _bomb(
        ApiKey.CREATE_TOPICS, 7, _array(600, b"\x01" + bytes(6) + _array(600, bytes(4) + b"\x01\x00") + b"\x01\x00"),
    ),
    "a produce request of no partitions": _bomb(ApiKey.PRODUCE, 9, PRODUCE + _array(20_000_000, NOTHING) + b"\x00"),
    "a produce request of no batches": _bomb(
        ApiKey.PRODUCE, 9, PRODUCE + _array(1, b"\x02t" + _array(10_000_000, bytes(6)) + b"\x00") + b"\x00"
    ),
    "members": _bomb(ApiKey.LEAVE_GROUP, 4, b"\x02g" + _array(600_000, b"\x01\x00\x00") + b"\x00"),
    "assignments": _bomb(
        ApiKey.SYNC_GROUP, 4, b"\x02g" + bytes(4) + b"\x02m\x00" + _array(600_000, NOTHING) + b"\x00"
    ),
    "as many topics as are taken": _bomb(ApiKey.METADATA, 9, _array(99_000, b"\x01\x00") + bytes(4)),
    "as many partitions as are taken": _bomb(
        ApiKey.OFFSET_FETCH, 8,
        _array(1, b"\x02g" + _array(1, b"\x02t" + _array(99_000, bytes(4)) + b"\x00") + b"\x00") + bytes(2),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(server: Server, name: str) -> None:
    """Small requests that would become large in memory, and long in time."""
    with healthy(server, grows_mib=200):
        send(server, BOMBS[name])


def test_a_topic_of_two_thousand_million_partitions(server: Server) -> None:
    with healthy(server, grows_mib=16), Wire(server.bootstrap) as wire:
        for count in (2**31 - 1, 1_000_000):
            with pytest.raises(AssertionError, match=r"INVALID_PARTITIONS|37|POLICY|44"):
                wire.create_topic("vast", partitions=count)
