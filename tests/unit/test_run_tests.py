"""How the tests are cut into pieces: every file is run once, and what is to be left alone is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.run_tests import ALONE, CORES, PIECES, TESTS, Piece, Queue, Run, runs_of, the_rest


def files_of(runs: list[Run]) -> list[str]:
    return sorted(path for run in runs if not run.piece.is_pure for path in run.paths)


def test_every_file_is_run_once(tmp_path: Path) -> None:
    there = sorted(str(file.relative_to(TESTS.parent)) for file in TESTS.rglob("test_*.py"))
    assert files_of(runs_of((*PIECES, *the_rest(PIECES)), tmp_path)) == there


def test_a_file_that_no_piece_names_is_run_as_well(tmp_path: Path) -> None:
    known = tuple(piece for piece in PIECES if piece.name != "fuzz")
    (rest,) = the_rest(known)
    assert all(pattern.startswith("fuzz/") for pattern in rest.patterns)
    assert files_of(runs_of((*known, rest), tmp_path)) == files_of(runs_of(PIECES, tmp_path))


def test_a_file_belongs_to_the_first_piece_that_names_it(tmp_path: Path) -> None:
    first, second = runs_of((Piece("one", ("crash/test_crash.py",), 2), Piece("all", ("crash",), 1)), tmp_path)
    assert first.paths == ["tests/crash/test_crash.py"]
    assert "tests/crash/test_crash.py" not in second.paths


class Fake(Run):
    """Ends when it is told to."""

    ended = False

    def start(self, options: object) -> None:
        self.began = 1.0

    def has_ended(self) -> bool:
        return self.ended

    def verdict(self) -> str:
        return ""


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    pieces = (
        Piece("short", ("a",), 1),
        Piece("left alone", ("b",), 90, cores=ALONE),
        Piece("long", ("c",), 30),
        Piece("half", ("d",), 20, cores=0.5),
        Piece("other half", ("e",), 10, cores=0.5),
    )
    runs = sorted((Fake(piece, [], tmp_path) for piece in pieces), key=lambda run: run.order)
    return Queue(runs, [])


def test_the_longest_first_and_as_many_as_fit(queue: Queue) -> None:
    begun: list[list[str]] = []
    while queue.turn():
        assert sum(run.piece.cores for run in queue.running) <= CORES
        begun.append([run.name for run in queue.running])
        queue.running[0].ended = True
    assert begun == [
        ["long", "half", "other half"],
        ["half", "other half", "short"],
        ["other half", "short"],
        ["short"],
        ["left alone"],
    ]
    assert len(queue.done) == 5


def test_java_runs_beside_something_else_if_there_is_anything(tmp_path: Path) -> None:
    pieces = (
        Piece("one", ("a",), 50, is_java=True),
        Piece("other", ("b",), 40, is_java=True),
        Piece("third", ("c",), 30, is_java=True),
        Piece("short", ("d",), 1),
    )
    queue = Queue([Fake(piece, [], tmp_path) for piece in pieces], [])
    queue.turn()
    assert [run.name for run in queue.running] == ["one", "short"]
    queue.running[1].ended = True
    queue.turn()
    assert [run.name for run in queue.running] == ["one", "other"]
