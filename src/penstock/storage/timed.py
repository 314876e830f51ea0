"""An object store that measures the duration of each operation, and delegates to another one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from penstock.base.durations import SharedDurations
from penstock.storage.object_store import ObjectInfo, ObjectStore, ObjectWriter, Piece
from penstock.storage.wal import Buffer, Shared

OPERATIONS = ("put", "commit", "adopt", "read", "delete")
"""Operations that wait for a disk or a network. Storing an object piece by piece ends in `commit`."""


class TimedObjectStore:
    """A wrapper with a clock. As thread-safe as the wrapped store."""

    def __init__(self, store: ObjectStore, now: Callable[[], float]) -> None:
        self.store, self._now = store, now
        self.durations: Mapping[str, SharedDurations] = {name: SharedDurations() for name in OPERATIONS}

    def put(self, key: str, body: Sequence[Buffer]) -> None:
        """Store a whole object at once."""
        began_s = self._now()
        self.store.put(key, body)
        self._note("put", began_s)

    def open_writer(self, key: str) -> ObjectWriter:
        """Store an object piece by piece."""
        return _TimedWriter(self.store.open_writer(key), self._now, self.durations["commit"])

    def adopt(self, key: str, shared: Shared) -> int:
        """Make an object of what a WAL shares."""
        began_s = self._now()
        size_bytes = self.store.adopt(key, shared)
        self._note("adopt", began_s)
        return size_bytes

    def read_into(self, key: str, start: int, buffer: memoryview) -> int:
        """Fill the buffer."""
        began_s = self._now()
        count = self.store.read_into(key, start, buffer)
        self._note("read", began_s)
        return count

    def piece(self, key: str, start: int, length: int) -> Piece | None:
        """A range that can be sent directly; not measured, as it never blocks."""
        return self.store.piece(key, start, length)

    def read_cached(self, key: str, start: int, buffer: memoryview) -> int:
        """What is there without waiting; not measured, as it never blocks."""
        return self.store.read_cached(key, start, buffer)

    def size(self, key: str) -> int:
        """Bytes in an object."""
        return self.store.size(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Objects in key order, as they are consumed."""
        return self.store.list(prefix)

    def delete(self, keys: Sequence[str]) -> None:
        """Remove keys."""
        began_s = self._now()
        self.store.delete(keys)
        self._note("delete", began_s)

    def close(self) -> None:
        """Release all resources."""
        self.store.close()

    def _note(self, operation: str, began_s: float) -> None:
        self.durations[operation].add(self._now() - began_s)


class _TimedWriter:
    __slots__ = ("_commits", "_now", "_writer")

    def __init__(self, writer: ObjectWriter, now: Callable[[], float], commits: SharedDurations) -> None:
        self._writer, self._now, self._commits = writer, now, commits

    def write(self, buffer: Buffer) -> None:
        """Add bytes."""
        self._writer.write(buffer)

    def abort(self) -> None:
        """Discard what was written."""
        self._writer.abort()

    def commit(self) -> None:
        """Make the object visible and durable."""
        began_s = self._now()
        self._writer.commit()
        self._commits.add(self._now() - began_s)
