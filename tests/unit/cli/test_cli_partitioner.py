"""The partitioner agrees with Java's."""

from __future__ import annotations

import pytest

from penstock.base.randomness import SeededRandomness
from penstock.cli.kafka.partitioner import StickyPartition, murmur2, partition_of_key


# Values of org.apache.kafka.common.utils.Utils.murmur2, as signed integers.
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_that_of_java(data: bytes, expected: int) -> None:
    assert murmur2(data) == expected % 2**32


def test_keys_stay_in_range() -> None:
    assert {partition_of_key(b"%d" % number, 7) for number in range(500)} == set(range(7))


def test_the_sticky_partition_moves_to_another_one_and_reaches_all() -> None:
    sticky = StickyPartition(5, SeededRandomness("sticky"))
    seen = [sticky.current]
    for _ in range(200):
        sticky.move()
        assert sticky.current != seen[-1]
        seen.append(sticky.current)
    assert set(seen) == set(range(5))


def test_one_partition_is_always_it() -> None:
    sticky = StickyPartition(1, SeededRandomness("sticky"))
    sticky.move()
    assert sticky.current == 0
