"""Recycled memory: reused only without references, oldest first, within one budget."""

from __future__ import annotations

import ctypes
import gc
import mmap
from pathlib import Path

import pytest

from penstock.storage import arena as memory
from penstock.storage.arena import ALIGNMENT, CHUNK_BYTES, HUGE_PAGE_BYTES, OCCUPANT_BYTES, Arena, aligned
from penstock.storage.disk import is_aligned

PAGE = ALIGNMENT
CHUNK = 4 * PAGE


def arena(chunks: int = 2, **options) -> Arena:
    return Arena(chunks * CHUNK, chunk_bytes=CHUNK, **options)


def test_sizes_are_rounded_up_to_pages() -> None:
    assert [aligned(size) for size in (0, 1, PAGE - 1, PAGE, PAGE + 1)] == [0, PAGE, PAGE, PAGE, 2 * PAGE]


def test_memory_is_aligned_and_no_two_views_overlap() -> None:
    held = arena(chunks=10)
    views = [held.reserve(size)[0] for size in (1, 100, PAGE, PAGE + 1, 3 * PAGE, 10 * PAGE)]
    for number, view in enumerate(views):
        view[:] = bytes([number]) * len(view)
    assert [len(view) for view in views] == [1, 100, PAGE, PAGE + 1, 3 * PAGE, 10 * PAGE]
    assert all(bytes(view) == bytes([number]) * len(view) for number, view in enumerate(views))
    assert is_aligned(views[2])
    assert is_aligned(views[4])
    assert held.size_bytes == 2 * CHUNK + 10 * PAGE + CHUNK or held.size_bytes >= sum(map(len, views))


def test_chunks_nobody_looks_at_are_used_again() -> None:
    held = arena()
    for _ in range(50):
        view, _ = held.reserve(PAGE)
        view[:] = b"x" * PAGE
        del view
    assert held.size_bytes <= 2 * CHUNK
    assert held.pinned_bytes == 0


def test_a_chunk_of_very_many_small_pieces_is_full_before_its_bytes_are() -> None:
    let_go: list[int] = []
    held = arena(on_recycle=let_go.extend)
    per_chunk = CHUNK // OCCUPANT_BYTES
    for number in range(10 * per_chunk):
        if number % per_chunk == 0:
            _, chunk = held.reserve(1)
        chunk.occupants.append(number)
    assert let_go == list(range(8 * per_chunk))
    assert held.size_bytes == 2 * CHUNK


def test_a_reader_keeps_its_bytes_valid() -> None:
    held = arena()
    view, _ = held.reserve(PAGE)
    view[:] = b"k" * PAGE
    kept = view[10:20]
    del view
    for _ in range(30):
        other, _ = held.reserve(PAGE)
        other[:] = b"o" * PAGE
        del other
    assert bytes(kept) == b"k" * 10
    assert held.size_bytes <= 3 * CHUNK
    del kept
    gc.collect()
    for _ in range(30):
        held.reserve(PAGE)
    assert held.pinned_bytes == 0


def test_tenants_are_told_before_their_chunk_is_used_again() -> None:
    told: list[object] = []
    views: dict[int, memoryview] = {}

    def leave(occupants: list[object]) -> None:
        told.extend(occupants)
        for occupant in occupants:
            del views[occupant]

    held = arena(on_recycle=leave)
    for number in range(20):
        view, chunk = held.reserve(PAGE)
        views[number] = view
        chunk.occupants.append(number)
        del view, chunk
    assert told == list(range(len(told)))
    assert len(told) >= 12
    assert sorted(views) == list(range(len(told), 20))
    assert held.size_bytes == 2 * CHUNK


def test_old_chunks_that_are_held_do_not_cost_the_new_ones() -> None:
    told: list[object] = []
    held = arena(chunks=8, on_recycle=told.extend)
    kept = []
    for number in range(8):
        view, chunk = held.reserve(CHUNK)
        chunk.occupants.append(number)
        if number < 6:
            kept.append(view)
        del view, chunk
    held.reserve(CHUNK)
    held.reserve(CHUNK)
    assert (told, held.size_bytes) == ([0, 1], 10 * CHUNK)
    for _ in range(20):
        held.reserve(CHUNK)
    assert held.size_bytes <= 11 * CHUNK, "a quarter above the budget, and the chunk that is asked for"
    kept.clear()
    held.trim()
    assert (held.size_bytes, held.pinned_bytes) == (8 * CHUNK, 0)


def test_something_larger_than_the_budget_is_held_alone() -> None:
    held = arena()
    view, _ = held.reserve(100 * PAGE)
    view[-1] = 1
    assert held.pinned_bytes == 100 * PAGE - 2 * CHUNK
    del view
    held.reserve(1)
    assert held.size_bytes <= 2 * CHUNK


def test_dropping_gives_back_what_nobody_looks_at() -> None:
    held = arena()
    kept, _ = held.reserve(10)
    held.reserve(CHUNK)
    held.drop()
    assert held.size_bytes == CHUNK
    kept[:] = b"still mine"
    again, _ = held.reserve(10)
    again[:] = b"0123456789"
    assert bytes(kept) == b"still mine"


def test_a_tenant_that_moves_in_after_the_memory_was_given_back_is_told_too() -> None:
    """A flush knows its tenants when it is written, and memory may be given back meanwhile."""
    told: list[object] = []
    held = arena(on_recycle=told.extend)
    view, chunk = held.reserve(10)
    occupants = chunk.occupants
    occupants.append("known")
    held.drop()
    occupants.append("written since")
    del view
    held.drop()
    assert told == ["known", "written since"]
    assert held.size_bytes == 0


@pytest.mark.skipif(
    not hasattr(mmap, "MADV_HUGEPAGE") or not Path("/sys/kernel/mm/transparent_hugepage").exists(),
    reason="this system has no huge pages",
)
@pytest.mark.parametrize("huge", [True, False])
def test_only_memory_that_is_filled_asks_for_huge_pages(huge: bool) -> None:
    """Others hold as much as was touched, not 2 MiB for each byte."""
    held = Arena(4 * CHUNK_BYTES, huge=huge)
    view, chunk = held.reserve(PAGE)
    view[:] = b"x" * PAGE
    address = ctypes.addressof(ctypes.c_char.from_buffer(chunk.map))
    assert ("hg" in flags_of(address)) == huge


def flags_of(address: int) -> list[str]:
    """What the kernel was told of the memory at an address."""
    within = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, *rest = line.split()
        if "-" in first and not first.endswith(":"):
            start, end = (int(text, 16) for text in first.split("-"))
            within = start <= address < end
        elif within and first == "VmFlags:":
            return rest
    raise AssertionError("there is no such memory")


def test_memory_of_huge_pages_is_there_where_the_kernel_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for advice in (None, -1):
        monkeypatch.setattr(memory, "_HUGE", advice)
        held = memory.huge_pages(HUGE_PAGE_BYTES)
        held[:5] = b"bytes"
        assert held[:6] == b"bytes\0"
