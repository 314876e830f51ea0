"""Asynchronous writes by the kernel: Linux AIO (io_submit(2)).

Waiting for a write on the event loop blocks everything, and a thread that waits for it costs more than a small write
takes: the interpreter's lock changes hands on the way there and back. A direct write to a file with allocated blocks
can be submitted to the kernel instead, in some 20 µs, and an eventfd becomes readable when it is done.

Only Linux has this, and not everywhere: otherwise `KernelWrites.open` returns None, and writes block a thread. Python
has no binding for it, and this adds no dependency: four system calls are made by their numbers.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable

DEPTH = 8
"""The most writes in flight."""
NUMBERS = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2)}
"""By machine: numbers of io_setup, io_destroy, io_getevents, io_submit."""
_PWRITE = 1
_TELL_EVENT_FD = 1

Ended = Callable[[int], None]
"""Called with the number of bytes written, or a negative errno."""


class _Control(ctypes.Structure):
    """The kernel's `struct iocb`: what to write where."""

    _fields_ = (
        ("data", ctypes.c_uint64), ("key", ctypes.c_uint32), ("rw_flags", ctypes.c_int32),
        ("opcode", ctypes.c_uint16), ("priority", ctypes.c_int16), ("fd", ctypes.c_uint32),
        ("address", ctypes.c_uint64), ("size_bytes", ctypes.c_uint64), ("offset", ctypes.c_int64),
        ("reserved", ctypes.c_uint64), ("flags", ctypes.c_uint32), ("event_fd", ctypes.c_uint32),
    )  # fmt: skip


class _Event(ctypes.Structure):
    """The kernel's `struct io_event`: the result."""

    _fields_ = (
        ("data", ctypes.c_uint64), ("control", ctypes.c_uint64), ("result", ctypes.c_int64),
        ("result2", ctypes.c_int64),
    )  # fmt: skip


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class KernelWrites:
    """Writes in flight. Everything is called on one thread."""

    def __init__(self, numbers: tuple[int, int, int, int]) -> None:
        setup, *others = map(ctypes.c_long, numbers)
        self._destroy, self._getevents, self._submit = others
        self._call = ctypes.CDLL(None, use_errno=True).syscall
        self._context = ctypes.c_ulong(0)
        if self._call(setup, ctypes.c_long(DEPTH), ctypes.byref(self._context)) != 0:
            raise OSError(ctypes.get_errno(), "there is no asynchronous I/O")
        self._event_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._controls = [
            _Control(data=number, opcode=_PWRITE, flags=_TELL_EVENT_FD, event_fd=self._event_fd)
            for number in range(DEPTH)
        ]
        self._lists = [(ctypes.c_void_p * 1)(ctypes.addressof(control)) for control in self._controls]
        self._idle = list(range(DEPTH))
        self._under_way: dict[int, tuple[memoryview, Ended]] = {}
        """The memory that the kernel reads, which must stay alive, and the callback."""
        self._events = (_Event * DEPTH)()
        self._one, self._none, self._many = ctypes.c_long(1), ctypes.c_long(0), ctypes.c_long(DEPTH)
        self._at_once = ctypes.byref(_Timespec())

    @classmethod
    def open(cls) -> KernelWrites | None:
        """An instance, if the system has asynchronous I/O."""
        if sys.platform != "linux":
            return None
        numbers = NUMBERS.get(os.uname().machine)
        if numbers is None or ctypes.sizeof(ctypes.c_void_p) != 8:
            return None
        try:
            return cls(numbers)
        except OSError:
            return None  # Not in this kernel, forbidden by a sandbox, or used up by others (fs.aio-max-nr).

    def fileno(self) -> int:
        """Readable when a write has ended: then call `reap`."""
        return self._event_fd

    def begin(self, fd: int, body: memoryview, offset: int, ended: Ended) -> bool:
        """Start writing aligned memory, which must not change meanwhile, through a direct descriptor.

        False if nothing was started: there are too many, or the kernel refuses. `ended` is called by `reap`.
        """
        if not self._idle:
            return False
        number = self._idle[-1]
        control = self._controls[number]
        control.fd, control.offset, control.size_bytes = fd, offset, body.nbytes
        control.address = ctypes.addressof(ctypes.c_char.from_buffer(body))
        if self._call(self._submit, self._context, self._one, self._lists[number]) != 1:
            return False
        self._idle.pop()
        self._under_way[number] = body, ended
        return True

    def reap(self) -> None:
        """Call the callbacks of writes that have ended."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._event_fd)
        count = self._call(self._getevents, self._context, self._none, self._many, self._events, self._at_once)
        for number, result in [(event.data, event.result) for event in self._events[: max(count, 0)]]:
            _, ended = self._under_way.pop(number)
            self._idle.append(number)
            ended(result)

    def close(self) -> None:
        """Wait until nothing is in flight. Callbacks are not called any more."""
        if self._event_fd >= 0:
            self._call(self._destroy, self._context)
            os.close(self._event_fd)
            self._event_fd = -1
            self._idle.clear()
            self._under_way.clear()
