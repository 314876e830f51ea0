"""The database under test: every implementation of the metadata port, migrated."""

from __future__ import annotations

from collections.abc import AsyncIterator
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
