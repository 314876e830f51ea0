"""Where flushes go: the port of the write-ahead log's objects.

A WAL object is the body of one flush, durable before its commit names it. Objects are never changed; an object that
no commit names is garbage and its space may be taken again after a restart. The interface is synchronous: it is
called on the committer's thread, or in line for small flushes that wait for no disk.

Every implementation passes tests/contract/test_wal.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from penstock.base.errors import InvalidRequest

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class WalLocation:
    """Where a WAL object lies: `length` bytes from `offset` of the thing named `key`."""

    key: str
    offset: int
    length: int


class WalStore(Protocol):
    """Objects of the write-ahead log."""

    def append(self, body: Sequence[Buffer]) -> WalLocation:
        """Write one object; it is durable on return. Raise `Unavailable` when nothing was written."""

    def read(self, location: WalLocation, start: int, end: int) -> memoryview:
        """Bytes [start, end) of an object. May run on any thread while another appends."""

    def release(self, locations: Iterable[WalLocation]) -> None:
        """These objects are no longer needed; their space may be used again."""

    def recover(self, live: Iterable[WalLocation]) -> None:
        """At start: exactly these objects are alive; everything else is free space."""

    def close(self) -> None:
        """Release what the operating system lent."""


def check_range(location: WalLocation, start: int, end: int) -> None:
    """Refuse to read bytes that are not the object's."""
    if not 0 <= start <= end <= location.length:
        raise InvalidRequest(f"bytes {start} to {end} are not within the {location.length} bytes of the object")
