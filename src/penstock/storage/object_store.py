"""The port of the object store: immutable objects under flat keys, all that is asked of a cloud store.

The interface is synchronous and every method may be called from any thread: callers run it on worker threads.
Objects are immutable; writing a key again is only for repeating a write whose
outcome was unknown.

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
"""Something to send: bytes in memory, or in a file."""

_PART = r"[A-Za-z0-9_=+@-][A-Za-z0-9_=+@.-]*"
_KEY = rf"{_PART}(?:/{_PART})*"
_KEY_MAX_CHARACTERS = 512
_PART_MAX_CHARACTERS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """What a listing says about an object."""

    key: str
    size_bytes: int
    modified_ms: int


class ObjectWriter(Protocol):
    """An object on its way: invisible until `commit`, gone after `abort`. Used by one thread at a time."""

    def write(self, buffer: Buffer) -> None:
        """Add bytes. The buffer may be used again on return."""

    def commit(self) -> None:
        """Make the object visible and durable."""

    def abort(self) -> None:
        """Forget what was written. Does nothing after `commit` or another `abort`."""


class ObjectStore(Protocol):
    """Where segments lie. Methods raise `Unavailable` when nothing happened, `InvalidRequest` for what is not there."""

    def put(self, key: str, body: Sequence[Buffer]) -> None:
        """Store a whole object at once; it is durable on return."""

    def open_writer(self, key: str) -> ObjectWriter:
        """Store an object piece by piece, without holding it in memory."""

    def adopt(self, key: str, shared: Shared) -> int:
        """Store as an object what a log shares, without copying it; its size. It is durable on return.

        Raises `InvalidRequest` where that is impossible: somebody else's memory, another disk.
        """

    def read_into(self, key: str, start: int, buffer: memoryview) -> int:
        """Fill the buffer with bytes from `start` on; how many there were, fewer only where the object ends."""

    def piece(self, key: str, start: int, length: int) -> Piece | None:
        """Bytes that can be sent as they are, where that takes no waiting; else None. May be called on an event loop.

        They stay valid for as long as somebody has them, whatever becomes of the object.
        """

    def size(self, key: str) -> int:
        """Bytes in an object."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Objects in key order, for garbage collection. May lag behind a `put`: never a source of truth."""

    def delete(self, keys: Sequence[str]) -> None:
        """Remove keys. Absent keys are not an error, so a retry is always safe."""

    def close(self) -> None:
        """Let go of everything. Safe to call twice."""


def check_key(key: str) -> None:
    """Raise `InvalidRequest` unless the key is a path of plain names: no empty, hidden or parent parts."""
    if len(key) > _KEY_MAX_CHARACTERS or not re.fullmatch(_KEY, key):
        raise InvalidRequest(f"{key[:80]!r} is not a key: names of letters, digits and _=+@.- separated by slashes")
    if max(map(len, key.split("/"))) > _PART_MAX_CHARACTERS:
        raise InvalidRequest(f"{key[:80]!r} is not a key: a part is longer than {_PART_MAX_CHARACTERS} characters")


def missing(key: str) -> InvalidRequest:
    """The failure of looking for a key that is not there."""
    return InvalidRequest(f"there is no object {key}")
