"""The SQL of groups, offsets and leases on every implementation of the metadata port."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from fixtures.unusual_names import UNUSUAL_NAMES

from penstock.base.clock import SystemClock
from penstock.base.errors import CorruptData, Fenced, OutcomeUnknown, Unavailable
from penstock.coordination import fenced_writes, leases
from penstock.coordination.leases import LeaseHolder
from penstock.coordination.model import SLOT_COUNT, Key, slot_of
from penstock.coordination.timers import LoopScheduler
from penstock.groups import store
from penstock.groups.consumer.membership import of_members
from penstock.groups.consumer.model import ClassicMemberMetadata, ConsumerGroup, ConsumerMember, ResolvedRegex
from penstock.groups.model import (
    ClassicGroup,
    ClassicMember,
    GroupDeleted,
    GroupState,
    GroupStored,
    MemberRemoved,
    MembersCleared,
    MemberStored,
    OffsetAndMetadata,
    OffsetsCommitted,
    OffsetsDeleted,
    OffsetsPending,
    TopicPartition,
    TransactionOwner,
    with_members,
)
from penstock.groups.reconcile import MemberState
from penstock.groups.share.model import ShareGroup
from penstock.groups.store import GroupJournal, StoredGroup
from penstock.groups.streams.model import (
    InternalTopic,
    StreamsGroup,
    StreamsMember,
    Subtopology,
    Topology,
    UserEndpoint,
)
from penstock.groups.streams.tasks import Task, Tasks, TasksWithEpochs

A, B, ELSEWHERE = (1, "a"), (1, "b"), (2, "a")
T1, T2 = bytes([1]) * 16, bytes(range(240, 256))


def journal(database, name: str = "agent") -> GroupJournal:
    return GroupJournal(database, holder=LeaseHolder(name=name), clock=SystemClock(), scheduler=LoopScheduler())


def stable(*member_ids: str, generation: int = 1) -> ClassicGroup:
    members, instances = with_members(
        ClassicMember(
            member_id=member_id,
            instance_id=f"instance {member_id}",
            client_id="client",
            client_host="/127.0.0.1",
            rebalance_timeout_ms=60_000,
            session_timeout_ms=10_000,
            protocols=(("range", b"\x00\xff"),),
            assignment=member_id.encode(),
        )
        for member_id in member_ids
    )
    return ClassicGroup(
        state=GroupState.STABLE, generation=generation, protocol_type="connect", protocol_name="range",
        leader=member_ids[0], members=members, instances=instances, since_ms=5, stored=True,
    )  # fmt: skip


def empty(since_ms: int = 5) -> ClassicGroup:
    return ClassicGroup(since_ms=since_ms, stored=True)


def offset(number: int, *, committed_ms: int = 1_000, expires_ms: int | None = None) -> OffsetAndMetadata:
    return OffsetAndMetadata(
        committed_offset=number, leader_epoch=3, metadata="métadata", committed_ms=committed_ms, expires_ms=expires_ms
    )


async def offsets(database, key: Key) -> dict[TopicPartition, OffsetAndMetadata]:
    return await database.read(lambda: store.offsets_of(key))


async def test_groups_are_counted_and_found(database) -> None:
    first = journal(database)
    await first.open()
    assert first.counts == await database.read(store.count_groups) == {}
    await first.write([(key, GroupStored(empty())) for key in (A, B, ELSEWHERE)])
    await first.write([(B, GroupDeleted())])
    second = journal(database)
    await second.open()
    assert second.counts == {1: 1, 2: 1}
    assert [await database.read(lambda: store.has_group(key)) for key in (A, B)] == [True, False]  # noqa: B023


async def test_groups_come_back_as_they_were(database) -> None:
    first = journal(database)
    assert await first.open() == []
    assert await first.load(A) is None
    await first.write([(A, GroupStored(stable("m1", "m2"))), (B, GroupStored(empty())), (A, GroupStored(stable("m2")))])
    assert await first.load(A) == stable("m2")
    assert await first.load(B) == empty()
    assert await first.load(ELSEWHERE) is None
    second = journal(database)
    assert list(await second.open()) == [(A, stable("m2"))]  # Nobody watches over a group without members.
    listed = await database.read(lambda: store.list_groups(1))
    assert listed == [StoredGroup("a", "classic", "connect", True), StoredGroup("b", "classic", "", False)]
    assert await database.read(lambda: store.list_groups(2)) == []


@pytest.mark.parametrize(("column", "value"), [("state", b"\1\2"), ("kind", "later")])
async def test_a_group_that_cannot_be_read_stops_no_start(database, column: str, value: object) -> None:
    writer = journal(database)
    await writer.open()
    await writer.write([(key, GroupStored(stable("m"))) for key in (A, B)])

    def spoil():
        yield f"UPDATE group_ SET {column} = $1 WHERE group_id = $2", (value, A[1])

    await database.transaction(spoil)
    again = journal(database)
    assert [key for key, _ in await again.open()] == [B]
    with pytest.raises(CorruptData):
        await again.load(A)
    assert await again.load(B) == stable("m")


async def test_offsets_are_replaced_deleted_and_read(database) -> None:
    writer = journal(database)
    await writer.open()
    many = {(T1, partition): offset(partition) for partition in range(100)}
    await writer.write([(A, OffsetsCommitted(many)), (ELSEWHERE, OffsetsCommitted({(T1, 0): offset(77)}))])
    assert await offsets(database, A) == many
    later = {(T1, 0): offset(2**62, committed_ms=2**41, expires_ms=2**41 + 1), (T2, 5): offset(1)}
    await writer.write(
        [
            (A, OffsetsCommitted({(T1, 0): offset(1), (T1, 1): offset(2)})),
            (A, OffsetsCommitted(later)),
            (A, OffsetsDeleted(((T1, 1), (T1, 2), (T2, 9)))),
            (A, OffsetsCommitted({(T1, 2): offset(3)})),
        ]
    )
    expected = {**many, **later, (T1, 2): offset(3)}
    del expected[T1, 1]
    assert await offsets(database, A) == expected
    assert await offsets(database, ELSEWHERE) == {(T1, 0): offset(77)}
    await database.transaction(lambda: store.forget_topic(1, T1))
    assert await offsets(database, A) == {(T2, 5): offset(1)}
    assert await offsets(database, ELSEWHERE) == {(T1, 0): offset(77)}


async def test_deleted_group_takes_its_offsets_along_but_not_what_comes_after(database) -> None:
    writer = journal(database)
    await writer.open()
    await writer.write([(A, GroupStored(empty())), (A, OffsetsCommitted({(T1, 0): offset(1), (T1, 1): offset(1)}))])
    await writer.write([(A, GroupDeleted()), (A, GroupStored(empty(9))), (A, OffsetsCommitted({(T1, 1): offset(2)}))])
    assert await writer.load(A) == empty(9)
    assert await offsets(database, A) == {(T1, 1): offset(2)}
    await writer.write([(A, OffsetsCommitted({(T1, 5): offset(2)})), (A, GroupDeleted())])
    assert await writer.load(A) is None
    assert await offsets(database, A) == {}


async def test_stale_holder_changes_nothing(database) -> None:
    old, new = journal(database, "old"), journal(database, "new")
    await old.open()
    await old.write([(A, GroupStored(empty()))])
    await new.open()
    for _ in range(2):
        with pytest.raises(Fenced):
            await old.write([(B, GroupStored(empty())), (A, GroupDeleted())])
    with pytest.raises(Fenced):
        await old.load(A)
    assert await new.load(A) == empty()
    assert await new.load(B) is None


async def test_of_a_deleted_group_nothing_is_remembered(database) -> None:
    writer = journal(database)
    await writer.open()
    owner = TransactionOwner(transactional_id="t", producer_id=1, epoch=0, began_ms=5)
    sent = (A, OffsetsPending(owner, {(T1, 0): offset(1)}))
    await writer.write([(A, GroupStored(empty())), sent])
    assert writer._pending == {A}
    await writer.write([(A, GroupDeleted()), (A, GroupStored(empty())), sent])
    assert writer._pending == {A}
    await writer.write([(A, GroupDeleted())])
    assert writer._pending == set()


async def test_who_takes_leases_at_the_same_time_has_another_epoch(database) -> None:
    """Else both could write what is guarded by it."""
    for _ in range(5):
        takes = (
            database.transaction(partial(leases.take, LeaseHolder(name=name), now_ms=0, force=True)) for name in "ab"
        )  # fmt: skip
        one, other = await asyncio.gather(*takes)
        assert len(one) == len(other) == SLOT_COUNT
        assert set(one.values()).isdisjoint(other.values())


async def test_leases_are_taken_by_force_or_when_they_ran_out(database) -> None:
    def take(name: str, now_ms: int, *, force: bool = False):
        holder = LeaseHolder(name=name, lease_ms=1_000)
        return database.transaction(lambda: leases.take(holder, now_ms=now_ms, force=force))

    first = await take("a", 0)
    assert sorted(first) == list(range(SLOT_COUNT))
    assert await take("b", 999) == {}
    assert set((await take("a", 999)).values()) == {max(first.values()) + 1}  # Ours: taken again, under a new epoch.
    assert len(await take("b", 1_500)) == 0
    assert len(await take("b", 1_999)) == SLOT_COUNT
    forced = await take("c", 0, force=True)
    assert len(forced) == SLOT_COUNT
    assert min(forced.values()) > max(first.values())


async def test_every_write_extends_the_lease(database) -> None:
    epochs = await database.transaction(lambda: leases.take(LeaseHolder(name="a", lease_ms=10), now_ms=0, force=True))
    slot = slot_of(A)
    await database.transaction(lambda: leases.fence([slot], epochs, write_number=1, expires_ms=5_000))
    taken = await database.transaction(lambda: leases.take(LeaseHolder(name="b", lease_ms=10), now_ms=100, force=False))
    assert set(epochs) - set(taken) == {slot}


class Forgetful:
    """A database that does, or does not do, what it was asked, and then loses the answer."""

    def __init__(self, database, *, commits: bool) -> None:
        self._database, self._commits, self.forgets = database, commits, False

    async def transaction(self, script):
        if not self.forgets:
            return await self._database.transaction(script)
        self.forgets = False
        if self._commits:
            await self._database.transaction(script)
        raise OutcomeUnknown("the answer was lost")

    async def read(self, script):
        return await self._database.read(script)


@pytest.mark.parametrize("commits", [True, False])
async def test_lost_answer_is_looked_up(database, commits: bool) -> None:
    forgetful = Forgetful(database, commits=commits)
    writer = journal(forgetful)
    await writer.open()
    await writer.write([(A, GroupStored(empty(1)))])
    forgetful.forgets = True
    if commits:
        await writer.write([(A, GroupStored(empty(2)))])
    else:
        with pytest.raises(Unavailable):
            await writer.write([(A, GroupStored(empty(2)))])
    assert await writer.load(A) == empty(2 if commits else 1)


class Away:
    """A database that loses an answer and is away afterwards."""

    def __init__(self, database, *, commits: bool) -> None:
        self._database, self._commits, self.loses, self.is_away = database, commits, False, False

    async def transaction(self, script):
        if self.is_away:
            raise Unavailable("away")
        if not self.loses:
            return await self._database.transaction(script)
        self.loses, self.is_away = False, True
        if self._commits:
            await self._database.transaction(script)
        raise OutcomeUnknown("the answer was lost")

    async def read(self, script):
        return await self._database.read(script)


@pytest.mark.parametrize("commits", [True, False])
async def test_nothing_is_loaded_or_written_before_the_outcome_of_the_last_write_is_known(
    database, commits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fenced_writes, "OUTCOME_TIMEOUT_S", 0.1)
    away = Away(database, commits=commits)
    writer = journal(away)
    await writer.open()
    await writer.write([(A, GroupStored(empty(1)))])
    away.loses = True
    with pytest.raises(OutcomeUnknown):
        await asyncio.wait_for(writer.write([(A, GroupStored(empty(2)))]), 10)
    for key in (A, B):
        with pytest.raises(Unavailable, match="away"):
            await writer.load(key)
        with pytest.raises(Unavailable, match="away"):
            await writer.write([(key, GroupStored(empty(3)))])
    away.is_away = False
    assert await writer.load(A) == empty(2 if commits else 1)
    await writer.write([(A, GroupStored(empty(4)))])
    assert await writer.load(A) == empty(4)


async def test_a_new_holder_makes_the_outcome_of_the_last_write_final(
    database, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(fenced_writes, "OUTCOME_TIMEOUT_S", 0)
    away = Away(database, commits=True)
    writer = journal(away)
    await writer.open()
    away.loses = True
    with pytest.raises(OutcomeUnknown):
        await writer.write([(A, GroupStored(empty(2)))])
    away.is_away = False
    await journal(database, "another").open()
    for _ in range(2):
        with pytest.raises(Fenced):
            await writer.write([(A, GroupStored(empty(3)))])
    with pytest.raises(Fenced):
        await writer.load(A)


async def test_only_groups_with_something_to_expire_are_found_in_pages(database) -> None:
    writer = journal(database)
    await writer.open()
    old, new, dated = offset(1, committed_ms=10), offset(1, committed_ms=90), offset(1, committed_ms=90, expires_ms=95)
    await writer.write(
        [
            ((1, "busy"), GroupStored(stable("m"))),
            ((1, "busy"), OffsetsCommitted({(T1, 0): new})),
            ((1, "dated"), GroupStored(empty(90))),
            ((1, "dated"), OffsetsCommitted({(T1, 0): dated})),
            ((1, "left"), GroupStored(empty(10))),
            ((1, "recent"), GroupStored(empty(90))),
            ((1, "recent"), OffsetsCommitted({(T1, 0): new})),
            ((1, "without"), GroupStored(empty(90))),
            ((1, "shared"), GroupStored(ShareGroup(empty_since_ms=90))),
            ((2, "members"), GroupStored(stable("m"))),
            ((2, "members"), OffsetsCommitted({(T1, 0): old, (T1, 1): old})),
        ]
    )

    async def found(after: Key, limit: int) -> list[Key]:
        return await database.read(lambda: store.with_old_offsets(after, empty_before_ms=50, now_ms=100, limit=limit))

    assert await found((-1, ""), 10) == [(1, "dated"), (1, "left"), (1, "without"), (2, "members")]
    assert await found((-1, ""), 2) == [(1, "dated"), (1, "left")]
    assert await found((1, "left"), 2) == [(1, "without"), (2, "members")]


def consumer_group(*members: ConsumerMember, epoch: int) -> ConsumerGroup:
    found = ResolvedRegex(topics=frozenset({"orders", "ördnung"}), resolved_ms=2**41)
    group = ConsumerGroup(
        epoch=epoch, target_epoch=epoch - 1, assigned_ms=2**41, topics_hash=-(2**62), regexes={"ord.*": found},
        empty_since_ms=None if members else 7,
    )  # fmt: skip
    return of_members(group, members)


def consumer_member(member_id: str, **more) -> ConsumerMember:
    return ConsumerMember(
        member_id=member_id, rack_id="zone", client_id="client", client_host="/127.0.0.1", rebalance_timeout_ms=60_000,
        topics=frozenset({"orders"}), regex="ord.*", epoch=3, previous_epoch=2, **more,
    )  # fmt: skip


async def test_consumer_groups_come_back_as_they_were(database) -> None:
    writer = journal(database)
    await writer.open()
    plain = consumer_member("m1", assigned={T1: {0: 1, 5: 3}}, target={T1: frozenset({0, 5, 6})})
    torn = consumer_member(
        "m2", instance_id="two", assignor="range", state=MemberState.UNREVOKED, assigned={T2: {1: 2}},
        pending_revocation={T1: {7: 2}},
        classic=ClassicMemberMetadata(session_timeout_ms=9_000, protocols=(("range", b"\x00"),)),
    )  # fmt: skip
    many = [consumer_member(f"n{number:02}") for number in range(50)]
    group = consumer_group(plain, torn, *many, epoch=4)
    await writer.write([*((A, MemberStored(member)) for member in (plain, torn, *many)), (A, GroupStored(group))])
    assert await writer.load(A) == group
    assert list(await journal(database).open()) == [(A, group)]
    writer = journal(database)
    await writer.open()
    left = consumer_group(torn, epoch=5)
    gone = [(A, MemberRemoved(member.member_id)) for member in (plain, *many)]
    await writer.write([*gone, (A, GroupStored(left))])
    assert await writer.load(A) == left
    listed = await database.read(lambda: store.list_groups(1))
    assert listed == [StoredGroup("a", "consumer", "consumer", True)]


async def test_groups_and_members_have_any_names(database) -> None:
    writer = journal(database)
    await writer.open()
    names = [*UNUSUAL_NAMES.values(), "a"]
    members = [consumer_member(name) for name in names]
    group = consumer_group(*members, epoch=4)
    said = OffsetAndMetadata(committed_offset=1, leader_epoch=-1, metadata="\0" * 4_096, committed_ms=10)
    for name in names:
        records = [MemberStored(member) for member in members]
        await writer.write([((1, name), record) for record in (*records, GroupStored(group))])
        await writer.write([((1, name), OffsetsCommitted({(T1, 0): said}))])
    for name in names:
        assert await writer.load((1, name)) == group
        assert await offsets(database, (1, name)) == {(T1, 0): said}
    assert dict(await journal(database).open()) == {(1, name): group for name in names}
    assert {one.group_id for one in await database.read(lambda: store.list_groups(1))} == set(names)
    found: list[Key] = []
    old = partial(store.with_old_offsets, empty_before_ms=50, now_ms=100, limit=2)
    while page := await database.read(partial(old, found[-1] if found else (-1, ""))):
        found += page
    assert sorted(found) == sorted((1, name) for name in names)
    writer = journal(database)
    await writer.open()
    for name in names[1:]:
        await writer.write([((1, name), MemberRemoved(other)) for other in names[:-1]])
        await writer.write([((1, name), GroupStored(consumer_group(members[-1], epoch=4)))])
        assert await writer.load((1, name)) == consumer_group(members[-1], epoch=4)
        await writer.write([((1, name), GroupDeleted())])
        assert await writer.load((1, name)) is None
    assert await writer.load((1, names[0])) == group


async def test_groups_change_their_kind(database) -> None:
    writer = journal(database)
    await writer.open()
    member = consumer_member("m1")
    await writer.write([(A, GroupStored(stable("m1"))), (A, OffsetsCommitted({(T1, 0): offset(1)}))])
    group = consumer_group(member, epoch=4)
    await writer.write([(A, MemberStored(member)), (A, GroupStored(group))])
    assert await writer.load(A) == group
    await writer.write([(A, MembersCleared()), (A, GroupStored(stable("m1")))])
    assert await writer.load(A) == stable("m1")
    await writer.write([(A, MemberStored(member)), (A, GroupStored(group)), (A, GroupDeleted())])
    assert await writer.load(A) is None
    await writer.write([(A, GroupStored(consumer_group(epoch=1)))])
    assert await writer.load(A) == consumer_group(epoch=1)  # Nobody of before is in it.


async def test_streams_groups_come_back_as_they_were(database) -> None:
    writer = journal(database)
    await writer.open()
    topology = Topology(
        epoch=3,
        subtopologies=(
            Subtopology(
                subtopology_id="0", sources=("wörter", "lines"), repartition_sinks=("r",),
                copartitions=(frozenset({"wörter", "lines"}), frozenset()),
            ),
            Subtopology(
                subtopology_id="1", repartition_sources=(InternalTopic(name="r", partitions=7, replication_factor=3),),
                changelogs=(InternalTopic(name="c", configs=(("cleanup.policy", "compact"), ("retention.ms", ""))),),
            ),
        ),
    )  # fmt: skip
    plain = StreamsMember(
        member_id="m1", client_id="client", client_host="/127.0.0.1", rebalance_timeout_ms=60_000, topology_epoch=3,
        process_id="p", endpoint=UserEndpoint("höst", 65_535), client_tags={"zone": "a", "rack": ""}, rack_id="r",
        epoch=4, previous_epoch=3,
        assigned=TasksWithEpochs({Task("0", 0): 2, Task("0", 9): 4}, frozenset({Task("1", 1)})),
        target=Tasks(frozenset({Task("0", 0)}), frozenset({Task("1", 1)}), frozenset({Task("1", 2)})),
    )  # fmt: skip
    torn = StreamsMember(
        member_id="m2", instance_id="two", epoch=-2, state=MemberState.UNREVOKED,
        pending_revocation=TasksWithEpochs({Task("1", 5): 3}, frozenset({Task("0", 1)}), frozenset({Task("0", 2)})),
    )  # fmt: skip
    members = {member.member_id: member for member in (plain, torn)}
    group = StreamsGroup(
        epoch=5, target_epoch=4, assigned_ms=2**41, topology=topology, validated_epoch=3, topics_hash=-(2**62),
        configs={"num.standby.replicas": "1"}, members=members,
    )  # fmt: skip
    await writer.write([*((A, MemberStored(member)) for member in members.values()), (A, GroupStored(group))])
    empty = StreamsGroup(topology=Topology(epoch=0), empty_since_ms=7)
    await writer.write([(B, GroupStored(empty))])
    assert (await writer.load(A), await writer.load(B)) == (group, empty)
    assert list(await journal(database).open()) == [(A, group)]
    listed = await database.read(lambda: store.list_groups(1))
    assert [(one.group_id, one.kind, one.protocol_type, one.has_members) for one in listed] == [
        ("a", "streams", "streams", True), ("b", "streams", "streams", False),
    ]  # fmt: skip
