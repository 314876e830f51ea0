"""New objects: their ids and keys, and the registry of those being written.

An object is written first and named by a transaction afterwards. In between nothing in the database tells it from
garbage, so its writer keeps it registered here until the outcome of the transaction is known, however long that takes:
the orphan sweep skips registered objects. An object of a crashed process is registered nowhere; it is garbage unless
its transaction happened.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from penstock.base.randomness import Randomness

_KEY = re.compile(r"[0-9a-f]{2}/[0-9a-f]{32}")


class Upload(NamedTuple):
    """An object that is being written."""

    object_id: bytes
    key: str


class Uploads:
    """The objects that this process is writing or about to name."""

    def __init__(self, randomness: Randomness) -> None:
        self._randomness = randomness
        self._under_way: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._under_way)

    def __contains__(self, object_id: bytes) -> bool:
        return object_id in self._under_way

    def begin(self) -> Upload:
        """Register a new object. Call `end` when its transaction has happened or never will."""
        object_id = self._randomness.token(16)
        self._under_way.add(object_id)
        return Upload(object_id, object_key(object_id))

    def end(self, upload: Upload) -> None:
        """Deregister an object: it is named, or garbage."""
        self._under_way.discard(upload.object_id)

    @contextmanager
    def new(self) -> Iterator[Upload]:
        """`begin` and `end` around writing and naming an object."""
        upload = self.begin()
        try:
            yield upload
        finally:
            self.end(upload)


def object_key(object_id: bytes) -> str:
    """The object's key in the store. Its first byte spreads objects over directories and prefixes."""
    text = object_id.hex()
    return f"{text[:2]}/{text}"


def object_id_of(key: str) -> bytes | None:
    """The id of the object with that key, or None if the key is not one of ours."""
    if _KEY.fullmatch(key) is None or key[:2] != key[3:5]:
        return None
    return bytes.fromhex(key[3:])
