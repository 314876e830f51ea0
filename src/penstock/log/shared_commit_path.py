"""Commits of one of several agents, on any database.

The WAL object is written first, on a thread. Then one statement asks the database for everything at once, guarded by
what this agent believes of the producers (commit_sql.py). Mostly that is all. When a guard fails, the slow path locks
the shard, reads heads and producers as they are, decides each batch again and appends what is to be appended: some
batches may turn out to repeat others or to be refused, and the writer is told about each (`Commit.rest`).

Between the writer's decision and the statement others' commits may have been applied here. So what is believed is
taken down, and every batch judged by it once more, at the moment the commit begins; what changes after that fails the
guard.

Who does not say so has added a partition to its transaction also by having written to it. Whether it has is looked for
on the slow path only: in what this agent knows, and in the commits since.

A commit whose answer is lost is looked up before anything else happens. The shard's lock makes the look-up wait for
one that is still under way; one that has not even begun is kept from happening by an empty commit that takes its
object id. After that the answer is known for good, and nothing is ever appended twice.

What passengers of a flush write is part of the commit's transaction, which then takes several round trips. Commits that
happened after the passengers decided are looked through first: if they have batches of a transaction that a passenger
ends, markers would be missing, and so nothing happens and the writer decides again (`Outdated`).

An agent has one commit under way at most: its writer sees to that.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

from penstock.base.backoff import Backoff, until_answered
from penstock.base.clock import Clock
from penstock.base.complaints import Seldom
from penstock.base.dataclasses import dataclass, replace
from penstock.base.errors import Conflict, OutcomeUnknown, PlatformError, Unavailable
from penstock.base.randomness import Randomness
from penstock.log.appending import OnThread, append_aside
from penstock.log.commit_path import Change, Outdated
from penstock.log.commit_sql import (
    CommitSql,
    Membership,
    NewCommit,
    Owner,
    PostgresCommitSql,
    ProducerKey,
    ProducerMove,
    lock_shard,
    producer_move,
    settle,
)
from penstock.log.commits import (
    CONTROL,
    Commit,
    CommitEntry,
    ProducerBatch,
    Rest,
    sequence_batch,
    unpack_bases,
    unpack_entries,
)
from penstock.log.follow import Follower
from penstock.log.model import ProducerState
from penstock.log.partial_commits import PartialCommit, begins_late, decide, follow_ongoing, membership
from penstock.log.producers import judge, note_marker, remember
from penstock.log.registry import Registry
from penstock.metadata.database import Database, Script
from penstock.storage.wal import WalStore

COMPLAIN_EVERY_S = 10.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Ongoing:
    """Transactions that batches may go on with in partitions that nobody has added to them."""

    seen: int
    """The commit up to which that is known."""
    keys: frozenset[ProducerKey]


@dataclass(slots=True)
class _Locked:
    """What the slow path found under the lock, and made of it."""

    last_seq: int
    states: dict[ProducerKey, ProducerState]
    asked: set[ProducerKey]
    left: PartialCommit
    seq: int | None = None
    bases: bytes = b""
    are_gone: Collection[int] = ()
    """Partitions whose topics turned out to be deleted, where that keeps the flush from being made."""


@dataclass(slots=True)
class PathStats:
    """Counted since the process started."""

    slow: int = 0
    """Commits whose guards failed."""
    settled: int = 0
    """Commits that had to be looked up."""
    outdated: int = 0
    """Flushes that were decided again."""


class SharedCommitPath:
    """Commits of this agent, beside others."""

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
        self, body: memoryview, entries: Sequence[CommitEntry], heads: Sequence[int], change: Change | None = None
    ) -> None:
        """There is always something to wait for."""

    def change_now(self, change: Change) -> bool:
        """There is always something to wait for."""
        return False

    @property
    def has_company(self) -> bool:
        """Whether others have committed while this agent was running."""
        return self.follower.has_company

    @property
    def seen(self) -> int:
        """The last commit that is applied here."""
        return self.follower.seq

    async def catch_up(self) -> None:
        """Ask for the number of the last commit, and apply what is missing up to it."""
        rows = await self._database.statement("SELECT commit_seq FROM shard WHERE shard_id = $1", (self._shard_id,))
        await self.follower.catch_up(int(rows[0][0]))

    async def change(self, change: Change) -> None:
        """Let a change happen in the order of commits. If its answer is lost it is made again, which does no harm."""
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

    def _change(self, change: Change) -> Script[None]:
        last_seq = yield from lock_shard(self._shard_id, self._epoch)
        yield from self._along(change, last_seq + 1)

    def _along(self, change: Change | None, seq: int) -> Script[None]:
        """What else is written by a commit of that number, unless it rests on less than all that came before it."""
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
        """Before a flush is decided again."""
        self.stats.outdated += 1
        try:
            await self.catch_up()
        except (Unavailable, OutcomeUnknown) as problem:
            _log.debug("what others have committed is not known yet: %s", problem)

    def record_bytes(self, entries: int, batches: int) -> int:
        """None: the database says what was committed."""
        return 0

    async def store_rows(self) -> int:
        """The database has the row of a commit before anybody hears of it."""
        return self.follower.seq

    async def store_changes(self) -> None:
        """The same goes for what it changes."""

    def close(self) -> None:
        """Nothing is under way without its writer."""

    async def commit(
        self, body: memoryview, entries: Sequence[CommitEntry], heads: Sequence[int], change: Change | None = None,
        plain: memoryview | None = None,
    ) -> Commit:  # fmt: skip
        """Write the WAL object, then ask for its offsets."""
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

    def _believed(self, entries: Sequence[CommitEntry]) -> list[ProducerMove] | None:
        """What becomes of the producers if they are as they are here; None if a batch is not to be appended then."""
        moves: list[ProducerMove] = []
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
                moves.append(producer_move((entry.partition_id, producer_id), state, batches))
        return moves

    def _ongoing(self, members: Sequence[Membership]) -> _Ongoing:
        """What is known here of the partitions that batches do not add themselves."""
        keys = set()
        for member in members:
            partition = None if member.partition_id is None else self._registry.partition(member.partition_id)
            if partition is not None and member.producer_id in partition.transactions:
                keys.add((partition.partition_id, member.producer_id))
        return _Ongoing(self.follower.seq, frozenset(keys))

    # ---- appending -------------------------------------------------------------------------------------------

    async def _append(
        self, new: NewCommit, body: memoryview, change: Change | None, ongoing: _Ongoing, *, is_believed: bool
    ) -> Commit:
        try:
            commit = await self._try(new, body, change, ongoing, is_believed=is_believed)
        except OutcomeUnknown:
            commit = await self._settle(new)
        except (Unavailable, Conflict):
            self._wal.release((new.location,))  # No commit names the object, and none ever will.
            raise
        if commit.entries:
            # The writer applies it when this returns, and before anything else runs.
            await self.follower.reach(commit.seq - 1)
            self.follower.seq = commit.seq
        return commit

    async def _try(
        self, new: NewCommit, body: memoryview, change: Change | None, ongoing: _Ongoing, *, is_believed: bool
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

    async def _write(self, new: NewCommit, change: Change | None) -> tuple[int, bytes]:
        if change is None and isinstance(self._sql, PostgresCommitSql):
            sql, args = self._sql.statement(new)
            return self._sql.answer(new, await self._database.statement(sql, args))
        return await self._database.transaction(partial(self._write_all, new, change), locking=True)

    def _write_all(self, new: NewCommit, change: Change | None) -> Script[tuple[int, bytes]]:
        seq, bases = yield from self._sql.write(new)
        yield from self._along(change, seq)
        return seq, bases

    def _decide(self, new: NewCommit, body: memoryview, change: Change | None, ongoing: _Ongoing) -> Script[_Locked]:
        """The slow path. Everything is read after the lock: what was seen before it may be old."""
        last_seq = yield from lock_shard(new.shard_id, new.epoch)
        asked = {
            (entry.partition_id, batch.producer_id): None for entry in new.entries for batch in entry.producer_batches
        }
        heads = yield from self._sql.heads(new.totals())
        states = yield from self._sql.states(asked)
        owners, going_on = dict[int, Owner](), frozenset[ProducerKey]()
        if new.members:
            owners = yield from self._sql.owners({member.producer_id for member in new.members})
            going_on = yield from self._still_going_on(new, ongoing, last_seq)
        left = decide(body, new.entries, heads, states, new.now_ms, owners, going_on)
        locked = self._locked = _Locked(last_seq, states, set(asked), left)
        if change is not None and (left.has_lost_markers or not left.entries):
            # Whether a change happened that goes with a commit is told by the commit's row: without one it must not.
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
        """The transactions that are open in those partitions after the last commit there is."""
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
        rest = Rest(locked.left.origins, locked.left.unappended)
        if locked.seq is not None:
            entries, bases = locked.left.entries, unpack_bases(locked.bases)
            return self._made(replace(new, entries=entries), locked.seq, bases, rest)
        # Nothing was appended. What the batches repeat is to be readable when that is answered.
        self._wal.release((new.location,))
        await self.follower.reach(locked.last_seq)
        return self._made(replace(new, entries=()), locked.last_seq, (), rest)

    def _correct(self, locked: _Locked) -> None:
        """Believe what was read. Commits that are still to be applied add nothing to it that is in it."""
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

    def _made(self, new: NewCommit, seq: int, bases: Sequence[int], rest: Rest | None = None) -> Commit:
        return Commit(seq, new.object_id, new.location, new.now_ms, self._agent_id, new.entries, bases, rest)

    # ---- finding out -------------------------------------------------------------------------------------------

    async def _settle(self, new: NewCommit) -> Commit:
        """Find out what became of a commit. Nothing else can be committed before, so it asks until it knows."""
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
        complaints = Seldom(self._clock, COMPLAIN_EVERY_S)

        def complain(problem: PlatformError) -> None:
            if complaints.is_due():
                _log.warning("a commit cannot be looked up yet, and producers wait for it: %s", problem)

        return await until_answered(
            lambda: self._database.transaction(script, locking=True), Backoff(self._randomness), complain
        )


def _memberships(entries: Sequence[CommitEntry]) -> list[Membership]:
    """What batches of transactions ask of their producers' transactional ids."""
    found: dict[Membership, None] = {}
    for entry in entries:
        for batch in entry.producer_batches:
            if batch.flags and (member := membership(entry.partition_id, batch)) is not None:
                found[member] = None
    return list(found)


def _are_next(state: ProducerState | None, batches: Sequence[ProducerBatch]) -> bool:
    """Whether batches of one producer are all to be appended, one after the other."""
    first = batches[0]
    if any(batch.flags for batch in batches):
        return _are_next_in_transactions(state, batches)
    if judge(state, first.epoch, first.first_sequence, first.last_offset_delta + 1) is not None:
        return False
    before = first
    for batch in batches[1:]:
        expected = 0 if batch.epoch > before.epoch else before.first_sequence + before.last_offset_delta + 1
        if batch.epoch < before.epoch or batch.first_sequence != expected % 2**31:
            return False
        before = batch
    return True


def _are_next_in_transactions(state: ProducerState | None, batches: Sequence[ProducerBatch]) -> bool:
    """The same where some of them end transactions."""
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
            judge(before, batch.epoch, batch.first_sequence, batch.last_offset_delta + 1) is not None
        ):
            return False
        else:
            remember(known, producer_id, batch.epoch, sequence_batch(0, batch), 0)
    return True
