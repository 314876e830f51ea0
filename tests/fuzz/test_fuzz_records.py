"""Decompression bombs: record batches that expand enormously where their records must be decoded."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from struct import pack

import cramjam
import pytest
from canary import MIB, healthy
from fixtures.server import Server
from fixtures.wire import Wire, patched

from penstock.wire.error_codes import ErrorCode
from penstock.wire.records import HEADER, HEADER_BYTES, MAGIC

RECORD = bytes.fromhex("0e000000010100")  # Seven bytes: no key, no value, no headers.
CODECS = {"gzip": (1, cramjam.gzip.compress), "lz4": (3, cramjam.lz4.compress), "zstd": (4, cramjam.zstd.compress)}
LOOKED_AT = {
    "out of time": {},
    "compacted": {"cleanup.policy": "compact"},
    "stamped on arrival": {"message.timestamp.type": "LogAppendTime"},
    "compressed again": {"compression.type": "lz4"},
}


SECTIONS: dict[str, Callable[[], tuple[bytes, int]]] = {
    "zeros": lambda: (bytes(100 * MIB), 1),
    "records": lambda: (RECORD * 3_000_000, 3_000_000),
    "lies": lambda: (RECORD * 3_000_000, 100_000),
}


@cache
def compressed(codec: str, name: str) -> tuple[bytes, int]:
    section, count = SECTIONS[name]()
    return bytes(CODECS[codec][1](section)), count


def bomb(codec: str, body: bytes, count: int, *, timestamp: int) -> bytes:
    """A batch of that many records with a compressed records section."""
    header = HEADER.pack(
        0, HEADER_BYTES - 12 + len(body), -1, MAGIC, 0, CODECS[codec][0], count - 1, timestamp, timestamp, -1, -1, -1,
        count,
    )  # fmt: skip
    return patched(header + body, 0, ">q", 0)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("why", LOOKED_AT)
def test_batches_that_explode(server: Server, codec: str, why: str) -> None:
    topic = f"{codec}-{why}".replace(" ", "-")
    now = int(time.time() * 1000)
    timestamp = now + 86_400_000 if why == "out of time" else now
    bombs = [bomb(codec, *compressed(codec, name), timestamp=timestamp) for name in SECTIONS]
    with Wire(server.bootstrap) as wire:
        wire.create_topic(topic, configs={**LOOKED_AT[why], "max.message.bytes": str(64 * MIB)})
        with healthy(server, grows_mib=160):
            for data in bombs:
                answer = wire.produce(topic, data)
                assert answer.error_code in (ErrorCode.INVALID_RECORD, ErrorCode.RECORD_LIST_TOO_LARGE)


def test_a_batch_of_as_many_records_as_fit(server: Server) -> None:
    """What is not looked at costs nothing, whatever it would become."""
    with Wire(server.bootstrap) as wire, healthy(server, grows_mib=40):
        wire.create_topic("opaque")
        count = 1_000_000
        data = bomb("zstd", bytes(cramjam.zstd.compress(RECORD * count)), count, timestamp=int(time.time() * 1000))
        assert wire.produce("opaque", data).base_offset == 0
        assert wire.list_offset("opaque", -1).offset == 1_000_000
        assert len(wire.fetch("opaque", 999_999).records) == len(data)


def test_a_record_whose_parts_lie(server: Server) -> None:
    with Wire(server.bootstrap) as wire, healthy(server, grows_mib=16):
        wire.create_topic("lies", configs={"cleanup.policy": "compact"})
        for record in (b"\xff\xff\xff\xff\x0f" + RECORD, b"\x7e" + RECORD, RECORD[:4] + pack(">i", -5), b"", b"\0"):
            for codec in CODECS:
                answer = wire.produce("lies", bomb(codec, bytes(CODECS[codec][1](record)), 1, timestamp=5))
                assert answer.error_code == ErrorCode.INVALID_RECORD, record.hex()
