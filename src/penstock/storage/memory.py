"""The write-ahead log in memory: for tests, for trying things out, and as the fastest possible yardstick.

Bodies are copied, as a disk would, so that the caller may use its buffers again. Memory is bounded: a full log refuses
what it cannot keep. Nothing survives the process.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

from penstock.base.errors import CorruptData, InvalidRequest, Unavailable
from penstock.storage.wal import Buffer, WalLocation, check_range


class MemoryWal:
    """Objects of the write-ahead log as a dictionary. Every object has a key of its own."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._objects: dict[str, bytes] = {}
        self._held_bytes = 0
        self._number = 0
        self._lock = threading.Lock()

    def append(self, body: Sequence[Buffer]) -> WalLocation:
        """Copy one object. Raise `Unavailable` when memory for it would exceed the bound."""
        size_bytes = sum(memoryview(part).nbytes for part in body)
        if size_bytes == 0:
            raise InvalidRequest("an object of the write-ahead log cannot be empty")
        with self._lock:
            if self._held_bytes + size_bytes > self._max_bytes:
                raise Unavailable(
                    f"the write-ahead log in memory holds {self._held_bytes} of at most {self._max_bytes} bytes; "
                    f"{size_bytes} more do not fit"
                )
            self._held_bytes += size_bytes
            self._number += 1
            key = f"memory/{self._number:012d}"
            self._objects[key] = b"".join(body)
        return WalLocation(key, 0, size_bytes)

    def read(self, location: WalLocation, start: int, end: int) -> memoryview:
        """Bytes [start, end) of an object, without a copy."""
        check_range(location, start, end)
        body = self._objects.get(location.key)
        if body is None or location.offset + location.length > len(body):
            raise InvalidRequest(f"the write-ahead log has no object at {location}")
        return memoryview(body)[location.offset + start : location.offset + end]

    def release(self, locations: Iterable[WalLocation]) -> None:
        """Forget objects; views handed out before stay valid."""
        with self._lock:
            for location in locations:
                self._held_bytes -= len(self._objects.pop(location.key, b""))

    def recover(self, live: Iterable[WalLocation]) -> None:
        """Keep exactly these objects. Raise `CorruptData` if one of them is not there, as after a restart."""
        with self._lock:
            keys = {location.key for location in live}
            missing = keys - self._objects.keys()
            if missing:
                raise CorruptData(f"{len(missing)} objects of the write-ahead log in memory are gone: {min(missing)}")
            self._objects = {key: self._objects[key] for key in keys}
            self._held_bytes = sum(map(len, self._objects.values()))

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            self._objects, self._held_bytes = {}, 0
