"""Framing: whole frames come out however the bytes went in."""

from __future__ import annotations

import pytest
from fixtures.schema_values import examples
from hypothesis import given
from hypothesis import strategies as st

from penstock.wire.frames import SIZE, FrameReader, frame_size
from penstock.wire.primitives import Malformed


@examples(50, 2000)
@given(bodies=st.lists(st.binary(max_size=50), max_size=8), cuts=st.lists(st.integers(1, 60), min_size=1))
def test_frames_come_out_whole_however_they_arrive(bodies: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(SIZE.pack(len(body)) + body for body in bodies)
    reader = FrameReader()
    frames: list[bytes] = []
    position = 0
    for turn in range(len(stream) + 1):
        step = cuts[turn % len(cuts)]
        frames += reader.feed(stream[position : position + step])
        position += step
    assert frames == bodies
    assert reader.buffered_bytes == 0


@pytest.mark.parametrize("size", [-1, -(2**31), 101])
def test_impossible_sizes_are_malformed(size: int) -> None:
    with pytest.raises(Malformed):
        list(FrameReader(max_bytes=100).feed(SIZE.pack(size)))
    with pytest.raises(Malformed):
        frame_size(SIZE.pack(size), 0, max_bytes=100)


def test_an_announced_frame_takes_no_memory_before_it_arrives() -> None:
    reader = FrameReader()
    assert list(reader.feed(SIZE.pack(90 * 1024 * 1024) + b"abc")) == []
    assert reader.buffered_bytes == 7
