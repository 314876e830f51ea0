"""The port of the write-ahead log (WAL), which flushes are written to.

A WAL object is the body of one flush, durable before its commit is acknowledged. Objects are immutable; an object
without a commit is garbage, and its space may be reused after a restart. The interface is synchronous: it is called on
the committer's thread, or inline for small flushes that need no disk; only `begin` is asynchronous.

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
    """The location of a WAL object: `length` bytes from `offset` on in the file, or other container, named `key`."""

    key: str
    offset: int
    length: int


Shared = Path | bytes
"""A container of WAL objects that can become an object of a store as it is: a file, or bytes in memory."""


Done = Callable[[WalLocation | PlatformError | None], None]
"""Called with the location of a durable object; with an error if that is unknown; or with None if nothing was written
and the object has to be appended."""


class WalStore(Protocol):
    """The write-ahead log."""

    @property
    def capacity_bytes(self) -> int:
        """About how many bytes of objects can be live before `append` refuses."""

    def append(self, body: Sequence[Buffer]) -> WalLocation:
        """Write one object; it is durable on return. Raise `Unavailable` when it was not written completely."""

    def begin(self, body: memoryview, done: Done) -> bool:
        """Start writing one object asynchronously; False where it has to be appended.

        The memory must not change until `done` is called, which is later and on the event loop's thread.
        """

    def read(self, location: WalLocation, start: int, end: int) -> memoryview:
        """Bytes [start, end) of an object. May run on any thread, concurrently with an append."""

    def read_many(self, locations: Sequence[WalLocation], buffer: memoryview) -> list[memoryview]:
        """Read whole objects, neighbours with one read, into memory of `pages_of` bytes; their bytes in it, writable.

        Page-aligned memory is read into directly. May run on any thread, concurrently with an append.
        """

    def share(self, key: str) -> Shared | None:
        """Share the container of a key's objects, at their offsets: it will never be written again.

        It stays part of the WAL until its objects are released. None while objects are still being added to it.
        """

    def release(self, locations: Iterable[WalLocation]) -> None:
        """These objects are no longer needed; their space may be reused."""

    def places(self) -> list[str]:
        """Before `recover`: keys of every container that may have objects, live or not."""

    def look(self, key: str, offset: int, size_bytes: int) -> memoryview:
        """Before `recover`: bytes from some page of a container, whatever they are; fewer at its end."""

    def recover(self, live: Iterable[WalLocation]) -> None:
        """At start: exactly these objects are live; everything else is free space."""

    def close(self) -> None:
        """Release operating system resources."""


def pages_of(locations: Iterable[WalLocation]) -> int:
    """Bytes in the pages that objects occupy: their space, and what reading them takes."""
    return sum((location.length + PAGE_BYTES - 1) & -PAGE_BYTES for location in locations)


def check_range(location: WalLocation, start: int, end: int) -> None:
    """Refuse a range that is not within the object."""
    if not 0 <= start <= end <= location.length:
        raise InvalidRequest(f"bytes {start} to {end} are not within the {location.length} bytes of the object")
