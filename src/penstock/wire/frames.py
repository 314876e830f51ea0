"""Kafka's framing without I/O: a signed 32-bit size, then that many bytes.

`FrameReader` is fed whatever the socket gave and hands out whole frames. Memory is only spent on bytes that
arrived: a peer that announces a large frame and sends nothing costs nothing.
"""

from __future__ import annotations

from struct import Struct

from penstock.wire.primitives import Malformed

SIZE = Struct(">i")
SIZE_BYTES = 4

# Kafka's default of socket.request.max.bytes.
MAX_FRAME_BYTES = 100 * 1024 * 1024
# The shortest request header: key, version, correlation id, null client id.
MIN_REQUEST_BYTES = 10


def frame_size(buffer: bytes | bytearray | memoryview, position: int, *, max_bytes: int = MAX_FRAME_BYTES) -> int:
    """The announced size of the frame that starts at `position`; `Malformed` if no peer of ours may send it."""
    (size,) = SIZE.unpack_from(buffer, position)
    if size < 0:
        raise Malformed(f"a frame announces {size} bytes")
    if size > max_bytes:
        raise Malformed(f"a frame announces {size} bytes, more than the {max_bytes} allowed")
    return int(size)


class FrameReader:
    """Cuts a byte stream into frames."""

    def __init__(self, *, max_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max_bytes = max_bytes
        self._pending: list[bytes] = []
        self._buffered = 0
        self._needed = SIZE_BYTES

    @property
    def buffered_bytes(self) -> int:
        """Bytes that wait for the rest of their frame."""
        return self._buffered

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes from the peer; give the frames they complete, without their size prefixes."""
        self._pending.append(data)
        self._buffered += len(data)
        # Joining only once enough arrived keeps a large frame in many pieces linear.
        if self._buffered < self._needed:
            return []
        frames = []
        buffer = data if len(self._pending) == 1 else b"".join(self._pending)
        position = 0
        self._needed = SIZE_BYTES
        while len(buffer) - position >= SIZE_BYTES:
            end = position + SIZE_BYTES + frame_size(buffer, position, max_bytes=self._max_bytes)
            if end > len(buffer):
                self._needed = end - position
                break
            frames.append(buffer[position + SIZE_BYTES : end])
            position = end
        rest = buffer[position:]
        self._pending = [rest] if rest else []
        self._buffered = len(rest)
        return frames
