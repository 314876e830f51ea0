"""What the write-ahead log shares becomes an object as it is, and nobody writes to it again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from penstock.base.errors import InvalidRequest
from penstock.storage.local import LocalObjectStore
from penstock.storage.memory import MemoryObjectStore, MemoryWal
from penstock.storage.slabs import SlabWal

KIB = 1024


def slabs_in(path: Path) -> SlabWal:
    return SlabWal(path / "slabs", durability="process", slab_bytes=64 * KIB)


def read(store: LocalObjectStore | MemoryObjectStore, key: str, start: int, size_bytes: int) -> bytes:
    buffer = memoryview(bytearray(size_bytes))
    assert store.read_into(key, start, buffer) == size_bytes
    return bytes(buffer)


def test_a_full_slab_becomes_an_object_and_is_not_used_again(tmp_path: Path) -> None:
    wal, objects = slabs_in(tmp_path), LocalObjectStore(tmp_path / "segments", sync=True)
    locations = [wal.append((bytes([number]) * 30_000,)) for number in range(1, 4)]
    assert locations[0].key == locations[1].key != locations[2].key
    assert wal.share(locations[2].key) is None  # It still grows.
    assert wal.share("999999.slab") is None
    shared = wal.share(locations[0].key)
    assert shared is not None
    assert objects.adopt("ab/object", shared) == 64 * KIB
    assert bytes(wal.read(locations[1], 0, 10)) == bytes([2]) * 10  # Still part of the log.
    wal.release(locations[:2])
    assert not (tmp_path / "slabs" / locations[0].key).exists()
    for number in range(20):
        wal.release((wal.append((bytes([99]) * 50_000,)),)) if number % 2 else wal.append((b"x" * 50_000,))
    assert read(objects, "ab/object", locations[1].offset, 30_000) == bytes([2]) * 30_000
    wal.close()
    objects.close()


@pytest.mark.parametrize("alive", [0, 1, 2])
def test_a_shared_slab_is_known_after_a_crash(tmp_path: Path, alive: int) -> None:
    wal, objects = slabs_in(tmp_path), LocalObjectStore(tmp_path / "segments", sync=True)
    locations = [wal.append((bytes([number]) * 30_000,)) for number in range(1, 4)]
    shared = wal.share(locations[0].key)
    assert shared is not None
    objects.adopt("ab/object", shared)
    wal.close()
    wal = slabs_in(tmp_path)
    wal.recover(locations[:alive])
    for _ in range(20):
        wal.append((bytes([99]) * 20_000,))
    assert read(objects, "ab/object", 0, 30_000) == bytes([1]) * 30_000
    assert read(objects, "ab/object", locations[1].offset, 30_000) == bytes([2]) * 30_000
    wal.close()
    objects.close()


def test_in_memory_as_well(tmp_path: Path) -> None:
    wal, objects = MemoryWal(10**6), MemoryObjectStore()
    location = wal.append((b"abc" * 1000,))
    shared = wal.share(location.key)
    assert shared is not None
    assert objects.adopt("ab/object", shared) == 3000
    wal.release((location,))
    assert wal.share(location.key) is None
    assert read(objects, "ab/object", 0, 3000) == b"abc" * 1000


def test_what_cannot_be_adopted_is_refused(tmp_path: Path) -> None:
    objects = LocalObjectStore(tmp_path / "segments", sync=False)
    with pytest.raises(InvalidRequest):
        objects.adopt("ab/object", b"in memory")
    with pytest.raises(InvalidRequest):
        objects.adopt("ab/object", tmp_path / "missing")
    with pytest.raises(InvalidRequest):
        MemoryObjectStore().adopt("ab/object", tmp_path)
    assert list(objects.list("")) == []
    objects.close()


def test_a_slab_that_was_cut_short_for_nothing_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    """The process died between cutting off its end and giving it a second name."""
    wal = slabs_in(tmp_path)
    first = wal.append((b"1" * 4 * KIB,))
    wal.close()
    os.truncate(tmp_path / "slabs" / first.key, 12 * KIB)
    wal = slabs_in(tmp_path)
    wal.recover([first])
    small = [first, *(wal.append((b"2" * 4 * KIB,)) for _ in range(2))]
    assert {location.key for location in small} == {first.key}
    wal.release(small)
    for number in range(9):
        location = wal.append((bytes([number]) * 40 * KIB,))
        assert bytes(wal.read(location, 0, 40 * KIB)) == bytes([number]) * 40 * KIB
    assert not (tmp_path / "slabs" / first.key).exists()
    wal.close()
