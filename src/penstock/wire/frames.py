"""Kafka's framing: a signed 32-bit size, then that many bytes.

The command line reads its responses by it. The agent cuts its requests out of the receive buffer itself
(`agent/connection.py`).
"""

from __future__ import annotations

from struct import Struct

from penstock.wire.primitives import Malformed

SIZE = Struct(">i")
SIZE_BYTES = 4

MAX_FRAME_BYTES = 100 * 1024 * 1024
"""Kafka's default of socket.request.max.bytes."""


def frame_size(buffer: bytes | bytearray | memoryview, position: int, *, max_bytes: int = MAX_FRAME_BYTES) -> int:
    """The size that the frame at `position` announces; `Malformed` if that is negative or too large."""
    (size,) = SIZE.unpack_from(buffer, position)
    if size < 0:
        raise Malformed(f"a frame announces {size} bytes")
    if size > max_bytes:
        raise Malformed(f"a frame announces {size} bytes, more than the {max_bytes} allowed")
    return int(size)
