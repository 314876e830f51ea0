"""Work on a data directory while no agent runs on it: create the first user, or a way back in."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from penstock.agent.metadata import kind_of, open_metadata
from penstock.agent.tuning import SHARD_ID
from penstock.authorization.service import AclService
from penstock.base.acls import Acl
from penstock.base.clock import SystemClock
from penstock.base.context import DEFAULT_CLUSTER_ID
from penstock.base.dataclasses import dataclass
from penstock.base.errors import InvalidRequest
from penstock.base.options import UpOptions
from penstock.base.randomness import SystemRandomness
from penstock.identity.service import Identities
from penstock.log.recovery import missing_row
from penstock.log.roll_forward import LostCommits, found_rows, last_known
from penstock.metadata.database import Database
from penstock.metadata.migrate import known_migrations, version_in_file
from penstock.metadata.sqlite_engine import read_file, run_script
from penstock.storage.directory import FORMAT_VERSION, METADATA_HERE, DataDirectory, owner_of, read_format
from penstock.storage.slabs import SlabWal


@dataclass(frozen=True, slots=True, kw_only=True)
class DataVersions:
    """Of a data directory and its database, beside the newest that this program knows."""

    format: int
    newest_format: int
    database: int | None
    """None where that is elsewhere, or cannot be told."""
    newest_database: int
    metadata: str
    """What keeps the metadata."""


def data_versions(data_dir: Path) -> DataVersions | None:
    """Which versions wrote what is there; None if nothing is. Raises `CorruptData` if that cannot be told. It may be in
    use meanwhile."""
    found = read_format(data_dir)
    if found is None:
        return None
    is_here = found.metadata == METADATA_HERE
    return DataVersions(
        format=found.version, newest_format=FORMAT_VERSION,
        database=version_in_file(data_dir / "metadata.db") if is_here else None,
        newest_database=known_migrations()[-1].version, metadata=found.metadata,
    )  # fmt: skip


def lost_commits(data_dir: Path) -> str | None:
    """Which commits a start would miss, in a directory that nothing runs on; None if none, or if it cannot be told.

    Nothing is changed: the database is opened for reading, and the WAL is only looked at.
    """
    database, slabs = data_dir / "metadata.db", data_dir / "slabs"
    if not (database.exists() and slabs.is_dir()):
        return None
    try:
        with contextlib.closing(read_file(database)) as connection:
            missing = run_script(connection, lambda: missing_row(SHARD_ID))
            life, seq = run_script(connection, lambda: last_known(SHARD_ID))
    except sqlite3.Error:
        return None
    if missing is not None:
        return f"the row of commit {missing} is missing, but not what came after it"
    if not life:
        return None
    lost = list[LostCommits]()
    wal = SlabWal(slabs, durability="process")
    try:
        for _ in found_rows(wal, life, seq, shard_id=SHARD_ID, on_lost=lost.append):
            pass
    finally:
        wal.close()
    return str(lost[0]) if lost else None


def process_on(data_dir: Path) -> int | None:
    """The process that has a data directory open; None if there is none, 0 if it is not known which."""
    owner = owner_of(data_dir)
    return None if owner is None else int(owner) if owner.isdecimal() else 0


def require_unused(data_dir: Path) -> None:
    """Raise `InvalidRequest` if a process has the directory open: that is to be asked then."""
    process = process_on(data_dir)
    if process is not None:
        who = f" (pid {process})" if process else ""
        raise InvalidRequest(
            f"Penstock is running on {data_dir}{who}: leave out --data-dir to change it over the network, or stop it"
            " first"
        )


def set_password(options: UpOptions, user: str, password: str, *, replace: bool) -> None:
    """Let a user in with this password. Raises `InvalidRequest` if there is such a user and `replace` is not said."""
    asyncio.run(_set_password(options, user, password, replace=replace))


def grant(options: UpOptions, acls: Sequence[Acl]) -> None:
    """Let ACLs count from the next start on."""
    asyncio.run(_grant(options, acls))


async def _grant(options: UpOptions, acls: Sequence[Acl]) -> None:
    async with _database(options) as database:
        service = AclService(database)
        await service.open()
        for complaint in await service.create(DEFAULT_CLUSTER_ID, acls):
            if complaint is not None:
                raise InvalidRequest(complaint)


async def _set_password(options: UpOptions, user: str, password: str, *, replace: bool) -> None:
    async with _database(options) as database:
        identities = Identities(database=database, clock=SystemClock(), randomness=SystemRandomness())
        if not replace and user in await identities.mechanisms(DEFAULT_CLUSTER_ID):
            raise InvalidRequest(f"user {user!r} exists already. To change its password: penstock user password {user}")
        await identities.set_password(DEFAULT_CLUSTER_ID, user, password)


@asynccontextmanager
async def _database(options: UpOptions) -> AsyncIterator[Database]:
    """The metadata of a data directory on which nothing runs."""
    clock, randomness = SystemClock(), SystemRandomness()
    assert options.data_dir is not None
    require_unused(options.data_dir)
    directory = DataDirectory.open(options.data_dir, metadata=kind_of(options), randomness=randomness)
    try:
        metadata = await open_metadata(
            options, directory, directory.cluster_id, clock=clock, randomness=randomness, shard_id=SHARD_ID
        )
        try:
            yield metadata.database
        finally:
            await metadata.close()
    finally:
        directory.close()
