"""Whether a range of a file is in the page cache, tested without ever waiting for a disk.

Since 6.5 Linux counts the cached pages of a range (cachestat(2)). That is one call and complete; but it counts pages
whose read is still in progress, so the last byte is read as well, with RWF_NOWAIT: readahead arrives in order. Where
cachestat is missing, one byte of each readahead window is read like that.

Python has no binding for the call, and this adds no dependency: it is made by its number.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Callable

PAGE_BYTES = 4096
"""Or more, but not on the machines whose kernels are asked."""
_SAMPLED_EVERY = 128 * 1024
_NOWAIT = getattr(os, "RWF_NOWAIT", 0)
_CACHESTAT = 451
_probe = memoryview(bytearray(1))
_Query = ctypes.c_uint64 * 7
"""The range, then the result, in which the number of cached pages comes first."""
_ANSWER_AT = 16


def is_cached(fd: int, start: int, length: int) -> bool:
    """Whether a whole range is most likely in the page cache. Never waits; False where that cannot be determined."""
    if not _NOWAIT:
        return False
    last, first = start + length - 1, start // PAGE_BYTES
    wanted = last // PAGE_BYTES - first + 1
    counted = cached_pages(fd, first, wanted)
    if counted:
        return counted == wanted and _reads_at_once(fd, last)
    # Mostly nothing is cached, which the first test shows; or the file system caches an underlying file instead.
    return all(
        _reads_at_once(fd, min(position, last)) for position in range(start, last + _SAMPLED_EVERY, _SAMPLED_EVERY)
    )


def read(fd: int, start: int, buffer: memoryview) -> int:
    """Fill a buffer with what is in the page cache; the number of bytes, 0 where that cannot be determined."""
    if not _NOWAIT:
        return 0
    try:
        return os.preadv(fd, [buffer], start, _NOWAIT)
    except OSError:  # `EAGAIN` if not cached; others where the file system does not support it.
        return 0


def cached_pages(fd: int, first: int, count: int) -> int | None:
    """How many pages from `first` on are cached or being read; None if unknown."""
    if _call is None:
        return None
    query = _Query(first * PAGE_BYTES, count * PAGE_BYTES)
    if _call(_CACHESTAT, fd, ctypes.byref(query), ctypes.byref(query, _ANSWER_AT), 0) != 0:
        return None
    return int(query[2])


def _reads_at_once(fd: int, position: int) -> bool:
    return read(fd, position, _probe) == 1


def _system_call() -> Callable[..., int] | None:
    if (
        sys.platform != "linux"
        or platform.machine() not in {"x86_64", "aarch64"}
        or os.sysconf("SC_PAGESIZE") != PAGE_BYTES
        or ctypes.sizeof(ctypes.c_void_p) != 8
    ):
        return None
    call = ctypes.CDLL(None).syscall
    call.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long)
    call.restype = ctypes.c_long
    return call


_call = _system_call()
