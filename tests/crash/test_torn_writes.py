"""What a crash may leave on the disk besides what was acknowledged: half-written tails, garbage, files cut short.

The process is killed and its files are spoilt everywhere but where acknowledged bytes lie; the start after that must
find every acknowledged record. Spoilt acknowledged bytes are another matter: what the broker reads of a record batch
(its header) is checked and refused, and what it does not read is checked by consumers, as with Apache Kafka.
"""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fixtures.server import Server
from fixtures.wire import Wire, batch

from penstock.log.wal_record import HEAD_BYTES, read_head
from penstock.wire.error_codes import ErrorCode
from penstock.wire.primitives import Malformed
from penstock.wire.records import BatchHeader, parse_header

PAGE = 4096
COUNT = 40


def value_of(number: int) -> bytes:
    chance = random.Random(number)
    return b"%06d" % number + chance.randbytes(chance.choice((10, 3_000, 30_000, 300_000)))


@pytest.fixture(params=["process", "disk"])
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that was killed after it acknowledged `COUNT` batches."""
    server = Server(tmp_path, durability=request.param)
    server.start()
    with Wire(server.bootstrap) as wire:
        wire.create_topic("t")
        for number in range(COUNT):
            assert wire.produce("t", batch(value_of(number))).base_offset == number
    server.kill()
    yield server
    if server.running:
        server.kill()


def live_extents(data_dir: Path) -> dict[str, list[tuple[int, int]]]:
    """Where acknowledged bytes lie in each slab, in whole pages. Reads a copy: looking must not change anything.

    Some commits have rows, some only their records yet.
    """
    copy = sqlite3.connect(":memory:")
    with sqlite3.connect(f"file:{data_dir / 'metadata.db'}?mode=ro", uri=True) as database:
        database.backup(copy)
    database.close()
    extents: dict[str, list[tuple[int, int]]] = {}
    for key, offset, length in copy.execute("SELECT wal_key, wal_offset, wal_length FROM wal_commit"):
        extents.setdefault(key, []).append((offset, -(-(offset + length) // PAGE) * PAGE))
    copy.close()
    for slab in (data_dir / "slabs").iterdir():
        data, position = slab.read_bytes(), 0
        while (head := read_head(data[position : position + HEAD_BYTES])) is not None:
            end = position + -(-head.object_bytes // PAGE) * PAGE
            extents.setdefault(slab.name, []).append((position, end))
            position = end
    return extents


def garble_rest(slab: Path, extents: list[tuple[int, int]], chance: random.Random) -> None:
    """Write nonsense around what is alive."""
    with slab.open("r+b") as file:
        position = 0
        for start, end in [*sorted(extents), (slab.stat().st_size, 0)]:
            for at in range(position, start, 1 << 20):
                file.seek(at)
                file.write(chance.randbytes(min(PAGE * 3, start - at)))
            position = end


def cut_rest(slab: Path, extents: list[tuple[int, int]], chance: random.Random) -> None:
    """Cut off what comes after the last live page, in the middle of a page."""
    end = max((end for _, end in extents), default=0)
    os.truncate(slab, end + chance.choice((0, 1, 511, PAGE, 5 * PAGE + 7)))


def leave_as_is(slab: Path, extents: list[tuple[int, int]], chance: random.Random) -> None:
    """Only the rest of the directory is spoilt."""


@pytest.mark.parametrize("spoil", [garble_rest, cut_rest, leave_as_is])
def test_what_was_not_acknowledged_may_be_anything(server: Server, spoil: Callable[..., None]) -> None:
    chance = random.Random(spoil.__name__)
    extents = live_extents(server.data_dir)
    assert extents
    for slab in (server.data_dir / "slabs").iterdir():
        spoil(slab, extents.get(slab.name, []), chance)
    (server.data_dir / "slabs" / "000099.slab").write_bytes(b"half a slab")
    (server.data_dir / "slabs" / "notes.txt").write_text("not ours")
    (server.data_dir / "format.tmp").write_text('{"vers')
    (server.data_dir / "segments" / ".tmp" / "7").write_bytes(b"half a segment")
    with (server.data_dir / "metadata.db-wal").open("ab") as log:
        log.write(chance.randbytes(10_000))  # A frame that never became whole.

    server.start()
    with Wire(server.bootstrap) as wire:
        check(wire, COUNT)
        for number in range(COUNT, 2 * COUNT):
            assert wire.produce("t", batch(value_of(number))).base_offset == number
        server.kill()
        server.start()
    with Wire(server.bootstrap) as wire:
        check(wire, 2 * COUNT)
    assert (server.data_dir / "slabs" / "notes.txt").exists()
    assert not (server.data_dir / "segments" / ".tmp" / "7").exists()


def check(wire: Wire, count: int) -> None:
    assert wire.list_offset("t", -1).offset == count
    offset = 0
    while offset < count:
        records = wire.fetch_records("t", offset)
        assert records
        for record in records:
            assert record.offset == offset
            assert record.value == value_of(offset)
            offset += 1


@pytest.mark.parametrize("field", ["length", "last_offset_delta", "payload"])
def test_spoilt_acknowledged_bytes_are_noticed(server: Server, field: str) -> None:
    """One batch is spoilt on the disk. It is never served as if it were good, and the rest of the log still is."""
    victim = COUNT // 2
    slab, position = find(server, victim)
    offset, data = {
        "length": (8, b"\xff\xff\xff\xf4"),  # Minus twelve: a batch of no bytes at all.
        "last_offset_delta": (23, b"\x00\x00\x00\x07"),
        "payload": (100, b"?!"),
    }[field]
    with slab.open("r+b") as file:
        file.seek(position + offset)
        file.write(data)
    server.start()
    with Wire(server.bootstrap) as wire:
        answer = wire.fetch("t", victim)
        if answer.error_code:
            assert answer.error_code == ErrorCode.UNKNOWN_SERVER_ERROR
        else:
            assert not is_good(answer.records)
        for number in (*range(victim - 1), *range(victim + 1, COUNT)):
            (record, *_) = wire.fetch_records("t", number, partition_max_bytes=1)
            assert (record.offset, record.value) == (number, value_of(number))
        assert wire.produce("t", batch(b"still here")).base_offset == COUNT


def find(server: Server, number: int) -> tuple[Path, int]:
    """The slab with a record and where its batch begins."""
    for slab in (server.data_dir / "slabs").iterdir():
        data = slab.read_bytes()
        at = data.find(value_of(number)[:16])
        if at >= 0:
            return slab, data.rindex(number.to_bytes(8), 0, at)
    raise AssertionError(f"record {number} is in no slab")


def is_good(records: list[memoryview] | bytes) -> bool:
    """Whether a consumer that checks would take the first batch."""
    from crc32c import crc32c

    data = bytes(records)
    try:
        header: BatchHeader = parse_header(data)
    except Malformed:
        return False
    return crc32c(data[21 : header.size_bytes]) == header.crc
