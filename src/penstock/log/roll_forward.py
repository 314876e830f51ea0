"""Roll forward: the first step of a start stores the rows, and other changes, of commits that are only in the WAL.

The last process may have died before the database had its last rows; their WAL objects contain the commit records to
rebuild them from (see wal_record.py). They are found by walking the most recent WAL files from object to object, and
count as long as their sequence numbers continue those of the database without a gap. Only the last object may have been
torn by the crash, and if it is incomplete it was not acknowledged. The others were: if their bytes were damaged since,
readers will find out, and that is no reason to lose what follows. If a record itself is lost because the disk did not
keep it, so are all commits from there on, whose offsets are unknown. The caller decides whether to go on without them
(`on_lost`): to whoever does, their objects are free space.

A start also begins a new *life*: records of earlier lives are ignored from then on, as all of theirs have rows. After
the last object there may be any bytes that producers have sent, even a forged record, since anyone can compute a
checksum. So the number of a life has a random part that nobody can guess, and that is never shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from penstock.base.dataclasses import dataclass
from penstock.base.errors import CorruptData
from penstock.base.randomness import Randomness
from penstock.log.trailing_rows import CommitRow, Redo, insert_script, nothing_to_redo
from penstock.log.wal_record import COMMITS, HEAD_BYTES, RecordHead, is_whole, read_head, read_record
from penstock.metadata.database import Database, Script
from penstock.storage.wal import PAGE_BYTES, WalStore

_LIFE = "wal life"
_SECRET_BYTES = 5
_ONE_LIFE = 1 << 8 * _SECRET_BYTES
BEHIND_BYTES = 4 * 1024 * 1024 + 512 * 1024
"""How far after the last object of a WAL file the next one could begin: the largest object that shares a file."""
OLDER_PLACES = 4
"""How many WAL files are searched that were begun before the last row: the next commit is usually in the last one."""


@dataclass(frozen=True, slots=True)
class LostCommits:
    """Acknowledged commits that cannot be brought in."""

    first: int
    """The commit whose record is lost."""
    last: int
    """The last one of which there is any trace."""
    place: str
    """Where that record is, as a part of a sentence."""

    @property
    def count(self) -> int:
        """How many there were."""
        return self.last - self.first + 1

    def __str__(self) -> str:
        commits = f"commit {self.first} cannot be read, although there are commits up to {self.last}"
        return f"the record of {commits} ({self.place})"


OnLost = Callable[[LostCommits], None]
"""Called before anything is changed. Raises where a start without these commits is not wanted."""


def _refuse_to_lose(lost: LostCommits) -> None:
    raise CorruptData(str(lost))


async def roll_forward(
    database: Database, wal: WalStore, *, randomness: Randomness, shard_id: int = 1,
    on_lost: OnLost = _refuse_to_lose, redo: Redo = nothing_to_redo,
) -> int:  # fmt: skip
    """Store what is missing and begin a new life; its number. Call it before `load_state`."""
    life, seq = await database.read(lambda: last_known(shard_id))
    rows = list(found_rows(wal, life, seq, shard_id=shard_id, on_lost=on_lost)) if life else []
    secret = int.from_bytes(randomness.token(_SECRET_BYTES))
    return await database.transaction(lambda: begin_life(rows, secret, redo))


def found_rows(
    wal: WalStore, life: int, seq: int, *, shard_id: int = 1, on_lost: OnLost = _refuse_to_lose
) -> Iterator[CommitRow]:
    """The rows of commits after `seq`, from the objects of that life."""
    index: dict[int, list[tuple[str, int, RecordHead]]] = {}
    last = seq
    """The last commit of which there is any trace. Those before it were durable when it was written."""
    for key in _places_of(wal, seq):
        end = 0
        for offset, head in _walk(wal, key):
            end = _end_of(offset, head)
            if head.kind == COMMITS and (head.life, head.shard_id) == (life, shard_id) and head.seq > seq:
                index.setdefault(head.seq, []).append((key, offset, head))
                last = max(last, head.seq)
        last = max(last, _last_behind(wal, key, end, life, shard_id))
    while (candidates := index.get(seq + 1)) is not None:
        # With several candidates, all but one were torn writes, made when the disk was full.
        was_acknowledged = seq + 2 in index and len(candidates) == 1
        rows = [_row_of(wal, *candidate, must_be_whole=not was_acknowledged) for candidate in candidates]
        row = next((row for row in rows if row is not None), None)
        if row is None:
            break
        seq += 1
        yield row
    if last > seq + 1:
        # A last object without successor may have been torn by the crash; one with a successor cannot have been.
        on_lost(LostCommits(seq + 1, last, _place_of(index.get(seq + 1))))


def _last_behind(wal: WalStore, key: str, end: int, life: int, shard_id: int) -> int:
    """The highest commit of that life that has a record after the last object that can be reached; 0 if none has."""
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
    """WAL files that may contain commits after this one."""
    begun = []
    for key in wal.places():
        head = read_head(wal.look(key, 0, HEAD_BYTES))
        if head is not None and (head.seq > seq or _has_more(wal, key, head)):
            begun.append((head.seq, key))
    begun.sort(reverse=True)
    younger = sum(first_seq > seq for first_seq, _ in begun)
    return [key for _, key in begun[: younger + OLDER_PLACES]]


def _has_more(wal: WalStore, key: str, first: RecordHead) -> bool:
    """Whether a file can contain more than its first object: one that is too large for a slab has a file of its own."""
    return len(wal.look(key, _end_of(0, first), 1)) > 0


def _end_of(offset: int, head: RecordHead) -> int:
    return offset + ((head.object_bytes + PAGE_BYTES - 1) & -PAGE_BYTES)


def _walk(wal: WalStore, key: str) -> Iterator[tuple[int, RecordHead]]:
    """The objects of a WAL file from its beginning. What follows the last of them may be older."""
    offset = 0
    while (head := read_head(wal.look(key, offset, HEAD_BYTES))) is not None:
        yield offset, head
        offset = _end_of(offset, head)


def last_life() -> Script[int]:
    """The last life that the database knows of; 0 if there was none."""
    lives = yield "SELECT value FROM counter WHERE name = $1", (_LIFE,)
    return int(lives[0][0]) if lives else 0


def start_of(life: int) -> int:
    """The part of a life's number that counts lives."""
    return life // _ONE_LIFE


def last_known(shard_id: int) -> Script[tuple[int, int]]:
    """The last life, and the last commit that the database has."""
    life = yield from last_life()
    rows = yield "SELECT MAX(seq) FROM wal_commit WHERE shard_id = $1", (shard_id,)
    shard = yield "SELECT commit_seq, wal_floor FROM shard WHERE shard_id = $1", (shard_id,)
    return life, max(rows[0][0] or 0, *map(int, shard[0]))


def secret_of(life: int) -> int:
    """The secret part of a life's number, which the next life of the same process may keep."""
    return life % _ONE_LIFE


def begin_life(rows: Sequence[CommitRow], secret: int, redo: Redo) -> Script[int]:
    """Store rows, which may exist already, and begin a new life; its number. Records of other lives no longer count."""
    yield from insert_script(rows, redo)
    lives = yield (
        "INSERT INTO counter (name, value) VALUES ($1, $2 + $3)"
        " ON CONFLICT (name) DO UPDATE SET value = (counter.value / $2 + 1) * $2 + $3 RETURNING value",
        (_LIFE, _ONE_LIFE, secret),
    )
    return int(lives[0][0])
