"""What a start does before anything else: bring in the rows of commits that had not followed their objects yet.

The last process may have died before the database had its last rows; their WAL objects say what they are to be (see
wal_record.py). They are found by walking through the places that were begun last, from object to object, and count as
far as their numbers go on from what the database has without a gap. The last of them may have been cut short by the
crash; if it is not whole it was not acknowledged. The others were: what became of their bytes since is for readers to
find out, and no reason to lose what follows.

A start is also a new life: records of earlier ones count for nothing from then on, as all of theirs have rows. What
comes behind the last object may be anything that producers have sent, also what looks like a record, for checksums
can be made by anybody. So the number of a life has a part that nobody can guess, and nobody is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from penstock.base.randomness import Randomness
from penstock.log.trailing_rows import LEAVES_OLD, CommitRow, insert_statement
from penstock.log.wal_record import COMMITS, HEAD_BYTES, RecordHead, is_whole, read_head, read_record
from penstock.metadata.database import Database, Script
from penstock.storage.wal import PAGE_BYTES, WalStore

_LIFE = "wal life"
_SECRET_BYTES = 5
_ONE_LIFE = 1 << 8 * _SECRET_BYTES
OLDER_PLACES = 4
"""How many places are looked at that were begun before the last row: its successor is in the last one, mostly."""
_INSERT = insert_statement() + LEAVES_OLD


async def roll_forward(database: Database, wal: WalStore, *, randomness: Randomness, shard_id: int = 1) -> int:
    """Bring in what is missing and begin a new life; its number. Call it before `load_state`."""
    life, seq = await database.read(lambda: _known(shard_id))
    rows = list(found_rows(wal, life, seq, shard_id=shard_id)) if life else []
    secret = int.from_bytes(randomness.token(_SECRET_BYTES))
    return await database.transaction(lambda: begin_life(rows, secret))


def found_rows(wal: WalStore, life: int, seq: int, *, shard_id: int = 1) -> Iterator[CommitRow]:
    """The rows of commits after `seq` that objects of that life tell of."""
    index: dict[int, list[tuple[str, int, RecordHead]]] = {}
    for key in _places_of(wal, seq):
        for offset, head in _walk(wal, key):
            if head.kind == COMMITS and (head.life, head.shard_id) == (life, shard_id) and head.seq > seq:
                index.setdefault(head.seq, []).append((key, offset, head))
    while (candidates := index.get(seq + 1)) is not None:
        seq += 1
        # More than one: others were begun and not finished, as the disk was full.
        was_acknowledged = seq + 1 in index and len(candidates) == 1
        rows = [_row_of(wal, *candidate, must_be_whole=not was_acknowledged) for candidate in candidates]
        row = next((row for row in rows if row is not None), None)
        if row is None:
            return
        yield row


def _row_of(wal: WalStore, key: str, offset: int, head: RecordHead, *, must_be_whole: bool) -> CommitRow | None:
    record = read_record(wal.look(key, offset, head.record_bytes))
    if record is None or (must_be_whole and not is_whole(record, wal.look(key, offset, head.object_bytes))):
        return None
    return CommitRow(
        head.shard_id, head.seq, head.object_id, key, offset, head.object_bytes, head.committed_ms, head.agent_id,
        record.entries, record.bases,
    )  # fmt: skip


def _places_of(wal: WalStore, seq: int) -> list[str]:
    """Where commits after that one may be."""
    begun = []
    for key in wal.places():
        head = read_head(wal.look(key, 0, HEAD_BYTES))
        if head is not None and (head.seq > seq or _has_more(wal, key, head)):
            begun.append((head.seq, key))
    begun.sort(reverse=True)
    younger = sum(first_seq > seq for first_seq, _ in begun)
    return [key for _, key in begun[: younger + OLDER_PLACES]]


def _has_more(wal: WalStore, key: str, first: RecordHead) -> bool:
    """Whether there can be more in a place than its first object: one that is too large for a slab is alone."""
    return len(wal.look(key, _end_of(0, first), 1)) > 0


def _end_of(offset: int, head: RecordHead) -> int:
    return offset + ((head.object_bytes + PAGE_BYTES - 1) & -PAGE_BYTES)


def _walk(wal: WalStore, key: str) -> Iterator[tuple[int, RecordHead]]:
    """Objects from the beginning of a place to the last one that was begun. What comes behind may be older."""
    offset = 0
    while (head := read_head(wal.look(key, offset, HEAD_BYTES))) is not None:
        yield offset, head
        offset = _end_of(offset, head)


def _known(shard_id: int) -> Script[tuple[int, int]]:
    """The life that ended, and the last commit that the database has."""
    lives = yield "SELECT value FROM counter WHERE name = $1", (_LIFE,)
    rows = yield "SELECT MAX(seq) FROM wal_commit WHERE shard_id = $1", (shard_id,)
    shard = yield "SELECT commit_seq, wal_floor FROM shard WHERE shard_id = $1", (shard_id,)
    return int(lives[0][0]) if lives else 0, max(rows[0][0] or 0, *map(int, shard[0]))


def secret_of(life: int) -> int:
    """The part of a life's number that the next life of the same process may keep."""
    return life % _ONE_LIFE


def begin_life(rows: Sequence[CommitRow], secret: int) -> Script[int]:
    """Write rows, which may be there already, and begin a new life; its number. No other record counts any more."""
    for row in rows:
        yield _INSERT, row
    lives = yield (
        "INSERT INTO counter (name, value) VALUES ($1, $2 + $3)"
        " ON CONFLICT (name) DO UPDATE SET value = (counter.value / $2 + 1) * $2 + $3 RETURNING value",
        (_LIFE, _ONE_LIFE, secret),
    )
    return int(lives[0][0])
