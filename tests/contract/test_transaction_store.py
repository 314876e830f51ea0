"""The SQL of transactions, on every database."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from struct import Struct
from typing import Any

import pytest
from fixtures.clocks import ManualClock
from fixtures.unusual_names import UNUSUAL_NAMES

from penstock.base.errors import CorruptData, OutcomeUnknown
from penstock.coordination.leases import LeaseHolder
from penstock.coordination.timers import LoopScheduler
from penstock.groups import store as group_store
from penstock.groups.model import (
    ClassicGroup,
    GroupDeleted,
    GroupStored,
    OffsetAndMetadata,
    OffsetsCommitted,
    OffsetsDeleted,
    OffsetsPending,
)
from penstock.groups.model import TransactionOwner as Owner
from penstock.log import aborted_store
from penstock.log.model import AbortedTransaction
from penstock.transactions import store
from penstock.transactions.model import Transaction, TransactionState
from penstock.wire.primitives import STRING_MAX_BYTES

TOPIC = b"t" * 16
GROUP = (1, "group")
OWNER = Owner(transactional_id="orders", producer_id=2**40, epoch=3, began_ms=5)
ORDERS = Transaction(
    key=(1, "orders"), producer_id=2**40, epoch=3, last_producer_id=4, last_epoch=2, timeout_ms=60_000,
    state=TransactionState.ONGOING, partitions=frozenset({1, 2**40}), groups=frozenset({"group", "ünï\0code"}),
    started_ms=5, updated_ms=6,
)  # fmt: skip
PLAIN = Transaction(key=(2, "orders"), producer_id=5, epoch=0, timeout_ms=1, updated_ms=0)


def offset(value: int, committed_ms: int = 0) -> OffsetAndMetadata:
    return OffsetAndMetadata(committed_offset=value, leader_epoch=-1, metadata="", committed_ms=committed_ms)


async def write(database: Any, *records: Any) -> None:
    await database.transaction(lambda: group_store.write(group_store.fold([(GROUP, record) for record in records])))


async def committed(database: Any) -> dict[int, int]:
    found = await database.read(lambda: group_store.offsets_of(GROUP))
    return {partition: one.committed_offset for (_, partition), one in found.items()}


async def test_ids_come_back_as_they_were_stored(database: Any) -> None:
    for txn in (ORDERS, PLAIN, PLAIN):
        await database.transaction(partial(store.put, txn))
    found = await database.read(store.load)
    assert sorted(found, key=lambda txn: txn.key) == [ORDERS, PLAIN]
    await database.transaction(lambda: store.forget(ORDERS.key))
    assert await database.read(store.load) == [PLAIN]


async def test_what_commit_records_tell_of_ids_is_stored(database: Any) -> None:
    """Oldest first: the last that is told of an id is what is in force."""
    ended = replace(ORDERS, state=TransactionState.COMPLETE_COMMIT, epoch=4, partitions=frozenset(), groups=frozenset())
    assert list(store.unpack_states(store.pack_states([ORDERS, PLAIN]))) == [ORDERS, PLAIN]
    changes = [store.pack_states([ORDERS, PLAIN]), store.pack_states([]), store.pack_states([ended])]
    for _ in range(2):
        await database.transaction(lambda: store.redo(changes))
    assert sorted(await database.read(store.load), key=lambda txn: txn.key) == [ended, PLAIN]
    for nonsense in (b"\x04", b"\x03\x00", b"\x03" + b"\xff" * 20):
        with pytest.raises(CorruptData):
            store.unpack_changes(nonsense)


async def test_what_commit_records_tell_of_offsets_is_stored(database: Any) -> None:
    """In the order of the records, and in order with what the group commits itself in between."""
    name = "group \0 grüp"
    noted = replace(offset(-1, 100), leader_epoch=7, metadata="métadata\0")
    told = store.TransactionChanges(
        (ORDERS, PLAIN),
        (((1, name), 2**40, {(TOPIC, 3): noted, (b"u" * 16, 2**31 - 1): offset(2**62)}), ((2, "g"), 5, {})),
        ((1, 2**40, True), (2, 5, False)),
    )
    assert store.unpack_changes(store.pack_changes(told)) == told
    assert store.unpack_changes(store.pack_changes(store.TransactionChanges(ended=[(1, 4, False)]))).ended == (
        (1, 4, False),
    )

    def waits(value: int, *partitions: int, at: int = 0) -> bytes:
        offsets = {(TOPIC, partition): offset(value, at) for partition in partitions}
        return store.pack_changes(store.TransactionChanges(pending=[(GROUP, OWNER.producer_id, offsets)]))

    def ends(*, commit: bool) -> bytes:
        return store.pack_changes(store.TransactionChanges([ORDERS], ended=[(1, OWNER.producer_id, commit)]))

    await write(database, GroupStored(ClassicGroup(stored=True)), OffsetsCommitted({(TOPIC, 1): offset(1, 50)}))
    await database.transaction(lambda: store.redo([waits(5, 0, 1), ends(commit=True), waits(6, 0), ends(commit=False)]))
    assert await committed(database) == {0: 5, 1: 5}
    assert await database.read(lambda: group_store.pending_of(GROUP)) == frozenset()
    await database.transaction(lambda: store.redo([waits(7, 0, 1, 2)]))
    assert await database.read(lambda: group_store.pending_of(GROUP)) == {(TOPIC, number) for number in range(3)}
    changes = group_store.fold([(GROUP, OffsetsCommitted({(TOPIC, 1): offset(8, 1)}))])
    await database.transaction(lambda: group_store.write(changes, may_be_pending=[GROUP]))
    await database.transaction(lambda: store.redo([ends(commit=True)]))
    assert await committed(database) == {0: 7, 1: 8, 2: 7}
    assert await database.read(store.load) == [ORDERS]
    await database.transaction(lambda: store.redo([waits(9, 0)]))
    await write(database, GroupDeleted())
    await database.transaction(lambda: store.redo([ends(commit=True)]))
    assert await committed(database) == {}


def test_commit_records_tell_ids_of_any_size() -> None:
    """The longest that a client can name, and groups by the thousand."""
    longest = "é" * (STRING_MAX_BYTES // 2)
    large = replace(ORDERS, key=(1, longest), groups=frozenset({longest, *(f"group {n}" for n in range(5_000))}))
    assert list(store.unpack_states(store.pack_states([large, PLAIN]))) == [large, PLAIN]


def test_what_the_first_format_told_is_read() -> None:
    told = b"\x01" + Struct(">qqhqhqBqqHIH").pack(2, 5, 0, -1, -1, 1, 0, -1, 0, 6, 0, 2) + b"orders[]"
    assert list(store.unpack_states(told)) == [PLAIN]


async def test_ids_and_their_groups_have_any_names(database: Any) -> None:
    names = list(UNUSUAL_NAMES.values())
    txns = {
        name: replace(ORDERS, key=(1, name), producer_id=10 + number, groups=frozenset({name}))
        for number, name in enumerate(names)
    }
    await database.transaction(lambda: store.put(*txns.values()))
    assert {txn.key[1]: txn for txn in await database.read(store.load)} == txns
    for name, txn in txns.items():
        assert await database.read(partial(store.load_one, txn.key)) == txn
        owner = Owner(transactional_id=name, producer_id=txn.producer_id, epoch=3, began_ms=5)
        changes = group_store.fold([((1, name), OffsetsPending(owner, {(TOPIC, 0): offset(5)}))])
        assert await database.transaction(partial(group_store.write, changes)) == frozenset()
        assert await database.read(partial(store.load_pending_of, 1, txn.producer_id)) == {name: 0}
    expected = {(txn.producer_id, name, 0) for name, txn in txns.items()}
    assert set(await database.read(store.load_pending)) == expected
    journal = group_store.GroupJournal(
        database, holder=LeaseHolder(name="agent-1"), clock=ManualClock(), scheduler=LoopScheduler()
    )  # fmt: skip
    await journal.open()
    assert journal._pending == {(1, name) for name in names}
    for name, txn in txns.items():
        await database.transaction(partial(store.end_offsets, [(1, txn.producer_id, True)]))
        assert (await database.read(partial(group_store.offsets_of, (1, name))))[TOPIC, 0].committed_offset == 5
        await database.transaction(partial(store.forget, txn.key))
    assert await database.read(store.load) == []


async def test_offsets_wait_for_the_end(database: Any) -> None:
    await database.transaction(lambda: store.put(ORDERS))
    await write(
        database,
        GroupStored(ClassicGroup(stored=True)),
        OffsetsCommitted({(TOPIC, 0): offset(1), (TOPIC, 2): offset(9)}),
    )
    await write(database, OffsetsPending(OWNER, {(TOPIC, 0): offset(5, 7), (TOPIC, 1): offset(6, 7)}))
    await write(database, OffsetsPending(OWNER, {(TOPIC, 1): offset(8, 8)}))
    assert await committed(database) == {0: 1, 2: 9}
    _, pending = await database.read(lambda: group_store.offsets_and_pending(GROUP))
    assert pending == {(TOPIC, 0), (TOPIC, 1)}
    for _ in range(2):
        await database.transaction(lambda: store.end_offsets([(1, OWNER.producer_id, True)]))
        assert await committed(database) == {0: 5, 1: 8, 2: 9}
    _, pending = await database.read(lambda: group_store.offsets_and_pending(GROUP))
    assert pending == frozenset()


async def test_aborted_offsets_are_gone(database: Any) -> None:
    await database.transaction(lambda: store.put(ORDERS))
    await write(database, OffsetsPending(OWNER, {(TOPIC, 0): offset(5)}))
    await database.transaction(lambda: store.end_offsets([(1, OWNER.producer_id, False)]))
    await database.transaction(lambda: store.end_offsets([(1, OWNER.producer_id, True)]))
    assert await committed(database) == {}


async def test_what_the_group_committed_itself_meanwhile_stays(database: Any) -> None:
    await database.transaction(lambda: store.put(ORDERS))
    await write(database, OffsetsPending(OWNER, {(TOPIC, 0): offset(5, 100)}))
    await write(database, OffsetsCommitted({(TOPIC, 0): offset(77, 101)}))
    await database.transaction(lambda: store.end_offsets([(1, OWNER.producer_id, True)]))
    assert await committed(database) == {0: 77}


async def test_the_newest_offset_counts_though_the_clock_went_back(database: Any) -> None:
    other = replace(ORDERS, key=(1, "payments"), producer_id=7)
    others = Owner(transactional_id="payments", producer_id=7, epoch=3, began_ms=5)
    for txn in (ORDERS, other):
        await database.transaction(partial(store.put, txn))
    await write(database, OffsetsCommitted({(TOPIC, 0): offset(1, 1_000), (TOPIC, 1): offset(1, 1_000)}))
    await write(database, OffsetsPending(OWNER, {(TOPIC, 0): offset(2, 600), (TOPIC, 1): offset(2, 1_000)}))
    await write(database, OffsetsPending(others, {(TOPIC, 0): offset(3, 500)}))
    for producer_id in (7, OWNER.producer_id):
        await database.transaction(partial(store.end_offsets, [(1, producer_id, True)]))
    assert await committed(database) == {0: 3, 1: 2}


async def test_what_the_group_commits_itself_stays_though_the_clock_went_back(database: Any) -> None:
    await database.transaction(lambda: store.put(ORDERS))
    journal = group_store.GroupJournal(
        database, holder=LeaseHolder(name="agent-1"), clock=ManualClock(), scheduler=LoopScheduler()
    )  # fmt: skip
    await journal.open()
    pending = [OffsetsPending(OWNER, {(TOPIC, number): offset(5, 100)}) for number in range(4)]
    own = [OffsetsCommitted({(TOPIC, number): offset(77, 50)}) for number in range(4)]
    await journal.write([(GROUP, pending[0]), (GROUP, pending[1]), (GROUP, own[2]), (GROUP, pending[2])])
    again = group_store.GroupJournal(
        database, holder=LeaseHolder(name="agent-1"), clock=ManualClock(), scheduler=LoopScheduler()
    )  # fmt: skip
    await again.open()
    await again.write([(GROUP, own[0])])
    await again.write([(GROUP, pending[3]), (GROUP, own[3])])
    await again.write([(GROUP, own[1])])
    await again.write([(GROUP, pending[1])])
    await database.transaction(lambda: store.end_offsets([(1, OWNER.producer_id, True)]))
    assert await committed(database) == {0: 77, 1: 5, 2: 5, 3: 77}


async def test_what_waits_goes_with_an_offset_that_is_deleted(database: Any) -> None:
    await database.transaction(lambda: store.put(ORDERS))
    journal = group_store.GroupJournal(
        database, holder=LeaseHolder(name="agent-1"), clock=ManualClock(), scheduler=LoopScheduler()
    )  # fmt: skip
    await journal.open()
    pending = [OffsetsPending(OWNER, {(TOPIC, number): offset(5, 100)}) for number in range(4)]
    await journal.write((GROUP, one) for one in (*pending[:3], OffsetsDeleted(((TOPIC, 0),))))
    await journal.write((GROUP, one) for one in (OffsetsDeleted(((TOPIC, 1), (TOPIC, 3))), pending[3]))
    assert await database.read(lambda: group_store.pending_of(GROUP)) == {(TOPIC, 2), (TOPIC, 3)}
    await database.transaction(lambda: store.end_offsets([(1, OWNER.producer_id, True)]))
    assert await committed(database) == {2: 5, 3: 5}


async def test_offsets_may_begin_a_transaction(database: Any) -> None:
    await database.transaction(lambda: store.put(replace(ORDERS, state=TransactionState.EMPTY)))
    await write(database, OffsetsPending(OWNER, {(TOPIC, 0): offset(5)}))
    assert await database.read(lambda: group_store.pending_of(GROUP)) == frozenset()
    await write(database, OffsetsPending(replace(OWNER, begins=True), {(TOPIC, 0): offset(5)}))
    assert await database.read(lambda: group_store.pending_of(GROUP)) == {(TOPIC, 0)}
    assert await database.read(store.load_pending) == [(OWNER.producer_id, "group", 0)]


async def test_only_the_owner_of_an_open_transaction_adds_offsets(database: Any) -> None:
    await database.transaction(lambda: store.put(PLAIN))
    stale = replace(OWNER, epoch=2)
    await database.transaction(lambda: store.put(ORDERS))
    await write(database, OffsetsPending(stale, {(TOPIC, 0): offset(5)}))
    await write(
        database, OffsetsPending(Owner(transactional_id="none", producer_id=1, epoch=0), {(TOPIC, 0): offset(5)})
    )
    assert await database.read(lambda: group_store.pending_of(GROUP)) == frozenset()


async def test_offsets_do_not_join_the_next_transaction(database: Any) -> None:
    """Producers of before KIP-890 keep their epoch; what they have sent may be stored when they are past it."""
    late, following = OWNER, replace(OWNER, began_ms=9)
    await database.transaction(lambda: store.put(replace(ORDERS, started_ms=9)))
    await write(database, OffsetsPending(late, {(TOPIC, 0): offset(5)}))
    assert await database.read(lambda: group_store.pending_of(GROUP)) == frozenset()
    changes = group_store.fold(
        [
            (GROUP, OffsetsPending(following, {(TOPIC, 1): offset(6)})),
            (GROUP, OffsetsPending(late, {(TOPIC, 2): offset(5)})),
        ]
    )
    assert await database.transaction(lambda: group_store.write(changes)) == {(1, late)}
    assert await database.read(lambda: group_store.pending_of(GROUP)) == {(TOPIC, 1)}


async def test_offsets_of_an_ended_transaction_are_refused(database: Any) -> None:
    """All that can be answered is what is known: not that they are there, and where it was lost, nothing."""
    await database.transaction(lambda: store.put(ORDERS))
    journal = group_store.GroupJournal(
        database, holder=LeaseHolder(name="agent"), clock=ManualClock(), scheduler=LoopScheduler()
    )  # fmt: skip
    await journal.open()
    kept = OffsetsPending(OWNER, {(TOPIC, 0): offset(5)})
    stale = OffsetsPending(replace(OWNER, epoch=2), {(TOPIC, 1): offset(5)})
    plain = OffsetsCommitted({(TOPIC, 2): offset(5)})
    other = (1, "other group")
    assert list(await journal.write([(GROUP, plain), (GROUP, kept), (other, plain)])) == []
    records = [(GROUP, kept), (other, stale), (GROUP, plain), (GROUP, stale), (other, kept)]
    assert list(await journal.write(records)) == [1, 3]
    transaction = database.transaction

    async def losing(script: Any) -> Any:
        database.transaction = transaction
        await transaction(script)
        raise OutcomeUnknown("the answer was lost")

    database.transaction = losing
    assert list(await journal.write([(GROUP, plain), (GROUP, kept), (other, plain)])) == [1]
    assert await database.read(lambda: group_store.pending_of(GROUP)) == {(TOPIC, 0)}


async def test_pending_offsets_go_with_their_group_and_topic(database: Any) -> None:
    await database.transaction(lambda: store.put(ORDERS))
    pending = OffsetsPending(OWNER, {(TOPIC, 0): offset(5)})
    await write(database, pending)
    await write(database, GroupDeleted())
    assert await database.read(lambda: group_store.pending_of(GROUP)) == frozenset()
    await write(database, pending)
    await database.transaction(lambda: group_store.forget_topic(1, TOPIC))
    assert await database.read(lambda: group_store.pending_of(GROUP)) == frozenset()


async def test_aborted_transactions_are_found_by_what_they_overlap(database: Any) -> None:
    aborted = [
        AbortedTransaction(1, 0, 4, 2), AbortedTransaction(2, 2, 9, 10), AbortedTransaction(1, 12, 15, 11),
        AbortedTransaction(3, 11, 20, 21), AbortedTransaction(1, 30, 31, 32),
    ]  # fmt: skip
    for _ in range(2):
        await database.transaction(lambda: aborted_store.add(7, aborted))
    await database.transaction(lambda: aborted_store.add(8, aborted[:1]))
    for start in range(34):
        for end in range(start + 1, 35):
            rows = await database.read(partial(aborted_store.between, 7, start, end))
            found = [AbortedTransaction(*map(int, row)) for row in rows]
            assert found == [one for one in aborted if one.last_offset >= start and one.first_offset < end]
    await database.transaction(lambda: aborted_store.forget(7, [9]))
    await database.transaction(lambda: aborted_store.forget_below(7, 15))
    rows = await database.read(lambda: aborted_store.between(7, 0, 99))
    assert [int(row[2]) for row in rows] == [15, 20, 31]
