"""Compression is bounded: a bomb costs its limit at most."""

from __future__ import annotations

import subprocess
import sys

import cramjam
import pytest

from penstock.wire.compression import Compression, UnsupportedCompression, compress, decompress
from penstock.wire.primitives import Malformed

CODECS = [item for item in Compression if item is not Compression.NONE]
EVERY = pytest.mark.parametrize("compression", CODECS, ids=lambda item: item.name.lower())


@EVERY
@pytest.mark.parametrize("size", [0, 1, 100, 65536, 65537, 300_000])
def test_data_comes_back(compression: Compression, size: int) -> None:
    data = bytes(index * 7919 >> 3 & 255 for index in range(size))
    packed = compress(data, compression)
    assert bytes(decompress(packed, compression)) == data
    assert bytes(decompress(memoryview(packed), compression, max_bytes=max(size, 1))) == data


@EVERY
def test_data_above_the_limit_is_refused(compression: Compression) -> None:
    packed = compress(bytes(3_000_000), compression)
    with pytest.raises(Malformed):
        decompress(packed, compression, max_bytes=2_999_999)
    assert len(decompress(packed, compression, max_bytes=3_000_000)) == 3_000_000


@EVERY
def test_broken_data_is_malformed(compression: Compression) -> None:
    packed = compress(b"some data " * 1000, compression)
    for broken in (packed[: len(packed) // 2], b"garbage" * 9, b""):
        if broken or compression is not Compression.SNAPPY:
            with pytest.raises(Malformed):
                decompress(broken, compression)


def test_snappy_is_read_without_framing_too() -> None:
    assert bytes(decompress(bytes(cramjam.snappy.compress_raw(b"abc" * 99)), Compression.SNAPPY)) == b"abc" * 99


def test_a_snappy_block_cannot_announce_more_than_it_holds() -> None:
    with pytest.raises(Malformed):
        decompress(bytes.fromhex("ffffff1f 00 61"), Compression.SNAPPY)


def test_unknown_compression_is_told_apart() -> None:
    with pytest.raises(UnsupportedCompression):
        Compression.parse(5)


def test_a_bomb_does_not_take_the_memory_it_asks_for() -> None:
    """One gigabyte of zeros in some 30 kB of zstd, refused by a process that may not grow by half of that."""
    program = (
        "import resource, cramjam\n"
        "from penstock.wire.compression import Compression, decompress\n"
        "from penstock.wire.primitives import Malformed\n"
        "piece = bytes(cramjam.zstd.compress(bytes(1 << 24)))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n"
        "    decompress(piece * 64, Compression.ZSTD)\n"
        "except Malformed:\n"
        "    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before\n"
        "    assert grown < 150_000, grown\n"
        "else:\n"
        "    raise SystemExit('accepted')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
