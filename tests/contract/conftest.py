"""The database under test: every implementation of the metadata port, migrated. And a disk that is soon full."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from penstock.base.clock import SystemClock
from penstock.base.randomness import SeededRandomness
from penstock.metadata.inline import InlineDatabase
from penstock.metadata.migrate import migrate
from penstock.metadata.postgres import PostgresDatabase
from penstock.metadata.sqlite import SqliteDatabase

OpenableDatabase = InlineDatabase | SqliteDatabase | PostgresDatabase
DATABASES = ("inline", "memory", "file", "postgres")


@pytest.fixture(params=DATABASES)
def unopened_database(request: pytest.FixtureRequest, tmp_path: Path) -> OpenableDatabase:
    """A new database."""
    match request.param:
        case "inline":
            return InlineDatabase()
        case "memory":
            return SqliteDatabase(None, durability="process")
        case "file":
            return SqliteDatabase(tmp_path / "metadata.db")
        case _:
            return PostgresDatabase(request.getfixturevalue("postgres_dsn"), randomness=SeededRandomness("contract"))


@pytest.fixture
async def database(unopened_database: OpenableDatabase) -> AsyncIterator[OpenableDatabase]:
    """An open database with every table of this version."""
    await unopened_database.open()
    await migrate(unopened_database, SystemClock())
    yield unopened_database
    await unopened_database.close()


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB in memory; skipped where this user may not mount one."""
    place = tmp_path / "tiny"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system needs root")
    yield place
    subprocess.run(["umount", str(place)], check=True)
