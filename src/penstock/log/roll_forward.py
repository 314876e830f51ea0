"""What a start does before anything else: bring in the rows of commits that had not followed their objects yet, and
what these commits have changed beside.

The last process may have died before the database had its last rows; their WAL objects say what they are to be (see
wal_record.py). They are found by walking through the places that were begun last, from object to object, and count as
far as their numbers go on from what the database has without a gap. The last of them may have been cut short by the
crash; if it is not whole it was not acknowledged. The others were: what became of their bytes since is for readers to
find out, and no reason to lose what follows. Where a record itself is lost, because the disk did not keep it, so are
all commits from there on, whose offsets nobody knows any more: that is no end like others, and it is said and counted.

A start is also a new life: records of earlier ones count for nothing from then on, as all of theirs have rows. What
comes behind the last object may be anything that producers have sent, also what looks like a record, for checksums
can be made by anybody. So the number of a life has a part that nobody can guess, and nobody is told.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

from penstock.base.randomness import Randomness
from penstock.log.trailing_rows import CommitRow, Redo, insert_script, nothing_to_redo
from penstock.log.wal_record import COMMITS, HEAD_BYTES, RecordHead, is_whole, read_head, read_record
from penstock.metadata.database import Database, Script
from penstock.storage.wal import PAGE_BYTES, WalStore

_LIFE = "wal life"
_SECRET_BYTES = 5
_ONE_LIFE = 1 << 8 * _SECRET_BYTES
_log = logging.getLogger(__name__)
BEHIND_BYTES = 4 * 1024 * 1024 + 512 * 1024
"""How far behind the last object of a place a successor would begin: no object is larger, but those that are alone."""
OLDER_PLACES = 4
"""How many places are looked at that were begun before the last row: its successor is in the last one, mostly."""


async def roll_forward(
    database: Database, wal: WalStore, *, randomness: Randomness, shard_id: int = 1,
    on_lost: Callable[[int], None] = lambda commits: None, redo: Redo = nothing_to_redo,
) -> int:  # fmt: skip
    """Bring in what is missing and begin a new life; its number. Call it before `load_state`.

    `on_lost` is told of so many commits that were acknowledged and cannot be brought in.
    """
    life, seq = await database.read(lambda: _known(shard_id))
    rows = list(found_rows(wal, life, seq, shard_id=shard_id, on_lost=on_lost)) if life else []
    secret = int.from_bytes(randomness.token(_SECRET_BYTES))
    return await database.transaction(lambda: begin_life(rows, secret, redo))


def found_rows(
    wal: WalStore, life: int, seq: int, *, shard_id: int = 1, on_lost: Callable[[int], None] = lambda commits: None
) -> Iterator[CommitRow]:
    """The rows of commits after `seq` that objects of that life tell of."""
    index: dict[int, list[tuple[str, int, RecordHead]]] = {}
    last = seq
    """The last commit there is any trace of. Those before it were durable when it was written."""
    for key in _places_of(wal, seq):
        end = 0
        for offset, head in _walk(wal, key):
            end = _end_of(offset, head)
            if head.kind == COMMITS and (head.life, head.shard_id) == (life, shard_id) and head.seq > seq:
                index.setdefault(head.seq, []).append((key, offset, head))
                last = max(last, head.seq)
        last = max(last, _last_behind(wal, key, end, life, shard_id))
    while (candidates := index.get(seq + 1)) is not None:
        # More than one: others were begun and not finished, as the disk was full.
        was_acknowledged = seq + 2 in index and len(candidates) == 1
        rows = [_row_of(wal, *candidate, must_be_whole=not was_acknowledged) for candidate in candidates]
        row = next((row for row in rows if row is not None), None)
        if row is None:
            break
        seq += 1
        yield row
    if last > seq + 1:
        # One that has no successor may have been cut short by the crash; a successor is no accident.
        _log.error(
            "the record of commit %d cannot be read, although there are commits up to %d: what they appended was"
            " acknowledged, and is lost (%s)", seq + 1, last, _place_of(index.get(seq + 1)),
        )  # fmt: skip
        on_lost(last - seq)


def _last_behind(wal: WalStore, key: str, end: int, life: int, shard_id: int) -> int:
    """The highest commit of that life that has a record behind the last object that can be reached; 0 if none has."""
    behind = wal.look(key, end, BEHIND_BYTES)
    last = 0
    for position in range(PAGE_BYTES, len(behind), PAGE_BYTES):
        head = read_head(behind[position : position + HEAD_BYTES])
        if head is None or (head.kind, head.life, head.shard_id) != (COMMITS, life, shard_id):
            continue
        if read_record(wal.look(key, end + position, head.record_bytes)) is not None:
            last = max(last, head.seq)
    return last


def _place_of(candidates: Sequence[tuple[str, int, RecordHead]] | None) -> str:
    return f"it is in {candidates[0][0]} at {candidates[0][1]}" if candidates else "it is where nothing can be read"


def _row_of(wal: WalStore, key: str, offset: int, head: RecordHead, *, must_be_whole: bool) -> CommitRow | None:
    record = read_record(wal.look(key, offset, head.record_bytes))
    if record is None or (must_be_whole and not is_whole(record, wal.look(key, offset, head.object_bytes))):
        return None
    return CommitRow(
        head.shard_id, head.seq, head.object_id, key, offset, head.object_bytes, head.committed_ms, head.agent_id,
        record.entries, record.bases, record.change,
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


def begin_life(rows: Sequence[CommitRow], secret: int, redo: Redo) -> Script[int]:
    """Write rows, which may be there already, and begin a new life; its number. No other record counts any more."""
    yield from insert_script(rows, redo)
    lives = yield (
        "INSERT INTO counter (name, value) VALUES ($1, $2 + $3)"
        " ON CONFLICT (name) DO UPDATE SET value = (counter.value / $2 + 1) * $2 + $3 RETURNING value",
        (_LIFE, _ONE_LIFE, secret),
    )
    return int(lives[0][0])
