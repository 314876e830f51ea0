"""Looks at what is in a data directory: which release wrote it, and can this one open it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from penstock.agent.offline import data_versions
from penstock.base.errors import PlatformError
from penstock.cli.doctor.verdicts import Check, check, data_verdict


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
