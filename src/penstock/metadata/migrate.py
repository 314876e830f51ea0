"""Numbered migrations: `migrations/NNNN_name.sql`, one schema for every dialect.

Where dialects differ the text says so with a macro in braces. Each migration is one transaction that also notes it
in the table `migration`. Processes that migrate the same database at once wait for each other on a row of that table
and find the work done.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import Final

from penstock.base.clock import Clock
from penstock.base.errors import Conflict, InvalidRequest, PlatformError
from penstock.metadata.database import Database, Script

_HOT: Final = (
    " WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,"
    " autovacuum_vacuum_cost_delay = 0)"
)
MACROS: Final[Mapping[str, Mapping[str, str]]] = {
    "sqlite": {
        "ID": "INTEGER", "I16": "INTEGER", "I32": "INTEGER", "I64": "INTEGER", "TEXT": "TEXT", "BLOB": "BLOB",
        "HOT": "", "NOROWID": " WITHOUT ROWID",
    },
    "postgres": {
        "ID": "BIGINT", "I16": "SMALLINT", "I32": "INTEGER", "I64": "BIGINT", "TEXT": "TEXT", "BLOB": "BYTEA",
        "HOT": _HOT, "NOROWID": "",
    },
}  # fmt: skip
"""`HOT`: rows that are updated again and again. `NOROWID`: small rows that are only found by their key."""

_COMMENT = re.compile(r"--[^\n]*")
_MACRO = re.compile(r"\s?\{(\w+)\}")
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One numbered file."""

    version: int
    name: str
    text: str

    def statements(self, dialect: str) -> Iterator[str]:
        """The statements of the file in a dialect."""
        macros = MACROS[dialect]
        text = _MACRO.sub(lambda match: f" {macros[match[1]].lstrip()}", _COMMENT.sub("", self.text))
        return (statement.strip() for statement in text.split(";") if statement.strip())


def known_migrations() -> Sequence[Migration]:
    """The migrations that this program ships, in order."""
    folder = files("penstock.metadata") / "migrations"
    found = [
        Migration(version=int(file.name[:4]), name=file.name[5:-4], text=file.read_text("utf-8"))
        for file in folder.iterdir()
        if file.name.endswith(".sql")
    ]
    return sorted(found, key=lambda migration: migration.version)


async def migrate(database: Database, clock: Clock, migrations: Sequence[Migration] | None = None) -> int:
    """Bring a database to the newest version this program knows; how many migrations were missing."""
    wanted = known_migrations() if migrations is None else migrations
    await _prepare(database)
    applied = 0
    for migration in wanted:
        applied += await database.transaction(partial(_apply, migration, wanted, database.dialect, clock.now_ms()))
    return applied


async def _prepare(database: Database) -> None:
    """Make the table of migrations. Two processes that make it at once get in each other's way; the later one waits."""
    for attempt in range(_ATTEMPTS):
        try:
            await database.transaction(_create_table)
        except PlatformError as error:
            if not isinstance(error, Conflict) or attempt == _ATTEMPTS - 1:
                raise
        else:
            return


def _create_table() -> Script[None]:
    yield (
        "CREATE TABLE IF NOT EXISTS migration"
        " (version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_ms BIGINT NOT NULL)",
        (),
    )
    # The row whose lock makes migrating processes wait for each other.
    yield "INSERT INTO migration (version, name, applied_ms) VALUES (0, 'start', 0) ON CONFLICT DO NOTHING", ()


def _apply(migration: Migration, known: Sequence[Migration], dialect: str, now_ms: int) -> Script[int]:
    yield "SELECT version FROM migration WHERE version = 0 FOR UPDATE", ()
    rows = yield "SELECT MAX(version) FROM migration", ()
    newest, current = known[-1].version, int(rows[0][0])
    if current > newest:
        raise InvalidRequest(
            f"the database has version {current}, this program knows versions up to {newest}: "
            "it was used by a newer Penstock; run that one, or restore a backup from before the upgrade"
        )
    if migration.version <= current:
        return 0
    for statement in migration.statements(dialect):
        yield statement, ()
    yield (
        "INSERT INTO migration (version, name, applied_ms) VALUES ($1, $2, $3)",
        (migration.version, migration.name, now_ms),
    )
    return 1
