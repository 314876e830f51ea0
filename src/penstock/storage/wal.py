"""Where flushes go: the port of the write-ahead log's objects.

A WAL object is the body of one flush, durable before its commit names it. Objects are never changed; an object that
no commit names is garbage and its space may be taken again after a restart. The interface is synchronous: it is
called on the committer's thread, or in line for small flushes that wait for no disk; `begin` alone does not wait.

Every implementation passes tests/contract/test_wal.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from penstock.base.dataclasses import dataclass
from penstock.base.errors import InvalidRequest, PlatformError

Buffer = bytes | bytearray | memoryview

PAGE_BYTES = 4096
"""Objects are counted, and on a disk laid out, in pages of this size."""


@dataclass(frozen=True, slots=True)
class WalLocation:
    """Where a WAL object lies: `length` bytes from `offset` of the thing named `key`."""

    key: str
    offset: int
    length: int


Shared = Path | bytes
"""Something that holds WAL objects and can become an object of a store as it is: a file, or bytes in memory."""


Done = Callable[[WalLocation | PlatformError | None], None]
"""Told where an object is, durable; why it is not known to be; or None if nothing was written and it is to be appended.
"""


class WalStore(Protocol):
    """Objects of the write-ahead log."""

    @property
    def capacity_bytes(self) -> int:
        """How many bytes of objects can be alive before `append` refuses, roughly."""

    def append(self, body: Sequence[Buffer]) -> WalLocation:
        """Write one object; it is durable on return. Raise `Unavailable` when it was not written, not to its end."""

    def begin(self, body: memoryview, done: Done) -> bool:
        """Begin to write one object where nobody has to wait for that; False where it has to be appended.

        The memory must not change until `done` is called, which is later and on the event loop's thread.
        """

    def read(self, location: WalLocation, start: int, end: int) -> memoryview:
        """Bytes [start, end) of an object. May run on any thread while another appends."""

    def read_many(self, locations: Sequence[WalLocation], buffer: memoryview) -> list[memoryview]:
        """Read whole objects, neighbours at once, into memory of `pages_of` bytes; each one's bytes in it, writable.

        Page-aligned memory is read into without the page cache. May run on any thread while another appends.
        """

    def share(self, key: str) -> Shared | None:
        """Let somebody have what objects of a key lie in, at their offsets: it will never be written again.

        It stays part of the log until its objects are released. None while objects are still being added to it.
        """

    def release(self, locations: Iterable[WalLocation]) -> None:
        """These objects are no longer needed; their space may be used again."""

    def places(self) -> list[str]:
        """Before `recover`: keys of everything that objects may lie in, whether or not they are alive."""

    def look(self, key: str, offset: int, size_bytes: int) -> memoryview:
        """Before `recover`: bytes at some page of a place, whatever they are; fewer where it ends."""

    def recover(self, live: Iterable[WalLocation]) -> None:
        """At start: exactly these objects are alive; everything else is free space."""

    def close(self) -> None:
        """Release what the operating system lent."""


def pages_of(locations: Iterable[WalLocation]) -> int:
    """Bytes in the pages that objects fill: what they take up, and what reading them takes."""
    return sum((location.length + PAGE_BYTES - 1) & -PAGE_BYTES for location in locations)


def check_range(location: WalLocation, start: int, end: int) -> None:
    """Refuse to read bytes that are not the object's."""
    if not 0 <= start <= end <= location.length:
        raise InvalidRequest(f"bytes {start} to {end} are not within the {location.length} bytes of the object")
