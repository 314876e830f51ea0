"""Invariant 7: what is named is there, and what is there is named, once grace periods are over."""

from __future__ import annotations

from penstock.metadata.inline import InlineDatabase
from penstock.storage.memory import MemoryObjectStore, MemoryWal


def check_named(database: InlineDatabase, objects: MemoryObjectStore, wal: MemoryWal) -> None:
    """Every row has its bytes, and objects know how many segments are in them. Holds at every moment."""
    connection = database._connection
    stored = {info.key: info.size_bytes for info in objects.list("")}
    for object_id, key, live, size_bytes in connection.execute("SELECT object_id, key, live, size_bytes FROM object"):
        query = "SELECT COUNT(*), COALESCE(MAX(byte_offset + byte_length), 0) FROM segment WHERE object_id = ?"
        count, end = connection.execute(query, (object_id,)).fetchone()
        assert count == live, f"object {key} counts {live} segments and has {count}"
        if live:
            assert stored.get(key) == size_bytes, f"object {key} has {stored.get(key)} bytes, not {size_bytes}"
            assert end <= size_bytes, f"a segment reaches beyond the end of object {key}"
    ((floor,),) = connection.execute("SELECT wal_floor FROM shard WHERE shard_id = 1").fetchall()
    rows = connection.execute("SELECT wal_key, wal_length FROM wal_commit WHERE seq > ?", (floor,))
    for key, length in rows:
        assert len(wal._objects.get(key, b"")) == length, f"the log object {key} of a commit is gone"


def check_no_garbage(database: InlineDatabase, objects: MemoryObjectStore, wal: MemoryWal) -> None:
    """Nothing is kept that nobody needs. Holds after a start, and grace periods without faults."""
    connection = database._connection
    named = {key for (key,) in connection.execute("SELECT key FROM object WHERE live > 0")}
    dead = connection.execute("SELECT COUNT(*) FROM object WHERE live = 0").fetchone()[0]
    stored = {info.key for info in objects.list("")}
    assert not dead, f"{dead} dead objects are still known"
    assert stored == named, f"{len(stored - named)} objects that nothing names are kept"
    ((floor,),) = connection.execute("SELECT wal_floor FROM shard WHERE shard_id = 1").fetchall()
    needed = {key for (key,) in connection.execute("SELECT wal_key FROM wal_commit WHERE seq > ?", (floor,))}
    assert wal._objects.keys() == needed, f"{len(wal._objects.keys() - needed)} log objects are kept for nothing"
    deletions = connection.execute("SELECT COUNT(*) FROM topic_deletion").fetchone()[0]
    assert not deletions, f"{deletions} partitions of deleted topics are not forgotten"
    orphaned = connection.execute(
        "SELECT COUNT(*) FROM producer_state WHERE partition_id NOT IN (SELECT partition_id FROM partition)"
    ).fetchone()[0]
    assert not orphaned, f"{orphaned} producers of partitions that are gone are remembered"


def check_segments(database: InlineDatabase) -> None:
    """Segments of a partition never overlap, and its row says how large they are together."""
    connection = database._connection
    ends: dict[int, int] = {}
    rows = connection.execute("SELECT partition_id, base_offset, last_offset FROM segment ORDER BY 1, 3")
    for partition_id, base, last in rows:
        assert base > ends.get(partition_id, -1), f"two segments of partition {partition_id} have offset {base}"
        assert base <= last
        ends[partition_id] = last
    rows = connection.execute(
        "SELECT p.partition_id, p.size_bytes, (SELECT COALESCE(SUM(byte_length), 0) FROM segment s"
        " WHERE s.partition_id = p.partition_id), p.segmented_to, p.next_offset FROM partition p"
    )
    for partition_id, size_bytes, found_bytes, segmented_to, next_offset in rows:
        assert size_bytes == found_bytes, f"partition {partition_id} is {size_bytes} bytes, its segments {found_bytes}"
        assert ends.get(partition_id, -1) < segmented_to or partition_id not in ends
        assert next_offset >= segmented_to
