"""Sealed ranges: what comes back is what went in, from any position; what was touched or moved does not open."""

from __future__ import annotations

import random

import pytest
from fixtures.log_world import topic_of

from penstock.keys.model import DataKey
from penstock.log.seals import (
    CHUNK_BYTES,
    TAG_BYTES,
    BrokenSeal,
    RangeCipher,
    SealedWriting,
    covering,
    stored_bytes,
)

KEY, SALT = DataKey(7, 1, bytes(range(32))), bytes(16)
TOPIC = topic_of(1, 2)
PARTITION, OTHER = TOPIC.partitions
LENGTHS = (1, 61, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES, 3 * CHUNK_BYTES + 1234)


def sealed(data: bytes, cipher: RangeCipher | None = None) -> memoryview:
    target = memoryview(bytearray(stored_bytes(len(data))))
    (cipher or RangeCipher(KEY, SALT, PARTITION)).seal_into(memoryview(data), target)
    return target


def opened(stored: memoryview, length: int, start: int, end: int, cipher: RangeCipher | None = None) -> bytes:
    first, last = covering(start, end, length)
    target = memoryview(bytearray(end - start))
    (cipher or RangeCipher(KEY, SALT, PARTITION)).open_into(stored[first:last], start, target)
    return bytes(target)


@pytest.mark.parametrize("length", LENGTHS)
def test_any_part_of_a_range_can_be_opened_by_itself(length: int) -> None:
    chance = random.Random(length)
    data = chance.randbytes(length)
    stored = sealed(data)
    assert len(stored) == length + TAG_BYTES * (-(-length // CHUNK_BYTES))
    assert opened(stored, length, 0, length) == data
    edges = [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, length - 1, length]
    edges += [chance.randrange(length + 1) for _ in range(10)]
    places = sorted({edge for edge in edges if 0 <= edge <= length})
    for start in places:
        for end in places:
            if start < end:
                assert opened(stored, length, start, end) == data[start:end]


def test_a_read_in_the_middle_opens_the_chunks_it_needs() -> None:
    length = 100 * CHUNK_BYTES
    first, last = covering(50 * CHUNK_BYTES + 10, 50 * CHUNK_BYTES + 20, length)
    assert last - first == CHUNK_BYTES + TAG_BYTES


@pytest.mark.parametrize("length", LENGTHS)
def test_what_arrives_in_pieces_is_sealed_like_what_is_there_at_once(length: int) -> None:
    chance = random.Random(length)
    data, written = chance.randbytes(length), bytearray()
    writing = SealedWriting(RangeCipher(KEY, SALT, PARTITION), written.extend)
    position = 0
    while position < length:
        size = chance.choice((1, 100, 5_000, 70_000, 200_000))
        writing.add(data[position : position + size])
        position += size
    writing.end()
    assert bytes(written) == bytes(sealed(data))


def test_every_bit_counts() -> None:
    data = bytes(300)
    for position in range(stored_bytes(300)):
        stored = sealed(data)
        stored[position] ^= 1 << position % 8
        with pytest.raises(BrokenSeal):
            opened(stored, 300, 0, 300)


def test_a_range_belongs_to_its_place_its_key_and_its_salt() -> None:
    data = bytes(300)
    stored = sealed(data)
    elsewhere = topic_of(1, name="elsewhere").partitions[0]
    for cipher in (
        RangeCipher(KEY, SALT, OTHER),
        RangeCipher(KEY, SALT, elsewhere),
        RangeCipher(KEY, b"x" * 16, PARTITION),
        RangeCipher(DataKey(7, 1, bytes(32)), SALT, PARTITION),
    ):
        with pytest.raises(BrokenSeal):
            opened(stored, 300, 0, 300, cipher)


def test_chunks_cannot_change_places_nor_be_left_out() -> None:
    length, chunk = 3 * CHUNK_BYTES, CHUNK_BYTES + TAG_BYTES
    stored = bytes(sealed(random.Random(1).randbytes(length)))
    swapped = memoryview(bytearray(stored[chunk : 2 * chunk] + stored[:chunk] + stored[2 * chunk :]))
    with pytest.raises(BrokenSeal):
        opened(swapped, length, 0, 10)
    shorter = memoryview(bytearray(stored[: 2 * chunk]))
    with pytest.raises(BrokenSeal):
        opened(shorter, length, 0, length)
    with pytest.raises(BrokenSeal):
        opened(shorter[: chunk + 3], length, 0, length)
    with pytest.raises(BrokenSeal):
        covering(0, length + 1, length)
