"""Whether the kernel has a stretch of a file in memory: counted where it counts, sampled elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.storage.page_cache import PAGE_BYTES, cached_pages, is_cached, read

PAGES = 256
SIZE = PAGES * PAGE_BYTES


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "object"
    path.write_bytes(b"x" * SIZE)
    fd = os.open(path, os.O_RDWR)
    os.fsync(fd)
    yield fd
    os.close(fd)


def drop(fd: int, start: int, length: int) -> None:
    os.posix_fadvise(fd, start, length, os.POSIX_FADV_DONTNEED)


def counting(fd: int) -> None:
    if cached_pages(fd, 0, PAGES) != PAGES:
        pytest.skip("this kernel does not count, or this file system does not keep what was just written")


@pytest.mark.parametrize(("start", "length"), [(0, SIZE), (0, 1), (1, SIZE - 1), (4095, 2), (SIZE - 1, 1), (70_000, 5)])
def test_what_was_just_read_is_there(fd: int, start: int, length: int) -> None:
    os.pread(fd, SIZE, 0)
    if not is_cached(fd, 0, SIZE):
        pytest.skip("this file system cannot be asked")
    assert is_cached(fd, start, length)


def test_the_pages_of_a_stretch_are_counted(fd: int) -> None:
    counting(fd)
    assert [cached_pages(fd, first, count) for first, count in ((0, 1), (3, 5), (PAGES - 1, 1), (PAGES, 1))] == [
        1, 5, 1, 0,
    ]  # fmt: skip


@pytest.mark.parametrize(("start", "length"), [(0, SIZE), (5_000, 1)])
def test_what_was_dropped_is_not_there(fd: int, start: int, length: int) -> None:
    drop(fd, 0, 0)
    if cached_pages(fd, 0, PAGES):
        pytest.skip("this file system keeps what it is told to drop")
    assert not is_cached(fd, start, length)


def test_only_what_is_there_is_read(fd: int) -> None:
    buffer = bytearray(SIZE)
    os.pread(fd, SIZE, 0)
    if not is_cached(fd, 0, SIZE):
        pytest.skip("this file system cannot be asked")
    assert (read(fd, 0, memoryview(buffer)), buffer) == (SIZE, b"x" * SIZE)
    assert read(fd, SIZE - 3, memoryview(buffer)) == 3
    assert read(fd, SIZE, memoryview(buffer)) == 0
    drop(fd, 0, 0)
    if cached_pages(fd, 0, PAGES):
        pytest.skip("this file system keeps what it is told to drop")
    assert read(fd, 0, memoryview(buffer)) == 0


def test_a_hole_of_a_few_pages_is_noticed(fd: int) -> None:
    counting(fd)
    drop(fd, 0, 0)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    for page in range(PAGES):  # Page by page: what came at once goes at once.
        os.pread(fd, 1, page * PAGE_BYTES)
    drop(fd, 40 * PAGE_BYTES, 3 * PAGE_BYTES)  # Between the bytes that would be looked at.
    if cached_pages(fd, 40, 3):
        pytest.skip("this file system keeps what it is told to drop")
    assert not is_cached(fd, 0, SIZE)
    assert is_cached(fd, 0, 40 * PAGE_BYTES)
    assert is_cached(fd, 43 * PAGE_BYTES, SIZE - 43 * PAGE_BYTES)


def test_behind_the_end_nothing_is_there(fd: int) -> None:
    os.pread(fd, SIZE, 0)
    assert not is_cached(fd, SIZE - 10, 20)
    assert not is_cached(fd, SIZE, 1)


def test_what_cannot_be_asked_is_not_there(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    try:
        assert not cached_pages(reading, 0, 1)
        assert not is_cached(reading, 0, 1)
    finally:
        os.close(reading)
        os.close(writing)
