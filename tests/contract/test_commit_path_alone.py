"""What a writer asks of whatever makes its flushes durable while it is alone: the paths there are, and the fake of the
tests above them. What more they do is in test_commit_paths.py and in the unit tests of each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import pytest
from fixtures.clocks import ManualClock
from fixtures.fake_commits import FakeCommits
from fixtures.log_world import append, batch, batches_in, topic_of
from fixtures.tables import have_tables

from penstock.base.errors import Unavailable
from penstock.base.randomness import SeededRandomness
from penstock.log.commit_path import CommitPath, EmbeddedCommitPath
from penstock.log.commits import Commit
from penstock.log.record_first import RecordFirstCommitPath
from penstock.log.roll_forward import roll_forward
from penstock.log.trailing_rows import TrailingRows
from penstock.log.writer import Writer, forget_views
from penstock.metadata.inline import InlineDatabase
from penstock.storage.arena import Arena
from penstock.storage.memory import MemoryWal
from penstock.storage.wal import Buffer, WalLocation
from penstock.wire.error_codes import ErrorCode

STORAGE = ErrorCode.KAFKA_STORAGE_ERROR


class FailingWal(MemoryWal):
    """Fails as often as told, and has stored nothing then."""

    def __init__(self) -> None:
        super().__init__(1 << 26)
        self.failures = 0

    def append(self, body: Sequence[Buffer]) -> WalLocation:
        if self.failures:
            self.failures -= 1
            raise Unavailable("the disk is away")
        return super().append(body)


Made = Callable[[FailingWal, bool], Awaitable[CommitPath]]


async def fake(wal: FailingWal, inline: bool) -> CommitPath:
    return FakeCommits(wal, inline=inline)  # type: ignore[return-value]  # the part that is asked for here


async def embedded(wal: FailingWal, inline: bool) -> EmbeddedCommitPath:
    database = InlineDatabase()
    await have_tables(database, ManualClock())
    return EmbeddedCommitPath(
        database=database, wal=wal, clock=ManualClock(), randomness=SeededRandomness("embedded"), seq=0, inline=inline
    )


async def record_first(wal: FailingWal, inline: bool) -> RecordFirstCommitPath:
    database, clock, randomness = InlineDatabase(), ManualClock(), SeededRandomness("record first")
    await have_tables(database, clock)
    life = await roll_forward(database, wal, randomness=randomness)
    rows = TrailingRows(database, randomness)
    through_database = EmbeddedCommitPath(
        database=database, wal=wal, clock=clock, randomness=randomness, seq=0, inline=inline, rows=rows
    )

    async def at_once(work: Callable[[], WalLocation]) -> WalLocation:
        return work()

    return RecordFirstCommitPath(
        through_database, rows, metadata=database, wal=wal, clock=clock, randomness=randomness, on_thread=at_once,
        life=life, inline=inline,
    )  # fmt: skip


class Place:
    """A writer over one of them."""

    def __init__(self, path: CommitPath, wal: FailingWal) -> None:
        self.wal, self.commits, self.partitions = wal, list[Commit](), topic_of(1, 2).partitions
        self.writer = Writer(
            arena=Arena(1 << 22, on_recycle=forget_views), commit_path=path, clock=ManualClock(),
            on_commit=self.commits.append,
        )  # fmt: skip


@pytest.fixture(params=[True, False], ids=["in line", "awaited"])
async def place(request: pytest.FixtureRequest, made: Made) -> Place:
    wal = FailingWal()
    return Place(await made(wal, request.param), wal)


pytestmark = pytest.mark.parametrize("made", [fake, embedded, record_first])


async def test_numbers_and_offsets_are_dense(place: Place) -> None:
    first, second = place.partitions
    for turn in range(5):
        answers = await append(
            place.writer, (first, batch(2, mark=turn)), (second, batch(mark=turn)), (first, batch(3, mark=turn))
        )
        assert [(answer.error, answer.base_offset) for answer in answers] == [
            (0, 5 * turn),
            (0, turn),
            (0, 5 * turn + 2),
        ]
    assert [commit.seq for commit in place.commits] == [1, 2, 3, 4, 5]
    assert len({commit.object_id for commit in place.commits}) == 5


async def test_what_is_committed_lies_where_the_commit_says(place: Place) -> None:
    first, second = place.partitions
    await append(place.writer, (first, batch(2, mark=7)), (second, batch(mark=8)), (first, batch(mark=9)))
    (commit,) = place.commits
    found = {}
    for entry, base in zip(commit.entries, commit.bases, strict=True):
        stored = place.wal.read(commit.location, entry.byte_start, entry.byte_start + entry.byte_length)
        found[entry.partition_id] = (base, entry.offset_count, batches_in(stored))
    assert found == {1: (0, 3, [(0, 2, 7), (2, 1, 9)]), 2: (0, 1, [(0, 1, 8)])}


async def test_what_fails_before_it_is_stored_has_not_happened(place: Place) -> None:
    """The next one has its number and its offsets."""
    first, _ = place.partitions
    await append(place.writer, (first, batch(2)))
    place.wal.failures = 1
    (answer,) = await append(place.writer, (first, batch(5, mark=1)))
    assert (answer.error, answer.base_offset) == (STORAGE, -1)
    (answer,) = await append(place.writer, (first, batch(3, mark=2)))
    assert (answer.error, answer.base_offset) == (0, 2)
    assert [commit.seq for commit in place.commits] == [1, 2]
    assert first.next_offset == 5
