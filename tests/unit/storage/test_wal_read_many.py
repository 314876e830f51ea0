"""Whole objects are read back with few reads, whatever lies between them."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.base.errors import InvalidRequest
from penstock.storage.arena import Arena
from penstock.storage.memory import MemoryWal
from penstock.storage.slabs import SlabWal
from penstock.storage.wal import WalStore, pages_of

SIZES = [1, 4096, 100, 300_000, 4097, 70_000, 12, 1_000_000, 5]


@pytest.fixture(params=["memory", "disk", "process", "no direct io"])
def wal(request: pytest.FixtureRequest, tmp_path: Path) -> WalStore:
    if request.param == "memory":
        return MemoryWal(10**8)
    durability = "process" if request.param == "process" else "disk"
    direct_io = request.param != "no direct io"
    return SlabWal(tmp_path, durability=durability, slab_bytes=1024 * 1024, direct_io=direct_io)


def test_objects_of_all_sizes_come_back_together(wal: WalStore) -> None:
    bodies = [bytes([number]) * size for number, size in enumerate(SIZES, 1)]
    locations = [wal.append((body,)) for body in bodies]
    chosen = [0, 1, 2, 4, 3, 6, 7, 8]
    buffer, _ = Arena(16 * 1024 * 1024).reserve(pages_of(locations[number] for number in chosen))
    views = wal.read_many([locations[number] for number in chosen], buffer)
    assert [bytes(view) for view in views] == [bodies[number] for number in chosen]
    views[3][:] = bytes(len(views[3]))  # It is the caller's memory.
    assert bytes(wal.read(locations[3], 0, 10)) == bytes([4]) * 10
    wal.close()


def test_unaligned_memory_will_do(wal: WalStore) -> None:
    location = wal.append((b"x" * 300_000,))
    buffer = memoryview(bytearray(pages_of((location,)) + 1))[1:]
    assert bytes(wal.read_many([location], buffer)[0]) == b"x" * 300_000
    wal.close()


def test_released_objects_are_refused(wal: WalStore) -> None:
    locations = [wal.append((b"x" * 900_000,)) for _ in range(6)]
    wal.release(locations[:5])
    buffer, _ = Arena(16 * 1024 * 1024).reserve(pages_of(locations))
    with pytest.raises(InvalidRequest):
        wal.read_many(locations[:5], buffer)
    wal.close()


def test_the_capacity_is_what_fits(tmp_path: Path) -> None:
    assert MemoryWal(5000).capacity_bytes == 5000
    wal = SlabWal(tmp_path, durability="process", slab_bytes=8192, max_slabs=3)
    assert wal.capacity_bytes == 3 * 8192
    for _ in range(6):
        wal.append((b"x" * 4096,))
    wal.close()
