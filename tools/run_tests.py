"""Run the tests in pieces, as many at a time as there are cores for them.

Each piece is a pytest process of its own, so that one which cannot even start takes nothing else with it. They wait in
one queue, the longest first; whatever fits beside what is running is begun, so that all cores have work until the end.
Pieces that mostly wait share a core. Progress is printed meanwhile. After everything has run come the end of the output
of what failed (the whole is in a log that is kept), one line per piece, and what was left out for lack of a toolchain.
A file below tests/ that no piece names is run as well, alone, as nobody knows what it does to others.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"
CORES = 2
"""What CI has, and what the time-outs of the tests are made for."""


@dataclass(frozen=True)
class Piece:
    """Files below tests/ that one process runs: those of its patterns that no piece before it has."""

    name: str
    patterns: tuple[str, ...]
    seconds: int
    """About as long as it takes on two cores. Only for the order."""
    cores: float = 1.0
    """How many it keeps busy. Clients that wait leave some of theirs to others."""
    is_java: bool = False
    """Whether it is mostly Java's: two of those at a time, and their clients wait longer than they like."""
    is_pure: bool = False
    """Whether it goes without the compiled twin of the hot path, which all others use where there is one."""

    def files(self) -> Iterator[Path]:
        """Everything that its patterns match."""
        for pattern in self.patterns:
            for path in sorted(TESTS.glob(pattern)):
                yield from sorted(path.rglob("test_*.py")) if path.is_dir() else (path,)


ALONE = float(CORES)
PIECES = (
    Piece("ablations", ("simulation/test_sim_ablations.py",), 90),
    Piece("simulated transactions", ("simulation/test_sim_transactions.py", "simulation/test_sim_l*.py"), 140),
    Piece("simulated logs", ("simulation/test_sim_s*.py", "simulation/test_sim_trim.py"), 125),
    Piece("simulation", ("simulation",), 150),
    Piece("unit, log", ("unit/log",), 65),
    Piece("unit", ("unit",), 150),
    Piece("without the twin", ("unit/log/test_writer*.py", "unit/agent/test_dispatch.py"), 15, is_pure=True),
    Piece("contract", ("contract",), 85),
    Piece("comparison", ("comparison",), 215, is_java=True),
    Piece("integration", ("integration",), 230),
    Piece("ecosystem", ("ecosystem",), 210, is_java=True),
    Piece("wire", ("conformance/test_wire*.py",), 150, cores=0.5),
    Piece("restarts", ("conformance/test_client_restarts.py",), 120, cores=0.5, is_java=True),
    Piece("clients", ("conformance/test_client*.py",), 170, cores=0.5, is_java=True),
    Piece("tools", ("conformance/test_kafka_tools*.py",), 45, is_java=True),
    Piece("conformance", ("conformance",), 240, cores=0.5, is_java=True),
    Piece("crashes, exactly once", ("crash/test_exactly_once.py",), 180),
    Piece("crash", ("crash",), 180),
    Piece("long turns", ("fuzz/test_long_turns.py",), 60),
    Piece("fuzz", ("fuzz",), 100),
)
QUICK = (Piece("unit, log", ("unit/log",), 60), Piece("unit", ("unit",), 30))
REPORT_EVERY_S = 10
PIECE_TIMEOUT_S = 1500
SHOWN_OF_A_FAILURE = 20_000
"""Characters."""


@dataclass
class Run:
    """One pytest process."""

    piece: Piece
    paths: list[str]
    scratch: Path
    process: subprocess.Popen[bytes] | None = None
    began: float = 0.0
    took_s: float = 0.0
    cpu_s: float = 0.0
    """Its own, and that of everything it has started and waited for."""

    @property
    def name(self) -> str:
        return self.piece.name

    @property
    def order(self) -> tuple[bool, int]:
        """The longest first, and last what is left alone."""
        return self.piece.cores >= ALONE, -self.piece.seconds

    @property
    def log(self) -> Path:
        return self.scratch / (re.sub(r"\W+", "-", self.name) + ".log")

    @property
    def missing(self) -> Path:
        return self.log.with_suffix(".json")

    def start(self, options: Sequence[str]) -> None:
        command = [sys.executable, "-m", "pytest", "-q", "--color=no", *options, *self.paths]
        self.began = time.monotonic()
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT,
                env={
                    **os.environ,
                    "PENSTOCK_TEST_MISSING": str(self.missing),
                    **({"PENSTOCK_PURE": "1"} if self.piece.is_pure else {}),
                },
            )  # fmt: skip

    def has_ended(self) -> bool:
        """Whether it has, now or before; one that takes too long is ended."""
        process = self.process
        assert process is not None
        if process.returncode is not None:
            return True
        if time.monotonic() - self.began > PIECE_TIMEOUT_S:
            process.kill()
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if not pid:
            return False
        process.returncode = os.waitstatus_to_exitcode(status)
        self.took_s, self.cpu_s = time.monotonic() - self.began, usage.ru_utime + usage.ru_stime
        return True

    def end(self) -> None:
        """Nobody wants to know any more."""
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
            self.process.wait()

    @property
    def failed(self) -> bool:
        return self.process is None or self.process.returncode != 0

    def progress(self) -> str:
        """How far it is: how many tests have a result, and what share of all that was at the end of the last line."""
        lines = re.findall(r"^[.FEsSxXuU,]+(?: *\[ *(\d+%)\])?$", self.text(), re.MULTILINE)
        count = sum(len(line) for line in re.findall(r"^([.FEsSxXuU,]+)", self.text(), re.MULTILINE))
        shares = [share for share in lines if share]
        return f"{count} done{f' ({shares[-1]})' if shares else ''}"

    def text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def verdict(self) -> str:
        """pytest's last line."""
        lines = [line for line in self.text().splitlines() if line.strip()]
        return lines[-1].strip("= ") if lines else "did not start"


def runs_of(pieces: Sequence[Piece], scratch: Path) -> list[Run]:
    """What each piece has to run, in order."""
    taken: set[tuple[bool, Path]] = set()
    runs = []
    for piece in pieces:
        found = [file for file in piece.files() if (piece.is_pure, file) not in taken]
        taken.update((piece.is_pure, file) for file in found)
        if found:
            runs.append(Run(piece, [str(file.relative_to(ROOT)) for file in found], scratch))
    return sorted(runs, key=lambda run: run.order)


def the_rest(pieces: Sequence[Piece]) -> list[Piece]:
    """What no piece has: new files are run without being named here."""
    planned = {file for piece in pieces for file in piece.files()}
    files = [str(file.relative_to(TESTS)) for file in sorted(TESTS.rglob("test_*.py")) if file not in planned]
    return [Piece("the rest", tuple(files), 0, cores=ALONE)] if files else []


@dataclass
class Queue:
    """What waits, what runs, and what has ended."""

    waiting: list[Run]
    options: Sequence[str]
    running: list[Run] = field(default_factory=list)
    done: list[Run] = field(default_factory=list)

    def turn(self) -> bool:
        """Take leave of what has ended and begin whatever fits; whether there is anything left."""
        for run in [run for run in self.running if run.has_ended()]:
            self.running.remove(run)
            self.done.append(run)
            print(f"{run.name}: {'FAILED' if run.failed else 'ok'}, {run.verdict()}", flush=True)
        while (run := self._next()) is not None:
            self.waiting.remove(run)
            self.running.append(run)
            run.start(self.options)
        return bool(self.running)

    def _next(self) -> Run | None:
        free = CORES - sum(run.piece.cores for run in self.running)
        fitting = [run for run in self.waiting if run.piece.cores <= free]
        has_java = any(run.piece.is_java for run in self.running)
        liked = [run for run in fitting if not (has_java and run.piece.is_java)]
        return next(iter(liked or fitting), None)

    def run(self) -> list[Run]:
        """Until everything has run."""
        said = time.monotonic()
        try:
            while self.turn():
                time.sleep(0.2)
                if time.monotonic() - said > REPORT_EVERY_S:
                    said = time.monotonic()
                    print("  " + ", ".join(f"{run.name} {run.progress()}" for run in self.running), flush=True)
        finally:
            for run in self.running:
                run.end()
        return self.done


def close(runs: Sequence[Run]) -> int:
    """Print what failed, how each piece did, what was left out; the exit code."""
    for run in runs:
        if run.failed:
            print(f"\n======== {run.name}: the end of {run.log}\n{run.text()[-SHOWN_OF_A_FAILURE:]}")
    print()
    for run in runs:
        mark = "FAILED" if run.failed else "ok"
        print(f"{mark:7} {run.name:24} {run.took_s:5.0f} s, {run.cpu_s:4.0f} s of CPU  {run.verdict()}")
    missing: dict[str, int] = {}
    for run in runs:
        for name, count in (json.loads(run.missing.read_text()) if run.missing.exists() else {}).items():
            missing[name] = missing.get(name, 0) + count
    print("\nskipped for lack of a toolchain:" if missing else "\nnothing was skipped for lack of a toolchain")
    for name, count in sorted(missing.items()):
        print(f"  {name}: {count} test{'' if count == 1 else 's'}")
    return 1 if any(run.failed for run in runs) else 0


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # So that what was started is stopped.
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="the unit tests only")
    parser.add_argument("options", nargs="*", help="more words for pytest, after --")
    arguments = parser.parse_args()
    began = time.monotonic()
    scratch = Path(tempfile.mkdtemp(prefix="penstock-tests-"))
    pieces = QUICK if arguments.quick else (*PIECES, *the_rest(PIECES))
    code = close(Queue(runs_of(pieces, scratch), arguments.options).run())
    if not code:
        shutil.rmtree(scratch)
    print(f"{'FAILED' if code else 'passed'} in {(time.monotonic() - began) / 60:.1f} minutes")
    return code


if __name__ == "__main__":
    sys.exit(main())
