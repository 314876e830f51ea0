"""Removing files without delaying writes to other files.

Removing a file takes a file system time in proportion to its size: 0.65 ms a MiB on ext4 with the mount option
`discard` (usual in the cloud), and a concurrent fsync of the WAL waits as long. So the name is removed at once, and the
blocks are freed a MiB at a time, with pauses that leave the disk to others. The more files wait, the shorter the
pauses: freeing keeps up with removing.

Blocks are freed only when nobody else has the file open, because a reader that began before finishes undisturbed. The
kernel reveals that by refusing a lease (fcntl(2), F_SETLEASE). Where leases are not supported, or the file has other
names, the blocks are freed with the last descriptor, all at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections import deque
from pathlib import Path

from penstock.base.clock import Clock, SystemClock

STEP_BYTES = 1024 * 1024
PAUSE_PER_STEP = 8
"""The pause after a step, as a multiple of its duration."""
PAUSE_MAX_S = 0.1
WAITING_MAX_FILES = 64
"""How many files may wait with an open descriptor; beyond that the caller of `remove` frees them."""
_SET_LEASE = getattr(fcntl, "F_SETLEASE", None)


class Remover:
    """Removes files. Thread-safe; its own thread exists while it has something to free."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._state = threading.Condition()
        self._waiting: deque[int] = deque()
        self._is_freeing = False
        self._closed = False

    def remove(self, path: Path) -> None:
        """Remove a file's name, and free its blocks later. Raises what `unlink` raises."""
        descriptor = _open(path)
        try:
            path.unlink()
            if descriptor is not None and _is_unreferenced(descriptor) and self._enqueue(descriptor):
                descriptor = None
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def close(self) -> None:
        """Free what is waiting without pauses, and return when that is done."""
        with self._state:
            self._closed = True
            self._state.notify_all()
            self._state.wait_for(lambda: not self._is_freeing)

    def _enqueue(self, descriptor: int) -> bool:
        """Whether the thread takes over the descriptor, frees the blocks and closes it."""
        with self._state:
            has_room = len(self._waiting) < WAITING_MAX_FILES and not self._closed
            if has_room and (self._is_freeing or self._start()):
                self._waiting.append(descriptor)
                return True
        self._free(descriptor)
        return False

    def _start(self) -> bool:
        """Start the thread if necessary; False if no thread can be started. Under the lock."""
        try:
            threading.Thread(target=self._free_waiting, name="free-blocks", daemon=True).start()
        except RuntimeError:
            return False
        self._is_freeing = True
        return True

    def _free_waiting(self) -> None:
        while True:
            with self._state:
                if not self._waiting:
                    self._is_freeing = False
                    self._state.notify_all()
                    return
                descriptor = self._waiting.popleft()
            try:
                self._free(descriptor)
            finally:
                os.close(descriptor)

    def _free(self, descriptor: int) -> None:
        with contextlib.suppress(OSError):  # The rest is freed when it is closed.
            size_bytes = os.fstat(descriptor).st_size
            while size_bytes > STEP_BYTES:
                began_s = self._clock.monotonic()
                size_bytes -= STEP_BYTES
                os.ftruncate(descriptor, size_bytes)
                self._pause(self._clock.monotonic() - began_s)

    def _pause(self, step_s: float) -> None:
        """Leave the disk to others after a step; shorter the more files wait."""
        with self._state:
            room = 1 - len(self._waiting) / max(1, WAITING_MAX_FILES)
            self._state.wait_for(lambda: self._closed, min(PAUSE_MAX_S, step_s * PAUSE_PER_STEP) * room)


def _open(path: Path) -> int | None:
    """A descriptor to free a file with; None for a link, for example, or with too many open files."""
    with contextlib.suppress(OSError):
        return os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    return None


def _is_unreferenced(descriptor: int) -> bool:
    """Whether a file has no name any more and nobody else has it open."""
    if _SET_LEASE is None or os.fstat(descriptor).st_nlink:
        return False
    try:
        fcntl.fcntl(descriptor, _SET_LEASE, fcntl.F_WRLCK)
    except OSError:
        return False
    return True
