"""Operations of an object store, timed. What it does otherwise is in the contract."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from penstock.base.errors import InvalidRequest, Unavailable
from penstock.storage.memory import MemoryObjectStore
from penstock.storage.timed import TimedObjectStore
from penstock.storage.wal import Buffer


class Slow(MemoryObjectStore):
    """Takes a second for everything."""

    def __init__(self) -> None:
        super().__init__()
        self.time_s = 0.0
        self.fails = False

    def put(self, key: str, body: Sequence[Buffer]) -> None:
        self.time_s += 1
        if self.fails:
            raise Unavailable("it is away")
        super().put(key, body)

    def read_into(self, key: str, start: int, buffer: memoryview) -> int:
        self.time_s += 1
        return super().read_into(key, start, buffer)

    def delete(self, keys: Sequence[str]) -> None:
        self.time_s += 1
        super().delete(keys)


def test_each_operation_by_its_name() -> None:
    slow = Slow()
    store = TimedObjectStore(slow, lambda: slow.time_s)
    store.put("a", [b"body"])
    store.read_into("a", 0, memoryview(bytearray(4)))
    store.read_into("a", 0, memoryview(bytearray(4)))
    writer = store.open_writer("b")
    writer.write(b"piece")
    writer.commit()
    writer.abort()
    abandoned = store.open_writer("c")
    abandoned.abort()
    store.delete(["a"])
    found = {name: (one.count, one.total_s) for name, one in store.durations.items()}
    assert found == {"put": (1, 1), "commit": (1, 1), "adopt": (0, 0), "read": (2, 2), "delete": (1, 1)}
    assert [info.key for info in store.list("")] == ["b"]
    assert (store.size("b"), store.piece("b", 0, 1)) == (5, slow.piece("b", 0, 1))


def test_what_fails_says_nothing() -> None:
    slow = Slow()
    slow.fails = True
    store = TimedObjectStore(slow, lambda: slow.time_s)
    with pytest.raises(Unavailable):
        store.put("a", [b"body"])
    with pytest.raises(InvalidRequest):
        store.adopt("b", memoryview(b"somebody's"))
    assert not any(one.count for one in store.durations.values())
