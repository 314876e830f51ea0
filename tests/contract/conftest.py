"""The database under test: every implementation of the metadata port, migrated. And a disk that is soon full."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from fixtures.tables import have_tables

from penstock.base.clock import SystemClock
from penstock.base.randomness import SeededRandomness
from penstock.metadata.inline import InlineDatabase
from penstock.metadata.migrate import migrate
from penstock.metadata.postgres import PostgresDatabase
from penstock.metadata.sqlite import SqliteDatabase

OpenableDatabase = InlineDatabase | SqliteDatabase | PostgresDatabase
DATABASES = ("inline", "memory", "file", "postgres")


def _new_database(request: pytest.FixtureRequest, tmp_path: Path, dsn: str) -> OpenableDatabase:
    match request.param:
        case "inline":
            return InlineDatabase()
        case "memory":
            return SqliteDatabase(None, durability="process")
        case "file":
            return SqliteDatabase(tmp_path / "metadata.db")
        case _:
            return PostgresDatabase(request.getfixturevalue(dsn), randomness=SeededRandomness("contract"))


@pytest.fixture(params=DATABASES)
def unopened_database(request: pytest.FixtureRequest, tmp_path: Path) -> OpenableDatabase:
    """A new database without any tables."""
    return _new_database(request, tmp_path, "postgres_dsn")


@pytest.fixture(params=DATABASES)
def database_to_open(request: pytest.FixtureRequest, tmp_path: Path) -> OpenableDatabase:
    """A new database; where tables are dear to make, with tables."""
    return _new_database(request, tmp_path, "migrated_postgres_dsn")


@pytest.fixture
async def database(database_to_open: OpenableDatabase) -> AsyncIterator[OpenableDatabase]:
    """An open database with every table of this version."""
    await database_to_open.open()
    await have_tables(database_to_open, SystemClock())
    yield database_to_open
    await database_to_open.close()


@pytest.fixture
async def postgres(postgres_dsn: str) -> AsyncIterator[PostgresDatabase]:
    """An open database of a PostgreSQL server, with every table of this version."""
    database = PostgresDatabase(postgres_dsn, randomness=SeededRandomness("postgres"))
    await database.open()
    await migrate(database, SystemClock())
    yield database
    await database.close()


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
