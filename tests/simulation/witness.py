"""A witness inside the database: copies of every commit that ever became durable, made by the commit itself.

A trigger writes the copy in the same transaction, so it exists exactly if the commit does, and nothing that the
program does later (compaction, deletion, bugs) takes it away.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock.log.commits import CommitEntry, unpack_bases, unpack_entries
from penstock.metadata.database import Script
from penstock.metadata.inline import InlineDatabase

_TABLE = (
    "CREATE TABLE witness (seq INTEGER, object_id BLOB, committed_ms INTEGER, entries BLOB, bases BLOB,"
    " agent_id INTEGER)"
)
_TRIGGER = (
    "CREATE TRIGGER witness_commits AFTER INSERT ON wal_commit BEGIN INSERT INTO witness"
    " VALUES (new.seq, new.object_id, new.committed_ms, new.entries, new.bases, new.agent_id); END"
)


@dataclass(frozen=True, slots=True)
class WitnessedCommit:
    """A commit as it became durable."""

    seq: int
    committed_ms: int
    agent_id: int
    entries: list[CommitEntry]
    bases: tuple[int, ...]


class Witness:
    """Reads the copies."""

    async def install(self, database: InlineDatabase) -> None:
        """Begin to watch."""

        def script() -> Script[None]:
            yield _TABLE, ()
            yield _TRIGGER, ()

        await database.transaction(script)

    def commits(self, database: InlineDatabase) -> list[WitnessedCommit]:
        """Every commit, in order."""
        rows = database._connection.execute(
            "SELECT seq, committed_ms, agent_id, entries, bases FROM witness ORDER BY seq"
        )
        return [
            WitnessedCommit(seq, committed_ms, agent_id, unpack_entries(entries), unpack_bases(bases))
            for seq, committed_ms, agent_id, entries, bases in rows
        ]
