"""The port of the object store: immutable objects under flat keys, all that is asked of a cloud store.

Every implementation, fakes included, passes tests/contract/test_object_store.py.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from penstock.base.errors import InvalidRequest
from penstock.storage.wal import Buffer

_PART = r"[A-Za-z0-9_=+@-][A-Za-z0-9_=+@.-]*"
_KEY = re.compile(rf"{_PART}(?:/{_PART})*")
_KEY_MAX_CHARACTERS = 512
_PART_MAX_CHARACTERS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """What a listing says about an object."""

    key: str
    size_bytes: int
    modified_ms: int


class ObjectStore(Protocol):
    """Where segments lie.

    Methods raise `Unavailable` when nothing happened. `put` raises `OutcomeUnknown` when the object may exist.
    """

    async def put(self, key: str, body: Sequence[Buffer], *, if_absent: bool) -> None:
        """Store a whole object durably; raise `Conflict` if `if_absent` and the key exists."""

    async def get(self, key: str, *, start: int, end: int) -> memoryview:
        """Bytes [start, end); raise `InvalidRequest` if the key or the range is not there."""

    def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Objects in key order, for garbage collection. May lag behind a `put`: never a source of truth."""

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove keys. Absent keys are not an error, so a retry is always safe."""

    async def close(self) -> None:
        """Finish what is under way and let go of everything. Safe to call twice."""


def check_key(key: str) -> None:
    """Raise `InvalidRequest` unless the key is a path of plain names: no empty, hidden or parent parts."""
    if len(key) > _KEY_MAX_CHARACTERS or not _KEY.fullmatch(key):
        raise InvalidRequest(f"{key[:80]!r} is not a key: names of letters, digits and _=+@.- separated by slashes")
    if max(map(len, key.split("/"))) > _PART_MAX_CHARACTERS:
        raise InvalidRequest(f"{key[:80]!r} is not a key: a part is longer than {_PART_MAX_CHARACTERS} characters")
