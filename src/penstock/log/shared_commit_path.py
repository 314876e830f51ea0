"""The commit path of an agent that shares its database, and the partitions, with other agents.

The WAL object is written first, on a thread. Then one statement commits everything at once, guarded by what this agent
knows about the producers (commit_sql.py). Usually that is all. When a guard fails, the slow path locks the shard, reads
log end offsets and producers, judges each batch again and appends what may be appended: some batches may turn out to be
duplicates or to be refused, and the writer learns each verdict (`Commit.rest`).

Between the writer's decision and the statement, commits of others may have been applied here. So the producer states
that the guard will compare are captured when the commit begins, and every batch is judged by them once more; whatever
changes after that makes the guard fail.

A partition that was not added to a transaction explicitly belongs to it if the transaction has already written to it.
That is looked up on the slow path only: in this agent's state, and in the commits since.

A commit whose answer is lost is looked up before anything else happens. The shard's lock makes the look-up wait for a
commit in flight; one that has not started is prevented by an empty commit that takes its object id. After that the
outcome is final, and nothing is ever appended twice.

What participants of a flush write is part of the commit's transaction, which then takes several round trips. Commits
that happened after the participants decided are checked first: if they have batches of a transaction that a participant
ends, markers would be missing; so nothing is written and the writer decides again (`Outdated`).

An agent has at most one commit in flight: its writer guarantees that.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

from penstock.base.backoff import Backoff, retry_until_answered
from penstock.base.clock import Clock
from penstock.base.dataclasses import dataclass, replace
from penstock.base.errors import Conflict, OutcomeUnknown, PlatformError, Unavailable
from penstock.base.log_throttle import LogThrottle
from penstock.base.randomness import Randomness
from penstock.log.appending import OnThread, append_aside
from penstock.log.commit_path import CommitChange, Outdated
from penstock.log.commit_sql import (
    CommitSql,
    IdOwner,
    NewCommit,
    PostgresCommitSql,
    ProducerKey,
    ProducerUpdate,
    TransactionMembership,
    check_epoch,
    lock_shard,
    producer_update,
    settle,
)
from penstock.log.commits import (
    CONTROL,
    Commit,
    CommitEntry,
    ExcludedBatches,
    ProducerBatch,
    sequence_batch,
    unpack_bases,
    unpack_entries,
)
from penstock.log.follow import Follower
from penstock.log.model import ProducerState
from penstock.log.partial_commits import PartialCommit, begins_late, decide, follow_ongoing, membership
from penstock.log.producers import check_sequence, note_marker, remember
from penstock.log.registry import Registry
from penstock.metadata.database import Database, Script
from penstock.storage.wal import WalStore

COMPLAIN_EVERY_S = 10.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Ongoing:
    """Partitions whose open transactions were written to without having been added explicitly."""

    seen: int
    """The commit up to which this is known."""
    keys: frozenset[ProducerKey]


@dataclass(slots=True)
class _Locked:
    """What the slow path read under the lock, and decided."""

    last_seq: int
    states: dict[ProducerKey, ProducerState]
    asked: set[ProducerKey]
    left: PartialCommit
    seq: int | None = None
    bases: bytes = b""
    are_gone: Collection[int] = ()
    """Partitions of deleted topics, where these keep the flush from being committed."""


@dataclass(slots=True)
class PathStats:
    """Counted since the process started."""

    slow: int = 0
    """Commits whose guards failed."""
    settled: int = 0
    """Commits whose outcome had to be looked up."""
    outdated: int = 0
    """Flushes that were decided again."""


class SharedCommitPath:
    """Commits of this agent, where others commit as well."""

    is_alone = False

    def __init__(
        self,
        *,
        database: Database,
        wal: WalStore,
        registry: Registry,
        follower: Follower,
        clock: Clock,
        randomness: Randomness,
        on_thread: OnThread,
        epoch: int,
        shard_id: int = 1,
        agent_id: int = 1,
    ) -> None:
        self._database, self._wal, self._registry, self.follower = database, wal, registry, follower
        self._clock, self._randomness, self._on_thread = clock, randomness, on_thread
        self._epoch, self._shard_id, self._agent_id = epoch, shard_id, agent_id
        self._sql = PostgresCommitSql() if database.dialect == "postgres" else CommitSql()
        self._locked: _Locked | None = None
        self.stats = PathStats()

    def commit_now(
        self, body: memoryview, entries: Sequence[CommitEntry], heads: Sequence[int], change: CommitChange | None = None
    ) -> None:
        """None: a commit always has to wait for the database."""

    def change_now(self, change: CommitChange) -> bool:
        """False: a change always has to wait for the database."""
        return False

    @property
    def has_other_writers(self) -> bool:
        """Whether others have committed while this agent was running."""
        return self.follower.has_other_writers

    @property
    def seen(self) -> int:
        """The last commit that is applied here."""
        return self.follower.seq

    async def catch_up(self) -> None:
        """Read the sequence number of the last commit, and apply what is missing up to it."""
        rows = await self._database.statement("SELECT commit_seq FROM shard WHERE shard_id = $1", (self._shard_id,))
        await self.follower.catch_up(int(rows[0][0]))

    async def check_epoch(self) -> None:
        """Raise `Fenced` if another process has taken over the log."""
        await self._database.read(partial(check_epoch, self._shard_id, self._epoch))

    async def change(self, change: CommitChange) -> None:
        """Make a change in the order of commits. If its answer is lost it is retried, as it is idempotent."""
        unsure, backoff = False, Backoff(self._randomness)
        while True:
            try:
                await self._database.transaction(partial(self._change, change), locking=True)
                return
            except Outdated:
                await self._know_more()
                raise
            except OutcomeUnknown:
                unsure = True
            except (Unavailable, Conflict):
                if not unsure:
                    raise
            await backoff.wait()

    def _change(self, change: CommitChange) -> Script[None]:
        last_seq = yield from lock_shard(self._shard_id, self._epoch)
        yield from self._along(change, last_seq + 1)

    def _along(self, change: CommitChange | None, seq: int) -> Script[None]:
        """What a commit with this number writes in addition; `Outdated` if its decision missed earlier commits."""
        if change is None:
            return
        if change.producers and seq > change.seen + 1:
            rows = yield (
                "SELECT entries FROM wal_commit WHERE shard_id = $1 AND seq > $2 AND seq < $3",
                (self._shard_id, change.seen, seq),
            )
            if len(rows) != seq - change.seen - 1 or any(
                batch.flags and batch.producer_id in change.producers
                for row in rows
                for entry in unpack_entries(bytes(row[0]))
                for batch in entry.producer_batches
            ):
                raise Outdated("a transaction has batches that were not known when its end was decided")
        yield from change.script()

    async def _know_more(self) -> None:
        """Catch up before a flush is decided again."""
        self.stats.outdated += 1
        try:
            await self.catch_up()
        except (Unavailable, OutcomeUnknown) as problem:
            _log.debug("cannot read the commits of other agents yet: %s", problem)

    def record_bytes(self, entries: int, batches: int) -> int:
        """0: the database says what was committed."""
        return 0

    async def store_rows(self) -> int:
        """Nothing to wait for: a commit has its row before it is acknowledged."""
        return self.follower.seq

    async def store_changes(self) -> None:
        """Nothing to wait for, for the same reason."""

    def close(self) -> None:
        """Nothing to stop: the writer owns whatever is in flight."""

    async def commit(
        self, body: memoryview, entries: Sequence[CommitEntry], heads: Sequence[int],
        change: CommitChange | None = None, plain: memoryview | None = None,
    ) -> Commit:  # fmt: skip
        """Write the WAL object, then commit to get its offsets."""
        producers, members = self._believed(entries), _memberships(entries)
        ongoing = self._ongoing(members)
        object_id, now_ms = self._randomness.token(16), self._clock.now_ms()
        location = await append_aside(self._wal, body, self._on_thread)
        new = NewCommit(
            shard_id=self._shard_id, epoch=self._epoch, agent_id=self._agent_id, object_id=object_id,
            location=location, now_ms=now_ms, entries=entries, starts=[0] * len(entries), producers=producers or (),
            members=members,
        )  # fmt: skip
        self.follower.own, self._locked = object_id, None
        try:
            commit = await self._append(
                new, body if plain is None else plain, change, ongoing, is_believed=producers is not None
            )
        except Outdated:
            self.follower.own = None
            if self._locked is not None:
                self._correct(self._locked)
            await self._know_more()
            raise
        finally:
            self.follower.own = None
        return commit

    # ---- what is believed --------------------------------------------------------------------------------------

    def _believed(self, entries: Sequence[CommitEntry]) -> list[ProducerUpdate] | None:
        """Updates of the producers' rows, by the states known here; None if by these a batch may not be appended."""
        moves: list[ProducerUpdate] = []
        for entry in entries:
            partition = self._registry.partition(entry.partition_id)
            if partition is None:
                return None
            if not entry.producer_batches:
                continue
            by_producer: dict[int, list[ProducerBatch]] = {}
            for batch in entry.producer_batches:
                by_producer.setdefault(batch.producer_id, []).append(batch)
            for producer_id, batches in by_producer.items():
                state = partition.producers.get(producer_id)
                if not _are_next(state, batches):
                    return None
                moves.append(producer_update((entry.partition_id, producer_id), state, batches))
        return moves

    def _ongoing(self, members: Sequence[TransactionMembership]) -> _Ongoing:
        """What is known here about partitions that batches do not add implicitly."""
        keys = set()
        for member in members:
            partition = None if member.partition_id is None else self._registry.partition(member.partition_id)
            if partition is not None and member.producer_id in partition.transactions:
                keys.add((partition.partition_id, member.producer_id))
        return _Ongoing(self.follower.seq, frozenset(keys))

    # ---- appending -------------------------------------------------------------------------------------------

    async def _append(
        self, new: NewCommit, body: memoryview, change: CommitChange | None, ongoing: _Ongoing, *, is_believed: bool
    ) -> Commit:
        try:
            commit = await self._try(new, body, change, ongoing, is_believed=is_believed)
        except OutcomeUnknown:
            commit = await self._settle(new)
        except (Unavailable, Conflict):
            self._wal.release((new.location,))  # No commit names the object, or ever will.
            raise
        if commit.entries:
            # The writer applies it when this returns, before anything else runs.
            await self.follower.reach(commit.seq - 1)
            self.follower.seq = commit.seq
        return commit

    async def _try(
        self, new: NewCommit, body: memoryview, change: CommitChange | None, ongoing: _Ongoing, *, is_believed: bool
    ) -> Commit:
        if is_believed:
            try:
                seq, bases = await self._write(new, change)
                return self._made(new, seq, unpack_bases(bases))
            except Outdated:
                raise
            except Conflict as surprise:
                _log.debug("a commit is decided again: %s", surprise)
        self.stats.slow += 1
        return await self._decided(
            new, await self._database.transaction(partial(self._decide, new, body, change, ongoing), locking=True)
        )

    async def _write(self, new: NewCommit, change: CommitChange | None) -> tuple[int, bytes]:
        if change is None and isinstance(self._sql, PostgresCommitSql):
            sql, args = self._sql.statement(new)
            return self._sql.answer(new, await self._database.statement(sql, args))
        return await self._database.transaction(partial(self._write_all, new, change), locking=True)

    def _write_all(self, new: NewCommit, change: CommitChange | None) -> Script[tuple[int, bytes]]:
        seq, bases = yield from self._sql.write(new)
        yield from self._along(change, seq)
        return seq, bases

    def _decide(
        self, new: NewCommit, body: memoryview, change: CommitChange | None, ongoing: _Ongoing
    ) -> Script[_Locked]:
        """The slow path. Everything is read after the lock: earlier reads may be outdated."""
        last_seq = yield from lock_shard(new.shard_id, new.epoch)
        asked = {
            (entry.partition_id, batch.producer_id): None for entry in new.entries for batch in entry.producer_batches
        }
        heads = yield from self._sql.heads(new.totals())
        states = yield from self._sql.states(asked)
        owners, going_on = dict[int, IdOwner](), frozenset[ProducerKey]()
        if new.members:
            owners = yield from self._sql.owners({member.producer_id for member in new.members})
            going_on = yield from self._still_going_on(new, ongoing, last_seq)
        left = decide(body, new.entries, heads, states, new.now_ms, owners, going_on)
        locked = self._locked = _Locked(last_seq, states, set(asked), left)
        if change is not None and (left.has_lost_markers or not left.entries):
            # A change counts as made only if the commit's row exists: without a commit it must not be made.
            locked.are_gone = {entry.partition_id for entry in new.entries} - heads.keys()
            raise Outdated("what was decided of transactions does not fit the partitions any more")
        if left.entries:
            decided = replace(
                new, entries=left.entries, starts=left.starts, producers=left.producers, members=list(left.members)
            )
            locked.seq, locked.bases = yield from self._sql.write(decided)
            yield from self._along(change, locked.seq)
        return locked

    def _still_going_on(self, new: NewCommit, ongoing: _Ongoing, last_seq: int) -> Script[frozenset[ProducerKey]]:
        """The transactions that are open in those partitions after the last commit."""
        if ongoing.seen >= last_seq or all(member.partition_id is None for member in new.members):
            return ongoing.keys
        rows = yield (
            "SELECT entries FROM wal_commit WHERE shard_id = $1 AND seq > $2 AND seq <= $3 ORDER BY seq",
            (self._shard_id, ongoing.seen, last_seq),
        )
        if len(rows) != last_seq - ongoing.seen:
            raise Outdated("what happened to transactions since is in segments by now")
        keys = set(ongoing.keys)
        for row in rows:
            for entry in unpack_entries(bytes(row[0])):
                for batch in entry.producer_batches:
                    follow_ongoing(keys, entry.partition_id, batch)
        return frozenset(keys)

    async def _decided(self, new: NewCommit, locked: _Locked) -> Commit:
        self._correct(locked)
        rest = ExcludedBatches(locked.left.origins, locked.left.excluded)
        if locked.seq is not None:
            entries, bases = locked.left.entries, unpack_bases(locked.bases)
            return self._made(replace(new, entries=entries), locked.seq, bases, rest)
        # Nothing was appended. The batches that these repeat must be readable before they are answered.
        self._wal.release((new.location,))
        await self.follower.reach(locked.last_seq)
        return self._made(replace(new, entries=()), locked.last_seq, (), rest)

    def _correct(self, locked: _Locked) -> None:
        """Adopt the producer states that were read. Commits still to be applied add nothing that they do not
        contain."""
        for partition_id in locked.are_gone:
            partition = self._registry.partition(partition_id)
            if partition is not None:
                partition.topic.deleted = True
        for partition_id, producer_id in locked.asked:
            partition = self._registry.partition(partition_id)
            if partition is None:
                continue
            state = locked.states.get((partition_id, producer_id))
            if state is None:
                partition.forget_producers((producer_id,))
            else:
                partition.know({producer_id: state})

    def _made(self, new: NewCommit, seq: int, bases: Sequence[int], rest: ExcludedBatches | None = None) -> Commit:
        return Commit(seq, new.object_id, new.location, new.now_ms, self._agent_id, new.entries, bases, rest)

    # ---- finding out -------------------------------------------------------------------------------------------

    async def _settle(self, new: NewCommit) -> Commit:
        """Resolve the outcome of a commit. Nothing else can be committed before, so it retries until it is known."""
        self.stats.settled += 1
        _log.warning("the answer of a commit was lost; looking it up")
        seq, packed_entries, packed_bases = await self._until_answered(partial(settle, new))
        entries, bases = unpack_entries(packed_entries), unpack_bases(packed_bases)
        if not entries:
            # The empty commit in its place names the object, so its space is not released here.
            self.follower.own = None
            await self.follower.reach(seq)
            raise Unavailable("the commit did not happen: its answer was lost, and it cannot happen any more")
        if self._locked is None:
            return self._made(replace(new, entries=entries), seq, bases)
        self._locked.seq, self._locked.bases = seq, packed_bases
        return await self._decided(new, self._locked)

    async def _until_answered(self, script: Callable[[], Script[Any]]) -> Any:
        complaints = LogThrottle(self._clock, COMPLAIN_EVERY_S)

        def complain(problem: PlatformError) -> None:
            if complaints.is_due():
                _log.warning("a commit cannot be looked up yet, and producers wait for it: %s", problem)

        return await retry_until_answered(
            lambda: self._database.transaction(script, locking=True), Backoff(self._randomness), complain
        )


def _memberships(entries: Sequence[CommitEntry]) -> list[TransactionMembership]:
    """What transactional batches require of their producers' transactional ids."""
    found: dict[TransactionMembership, None] = {}
    for entry in entries:
        for batch in entry.producer_batches:
            if batch.flags and (member := membership(entry.partition_id, batch)) is not None:
                found[member] = None
    return list(found)


def _are_next(state: ProducerState | None, batches: Sequence[ProducerBatch]) -> bool:
    """Whether the batches of one producer are all to be appended, in this order."""
    first = batches[0]
    if any(batch.flags for batch in batches):
        return _are_next_in_transactions(state, batches)
    if check_sequence(state, first.epoch, first.first_sequence, first.last_offset_delta + 1) is not None:
        return False
    before = first
    for batch in batches[1:]:
        expected = 0 if batch.epoch > before.epoch else before.first_sequence + before.last_offset_delta + 1
        if batch.epoch < before.epoch or batch.first_sequence != expected % 2**31:
            return False
        before = batch
    return True


def _are_next_in_transactions(state: ProducerState | None, batches: Sequence[ProducerBatch]) -> bool:
    """The same where some of them are markers."""
    known: dict[int, ProducerState] = {}
    producer_id = batches[0].producer_id
    if state is not None:
        known[producer_id] = ProducerState(producer_id, state.epoch, state.last_ms, state.batches)
    for batch in batches:
        before = known.get(producer_id)
        if batch.flags & CONTROL:
            if before is not None and batch.epoch < before.epoch:
                return False
            note_marker(known, producer_id, batch.epoch, 0)
        elif (before is None and begins_late(batch)) or (
            check_sequence(before, batch.epoch, batch.first_sequence, batch.last_offset_delta + 1) is not None
        ):
            return False
        else:
            remember(known, producer_id, batch.epoch, sequence_batch(0, batch), 0)
    return True
