"""Invariant 8: metered bytes are the bytes that were appended, counted once."""

from __future__ import annotations

from collections.abc import Sequence

from simulation.witness import WitnessedCommit

from penstock.metadata.inline import InlineDatabase

BYTES_IN = 1


def check_usage(database: InlineDatabase, commits: Sequence[WitnessedCommit]) -> None:
    """What is in the table, and what its unfolded rows will add, is what the witness saw appended."""
    connection = database._connection
    ((folded,),) = connection.execute(
        "SELECT COALESCE(SUM(value), 0) FROM usage WHERE metric = ?", (BYTES_IN,)
    ).fetchall()
    ((floor,),) = connection.execute("SELECT wal_floor FROM shard WHERE shard_id = 1").fetchall()
    metered = sum(entry.byte_length for commit in commits if commit.seq <= floor for entry in commit.entries)
    assert folded == metered, f"{folded} bytes are metered of {metered} appended below commit {floor}"
    rows = [row[0] for row in connection.execute("SELECT seq FROM wal_commit WHERE seq > ? ORDER BY seq", (floor,))]
    unfolded = [commit.seq for commit in commits if commit.seq > floor]
    assert rows == unfolded, "commits that are not metered yet are gone"
