"""Run the tests, tier by tier, two at a time where that cannot disturb what they measure.

Each tier is a pytest process of its own, so that one which cannot even start takes nothing else with it. Progress is
printed while they run. After everything has run come the end of the output of what failed (the whole is in a log that
is kept), one line per tier, and what was left out for lack of a toolchain. What is below tests/ and not named here runs
last, alone.
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
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"

# Each lane runs beside the other. Long tiers are cut so that both end at about the same time.
LANES = (
    ("unit", "pure:unit/log/test_writer*.py", "pure:unit/agent/test_dispatch.py", "simulation", "contract",
     "comparison"),
    ("integration", "ecosystem", "conformance/test_wire*.py", "conformance/test_client*.py",
     "conformance/test_[!cw]*.py"),
)  # fmt: skip
PURE = "pure:"
"""Before a pattern: without the compiled twin of the hot path, which all others use where there is one."""
ALONE = ("crash", "fuzz")
"""What counts memory and time, or takes all there is of either."""
QUICK = (("unit/log",), ("unit/[!l]*",))
REPORT_EVERY_S = 10
TIER_TIMEOUT_S = 1500
SHOWN_OF_A_FAILURE = 20_000
"""Characters."""


@dataclass
class Tier:
    """One pytest process."""

    name: str
    paths: list[str]
    scratch: Path
    process: subprocess.Popen[bytes] | None = None
    began: float = 0.0
    ended: float = 0.0

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
                    **({"PENSTOCK_PURE": "1"} if self.name.startswith(PURE) else {}),
                },
            )  # fmt: skip

    def running(self) -> bool:
        assert self.process is not None
        if self.process.poll() is None and time.monotonic() - self.began > TIER_TIMEOUT_S:
            self.process.kill()
            self.process.wait()
        if self.process.returncode is None:
            return True
        self.ended = self.ended or time.monotonic()
        return False

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


@dataclass
class Lane:
    """Tiers that run one after the other."""

    waiting: list[Tier]
    done: list[Tier] = field(default_factory=list)
    current: Tier | None = None

    def turn(self, options: Sequence[str]) -> bool:
        """Start what is next, if its time has come; whether there is anything left."""
        if self.current is not None and not self.current.running():
            self.done.append(self.current)
            mark = "FAILED" if self.current.failed else "ok"
            print(f"{self.current.name}: {mark}, {self.current.verdict()}", flush=True)
            self.current = None
        if self.current is None and self.waiting:
            self.current = self.waiting.pop(0)
            self.current.start(options)
        return self.current is not None


def lanes_of(plan: Sequence[Sequence[str]], scratch: Path) -> list[Lane]:
    """Lanes over those patterns that match something."""
    lanes = []
    for patterns in plan:
        found = [
            (pattern, sorted(str(path.relative_to(ROOT)) for path in TESTS.glob(pattern.removeprefix(PURE))))
            for pattern in patterns
        ]
        lanes.append(Lane([Tier(name, paths, scratch) for name, paths in found if paths]))
    return lanes


def rest(lanes: Sequence[Lane], scratch: Path) -> list[Tier]:
    """What no lane has: new tiers and files are run without being named here."""
    planned = {ROOT / path for lane in lanes for tier in lane.waiting for path in tier.paths}
    files = [path for path in sorted(TESTS.rglob("test_*.py")) if planned.isdisjoint({path, *path.parents})]
    return [Tier("the rest", [str(path.relative_to(ROOT)) for path in files], scratch)] if files else []


def run(lanes: list[Lane], options: Sequence[str]) -> list[Tier]:
    """Run lanes beside each other to their ends; their tiers."""
    said = time.monotonic()
    try:
        while any([lane.turn(options) for lane in lanes]):  # noqa: C419  # each of them must have its turn
            time.sleep(0.2)
            if time.monotonic() - said > REPORT_EVERY_S:
                said = time.monotonic()
                print(
                    "  " + ", ".join(f"{now.name} {now.progress()}" for lane in lanes if (now := lane.current)),
                    flush=True,
                )
    finally:
        for lane in lanes:
            if lane.current is not None and lane.current.process is not None:
                lane.current.process.terminate()
                lane.current.process.wait()
    return [tier for lane in lanes for tier in lane.done]


def close(tiers: Sequence[Tier]) -> int:
    """Print what failed, how each tier did, what was left out; the exit code."""
    for tier in tiers:
        if tier.failed:
            print(f"\n======== {tier.name}: the end of {tier.log}\n{tier.text()[-SHOWN_OF_A_FAILURE:]}")
    print()
    for tier in tiers:
        mark = "FAILED" if tier.failed else "ok"
        print(f"{mark:7} {tier.name:28} {tier.ended - tier.began:6.0f} s  {tier.verdict()}")
    missing: dict[str, int] = {}
    for tier in tiers:
        for name, count in (json.loads(tier.missing.read_text()) if tier.missing.exists() else {}).items():
            missing[name] = missing.get(name, 0) + count
    print("\nskipped for lack of a toolchain:" if missing else "\nnothing was skipped for lack of a toolchain")
    for name, count in sorted(missing.items()):
        print(f"  {name}: {count} test{'' if count == 1 else 's'}")
    return 1 if any(tier.failed for tier in tiers) else 0


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # So that what was started is stopped.
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="the unit tests only")
    parser.add_argument("options", nargs="*", help="more words for pytest, after --")
    arguments = parser.parse_args()
    began = time.monotonic()
    scratch = Path(tempfile.mkdtemp(prefix="penstock-tests-"))
    if arguments.quick:
        tiers = run(lanes_of(QUICK, scratch), arguments.options)
    else:
        beside, alone = lanes_of(LANES, scratch), lanes_of([ALONE], scratch)
        alone[0].waiting[:0] = rest([*beside, *alone], scratch)
        tiers = run(beside, arguments.options)
        tiers += run(alone, arguments.options)
    code = close(tiers)
    if not code:
        shutil.rmtree(scratch)
    print(f"{'FAILED' if code else 'passed'} in {(time.monotonic() - began) / 60:.1f} minutes")
    return code


if __name__ == "__main__":
    sys.exit(main())
