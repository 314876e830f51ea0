"""Compare Penstock with Apache Kafka, request by request, and write docs/reference/kafka-differences.md.

tools/compare_with_kafka.py                      run every sequence and write the page
tools/compare_with_kafka.py fetch 'produce: *'   only these files or sequences, with every difference; writes nothing
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "comparison")]

from comparing.comparison import Verdict, compare, every_sequence  # noqa: E402
from comparing.page import PAGE, page  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sequences", nargs="*", help="only these: a file's name, or a pattern of titles")
    parser.add_argument("--all", action="store_true", help="print every difference of every sequence as it is found")
    parser.add_argument("--known", action="store_true", help="print declared differences as well")
    options = parser.parse_args()
    sequences = [one for one in every_sequence() if _wanted(one.title, options.sequences)]
    began = time.monotonic()

    def progress(verdict: Verdict) -> None:
        if options.all and not verdict.passed:
            print(f"-- {verdict.sequence.title}\n{verdict}", flush=True)
        if options.known:
            for difference, entry in verdict.declared:
                print(f"   {verdict.sequence.title}: {difference}  [{entry.name}]", flush=True)

    with tempfile.TemporaryDirectory() as directory:
        result = compare(Path(directory), sequences, progress)
    for line in _summary(result.verdicts):
        print(line)
    failed = [verdict for verdict in result.verdicts if not verdict.passed]
    print(f"{len(sequences) - len(failed)} of {len(sequences)} sequences passed in {time.monotonic() - began:.0f} s")
    if options.sequences:
        return bool(failed)
    for entry in result.stale:
        print(f"declared, but not seen: {entry.name}")
    if failed or result.stale:
        return 1
    PAGE.write_text(page(result))
    return 0


def _summary(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Undeclared differences, those that look alike once, with where they were seen first."""
    alike: dict[str, list[str]] = {}
    for verdict in verdicts:
        if verdict.failure:
            alike.setdefault(verdict.failure, []).append(verdict.sequence.title)
        for one in verdict.undeclared:
            path = re.sub(r"\[[^]]*", "[", one.path) or "the answer"
            what = f"{one.step.partition(' ')[0]} {path}: {one.kafka!r}, here {one.penstock!r}"
            alike.setdefault(what, []).append(f"{one.sequence}, step {one.number + 1}, {one.step}")
    for what, where in alike.items():
        yield f"{what}\n    {len(where)} x: {where[0]}{'; ' + where[-1] if len(where) > 1 else ''}"


def _wanted(title: str, patterns: list[str]) -> bool:
    return not patterns or any(title.startswith(f"{word}: ") or fnmatchcase(title, word) for word in patterns)


if __name__ == "__main__":
    sys.exit(main())
