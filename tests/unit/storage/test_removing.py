"""Files that are removed without holding anybody up: whose bytes stay, and how the others go."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from penstock.storage import removing
from penstock.storage.removing import STEP_BYTES, Remover

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="leases are Linux's")


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Which thread cut a file to which size, in order."""
    seen: list[tuple[str, int]] = []
    cut = os.ftruncate

    def noting(descriptor: int, size_bytes: int) -> None:
        seen.append((threading.current_thread().name, size_bytes))
        cut(descriptor, size_bytes)

    monkeypatch.setattr(os, "ftruncate", noting)
    return seen


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "object"
    path.write_bytes(os.urandom(3 * STEP_BYTES + 5))
    return path


def test_the_name_goes_at_once_and_the_blocks_piece_by_piece(path: Path, steps: list[tuple[str, int]]) -> None:
    remover = Remover()
    remover.remove(path)
    assert not path.exists()
    remover.close()
    assert steps == [("free-blocks", size) for size in (2 * STEP_BYTES + 5, STEP_BYTES + 5, 5)]


def test_a_reader_finishes_undisturbed(path: Path, steps: list[tuple[str, int]]) -> None:
    content, remover = path.read_bytes(), Remover()
    with path.open("rb") as reader:
        remover.remove(path)
        remover.close()
        assert reader.read() == content
    assert not path.exists()
    assert not steps


def test_a_file_keeps_its_bytes_under_its_other_name(path: Path, steps: list[tuple[str, int]]) -> None:
    content, remover = path.read_bytes(), Remover()
    other = path.with_name("adopted")
    os.link(path, other)
    remover.remove(path)
    remover.close()
    assert other.read_bytes() == content
    assert not path.exists()
    assert not steps


def test_a_link_is_removed_and_not_what_it_leads_to(path: Path) -> None:
    link, remover = path.with_name("link"), Remover()
    link.symlink_to(path)
    remover.remove(link)
    remover.close()
    assert not link.is_symlink()
    assert path.stat().st_size == 3 * STEP_BYTES + 5


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Remover().remove(tmp_path / "nothing")


def test_who_finds_too_many_waiting_frees_a_file_itself(
    path: Path, steps: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removing, "WAITING_MAX_FILES", 0)
    Remover().remove(path)
    assert [thread for thread, _ in steps] == [threading.current_thread().name] * 3


def test_a_file_goes_though_there_can_be_no_more_threads(
    path: Path, steps: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    before, remover = len(os.listdir("/proc/self/fd")), Remover()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    remover.remove(path)
    remover.close()
    assert not path.exists()
    assert [size for _, size in steps] == [2 * STEP_BYTES + 5, STEP_BYTES + 5, 5]
    assert len(os.listdir("/proc/self/fd")) == before


def test_no_descriptor_is_left(path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    remover = Remover()
    remover.remove(path)
    remover.close()
    assert len(os.listdir("/proc/self/fd")) == before
