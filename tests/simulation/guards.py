"""Invariant 7 watched where it would break: nothing that is alive is deleted, at the moment of every deletion.

A guard looks into the database at that very moment. What it finds is kept until the end of the run: a chore that
deletes too much must not get away with catching the complaint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from penstock.base.clock import Clock
from penstock.metadata.inline import InlineDatabase
from penstock.storage.wal import WalLocation

SKEW_MS = 500
"""By how much the clocks of agents may differ at most."""


class Guards:
    """Looks at deletions."""

    def __init__(self, database: Callable[[], InlineDatabase], clock: Clock, grace_ms: int) -> None:
        self._database, self._clock, self._grace_ms = database, clock, grace_ms
        self.violations: list[str] = []

    def on_release(self, locations: Iterable[WalLocation]) -> None:
        """Space of the write-ahead log is given back: no commit above the floor may need it."""
        connection = self._database()._connection
        for location in locations:
            rows = connection.execute(
                "SELECT seq FROM wal_commit WHERE wal_key = ? AND wal_offset = ?"
                " AND seq > (SELECT wal_floor FROM shard WHERE shard.shard_id = wal_commit.shard_id)",
                (location.key, location.offset),
            ).fetchall()
            if rows:
                self.violations.append(f"the log object of commit {rows[0][0]}, which is not in segments, was released")

    def on_delete(self, keys: Sequence[str]) -> None:
        """Objects are deleted: no segment may name them, nor may readers still be using them."""
        connection, now_ms = self._database()._connection, self._clock.now_ms()
        for key in keys:
            row = connection.execute("SELECT object_id, live, dead_ms FROM object WHERE key = ?", (key,)).fetchone()
            if row is None:
                continue
            object_id, live, dead_ms = row
            named = connection.execute("SELECT COUNT(*) FROM segment WHERE object_id = ?", (object_id,)).fetchone()[0]
            if named or live or dead_ms is None:
                self.violations.append(f"object {key} was deleted, {named} segments are in it")
            elif dead_ms > now_ms - self._grace_ms + SKEW_MS:
                self.violations.append(f"object {key} was deleted {now_ms - dead_ms} ms after its last segment")

    def check(self) -> None:
        """Fail if there was anything."""
        assert not self.violations, self.violations
