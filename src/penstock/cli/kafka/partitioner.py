"""Which partition a record goes to: by key as Java's producer does (so that both agree), else batch by batch.

Keys go through 32-bit MurmurHash2 with Kafka's seed, sign bit cleared, modulo the number of partitions. Records without
a key stick to one partition until a batch is full, then to another: fuller batches, the same balance in the end.
"""

from __future__ import annotations

from penstock.base.randomness import Randomness

_SEED = 0x9747B28C
_MULTIPLIER = 0x5BD1E995
_MASK = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """32-bit MurmurHash2 of Austin Appleby, little-endian, unsigned."""
    length = len(data)
    value = (_SEED ^ length) & _MASK
    tail_start = length - length % 4
    for position in range(0, tail_start, 4):
        word = int.from_bytes(data[position : position + 4], "little") * _MULTIPLIER & _MASK
        word = (word ^ word >> 24) * _MULTIPLIER & _MASK
        value = value * _MULTIPLIER & _MASK ^ word
    if tail_start < length:
        value = (value ^ int.from_bytes(data[tail_start:], "little")) * _MULTIPLIER & _MASK
    value = (value ^ value >> 13) * _MULTIPLIER & _MASK
    return value ^ value >> 15


def partition_of_key(key: bytes, partitions: int) -> int:
    """The partition of a key among so many."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


class StickyPartition:
    """The partition of records without a key."""

    def __init__(self, partitions: int, randomness: Randomness) -> None:
        self._partitions, self._randomness = partitions, randomness
        self.current = self._draw(partitions)

    def move(self) -> None:
        """Go to another partition: the batch of this one was sent."""
        if self._partitions > 1:
            step = 1 + self._draw(self._partitions - 1)
            self.current = (self.current + step) % self._partitions

    def _draw(self, choices: int) -> int:
        return min(choices - 1, int(self._randomness.uniform(0, choices)))
