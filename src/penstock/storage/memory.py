"""The WAL and the object store in memory: for tests, for demonstrations, and as a baseline.

Bodies are copied, as a disk would, so that the caller may reuse its buffers. Memory is bounded: a full WAL refuses what
does not fit. Nothing survives the process.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence

from penstock.base.clock import Clock, SystemClock
from penstock.base.errors import CorruptData, InvalidRequest, Unavailable
from penstock.storage.object_store import ObjectInfo, ObjectWriter, check_key, missing
from penstock.storage.wal import Buffer, Done, Shared, WalLocation, check_range, pages_of


class MemoryWal:
    """The WAL as a dictionary. Every object has a key of its own."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._objects: dict[str, bytes] = {}
        self._held_bytes = 0
        self._number = 0
        self._lock = threading.Lock()

    @property
    def capacity_bytes(self) -> int:
        """The bound."""
        return self._max_bytes

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

    def begin(self, body: memoryview, done: Done) -> bool:
        """False: there is nothing asynchronous."""
        return False

    def read(self, location: WalLocation, start: int, end: int) -> memoryview:
        """Bytes [start, end) of an object, without a copy."""
        check_range(location, start, end)
        body = self._objects.get(location.key)
        if body is None or location.offset + location.length > len(body):
            raise InvalidRequest(f"the write-ahead log has no object at {location}")
        return memoryview(body)[location.offset + start : location.offset + end]

    def read_many(self, locations: Sequence[WalLocation], buffer: memoryview) -> list[memoryview]:
        """Copy whole objects into a buffer."""
        views, position = [], 0
        for location in locations:
            view = buffer[position : position + location.length]
            view[:] = self.read(location, 0, location.length)
            views.append(view)
            position += pages_of((location,))
        return views

    def share(self, key: str) -> Shared | None:
        """An object's bytes."""
        return self._objects.get(key)

    def release(self, locations: Iterable[WalLocation]) -> None:
        """Forget objects; views returned before stay valid."""
        with self._lock:
            for location in locations:
                self._held_bytes -= len(self._objects.pop(location.key, b""))

    def places(self) -> list[str]:
        """The keys: each has one object, at its beginning."""
        return list(self._objects)

    def look(self, key: str, offset: int, size_bytes: int) -> memoryview:
        """Bytes of an object."""
        return memoryview(self._objects.get(key, b""))[offset : offset + size_bytes]

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


class MemoryObjectStore:
    """The object store as a dictionary."""

    def __init__(self, *, max_bytes: int = 2**63 - 1, clock: Clock | None = None) -> None:
        self._max_bytes = max_bytes
        self._clock: Clock = clock or SystemClock()
        self._objects: dict[str, tuple[bytes, int]] = {}
        self._held_bytes = 0
        self._lock = threading.Lock()

    def put(self, key: str, body: Sequence[Buffer]) -> None:
        """Copy a whole object. Raise `Unavailable` when memory for it would exceed the bound."""
        check_key(key)
        data = b"".join(body)
        with self._lock:
            before, _ = self._objects.get(key, (b"", 0))
            held_bytes = self._held_bytes + len(data) - len(before)
            if held_bytes > self._max_bytes:
                raise Unavailable(
                    f"the object store in memory holds {self._held_bytes} of at most {self._max_bytes} bytes; "
                    f"{len(data)} more do not fit"
                )
            self._held_bytes = held_bytes
            self._objects[key] = (data, self._clock.now_ms())

    def open_writer(self, key: str) -> ObjectWriter:
        """Collect an object piece by piece."""
        check_key(key)
        return _MemoryWriter(self, key)

    def adopt(self, key: str, shared: Shared) -> int:
        """Keep an object of the WAL in memory as an object."""
        if not isinstance(shared, bytes):
            raise InvalidRequest("a file is not taken into memory")
        self.put(key, (shared,))
        return len(shared)

    def read_into(self, key: str, start: int, buffer: memoryview) -> int:
        """Fill the buffer from `start` on."""
        if start < 0:
            raise InvalidRequest(f"an object has no byte {start}")
        piece = self._body(key)[start : start + buffer.nbytes]
        buffer[: len(piece)] = piece
        return len(piece)

    def piece(self, key: str, start: int, length: int) -> memoryview | None:
        """The bytes themselves, which are immutable."""
        check_key(key)
        held = self._objects.get(key)
        if held is None:
            return None
        found = memoryview(held[0])[start : start + length]
        return found if len(found) == length else None

    def read_cached(self, key: str, start: int, buffer: memoryview) -> int:
        """Everything is there."""
        return self.read_into(key, start, buffer) if key in self._objects else 0

    def size(self, key: str) -> int:
        """Bytes in an object."""
        return len(self._body(key))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Objects whose keys begin with the prefix, in key order."""
        with self._lock:
            found = sorted((key, *held) for key, held in self._objects.items() if key.startswith(prefix))
        for key, data, modified_ms in found:
            yield ObjectInfo(key=key, size_bytes=len(data), modified_ms=modified_ms)

    def delete(self, keys: Sequence[str]) -> None:
        """Forget objects."""
        for key in keys:
            check_key(key)
        with self._lock:
            for key in keys:
                self._held_bytes -= len(self._objects.pop(key, (b"", 0))[0])

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            self._objects, self._held_bytes = {}, 0

    def _body(self, key: str) -> memoryview:
        check_key(key)
        held = self._objects.get(key)
        if held is None:
            raise missing(key)
        return memoryview(held[0])


class _MemoryWriter:
    """The pieces of an object that is not visible yet."""

    def __init__(self, store: MemoryObjectStore, key: str) -> None:
        self._store, self._key = store, key
        self._pieces: list[bytes] = []

    def write(self, buffer: Buffer) -> None:
        """Copy bytes."""
        self._pieces.append(bytes(buffer))

    def commit(self) -> None:
        """Make the object visible."""
        self._store.put(self._key, self._pieces)
        self._pieces = []

    def abort(self) -> None:
        """Forget the pieces."""
        self._pieces = []
