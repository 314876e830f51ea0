"""Looks at what is in a data directory: who has it open, which release wrote it, can this one open it, has the disk
kept it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from penstock.agent.offline import data_versions, lost_commits, process_on
from penstock.base.errors import PlatformError
from penstock.cli.doctor.ports import holder_with
from penstock.cli.doctor.verdicts import Check, Holder, check, data_verdict


def directory_holder(data_dir: Path) -> Holder | None:
    """The process that has it open."""
    process = process_on(data_dir)
    return None if process is None else holder_with(process)


def data_checks(data_dir: Path) -> Iterator[Check]:
    """Nothing where there is no data yet."""
    try:
        found = data_versions(data_dir)
    except PlatformError as problem:
        yield check("data version", "not known", fail=str(problem))
        return
    except OSError as problem:
        reason = (problem.strerror or str(problem)).lower()
        yield check("data version", "not known", warn=f"It cannot be read: {reason}")
        return
    if found is not None:
        yield data_verdict(
            version=found.format, newest=found.newest_format, database=found.database,
            newest_database=found.newest_database, metadata=found.metadata,
        )  # fmt: skip
        if process_on(data_dir) is None and (found.database or 0) <= found.newest_database:
            yield from _commit_checks(data_dir)


def _commit_checks(data_dir: Path) -> Iterator[Check]:
    """Whether the disk has kept every commit, where nothing runs that goes on to write some."""
    try:
        lost = lost_commits(data_dir)
    except (PlatformError, OSError) as problem:
        yield check("commits", "not known", warn=f"They cannot be read: {problem}")
        return
    yield check(
        "commits", lost or "complete",
        fail=lost and "Restore the data directory from a backup. What else can be done: penstock up says it",
    )  # fmt: skip
