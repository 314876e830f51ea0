"""The port of the object store: immutable objects under flat keys, which is all that is needed of a cloud store.

The interface is synchronous, and every method may be called from any thread: callers run it on worker threads. A key is
written again only to repeat a write whose outcome was unknown.

Every implementation passes tests/contract/test_object_store.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Protocol

from penstock.base.dataclasses import dataclass
from penstock.base.errors import InvalidRequest
from penstock.storage.pieces import FilePiece
from penstock.storage.wal import Buffer, Shared

Piece = memoryview | FilePiece
"""Something to send: bytes in memory, or a range of a file."""

_PART = r"[A-Za-z0-9_=+@-][A-Za-z0-9_=+@.-]*"
_KEY = rf"{_PART}(?:/{_PART})*"
_KEY_MAX_CHARACTERS = 512
_PART_MAX_CHARACTERS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """An entry of a listing."""

    key: str
    size_bytes: int
    modified_ms: int


class ObjectWriter(Protocol):
    """An object being written: invisible until `commit`, gone after `abort`. Used by one thread at a time."""

    def write(self, buffer: Buffer) -> None:
        """Add bytes. The buffer may be reused on return."""

    def commit(self) -> None:
        """Make the object visible and durable."""

    def abort(self) -> None:
        """Discard what was written. Does nothing after `commit` or another `abort`."""


class ObjectStore(Protocol):
    """Stores segments. Methods raise `Unavailable` when nothing happened, `InvalidRequest` for a missing key or
    range."""

    def put(self, key: str, body: Sequence[Buffer]) -> None:
        """Store a whole object at once; it is durable on return."""

    def open_writer(self, key: str) -> ObjectWriter:
        """Store an object piece by piece, without holding it in memory."""

    def adopt(self, key: str, shared: Shared) -> int:
        """Make an object of what a WAL shares, without copying it; its size. It is durable on return.

        Raises `InvalidRequest` where that is impossible: memory of another kind, another disk.
        """

    def read_into(self, key: str, start: int, buffer: memoryview) -> int:
        """Fill the buffer with bytes from `start` on; how many there were, fewer only at the end of the object."""

    def piece(self, key: str, start: int, length: int) -> Piece | None:
        """A range that can be sent directly, if that does not block; else None. May be called on an event loop.

        It stays valid as long as it is referenced, even if the object is deleted.
        """

    def read_cached(self, key: str, start: int, buffer: memoryview) -> int:
        """As `read_into`, but only what is there without waiting, and nothing if that cannot be told; how many bytes
        that was. May be called on an event loop, and raises nothing."""

    def size(self, key: str) -> int:
        """Bytes in an object."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Objects in key order, for garbage collection. May lag behind a `put`: never a source of truth."""

    def delete(self, keys: Sequence[str]) -> None:
        """Remove keys. Absent keys are not an error, so a retry is always safe."""

    def close(self) -> None:
        """Release all resources. Safe to call twice."""


def check_key(key: str) -> None:
    """Raise `InvalidRequest` unless the key is a path of plain names: no empty, hidden or parent parts."""
    if len(key) > _KEY_MAX_CHARACTERS or not re.fullmatch(_KEY, key):
        raise InvalidRequest(f"{key[:80]!r} is not a key: names of letters, digits and _=+@.- separated by slashes")
    if max(map(len, key.split("/"))) > _PART_MAX_CHARACTERS:
        raise InvalidRequest(f"{key[:80]!r} is not a key: a part is longer than {_PART_MAX_CHARACTERS} characters")


def missing(key: str) -> InvalidRequest:
    """The error for a key that does not exist."""
    return InvalidRequest(f"there is no object {key}")
