"""The SQL of share partitions on every implementation of the metadata port."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fixtures.unusual_names import UNUSUAL_NAMES

from penstock.base.clock import SystemClock
from penstock.base.errors import CorruptData, Fenced, OutcomeUnknown, Unavailable
from penstock.coordination.leases import LeaseHolder
from penstock.coordination.timers import LoopScheduler
from penstock.groups import store as groups_store
from penstock.groups.model import GroupDeleted
from penstock.groups.store import GroupJournal
from penstock.log import topic_store
from penstock.log.topic_store import TopicRow
from penstock.share import store
from penstock.share.model import (
    ACKNOWLEDGED,
    ACQUIRED,
    ARCHIVED,
    AVAILABLE,
    REJECTED,
    Run,
    SharePartition,
    StateDeleted,
    StateStored,
)
from penstock.share.store import PartitionName, ShareJournal, SharePartitionSummary

TOPIC, OTHER = bytes(range(16)), b"\xff" * 16
HERE = PartitionName(1, "a:group", TOPIC, 3)
THERE = PartitionName(1, "b", TOPIC, 0)
PARTITION = SharePartition(
    start_offset=7, next_offset=40, state_epoch=2,
    runs=(
        Run(7, 9, AVAILABLE, 2, "", 0, (5, 9)), Run(10, 19, ACKNOWLEDGED, 1, "", 0, (10, 19)),
        Run(20, 29, ACQUIRED, 3, "member", 99, (20, 39)), Run(30, 39, ARCHIVED, 5, "", 0, (20, 39)),
    ),
)  # fmt: skip
READ_BACK = replace(
    PARTITION, runs=(*PARTITION.runs[:2], Run(20, 29, AVAILABLE, 2, "", 0, (20, 39)), PARTITION.runs[3])
)


def journal(database, name: str = "agent") -> ShareJournal:
    return ShareJournal(database, holder=LeaseHolder(name=name), clock=SystemClock(), scheduler=LoopScheduler())


async def opened(database, name: str = "agent") -> ShareJournal:
    one = journal(database, name)
    assert list(await one.open()) == []
    return one


def test_names_are_told_from_keys() -> None:
    assert PartitionName.of(HERE.key) == HERE
    assert HERE.key != THERE.key


async def test_partitions_come_back_without_locks(database) -> None:
    one = await opened(database)
    assert await one.load(HERE.key) is None
    await one.write([(HERE.key, StateStored(replace(PARTITION, runs=()))), (HERE.key, StateStored(PARTITION))])
    assert await one.load(HERE.key) == READ_BACK
    await one.write(
        [(HERE.key, StateStored(PARTITION)), (HERE.key, StateDeleted()), (THERE.key, StateStored(PARTITION))]
    )
    assert await one.load(HERE.key) is None
    assert await one.load(THERE.key) == READ_BACK


async def test_groups_and_topics_are_found(database) -> None:
    one = await opened(database)
    elsewhere = PartitionName(2, THERE.group_id, TOPIC, 0)
    await one.write([(name.key, StateStored(PARTITION)) for name in (HERE, THERE, elsewhere)])
    assert await database.read(lambda: store.summaries(1, "b")) == {(TOPIC, 0): SharePartitionSummary(7, 20)}
    assert await database.read(lambda: store.summaries(1, "nobody")) == {}
    assert set(await database.read(lambda: store.of_topic(1, TOPIC))) == {HERE, THERE}
    assert await database.read(lambda: store.of_topic(1, OTHER)) == []
    assert set(await database.read(store.deleted_topics)) == {(1, TOPIC), (2, TOPIC)}
    there = TopicRow(
        topic_id=TOPIC, name="t", partition_count=1, replication_factor=1, overrides={}, created_ms=0
    )  # fmt: skip
    await database.transaction(lambda: topic_store.create(1, 1, [there]))
    assert await database.read(store.deleted_topics) == [(2, TOPIC)]


async def test_groups_have_any_names(database) -> None:
    one = await opened(database)
    names = [PartitionName(1, name, TOPIC, 0) for name in UNUSUAL_NAMES.values()]
    await one.write([(name.key, StateStored(PARTITION)) for name in names])
    assert set(await database.read(lambda: store.of_topic(1, TOPIC))) == set(names)
    for name in names:
        assert await one.load(name.key) == READ_BACK
        summaries = await database.read(lambda name=name: store.summaries(1, name.group_id))
        assert summaries == {(TOPIC, 0): SharePartitionSummary(7, 20)}
        await one.write([(name.key, StateDeleted())])
        assert await one.load(name.key) is None


async def test_what_a_deleted_group_did_goes_with_it(database) -> None:
    one = await opened(database)
    await one.write([(name.key, StateStored(PARTITION)) for name in (HERE, THERE)])
    changes = groups_store.fold([((1, HERE.group_id), GroupDeleted())])
    await database.transaction(lambda: groups_store.write(changes))
    assert await one.load(HERE.key) is None
    assert await one.load(THERE.key) == READ_BACK


async def test_a_partition_that_cannot_be_read_stops_no_start(database) -> None:
    one = await opened(database)
    given_up = replace(READ_BACK, runs=tuple(run._replace(state=REJECTED) for run in READ_BACK.runs))
    await one.write([(name.key, StateStored(given_up)) for name in (HERE, THERE)])
    await database.transaction(lambda: spoil(HERE))
    again = journal(database)
    assert list(await again.open()) == [(THERE.key, given_up)]
    with pytest.raises(CorruptData):
        await again.load(HERE.key)


@pytest.mark.parametrize(("state_epoch", "told"), [(PARTITION.state_epoch, ((7, 8),)), (PARTITION.state_epoch - 1, ())])
async def test_letters_are_noted_of_the_epoch_that_they_are_of(database, state_epoch: int, told: object) -> None:
    one = await opened(database)
    given_up = replace(READ_BACK, runs=tuple(run._replace(state=REJECTED) for run in READ_BACK.runs))
    await one.write([(HERE.key, StateStored(given_up))])
    await database.transaction(lambda: store.note_dead_letters(HERE, state_epoch, [(7, 8)]))
    assert await one.load(HERE.key) == replace(given_up, dead_lettered=told)


def spoil(name: PartitionName):
    yield "UPDATE share_partition SET state = $1 WHERE group_id = $2", (b"?", name.group_id)


async def test_a_stale_holder_changes_nothing(database) -> None:
    old = await opened(database, "old")
    await old.write([(HERE.key, StateStored(PARTITION))])
    new = await opened(database, "new")
    with pytest.raises(Fenced):
        await old.write([(HERE.key, StateDeleted())])
    with pytest.raises(Fenced):
        await old.load(HERE.key)
    assert await new.load(HERE.key) == READ_BACK


async def test_a_stale_holder_finds_out_when_its_slots_are_proven(database) -> None:
    old = await opened(database, "old")
    await old.prove()
    old.check(HERE.key)
    new = await opened(database, "new")
    old.check(HERE.key)
    await old.prove()
    with pytest.raises(Fenced):
        old.check(HERE.key)
    await new.prove()
    new.check(HERE.key)


async def test_share_partitions_and_groups_do_not_fence_each_other(database) -> None:
    one = await opened(database)
    groups = GroupJournal(database, holder=LeaseHolder(name="agent"), clock=SystemClock(), scheduler=LoopScheduler())
    await groups.open()
    await one.write([(HERE.key, StateStored(PARTITION))])
    assert await one.load(HERE.key) == READ_BACK


@pytest.mark.parametrize("happens", [True, False])
async def test_a_lost_answer_is_looked_up(database, monkeypatch: pytest.MonkeyPatch, happens: bool) -> None:
    one = await opened(database)
    transaction = database.transaction

    async def loses_the_answer(script, **options):
        if happens:
            await transaction(script, **options)
        monkeypatch.setattr(database, "transaction", transaction)
        raise OutcomeUnknown("the connection ended")

    monkeypatch.setattr(database, "transaction", loses_the_answer)
    if happens:
        await one.write([(HERE.key, StateStored(PARTITION))])
    else:
        with pytest.raises(Unavailable):
            await one.write([(HERE.key, StateStored(PARTITION))])
    assert await one.load(HERE.key) == (READ_BACK if happens else None)
