"""What a connection's next call to its socket sends: memory, joined or gathered, or a piece of a file.

Files go from the kernel's page cache, but only to a socket with nothing over it, and only while they are in the
cache: nobody waits for a disk on the event loop. `Uncached` says that a piece was asked for and will be there soon.
"""

from __future__ import annotations

import socket
from collections import deque
from itertools import islice

from penstock.agent.streams import Stream
from penstock.storage.pieces import FilePiece
from penstock.wire.primitives import Buffer

Output = deque[Buffer | FilePiece]

PREFETCH_S = 0.005
"""How long to give the kernel to have in memory what is sent next."""
_PREFETCHES = 100
"""How often, before its disk is waited for after all."""
CACHED_FOR_S = 0.1
"""How long what was seen in the cache is taken to be there still: asking costs system calls."""
_IOV_MAX = 512
_JOIN_BELOW_BYTES = 64 * 1024


class Uncached(Exception):
    """What is sent next has to be read from a disk first, which the kernel was asked to do."""


def send_first(stream: Stream, out: Output, out_bytes: int, now: float) -> int:
    """Send what comes first, as much of it as one call can; how much that was. `now` is in seconds."""
    first = out[0]
    if isinstance(first, FilePiece):
        return _send_piece(stream, first, out, now)
    if len(out) == 1:
        return stream.send(first)
    buffers: list[Buffer] = []
    for waiting in islice(out, _IOV_MAX):
        if isinstance(waiting, FilePiece):
            break
        buffers.append(waiting)
    if len(buffers) < len(out) and isinstance(out[len(buffers)], FilePiece) and type(stream) is socket.socket:
        # What stands before a file's bytes need not wake the client by itself.
        return stream.sendmsg(buffers, (), socket.MSG_MORE)
    if len(buffers) == len(out) and out_bytes < _JOIN_BELOW_BYTES:
        joined = b"".join(buffers)
        out.clear()
        out.append(joined)
        return stream.send(joined)
    return stream.sendmsg(buffers)


def drop_sent(out: Output, sent: int) -> bool:
    """Forget what was sent; whether something was sent in part."""
    while out and sent >= len(out[0]):
        sent -= len(out.popleft())
    if sent:
        first = out[0]
        out[0] = first.rest(sent) if isinstance(first, FilePiece) else memoryview(first)[sent:]
    return bool(sent)


def _send_piece(stream: Stream, piece: FilePiece, out: Output, now: float) -> int:
    if type(stream) is not socket.socket:
        loaded = out[0] = piece.load()
        return stream.send(loaded)
    if piece.seen_cached_at is None or now - piece.seen_cached_at > CACHED_FOR_S:
        if piece.is_cached():
            piece.seen_cached_at = now
        elif piece.prefetches < _PREFETCHES:
            # Its client was so slow that the kernel has dropped it.
            piece.prefetch()
            raise Uncached
    return piece.send_to(stream.fileno())
