"""Framing: a size that no peer may announce is refused."""

from __future__ import annotations

import pytest

from penstock.wire.frames import SIZE, frame_size
from penstock.wire.primitives import Malformed


@pytest.mark.parametrize("size", [0, 1, 100])
def test_sizes_are_read_where_they_are(size: int) -> None:
    assert frame_size(b"\xff" + SIZE.pack(size), 1, max_bytes=100) == size


@pytest.mark.parametrize("size", [-1, -(2**31), 101])
def test_impossible_sizes_are_malformed(size: int) -> None:
    with pytest.raises(Malformed):
        frame_size(SIZE.pack(size), 0, max_bytes=100)
