"""Stores that keep everything in memory: for tests, simulations, and brokers that live as long as a test."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Literal

from penstock.base.clock import Clock
from penstock.base.errors import Conflict, CorruptData, InvalidRequest, Unavailable
from penstock.storage.object_store import ObjectInfo, check_key
from penstock.storage.wal import Buffer, WalLocation

Moment = Literal["before", "after"]
Fault = Callable[[str, Moment], None]
"""Called around every change with its name; raises what shall go wrong."""


def _no_fault(_operation: str, _moment: Moment) -> None:
    return


class MemoryWal:
    """WAL objects in memory, up to a limit. Survives a simulated crash: `recover` forgets what was not committed."""

    def __init__(self, *, max_bytes: int = 256 * 1024 * 1024, fault: Fault = _no_fault) -> None:
        self.fault = fault
        self._max_bytes = max_bytes
        self._objects: dict[WalLocation, bytes] = {}
        self._held_bytes = 0
        self._position = 0
        self._lock = threading.Lock()

    def append(self, body: Sequence[Buffer]) -> WalLocation:
        """Keep a copy of the body."""
        self.fault("append", "before")
        content = b"".join(body)
        if not content:
            raise InvalidRequest("an empty object cannot be written")
        with self._lock:
            if self._held_bytes + len(content) > self._max_bytes:
                raise Unavailable(
                    f"back-pressure: {self._held_bytes} bytes in memory are not compacted yet, the limit is "
                    f"{self._max_bytes}"
                )
            location = WalLocation("memory", self._position, len(content))
            self._position += len(content)
            self._objects[location] = content
            self._held_bytes += len(content)
        self.fault("append", "after")
        return location

    def read(self, location: WalLocation, start: int, end: int) -> memoryview:
        """Bytes [start, end) of an object, without a copy."""
        if not 0 <= start <= end <= location.length:
            raise InvalidRequest(f"bytes [{start}, {end}) are not in {location}")
        content = self._objects.get(location)
        if content is None:
            raise InvalidRequest(f"{location} was released")
        return memoryview(content)[start:end]

    def release(self, locations: Iterable[WalLocation]) -> None:
        """Forget objects. Unknown ones are no error."""
        with self._lock:
            for location in locations:
                content = self._objects.pop(location, None)
                if content is not None:
                    self._held_bytes -= len(content)

    def recover(self, live: Iterable[WalLocation]) -> None:
        """Forget everything but these objects."""
        wanted = set(live)
        missing = wanted - self._objects.keys()
        if missing:
            raise CorruptData(f"{next(iter(missing))} is missing: committed data was in it")
        self.release([location for location in self._objects if location not in wanted])

    def close(self) -> None:
        """Nothing was lent; the objects stay for whoever opens this again."""


class MemoryObjectStore:
    """Objects in a dictionary."""

    def __init__(self, clock: Clock, *, fault: Fault = _no_fault) -> None:
        self.fault = fault
        self._clock = clock
        self._objects: dict[str, tuple[bytes, int]] = {}

    async def put(self, key: str, body: Sequence[Buffer], *, if_absent: bool) -> None:
        """Keep a copy of the body."""
        check_key(key)
        self.fault("put", "before")
        if if_absent and key in self._objects:
            raise Conflict(f"{key} exists")
        self._objects[key] = (b"".join(body), self._clock.now_ms())
        self.fault("put", "after")

    async def get(self, key: str, *, start: int, end: int) -> memoryview:
        """Bytes [start, end), without a copy."""
        check_key(key)
        self.fault("get", "before")
        content, _ = self._objects.get(key, (None, 0))
        if content is None:
            raise InvalidRequest(f"there is no object {key}")
        if not 0 <= start <= end <= len(content):
            raise InvalidRequest(f"bytes [{start}, {end}) are not in {key}, which has {len(content)}")
        return memoryview(content)[start:end]

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Objects whose keys begin with the prefix, in key order."""
        for key in sorted(key for key in self._objects if key.startswith(prefix)):
            content, modified_ms = self._objects.get(key, (b"", -1))
            if modified_ms >= 0:
                yield ObjectInfo(key=key, size_bytes=len(content), modified_ms=modified_ms)

    async def delete(self, keys: Sequence[str]) -> None:
        """Forget objects. Absent ones are no error."""
        for key in keys:
            check_key(key)
        self.fault("delete", "before")
        for key in keys:
            self._objects.pop(key, None)
        self.fault("delete", "after")

    async def close(self) -> None:
        """Nothing was lent."""
