"""Whether the kernel has a stretch of a file in memory, asked without ever waiting for a disk.

Linux counts the pages that it has of a stretch since 6.5 (cachestat(2)). That is one call and leaves nothing out; but
a page that is still on its way from the disk is counted, so the last byte is read too, on condition that it takes no
waiting: what is read ahead at once arrives in order. Where nothing can be counted one byte is read like that of each
stretch that the kernel reads ahead at once.

Python has no binding for the call, and takes no dependency here: it is made by its number.
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
_probe = bytearray(1)
_Query = ctypes.c_uint64 * 7
"""Where the stretch begins and how long it is, then what is said of it: pages that are cached come first."""
_ANSWER_AT = 16


def is_cached(fd: int, start: int, length: int) -> bool:
    """Whether the kernel most likely has all of a stretch in memory. Never waits; False where it cannot tell."""
    if not _NOWAIT:
        return False
    last, first = start + length - 1, start // PAGE_BYTES
    wanted = last // PAGE_BYTES - first + 1
    counted = cached_pages(fd, first, wanted)
    if counted:
        return counted == wanted and _reads_at_once(fd, last)
    # Nothing is there, most likely, which the first look will show; or it lies in the cache of a file behind this one.
    return all(
        _reads_at_once(fd, min(position, last)) for position in range(start, last + _SAMPLED_EVERY, _SAMPLED_EVERY)
    )


def cached_pages(fd: int, first: int, count: int) -> int | None:
    """How many of the pages from one on are in memory or on their way there; None where nobody knows."""
    if _call is None:
        return None
    query = _Query(first * PAGE_BYTES, count * PAGE_BYTES)
    if _call(_CACHESTAT, fd, ctypes.byref(query), ctypes.byref(query, _ANSWER_AT), 0) != 0:
        return None
    return int(query[2])


def _reads_at_once(fd: int, position: int) -> bool:
    try:
        return os.preadv(fd, [_probe], position, _NOWAIT) == 1
    except OSError:  # `EAGAIN` for what is not cached; others from file systems that cannot be asked.
        return False


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
