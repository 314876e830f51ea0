"""Numbered migrations: the tables of this version of the program, step by step, on either dialect.

A migration is `migrations/NNNN_name.sql`: statements that end with `;` at the end of a line, with macros for what the
dialects call differently. Each runs in one transaction together with its row in the table `migration`, so a crash
leaves whole steps behind; a new database gets all of them in one. Row 0 of that table is a lock: every transaction
updates it first, so of two processes that migrate at the same time one waits, and then finds the steps done.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from penstock.base.clock import Clock
from penstock.base.dataclasses import dataclass
from penstock.base.errors import Conflict, CorruptData, InvalidRequest
from penstock.metadata.database import Database, Script

_HOT_ON_POSTGRES = (
    "WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,"
    " autovacuum_vacuum_cost_delay = 0)"
)
"""Rows updated all the time: room to update them in place, and a vacuum that keeps up."""

MACROS: Mapping[str, Mapping[str, str]] = {
    "sqlite": {
        "ID": "INTEGER", "I16": "INTEGER", "I32": "INTEGER", "I64": "INTEGER", "TEXT": "TEXT", "BLOB": "BLOB",
        "F64": "REAL", "HOT": "", "NOROWID": "WITHOUT ROWID",
    },
    "postgres": {
        "ID": "BIGINT", "I16": "SMALLINT", "I32": "INTEGER", "I64": "BIGINT", "TEXT": "TEXT", "BLOB": "BYTEA",
        "F64": "DOUBLE PRECISION", "HOT": _HOT_ON_POSTGRES, "NOROWID": "",
    },
}  # fmt: skip

_CREATE = (
    "CREATE TABLE IF NOT EXISTS migration (version {I32} PRIMARY KEY, name {TEXT} NOT NULL, applied_ms {I64} NOT NULL)"
)
_FOLDER = Path(__file__).with_name("migrations")
_FILE_NAME = re.compile(r"(\d{4})_(\w+)\.sql")
_MACRO = re.compile(r"\{([A-Z0-9]+)\}")
_COMMENT = re.compile(r"^\s*--.*$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One step."""

    version: int
    name: str
    text: str

    def statements(self, dialect: str) -> list[str]:
        """Its SQL for a dialect, one statement each."""
        text = expand(_COMMENT.sub("", self.text), dialect)
        return [statement.strip() for statement in re.split(r";[ \t]*$", text, flags=re.MULTILINE) if statement.strip()]


def expand(text: str, dialect: str) -> str:
    """Replace the macros; an unknown one is a KeyError."""
    return _MACRO.sub(lambda match: MACROS[dialect][match[1]], text)


def known_migrations() -> list[Migration]:
    """Every step this program knows, in order."""
    found = []
    for file in _FOLDER.iterdir():
        match = _FILE_NAME.fullmatch(file.name)
        if match:
            found.append(Migration(version=int(match[1]), name=match[2], text=file.read_text("utf-8")))
    found.sort(key=lambda migration: migration.version)
    versions = [migration.version for migration in found]
    if versions != list(range(1, len(found) + 1)):
        raise ValueError(f"migrations are numbered from 1 without gaps, not {versions}")
    return found


def version_in_file(file: Path) -> int | None:
    """The version of a database of SQLite, as far as its file tells; None if it does not. Nothing is locked or made:
    who uses it is not disturbed, and what is still in its log is not seen."""
    try:
        opened = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        with contextlib.closing(opened) as connection:
            ((version,),) = connection.execute("SELECT MAX(version) FROM migration")
            return None if version is None else int(version)
    except sqlite3.Error:
        return None


async def migrate(database: Database, clock: Clock, *, holds_data: bool = False) -> int:
    """Bring a database to the version of this program, which is the answer.

    Raises `InvalidRequest` when a newer program has migrated it already, and `CorruptData` when it is new although it
    `holds_data`.
    """
    migrations = known_migrations()
    newest = migrations[-1].version
    await _create_table(database)
    present = await database.read(_version)
    if present == 0 and holds_data:
        raise CorruptData(
            "the metadata is empty, but the data directory has data: everything in it would be deleted. Start it with"
            " its own metadata, or restore all of it from a backup"
        )
    for steps in [migrations] if present == 0 else [[migration] for migration in migrations[present:]]:
        present = await database.transaction(partial(_apply, steps, database.dialect, clock.now_ms()))
    if present > newest:
        raise InvalidRequest(
            f"the database is at version {present}, but this program knows versions up to {newest}:"
            " it was used by a newer Penstock. Upgrade this program, or restore a backup made before the upgrade"
        )
    return present


async def _create_table(database: Database) -> None:
    def script() -> Script[None]:
        yield expand(_CREATE, database.dialect), ()
        yield "INSERT INTO migration (version, name, applied_ms) VALUES (0, 'lock', 0) ON CONFLICT DO NOTHING", ()

    try:
        await database.transaction(script)
    except Conflict:
        # PostgreSQL: another process created the table in the same moment. It is there now.
        await database.transaction(script)


def _version() -> Script[int]:
    rows = yield "SELECT MAX(version) FROM migration", ()
    return int(rows[0][0])


def _apply(steps: Sequence[Migration], dialect: str, now_ms: int) -> Script[int]:
    yield "UPDATE migration SET applied_ms = applied_ms WHERE version = 0", ()
    present = yield from _version()
    for migration in steps:
        if migration.version <= present:
            continue
        for statement in migration.statements(dialect):
            yield statement, ()
        yield (
            "INSERT INTO migration (version, name, applied_ms) VALUES ($1, $2, $3)",
            (migration.version, migration.name, now_ms),
        )
        present = migration.version
    return present
