"""Where an agent keeps its metadata, and the way it commits there: all that differs between SQLite and PostgreSQL.

A database on a server outlives data directories and can be reached from many machines, so two things are made sure
of. It belongs to one data directory, by the cluster id that both have. And taking it begins a new epoch: whatever a
former process has still under way there will not happen.

A database that is older than the data, because only one of the two came from a backup say, is refused: starts are
numbered, by the life of commit records or the epoch, and the directory remembers the newest.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from penstock.base.clock import Clock
from penstock.base.context import DEFAULT_CLUSTER_ID
from penstock.base.dataclasses import dataclass
from penstock.base.errors import InvalidRequest, Unavailable
from penstock.base.lazy import lazy_import
from penstock.base.options import UpOptions
from penstock.base.randomness import Randomness
from penstock.log.commit_path import EmbeddedCommitPath
from penstock.log.commits import Commit
from penstock.log.record_first import RecordFirstCommitPath
from penstock.log.registry import Registry
from penstock.log.roll_forward import LostCommits, last_life, roll_forward, start_of
from penstock.log.trailing_rows import TrailingRows
from penstock.metadata.database import Script
from penstock.metadata.migrate import migrate
from penstock.metadata.sqlite import SqliteDatabase
from penstock.storage.wal import WalLocation, WalStore
from penstock.transactions.store import redo

if TYPE_CHECKING:
    from penstock.log import commit_sql, follow, shared_commit_path
    from penstock.metadata.postgres import PostgresDatabase
    from penstock.storage.directory import DataDirectory
else:  # Of several agents.
    commit_sql, follow = lazy_import("penstock.log.commit_sql"), lazy_import("penstock.log.follow")
    shared_commit_path = lazy_import("penstock.log.shared_commit_path")

_log = logging.getLogger(__name__)


def kind_of(options: UpOptions) -> str:
    """What keeps the metadata."""
    return "sqlite" if options.metadata_url is None else "postgresql"


def place_of(options: UpOptions) -> str | None:
    """Where the metadata is if it is not with the data, without the password."""
    if options.metadata_url is None:
        return None
    from penstock.metadata.postgres import describe

    return describe(options.metadata_url)


@dataclass(slots=True)
class Metadata:
    """The database of an agent, open."""

    database: SqliteDatabase | PostgresDatabase
    epoch: int = 0
    """Of the shard, where the database could have had another user before."""
    life: int = 0
    """Which start this is, where commits are made by their WAL objects."""
    directory: DataDirectory | None = None
    """Where the newest start is noted; None in memory, and where a power cut may undo starts."""
    lost_commits: int = 0
    """How many that were acknowledged this start has given up, because the disk has lost the record of one."""

    async def close(self) -> None:
        """Let go of it."""
        await self.database.close()


async def open_metadata(
    options: UpOptions, directory: DataDirectory | None, kafka_cluster_id: str, *, clock: Clock,
    randomness: Randomness, shard_id: int,
) -> Metadata:  # fmt: skip
    """Open the database, bring it to this version, and take it."""
    opened = Metadata(_database(options, directory, clock, randomness))
    if directory is not None and options.durability == "disk":
        opened.directory = directory
    await opened.database.open()
    try:
        place = place_of(options)
        await migrate(opened.database, clock, holds_data=directory is not None and directory.has_data)
        if place is not None:
            now_ms = clock.now_ms()
            opened.epoch = await opened.database.transaction(
                lambda: _take(kafka_cluster_id, place, now_ms, shard_id, opened.directory)
            )
            if opened.directory is not None:
                opened.directory.note_start(opened.epoch)
            if options.durability == "disk":
                await _warn_of_losses(opened.database, place)
    except BaseException:
        await opened.close()
        raise
    return opened


def _database(
    options: UpOptions, directory: DataDirectory | None, clock: Clock, randomness: Randomness
) -> SqliteDatabase | PostgresDatabase:
    if options.metadata_url is None:
        if directory is None:
            return SqliteDatabase(None, durability="process", now=clock.monotonic)
        return SqliteDatabase(directory.database, durability=options.durability, now=clock.monotonic)
    from penstock.metadata.postgres import PostgresDatabase  # It costs a tenth of a second that most have no use for.

    return PostgresDatabase(options.metadata_url, randomness=randomness, now=clock.monotonic)


def _take(
    kafka_cluster_id: str, place: str, now_ms: int, shard_id: int, directory: DataDirectory | None
) -> Script[int]:
    yield (
        "INSERT INTO cluster (cluster_id, name, shard_id, kafka_id, created_ms) VALUES ($1, 'default', $2, $3, $4)"
        " ON CONFLICT DO NOTHING",
        (DEFAULT_CLUSTER_ID, shard_id, kafka_cluster_id, now_ms),
    )
    rows = yield "SELECT kafka_id FROM cluster WHERE cluster_id = $1", (DEFAULT_CLUSTER_ID,)
    if rows[0][0] != kafka_cluster_id:
        raise InvalidRequest(
            f"the metadata in {place} belongs to another data directory (cluster {rows[0][0]}; this one is"
            f" {kafka_cluster_id}). Start with that directory, or with an empty database"
        )
    epoch = yield from commit_sql.take_over(shard_id)
    if directory is not None:
        directory.check_start(epoch - 1)
    return epoch


async def _warn_of_losses(database: SqliteDatabase | PostgresDatabase, place: str) -> None:
    rows = await database.statement(
        "SELECT name FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit') AND setting = 'off' ORDER BY name"
    )
    for (name,) in rows:
        _log.warning("%s has %s = off: acknowledged records can be lost when its machine fails", place, name)


async def bring_in_commits(
    metadata: Metadata, wal: WalStore, *, randomness: Randomness, shard_id: int, give_up_from: int | None
) -> None:  # fmt: skip
    """Let the database have everything that was committed, before anything is read from it.

    If the disk has lost acknowledged commits this is refused, as everything they have written would be overwritten:
    unless the operator gives them up, from that one on. Without fsync a power cut may lose them; that was accepted.
    """
    if isinstance(metadata.database, SqliteDatabase):
        directory = metadata.directory
        if directory is not None:
            directory.check_start(start_of(await metadata.database.read(last_life)))

        def on_lost(lost: LostCommits) -> None:
            if directory is not None and give_up_from != lost.first:
                raise directory.lost(lost.first, lost.count, str(lost))
            _log.error("%s: what they appended was acknowledged, and is given up", lost)
            metadata.lost_commits = lost.count

        metadata.life = await roll_forward(
            metadata.database, wal, randomness=randomness, shard_id=shard_id, on_lost=on_lost, redo=redo
        )
        if directory is not None:
            directory.note_start(start_of(metadata.life))


def commit_path_of(
    metadata: Metadata, wal: WalStore, registry: Registry, *, clock: Clock, randomness: Randomness, seq: int,
    inline: bool, executor: ThreadPoolExecutor, shard_id: int, agent_id: int, on_commit: Callable[[Commit], None],
) -> RecordFirstCommitPath | shared_commit_path.SharedCommitPath:  # fmt: skip
    """The way of this agent's commits. `on_commit` hears of others' commits."""
    database, loop = metadata.database, asyncio.get_running_loop()
    # An executor that cannot start its thread keeps the work, and does it when it can: after it was refused.
    executor.submit(int)

    async def on_thread(work: Callable[[], WalLocation]) -> WalLocation:
        try:
            working = loop.run_in_executor(executor, work)
        except RuntimeError as closed:
            raise Unavailable("the agent is stopping") from closed
        # What the work itself raises may come from after its write: that is not the same.
        return await working

    if isinstance(database, SqliteDatabase):
        rows = TrailingRows(database, randomness, redo)
        through_database = EmbeddedCommitPath(
            database=database, wal=wal, clock=clock, randomness=randomness, seq=seq, inline=inline, shard_id=shard_id,
            agent_id=agent_id, rows=rows,
        )  # fmt: skip
        return RecordFirstCommitPath(
            through_database, rows, metadata=database, wal=wal, clock=clock, randomness=randomness, on_thread=on_thread,
            life=metadata.life, inline=inline, shard_id=shard_id, agent_id=agent_id,
        )  # fmt: skip
    follower = follow.Follower(
        database=database, registry=registry, randomness=randomness, seq=seq, shard_id=shard_id, on_commit=on_commit
    )
    return shared_commit_path.SharedCommitPath(
        database=database, wal=wal, registry=registry, follower=follower, clock=clock, randomness=randomness,
        on_thread=on_thread, epoch=metadata.epoch, shard_id=shard_id, agent_id=agent_id,
    )  # fmt: skip
