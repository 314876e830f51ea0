"""The SQL of commits where several agents append to the same partitions. Guards and counters only; rules are elsewhere.

Every commit first updates the shard's row. That assigns its sequence number and serializes the commits of a shard, so
that no other lock order is needed. Then log end offsets advance by counts: the database assigns the offsets, so two
agents that append to one partition cannot disagree. Rows of idempotent producers are updated only if they are what the
agent decided on (compare and set); otherwise the whole commit fails with `Conflict`.

The offsets in a producer's row depend on the log end offset, which is known only inside the transaction; so the row is
assembled there: the packed batches that stay, then the new ones with the log end offset added.

Transactional batches are guarded by the row of their producer's transactional id: it must have the batch's epoch and,
for clients that add partitions explicitly, contain the partition. Whoever changes such a row has also updated the
shard's row first. So a commit before the end of a transaction belongs to the transaction, and one after it is refused.

`epoch` fences: when another process has taken over the WAL that the commits' objects are in, a late commit of the
former owner finds a newer epoch in the shard's row and changes nothing.

PostgreSQL does all of it in one statement: one round trip, and the shard's row is locked no longer than that. A
statement that waited for that row still has the snapshot from before. That is safe: rows that it updates are read
again in their latest version, and a row inserted meanwhile is a key conflict. A guard that fails puts NULL into a NOT
NULL column, which aborts the whole statement.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from struct import Struct
from typing import Any, NamedTuple

from penstock.base.dataclasses import dataclass
from penstock.base.errors import Conflict, Fenced
from penstock.base.integers import unpack_i64s
from penstock.log.commits import CONTROL, CommitEntry, ProducerBatch, pack_bases, pack_entries
from penstock.log.model import KEPT_BATCHES, ProducerState, SequenceBatch
from penstock.log.producers import last_sequence
from penstock.log.recovery import BATCH_BYTES, pack_batches, unpack_batches
from penstock.metadata.database import Script
from penstock.storage.wal import WalLocation

ProducerKey = tuple[int, int]
"""Partition id and producer id."""

_SEQUENCES = Struct(">ii")
_TIMESTAMP = Struct(">q")


class ProducerUpdate(NamedTuple):
    """How a commit changes one producer's row."""

    partition_id: int
    producer_id: int
    known: tuple[int, bytes] | None
    """The epoch and batches that the row must have; None: there must be no row."""
    epoch: int
    kept: bytes
    """Packed batches that stay in the row."""
    batches: Sequence[ProducerBatch]
    """New batches; their `offset_delta` counts from the partition's log end offset."""


class TransactionMembership(NamedTuple):
    """What a transactional batch requires of the row of its producer's transactional id."""

    producer_id: int
    epoch: int
    partition_id: int | None
    """The partition that must have been added to the transaction; None: the batch itself adds it."""


class IdOwner(NamedTuple):
    """The content of such a row."""

    epoch: int
    partitions: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCommit:
    """A commit to be made."""

    shard_id: int
    epoch: int
    agent_id: int
    object_id: bytes
    location: WalLocation
    now_ms: int
    entries: Sequence[CommitEntry]
    starts: Sequence[int]
    """Each entry's base, relative to its partition's log end offset: 0, unless the partition has an earlier entry."""
    producers: Sequence[ProducerUpdate] = ()
    members: Sequence[TransactionMembership] = ()

    def totals(self) -> dict[int, int]:
        """How far each partition's log end offset advances."""
        totals: dict[int, int] = {}
        for entry in self.entries:
            totals[entry.partition_id] = totals.get(entry.partition_id, 0) + entry.offset_count
        return totals


def producer_update(key: ProducerKey, state: ProducerState | None, batches: Sequence[ProducerBatch]) -> ProducerUpdate:
    """The update of a producer's row when these batches, all to be appended, follow that state in that order."""
    partition_id, producer_id = key
    epoch = max(batch.epoch for batch in batches)
    # A marker is not remembered as a batch; only the epoch that it brings is.
    added = [batch for batch in batches if batch.epoch == epoch and not batch.flags & CONTROL][-KEPT_BATCHES:]
    known, kept = None, b""
    if state is not None:
        packed = pack_batches(state.batches)
        known = (state.epoch, packed)
        if state.epoch == epoch:
            room = KEPT_BATCHES - len(added)
            kept = packed[-room * BATCH_BYTES :] if room else b""
    return ProducerUpdate(partition_id, producer_id, known, epoch, kept, added)


def take_over(shard_id: int) -> Script[int]:
    """Begin a new epoch of a shard, which fences commits of the one before; the new epoch."""
    rows = yield "UPDATE shard SET epoch = epoch + 1 WHERE shard_id = $1 RETURNING epoch", (shard_id,)
    return int(rows[0][0])


def lock_shard(shard_id: int, epoch: int) -> Script[int]:
    """Block commits of the shard until the end of the transaction; the sequence number of the last commit."""
    rows = yield (
        "UPDATE shard SET commit_seq = commit_seq WHERE shard_id = $1 AND epoch = $2 RETURNING commit_seq",
        (shard_id, epoch),
    )
    if not rows:
        raise _fenced(shard_id)
    return int(rows[0][0])


def check_epoch(shard_id: int, epoch: int) -> Script[None]:
    """Raise `Fenced` if this is not the newest epoch of the shard any more."""
    rows = yield "SELECT epoch FROM shard WHERE shard_id = $1", (shard_id,)
    if not rows or rows[0][0] != epoch:
        raise _fenced(shard_id)


class CommitSql:
    """The scripts, in SQL that both databases understand."""

    def write(self, new: NewCommit) -> Script[tuple[int, bytes]]:
        """Commit; the sequence number and the packed base offsets. Raises `Conflict` when a guard fails."""
        rows = yield (
            "UPDATE shard SET commit_seq = commit_seq + 1 WHERE shard_id = $1 AND epoch = $2 RETURNING commit_seq",
            (new.shard_id, new.epoch),
        )
        if not rows:
            raise _fenced(new.shard_id)
        seq, heads = int(rows[0][0]), {}
        for partition_id, total in sorted(new.totals().items()):
            rows = yield (
                "UPDATE partition SET next_offset = next_offset + $2 WHERE partition_id = $1 RETURNING next_offset",
                (partition_id, total),
            )
            if not rows:
                raise Conflict(f"partition {partition_id} does not exist")
            heads[partition_id] = int(rows[0][0]) - total
        for move in new.producers:
            yield from _update_producer(move, heads[move.partition_id], new.now_ms)
        if new.members:
            owners = yield from self.owners({member.producer_id for member in new.members})
            for member in new.members:
                if not is_member(owners.get(member.producer_id), member):
                    raise Conflict(f"producer {member.producer_id} has no such transaction")
        bases = pack_bases(
            [heads[entry.partition_id] + start for entry, start in zip(new.entries, new.starts, strict=True)]
        )
        yield _insert(new, seq, pack_entries(new.entries), bases)
        return seq, bases

    def heads(self, partition_ids: Iterable[int]) -> Script[dict[int, int]]:
        """The log end offset of each partition that exists."""
        heads = {}
        for partition_id in partition_ids:
            rows = yield "SELECT next_offset FROM partition WHERE partition_id = $1", (partition_id,)
            if rows:
                heads[partition_id] = int(rows[0][0])
        return heads

    def states(self, keys: Iterable[ProducerKey]) -> Script[dict[ProducerKey, ProducerState]]:
        """The rows of producers that have one."""
        states: dict[ProducerKey, ProducerState] = {}
        for key in keys:
            rows = yield (
                "SELECT partition_id, producer_id, epoch, last_ms, batches FROM producer_state"
                " WHERE partition_id = $1 AND producer_id = $2",
                key,
            )
            states.update(_states(rows))
        return states

    def owners(self, producer_ids: Iterable[int]) -> Script[dict[int, IdOwner]]:
        """The transactional ids' rows of producers that have one."""
        owners: dict[int, IdOwner] = {}
        for producer_id in sorted(producer_ids):
            rows = yield "SELECT producer_id, epoch, partitions FROM txn WHERE producer_id = $1", (producer_id,)
            owners.update(_owners(rows))
        return owners


def is_member(owner: IdOwner | None, member: TransactionMembership) -> bool:
    """Whether a batch may be appended, by the row of its producer's transactional id."""
    if owner is None or owner.epoch != member.epoch:
        return False
    return member.partition_id is None or member.partition_id in owner.partitions


def settle(new: NewCommit) -> Script[tuple[int, bytes, bytes]]:
    """Resolve a commit whose answer was lost, for good: its sequence number, entries and bases.

    If it has not happened, an empty commit takes its place and its object id, so that it never can. A new epoch has the
    same effect, but a commit from before it stands.
    """
    fenced: Fenced | None = None
    try:
        yield from lock_shard(new.shard_id, new.epoch)
    except Fenced as problem:
        fenced = problem
    rows = yield "SELECT seq, entries, bases FROM wal_commit WHERE object_id = $1", (new.object_id,)
    if rows:
        return int(rows[0][0]), bytes(rows[0][1]), bytes(rows[0][2])
    if fenced is not None:
        raise fenced
    rows = yield (
        "UPDATE shard SET commit_seq = commit_seq + 1 WHERE shard_id = $1 RETURNING commit_seq",
        (new.shard_id,),
    )
    seq, nothing = int(rows[0][0]), pack_entries(())
    yield _insert(new, seq, nothing, b"")
    return seq, nothing, b""


def _insert(new: NewCommit, seq: int, entries: bytes, bases: bytes) -> tuple[str, Sequence[Any]]:
    return (
        "INSERT INTO wal_commit (shard_id, seq, object_id, wal_key, wal_offset, wal_length, committed_ms, agent_id,"
        " entries, bases) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        (
            new.shard_id, seq, new.object_id, new.location.key, new.location.offset, new.location.length, new.now_ms,
            new.agent_id, entries, bases,
        ),
    )  # fmt: skip


def _update_producer(move: ProducerUpdate, head: int, now_ms: int) -> Script[None]:
    added = [
        SequenceBatch(
            batch.first_sequence, _last_sequence(batch), head + batch.offset_delta,
            head + batch.offset_delta + batch.last_offset_delta, batch.timestamp,
        )
        for batch in move.batches
    ]  # fmt: skip
    values = (move.partition_id, move.producer_id, move.epoch, now_ms, move.kept + pack_batches(added))
    if move.known is None:
        rows = yield (
            "INSERT INTO producer_state (partition_id, producer_id, epoch, last_ms, batches)"
            " VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING RETURNING producer_id",
            values,
        )
    else:
        rows = yield (
            "UPDATE producer_state SET epoch = $3, last_ms = $4, batches = $5"
            " WHERE partition_id = $1 AND producer_id = $2 AND epoch = $6 AND batches = $7 RETURNING producer_id",
            (*values, *move.known),
        )
    if not rows:
        raise Conflict(f"producer {move.producer_id} of partition {move.partition_id} is not as it was believed to be")


def _last_sequence(batch: ProducerBatch) -> int:
    return last_sequence(batch.first_sequence, batch.last_offset_delta + 1)


def _states(rows: Iterable[Sequence[Any]]) -> Mapping[ProducerKey, ProducerState]:
    return {
        (partition_id, producer_id): ProducerState(producer_id, epoch, last_ms, unpack_batches(bytes(batches)))
        for partition_id, producer_id, epoch, last_ms, batches in rows
    }


def _owners(rows: Iterable[Sequence[Any]]) -> dict[int, IdOwner]:
    return {int(row[0]): IdOwner(int(row[1]), frozenset(unpack_i64s(bytes(row[2])))) for row in rows}


def _fenced(shard_id: int) -> Fenced:
    return Fenced(
        f"another process has started on the same database and taken over the log (shard {shard_id}): this one stops,"
        " only one may run"
    )


# ---- PostgreSQL ------------------------------------------------------------------------------------------------

_HEADS = """
WITH head AS (
    UPDATE shard SET commit_seq = commit_seq + 1 WHERE shard_id = $1::int AND epoch = $2::bigint RETURNING commit_seq
), entry AS (
    SELECT * FROM unnest($11::bigint[], $12::bigint[], $13::bigint[])
    WITH ORDINALITY AS entry (partition_id, start, total, n)
), moved AS (
    UPDATE partition SET next_offset = partition.next_offset + entry.total
    FROM entry, head WHERE entry.start = 0 AND partition.partition_id = entry.partition_id
    RETURNING partition.partition_id, partition.next_offset - entry.total AS base
)"""

_PRODUCERS = """, producer AS (
    SELECT p.partition_id, p.producer_id, p.known_epoch, p.known, p.epoch,
        p.kept || COALESCE(string_agg(
            b.sequences || int8send(moved.base + b.first) || int8send(moved.base + b.last) || b.stamp,
            ''::bytea ORDER BY b.n
        ), ''::bytea) AS batches
    FROM unnest($15::bigint[], $16::bigint[], $17::int[], $18::bytea[], $19::int[], $20::bytea[])
        WITH ORDINALITY AS p (partition_id, producer_id, known_epoch, known, epoch, kept, n)
    JOIN moved ON moved.partition_id = p.partition_id
    LEFT JOIN unnest($21::bigint[], $22::bytea[], $23::bigint[], $24::bigint[], $25::bytea[])
        WITH ORDINALITY AS b (producer_n, sequences, first, last, stamp, n) ON b.producer_n = p.n
    GROUP BY p.n, p.partition_id, p.producer_id, p.known_epoch, p.known, p.epoch, p.kept
), known AS (
    UPDATE producer_state SET epoch = producer.epoch, last_ms = $7::bigint, batches = producer.batches
    FROM producer WHERE producer_state.partition_id = producer.partition_id
        AND producer_state.producer_id = producer.producer_id
        AND producer_state.epoch = producer.known_epoch AND producer_state.batches = producer.known
    RETURNING 1
), fresh AS (
    INSERT INTO producer_state (partition_id, producer_id, epoch, last_ms, batches)
    SELECT partition_id, producer_id, epoch, $7::bigint, batches FROM producer WHERE known_epoch IS NULL
    ON CONFLICT DO NOTHING RETURNING 1
)"""

_MEMBERS = """, member AS (
    SELECT 1 FROM unnest($26::bigint[], $27::int[], $28::bigint[]) AS m (producer_id, epoch, partition_id)
    JOIN txn ON txn.producer_id = m.producer_id AND txn.epoch = m.epoch CROSS JOIN head
    WHERE m.partition_id IS NULL OR position(int8send(m.partition_id) IN txn.partitions) % 8 = 1
    FOR SHARE OF txn
)"""

_ROW = """
INSERT INTO wal_commit (
    shard_id, seq, object_id, wal_key, wal_offset, wal_length, committed_ms, agent_id, entries, bases
)
SELECT $1::int, head.commit_seq, $3::bytea, $4::text, $5::bigint, $6::bigint, $7::bigint, $8::int,
    CASE WHEN (SELECT count(*) FROM moved) = $10::int{guard} THEN $9::bytea END,
    (
        SELECT string_agg(int8send(moved.base + entry.start), ''::bytea ORDER BY entry.n)
        FROM entry JOIN moved ON moved.partition_id = entry.partition_id
    )
FROM head RETURNING seq, bases
"""
_GUARD = " AND (SELECT count(*) FROM known) + (SELECT count(*) FROM fresh) = $14::int"

_COMMIT = _HEADS + _ROW.format(guard="")
_COMMIT_IDEMPOTENT = _HEADS + _PRODUCERS + _ROW.format(guard=_GUARD)
_COMMIT_TRANSACTIONAL = (
    _HEADS + _PRODUCERS + _MEMBERS + _ROW.format(guard=_GUARD + " AND (SELECT count(*) FROM member) = $29::int")
)
"""Rows of transactional ids are locked so that they are read in their latest version, after the shard's row is."""


class PostgresCommitSql(CommitSql):
    """The scripts in as few round trips as possible."""

    def write(self, new: NewCommit) -> Script[tuple[int, bytes]]:
        """Make a commit in one statement."""
        rows = yield self.statement(new)
        return self.answer(new, rows)

    def statement(self, new: NewCommit) -> tuple[str, Sequence[Any]]:
        """The whole commit."""
        totals, location = new.totals(), new.location
        args: list[Any] = [
            new.shard_id, new.epoch, new.object_id, location.key, location.offset, location.length, new.now_ms,
            new.agent_id, pack_entries(new.entries), len(totals),
            [entry.partition_id for entry in new.entries], new.starts,
            [totals[entry.partition_id] for entry in new.entries],
        ]  # fmt: skip
        if not new.producers:
            return _COMMIT, args
        producers = new.producers
        args += [
            len(producers),
            [move.partition_id for move in producers],
            [move.producer_id for move in producers],
            [None if move.known is None else move.known[0] for move in producers],
            [None if move.known is None else move.known[1] for move in producers],
            [move.epoch for move in producers],
            [move.kept for move in producers],
        ]
        batches = [(number, batch) for number, move in enumerate(producers, 1) for batch in move.batches]
        args += [
            [number for number, _ in batches],
            [_SEQUENCES.pack(batch.first_sequence, _last_sequence(batch)) for _, batch in batches],
            [batch.offset_delta for _, batch in batches],
            [batch.offset_delta + batch.last_offset_delta for _, batch in batches],
            [_TIMESTAMP.pack(batch.timestamp) for _, batch in batches],
        ]
        if not new.members:
            return _COMMIT_IDEMPOTENT, args
        args += [
            [member.producer_id for member in new.members],
            [member.epoch for member in new.members],
            [member.partition_id for member in new.members],
            len(new.members),
        ]
        return _COMMIT_TRANSACTIONAL, args

    def answer(self, new: NewCommit, rows: Sequence[Sequence[Any]]) -> tuple[int, bytes]:
        """Read the statement's result."""
        if not rows:
            raise _fenced(new.shard_id)
        return int(rows[0][0]), bytes(rows[0][1])

    def heads(self, partition_ids: Iterable[int]) -> Script[dict[int, int]]:
        """The log end offset of each partition that exists, in one statement."""
        rows = yield (
            "SELECT partition_id, next_offset FROM partition WHERE partition_id = ANY($1::bigint[])",
            (list(partition_ids),),
        )
        return {int(row[0]): int(row[1]) for row in rows}

    def states(self, keys: Iterable[ProducerKey]) -> Script[dict[ProducerKey, ProducerState]]:
        """The rows of producers that have one, in one statement."""
        wanted = list(keys)
        if not wanted:
            return {}
        rows = yield (
            "SELECT partition_id, producer_id, epoch, last_ms, batches FROM producer_state"
            " JOIN unnest($1::bigint[], $2::bigint[]) AS wanted (partition_id, producer_id)"
            " USING (partition_id, producer_id)",
            ([key[0] for key in wanted], [key[1] for key in wanted]),
        )
        return dict(_states(rows))

    def owners(self, producer_ids: Iterable[int]) -> Script[dict[int, IdOwner]]:
        """The transactional ids' rows of producers that have one, in one statement."""
        rows = yield (
            "SELECT producer_id, epoch, partitions FROM txn WHERE producer_id = ANY($1::bigint[])",
            (sorted(producer_ids),),
        )
        return _owners(rows)
