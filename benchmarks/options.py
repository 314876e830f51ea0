"""The command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.rows import ROWS

HERE = Path(__file__).parent
CHECKOUT = HERE.parent


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description="Measure Penstock beside Apache Kafka.")
    names = [row.name for row in ROWS]
    parser.add_argument(
        "--only", nargs="+", action="extend", metavar="ROW", choices=names, help=f"rows to run, of: {', '.join(names)}"
    )
    parser.add_argument("--list", action="store_true", help="list the rows with their targets")
    parser.add_argument("--brisk", action="store_true", help="half the time: shorter runs, and still a measurement")
    parser.add_argument("--quick", action="store_true", help="short and small: shows that it works, measures nothing")
    parser.add_argument("--repeats", type=int, help="times each row is run on each variant (default 3; quick: 1)")
    parser.add_argument("--attempts", type=int, help="tries at a quiet run (default 3; quick: 1)")
    parser.add_argument(
        "--noise-limit", type=float, default=0.25, metavar="CORES", help="others' CPU that spoils a run"
    )
    parser.add_argument("--log-gb", type=float, help="size of the log in row recovery (default 20; quick: 1)")
    parser.add_argument("--directory", type=Path, help="where the servers write (default: in the checkout's build/)")
    parser.add_argument("--results", type=Path, help="where results go (default benchmarks/; quick: build/bench/quick)")
    parser.add_argument("--calibrate", action="store_true", help="run Kafka in Penstock's place: ratios should be 1")
    parser.add_argument("--report", action="store_true", help="write the report anew from the kept results and stop")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table", help="what standard output gets")
    options = parser.parse_args(arguments)
    options.repeats = options.repeats or (1 if options.quick else 3)
    options.attempts = options.attempts or (1 if options.quick else 3)
    cache = CHECKOUT / "build" / "bench"
    unkept = options.quick or options.calibrate
    options.cache = cache
    options.results = options.results or (cache / ("calibration" if options.calibrate else "quick") if unkept else HERE)
    options.directory = options.directory or cache
    return options
