"""What a connection needs of its socket, whether TLS is spoken over it or not."""

from __future__ import annotations

from typing import Protocol

from penstock.wire.primitives import Buffer


class Stream(Protocol):
    """A socket's interface, as far as it is used. A call that would have to wait raises `BlockingIOError`."""

    def fileno(self) -> int:
        """Its file descriptor."""

    def recv_into(self, buffer: memoryview, /) -> int:
        """Receive what is there, as far as it fits; 0 at the end."""

    def send(self, data: Buffer, /) -> int:
        """Send as much as can be; how much that was."""

    def sendmsg(self, buffers: list[Buffer], /) -> int:
        """Send as much of the buffers as can be; how much that was."""

    def close(self) -> None:
        """Hang up."""
