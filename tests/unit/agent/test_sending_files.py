"""File ranges on their way to a client: between buffers, partial sends, evicted pages, over TLS."""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.agent.sending import CACHED_FOR_S, Output, Uncached, drop_sent, send_first
from penstock.storage.page_cache import is_cached
from penstock.storage.pieces import FilePiece

SIZE = 300_000
NOW = 10.0


@pytest.fixture
def body() -> bytes:
    return bytes(range(250)) * (SIZE // 250)


@pytest.fixture
def path(tmp_path: Path, body: bytes) -> Path:
    path = tmp_path / "object"
    path.write_bytes(body)
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return path


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.settimeout(10)
    with ours, theirs:
        yield ours, theirs


def piece_of(path: Path, start: int, length: int) -> FilePiece:
    return FilePiece.of(os.open(path, os.O_RDONLY), start, length)


def deliver(out: Output, ours: socket.socket, theirs: socket.socket) -> bytes:
    """Send everything, receiving whenever the socket is full."""
    received = bytearray()
    while out:
        try:
            drop_sent(out, send_first(ours, out, sum(map(len, out)), NOW))
        except BlockingIOError:
            received += theirs.recv(100_000)
        except Uncached:
            continue
    ours.shutdown(socket.SHUT_WR)
    while part := theirs.recv(1 << 20):
        received += part
    return bytes(received)


def test_files_and_buffers_arrive_in_order(path: Path, body: bytes, ends: tuple[socket.socket, socket.socket]) -> None:
    out: Output = deque((b"head", b"er", piece_of(path, 10, 200_000), b"between", piece_of(path, 0, 5), b"end"))
    path.unlink()
    assert deliver(out, *ends) == b"header" + body[10:200_010] + b"between" + body[:5] + b"end"


def test_a_file_is_sent_in_the_parts_that_the_socket_takes(
    path: Path, body: bytes, ends: tuple[socket.socket, socket.socket]
) -> None:
    ends[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    assert deliver(deque((piece_of(path, 1, SIZE - 1),)), *ends) == body[1:]


def test_what_the_kernel_has_dropped_is_fetched_before_it_is_sent(
    path: Path, body: bytes, ends: tuple[socket.socket, socket.socket]
) -> None:
    piece = piece_of(path, 0, SIZE)
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if is_cached(file.fileno(), 0, SIZE):
            pytest.skip("this file system keeps what it is told to drop")
    out: Output = deque((piece,))
    with pytest.raises(Uncached):
        send_first(ends[0], out, SIZE, NOW)
    assert piece.prefetches == 1
    assert deliver(out, *ends) == body


def test_a_client_that_was_slow_does_not_make_anybody_wait_for_a_disk(
    path: Path, ends: tuple[socket.socket, socket.socket]
) -> None:
    ends[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    out: Output = deque((piece_of(path, 0, SIZE),))
    drop_sent(out, send_first(ends[0], out, SIZE, NOW))
    os.truncate(path, 0)  # What is not there is not in the cache either, whatever the kernel keeps.
    with pytest.raises(OSError, match="shorter"):  # It was there a moment ago: not asked again for every part of it.
        send_first(ends[0], out, len(out[0]), NOW + CACHED_FOR_S / 2)
    with pytest.raises(Uncached):
        send_first(ends[0], out, len(out[0]), NOW + 2 * CACHED_FOR_S)


def test_a_file_that_got_shorter_ends_the_connection(path: Path, ends: tuple[socket.socket, socket.socket]) -> None:
    piece = piece_of(path, SIZE - 10, 20)
    piece.prefetches = 1_000
    os.truncate(path, 0)
    with pytest.raises(OSError, match="shorter"):
        send_first(ends[0], deque((piece,)), 20, NOW)


def test_through_anything_but_a_socket_files_are_read(
    path: Path, body: bytes, ends: tuple[socket.socket, socket.socket]
) -> None:
    class Wrapped(socket.socket):
        """As TLS is."""

    ours = Wrapped(fileno=ends[0].detach())
    with ours:
        assert deliver(deque((b"head", piece_of(path, 0, 100_000))), ours, ends[1]) == b"head" + body[:100_000]


def test_the_descriptor_is_closed_with_the_last_piece(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    piece = FilePiece.of(fd, 0, SIZE)
    rest = piece.rest(10)
    assert (len(rest), rest.load()[:3]) == (SIZE - 10, bytes((10, 11, 12)))
    del piece
    os.fstat(fd)
    del rest
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
