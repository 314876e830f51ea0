"""The write path's inner loops, compiled and not: each twin does what its reference does, to the byte."""

from __future__ import annotations

from contextlib import nullcontext
from struct import error as StructError
from struct import pack_into
from typing import Any

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from penstock.base import twins
from penstock.base.errors import CorruptData
from penstock.base.twins import reference
from penstock.log import batches, commits, fair_queue, flush, layout, markers
from penstock.log.answers import Appended, Ticket
from penstock.log.batches import ABORTABLE, IMPLICIT, Accepted
from penstock.log.commits import TRANSACTIONAL, CommitEntry, ProducerBatch
from penstock.log.flush import Share
from penstock.log.markers import marker
from penstock.log.model import (
    AbortedTransaction,
    EntrySeal,
    OpenTransaction,
    Partition,
    ProducerState,
    SequenceBatch,
    Topic,
    TopicConfig,
)
from penstock.log.upkeep import wal_plan
from penstock.wire.error_codes import ErrorCode
from penstock.wire.records import ATTRIBUTES_POSITION, HEADER_BYTES, Record, build_batch

NOW_MS = 1_000_000
I64, I32, U32 = st.integers(-(2**63), 2**63 - 1), st.integers(-(2**31), 2**31 - 1), st.integers(0, 2**32 - 1)
PAIRED = (
    batches.accept, batches.accept_shares, commits.follow_all, commits.pack_unsealed, commits.unpack_unsealed,
    flush.append_in_order, flush.append_marker, flush.settle_appended, layout.describe, layout.lay_out,
    fair_queue.fitting, fair_queue.count_waiting, fair_queue.uncount_waiting, markers.marker, wal_plan.note_producers,
)  # fmt: skip


def test_all_have_their_twins_or_none() -> None:
    assert {reference(function) is not function for function in PAIRED} == {twins.in_use()}
    assert bool(twins.why_not()) != twins.in_use()


# ---- one batch -------------------------------------------------------------------------------------------------------


def a_batch(records: int = 3, *, producer_id: int = 5, sequence: int = 7, timestamp: int = NOW_MS) -> bytearray:
    return bytearray(
        build_batch(
            [Record(offset=number, timestamp=timestamp, value=b"v" * 40) for number in range(records)],
            producer_id=producer_id, producer_epoch=0, base_sequence=sequence,
        )
    )  # fmt: skip


CONFIGS = st.builds(
    TopicConfig, compact=st.booleans() | st.just(False), log_append_time=st.booleans() | st.just(False),
    max_message_bytes=st.sampled_from((10, 200, 1_000_000)), compression=st.sampled_from((-1, -1, 0)),
    timestamp_before_max_ms=st.sampled_from((2**63 - 1, 1000)),
    timestamp_after_max_ms=st.sampled_from((0, 3_600_000, 2**63 - 1)),
)  # fmt: skip


@given(
    config=CONFIGS,
    changes=st.lists(st.tuples(st.integers(0, HEADER_BYTES + 4), st.integers(0, 255)), max_size=2),
    bits=st.sampled_from((0, 0, 0, 4, 5, 8, 16, 16, 32, 64)),
    version=st.sampled_from((9, 11, 12)),
    transactional=st.booleans(),
    producer_id=st.sampled_from((-1, 0, 5)),
    sequence=st.sampled_from((-1, 0, 7)),
    timestamp=st.sampled_from((0, NOW_MS, NOW_MS + 1, NOW_MS + 10_000_000)),
    mends_crc=st.booleans(),
    front=st.integers(0, 9),
    cut=st.sampled_from((0, 0, 0, 1, 60)),
)
def test_what_is_accepted_is_what_is_accepted_on_inspection(
    config: TopicConfig, changes: list[tuple[int, int]], bits: int, version: int, transactional: bool,
    producer_id: int, sequence: int, timestamp: int, mends_crc: bool, front: int, cut: int,
) -> None:  # fmt: skip
    batch = a_batch(producer_id=producer_id, sequence=sequence, timestamp=timestamp)
    batch[ATTRIBUTES_POSITION + 1] |= bits
    for position, byte in changes:
        batch[position] = byte
    if mends_crc:
        pack_into(">I", batch, 17, crc32c(bytes(batch[ATTRIBUTES_POSITION:])))
    frame = b"f" * front + bytes(batch[: len(batch) - cut])
    flags = batches.flags_of_transactional(version) if transactional else 0
    where = (frame, front, len(frame), *batches.limits_of_plain(config, NOW_MS), flags)
    found = batches.accept(*where)
    assert found == reference(batches.accept)(*where)
    outcome = batches.inspect(memoryview(frame)[front:], config, NOW_MS, version=version, transactional=transactional)
    if found is not None:
        assert type(found) is Accepted
        assert found == outcome
    elif isinstance(outcome, Accepted) and config.plain:
        # Only because its records had to be looked at, or for what follows it: nothing plain is missed.
        attributes = batch[ATTRIBUTES_POSITION + 1]
        assert attributes & 8 or config.timestamp_before_max_ms <= NOW_MS or timestamp > NOW_MS or changes


@pytest.mark.skipif(not twins.in_use(), reason="there is no compiled twin")
@pytest.mark.parametrize(("start", "end"), [(-1, 99), (0, 10**6)])
def test_what_is_not_within_the_frame_is_not_touched(start: int, end: int) -> None:
    with pytest.raises(ValueError):
        batches.accept(bytes(200), start, end, 2**40, NOW_MS)
    share = share_of(a_partition())
    flush.append_in_order(share, [(accepted(), None, 0)], 0, NOW_MS, None, {})
    share.byte_start = start
    with pytest.raises(ValueError):
        layout.lay_out(memoryview(bytearray(50)), [share])


@given(
    sent=st.lists(
        st.tuples(
            st.sampled_from(("t", "t", "t", "u")), st.sampled_from((0, 1, 2, 2, -1, 3)),
            st.sampled_from((5, 5, 5, 6, -1)), st.sampled_from((0, 0, 0, 16, 32)),
        ),
        min_size=1, max_size=4,
    ),
    transactional=st.booleans(),
)  # fmt: skip
def test_a_request_is_accepted_as_a_whole_or_looked_at_one_by_one(
    sent: list[tuple[str, int, int, int]], transactional: bool
) -> None:
    frame, shares, partitions = b"head", list[tuple[str, bytes, int, int, int]](), ["p0", "p1", "p2"]
    for name, index, producer_id, bits in sent:
        batch = a_batch(producer_id=producer_id, sequence=-1 if producer_id < 0 else 7)
        batch[ATTRIBUTES_POSITION + 1] |= bits
        pack_into(">I", batch, 17, crc32c(bytes(batch[ATTRIBUTES_POSITION:])))
        shares.append((name, bytes(16), index, len(frame), len(frame) + len(batch)))
        frame += bytes(batch)
    limits = 1_000_000, NOW_MS, batches.flags_of_transactional(12) if transactional else 0
    found = batches.accept_shares(frame, shares, partitions, *limits)
    assert found == reference(batches.accept_shares)(frame, shares, partitions, *limits)
    each = [batches.accept(frame, start, end, *limits) for *_, start, end in shares]
    if found is not None:
        assert found == [(f"p{share[2]}", batch) for share, batch in zip(shares, each, strict=True)]
        assert len({(batch.producer_id, batch.flags) for _, batch in found}) == 1
    elif len({name for name, *_ in sent}) == 1 and all(0 <= index < 3 for _, index, *_ in sent):
        assert None in each or len({(batch.producer_id, batch.flags) for batch in each if batch}) > 1


# ---- a share of a flush ----------------------------------------------------------------------------------------------


def a_partition(next_offset: int = 100) -> Partition:
    topic = Topic(
        cluster_id=1, topic_id=bytes(16), name="t", replication_factor=1, created_ms=0, overrides={},
        config=TopicConfig(),
    )  # fmt: skip
    return Partition(partition_id=9, topic=topic, index=0, next_offset=next_offset, log_start=3)


def share_of(partition: Partition) -> Share:
    return Share(partition, partition.next_offset, partition.next_offset)


def accepted(producer_id: int = -1, epoch: int = 0, sequence: int = 0, count: int = 3, **fields: Any) -> Accepted:
    return Accepted(memoryview(a_batch(count)), count, producer_id, epoch, sequence, NOW_MS, -1)._replace(**fields)


BATCHES = st.lists(
    st.builds(
        accepted,
        producer_id=st.sampled_from((-1, 1, 1, 1, 2, 3)),
        epoch=st.sampled_from((0, 0, 0, 1)),
        sequence=st.sampled_from((0, 3, 6, 2**31 - 3)),
        count=st.sampled_from((1, 3)),
        max_timestamp=I64,
        flags=st.sampled_from((0, 0, 0, 0, 0, TRANSACTIONAL, TRANSACTIONAL | IMPLICIT | ABORTABLE)),
    ),
    max_size=8,
)


def in_order(known: list[Accepted]) -> list[Accepted]:
    """The same with sequences that follow each other, for most of them."""
    following: dict[int, int] = {1: 0, 2: 2**31 - 3}
    made = []
    for batch in known:
        sequence = following.get(batch.producer_id)
        if sequence is not None and batch.base_sequence:
            batch = batch._replace(base_sequence=sequence)
            following[batch.producer_id] = (sequence + batch.offset_count) % 2**31
        made.append(batch)
    return made


def prepared() -> tuple[Partition, Share]:
    partition = a_partition()
    for producer_id, last in ((1, 2**31 - 1), (2, 2**31 - 4)):
        state = ProducerState(producer_id, 0, 5)
        state.add(SequenceBatch(last - 2, last, 90, 92, 4))
        partition.producers[producer_id] = state
    partition.producers[3] = ProducerState(3, 0, 5)
    return partition, share_of(partition)


@given(
    made=BATCHES.map(in_order),
    first=st.integers(0, 2),
    has_transaction=st.sampled_from((False, False, True)),
    within=st.sampled_from((None, None, {2: None})),
    refused=st.sampled_from((None, (), (), (2,))),
    admitted=st.sampled_from(({}, {1: 0}, {1: 1, 2: 0})),
)
def test_batches_in_order_are_appended(
    made: list[Accepted], first: int, has_transaction: bool, within: dict[int, None] | None,
    refused: tuple[int, ...] | None, admitted: dict[int, int],
) -> None:  # fmt: skip
    pending = [(batch, object(), number) for number, batch in enumerate(made)]
    seen = []

    def refusal(partition: Partition, batch: Accepted) -> ErrorCode:
        asked.append(batch)
        return ErrorCode.INVALID_PRODUCER_EPOCH if batch.producer_id in (refused or ()) else ErrorCode.NONE

    for function in (flush.append_in_order, reference(flush.append_in_order)):
        partition, share = prepared()
        before = {key: (state.epoch, list(state.batches)) for key, state in partition.producers.items()}
        if has_transaction:
            partition.transactions[1] = OpenTransaction(0, 0)
        share.transactional = None if within is None else dict(within)
        known, asked = dict(admitted), list[Accepted]()
        guard = None if refused is None else refusal
        reached = function(share, pending, min(first, len(pending)), NOW_MS, guard, known)
        seen.append(
            (
                reached, share.next_offset, share.byte_length, share.appended, share.producers, share.transactional,
                known, asked,
            )
        )  # fmt: skip
        assert before == {key: (state.epoch, list(state.batches)) for key, state in partition.producers.items()}
    assert seen[0] == seen[1]
    of_transactions = {batch.producer_id for batch, *_ in seen[0][3] if batch.flags and batch.producer_id >= 0}
    spared = set(admitted)
    assert of_transactions <= spared if refused is None else of_transactions.isdisjoint(set(refused) - spared)


def test_who_was_admitted_in_one_partition_is_not_asked_about_in_the_next() -> None:
    sent = accepted(1, 0, 0, flags=TRANSACTIONAL | IMPLICIT | ABORTABLE)
    for function in (flush.append_in_order, reference(flush.append_in_order)):
        asked, admitted = list[Accepted](), dict[int, int]()

        def refusal(_: Partition, batch: Accepted, asked: list[Accepted] = asked) -> ErrorCode:
            asked.append(batch)
            return ErrorCode.NONE

        for batch, times in ((sent, 1), (sent, 1), (sent._replace(producer_epoch=1), 2), (sent, 3)):
            assert function(prepared()[1], [(batch, object(), 0)], 0, NOW_MS, refusal, admitted) == 1
            assert len(asked) == times
        added = sent._replace(flags=TRANSACTIONAL)
        for _ in range(2):  # Which partitions were added to a transaction by request is for each of them to be seen.
            assert function(prepared()[1], [(added, object(), 0)], 0, NOW_MS, refusal, admitted) == 1
        assert len(asked) == 5


@given(sizes=st.lists(st.integers(1, 4), max_size=9), room_bytes=st.integers(0, 900), room_batches=st.integers(1, 9))
def test_as_much_is_taken_as_fits(sizes: list[int], room_bytes: int, room_batches: int) -> None:
    pending = [(accepted(count=size), object(), 0) for size in sizes]
    many = [(accepted()._replace(offset_count=fair_queue.SHARE_MAX_OFFSETS // 2), object(), 0)] * 3
    for function in (fair_queue.fitting, reference(fair_queue.fitting)):
        if pending:
            taken = function(pending, room_bytes, room_batches)
            assert 1 <= taken <= max(1, room_batches)
            assert taken == 1 or sum(len(batch.data) for batch, *_ in pending[:taken]) <= room_bytes
            assert taken == reference(fair_queue.fitting)(pending, room_bytes, room_batches)
        assert function(many, 2**62, 2**62) == 2


@given(made=BATCHES)
def test_batches_of_transactions_are_counted_while_they_wait(made: list[Accepted]) -> None:
    pending = [(batch, object(), 0) for batch in made]
    ways = (
        (fair_queue.count_waiting, fair_queue.uncount_waiting),
        (reference(fair_queue.count_waiting), reference(fair_queue.uncount_waiting)),
    )
    seen = []
    for join, leave in ways:
        waiting_count = dict[tuple[int, int], int]()
        for batch, *_ in pending:
            if batch.flags:
                join(waiting_count, batch)
        whole = dict(waiting_count)
        leave(waiting_count, pending[:3])
        seen.append((whole, dict(waiting_count)))
        leave(waiting_count, pending[3:])
        assert not waiting_count
    assert seen[0] == seen[1]
    assert sum(seen[0][0].values()) == sum(bool(batch.flags) for batch in made)


def test_the_first_batch_of_a_producers_next_epoch_is_in_order() -> None:
    """As it is in every transaction of version 2, in a partition that has seen the end of the one before or not."""
    for function in (flush.append_in_order, reference(flush.append_in_order)):
        partition, share = prepared()
        partition.producers[3] = ProducerState(3, 1, 5)
        made = [accepted(1, 1, 0), accepted(1, 1, 3), accepted(3, 1, 0), accepted(2, 1, 3)]
        assert function(share, [(batch, object(), 0) for batch in made], 0, NOW_MS, None, {}) == 3
        assert {key: (state.epoch, len(state.batches)) for key, state in share.producers.items()} == {
            1: (1, 2), 3: (1, 1)
        }  # fmt: skip


def test_the_last_five_batches_of_a_flush_are_remembered() -> None:
    pending = [(accepted(1, sequence=3 * number), object(), number) for number in range(7)]
    remembered = []
    for function in (flush.append_in_order, reference(flush.append_in_order)):
        partition, share = prepared()
        assert function(share, pending, 0, NOW_MS, None, {}) == len(pending)
        remembered.append(share.producers[1].batches)
        assert len(partition.producers[1].batches) == 1
    assert remembered[0] == remembered[1]
    assert [batch.first_sequence for batch in remembered[0]] == [6, 9, 12, 15, 18]


@given(
    made=BATCHES.map(in_order),
    ended=st.lists(st.tuples(st.sampled_from((1, 3, 9)), st.sampled_from((0, 1, 2))), min_size=1, max_size=4),
)
def test_ends_of_transactions_are_appended(made: list[Accepted], ended: list[tuple[int, int]]) -> None:
    seen, nobody = [], object()
    for function in (flush.append_marker, reference(flush.append_marker)):
        partition, share = prepared()
        flush.append_in_order(share, [(batch, nobody, 0) for batch in made], 0, NOW_MS, lambda *_: ErrorCode.NONE, {})
        before = {key: (state.epoch, state.last_ms) for key, state in partition.producers.items()}
        for producer_id, epoch in ended:
            batch = marker(producer_id=producer_id, epoch=epoch, commit=True, coordinator_epoch=0, now_ms=NOW_MS)
            function(share, batch, nobody, NOW_MS + 1)
        seen.append((share.appended, share.next_offset, share.byte_length, share.producers, share.transactional))
        assert before == {key: (state.epoch, state.last_ms) for key, state in partition.producers.items()}
    assert seen[0] == seen[1]


@given(made=BATCHES, base=st.integers(0, 2**40))
def test_shares_are_laid_out_and_described(made: list[Accepted], base: int) -> None:
    shares = []
    position = 11
    for part in (made[::2], made[1::2]):
        share = share_of(a_partition(base))
        share.byte_start = position
        for batch in part:
            share.appended.append((batch, Ticket([], lambda results: None), 0, share.next_offset))
            share.next_offset += batch.offset_count
            share.byte_length += len(batch.data)
        position += share.byte_length
        if part:
            shares.append(share)
    bodies = []
    for function in (layout.lay_out, reference(layout.lay_out)):
        body = bytearray(position)
        function(memoryview(body), shares)
        bodies.append(body)
    assert bodies[0] == bodies[1]
    described = layout.describe(shares)
    assert described == reference(layout.describe)(shares)
    assert all(type(entry) is CommitEntry for entry in described)
    assert all(type(batch) is ProducerBatch for entry in described for batch in entry.producer_batches)


@given(
    st.lists(
        st.builds(
            CommitEntry, I64, U32, U32, U32, U32, I64,
            st.lists(
                st.builds(
                    ProducerBatch, I64, st.integers(-(2**15), 2**15 - 1), I32, U32, U32, I64,
                    st.sampled_from((0, 0, 0, 1, 7, 25)),
                ),
                max_size=4,
            ).map(tuple),
            st.none(),
        ),
        max_size=4,
    )
)  # fmt: skip
def test_entries_are_packed(entries: list[CommitEntry]) -> None:
    packed = commits.pack_unsealed(entries)
    assert packed == reference(commits.pack_unsealed)(entries) == commits.pack_entries(entries)
    sealed = [entry._replace(seal=EntrySeal(7, bytes(16), 0, 1, 2, 3, 4)) for entry in entries]
    for way in (commits.pack_unsealed, reference(commits.pack_unsealed)):
        assert (way(sealed) is None) == bool(entries)
    assert [entry[:6] for entry in commits.unpack_entries(packed)] == [entry[:6] for entry in entries]
    for way in (commits.unpack_unsealed, reference(commits.unpack_unsealed)):
        found = way(packed)
        assert found is not None
        assert commits.pack_unsealed(found) == packed
        assert all(type(entry) is CommitEntry for entry in found)
        assert all(type(batch) is ProducerBatch for entry in found for batch in entry.producer_batches)


@given(
    entries=st.lists(
        st.builds(
            CommitEntry, st.just(1), U32, U32, U32, U32, st.just(NOW_MS),
            st.lists(
                st.builds(ProducerBatch, I64, st.just(0), I32, U32, U32, I64, st.sampled_from((0, 1))), max_size=3
            ).map(tuple), st.none(),
        ),
        max_size=3,
    ),
    cut=st.integers(0, 70),
    more=st.binary(max_size=40),
    kind=st.sampled_from((None, None, 0, 1, 2, 3, 9)),
)  # fmt: skip
def test_entries_that_were_not_packed_by_us_are_not_read(
    entries: list[CommitEntry], cut: int, more: bytes, kind: int | None
) -> None:
    packed = commits.pack_entries(entries)
    damaged = packed[: max(0, len(packed) - cut)] + more
    if kind is not None:
        damaged = bytes((kind,)) + damaged[1:]
    found = commits.unpack_unsealed(damaged)
    assert found == reference(commits.unpack_unsealed)(damaged)
    if found is None and damaged[:1] != b"\3":
        with pytest.raises(CorruptData):
            commits.unpack_entries(damaged)


FOLLOWED = st.lists(
    st.builds(
        ProducerBatch, st.sampled_from((1, 2, 3)), st.just(0), st.just(0), st.just(0), st.integers(0, 99),
        st.just(NOW_MS), st.sampled_from((0, 1, 1, 25, 3, 3, 7, 7)),
    ),
    max_size=8,
).map(tuple)  # fmt: skip


@given(batches=FOLLOWED, base=st.integers(0, 2**40), known=st.sets(st.sampled_from((1, 2))))
def test_transactions_are_followed(batches: tuple[ProducerBatch, ...], base: int, known: set[int]) -> None:
    seen = []
    for function in (commits.follow_all, reference(commits.follow_all)):
        ongoing, aborted = {producer_id: OpenTransaction(producer_id, 0) for producer_id in sorted(known)}, []
        function(ongoing, aborted, base, batches, NOW_MS)
        assert all(type(one) is OpenTransaction for one in ongoing.values())
        assert all(type(one) is AbortedTransaction for one in aborted)
        seen.append((list(ongoing.items()), aborted))
    assert seen[0] == seen[1]


def test_neither_packs_more_batches_than_can_be_counted() -> None:
    sent = ProducerBatch(5, 0, 7, 0, 0, NOW_MS)
    for count, fits in ((2**16 - 1, True), (2**16, False)):
        entry = CommitEntry(1, 0, 61 * count, count, count, NOW_MS, (sent,) * count)
        for way in (commits.pack_unsealed, reference(commits.pack_unsealed)):
            with nullcontext() if fits else pytest.raises((OverflowError, StructError)):
                assert way([entry]) is not None


@given(moved=st.integers(0, 2**40), owners=st.lists(st.integers(0, 2), min_size=1, max_size=6))
def test_everybody_hears_where_their_batches_are(moved: int, owners: list[int]) -> None:
    heard = []
    for function in (flush.settle_appended, reference(flush.settle_appended)):
        told: list[Any] = []
        tickets = [_ticket_of(owner, owners.count(owner), told) for owner in range(3)]
        share = share_of(a_partition())
        places = [0, 0, 0]
        for owner in owners:
            share.appended.append((accepted(append_time_ms=owner), tickets[owner], places[owner], share.next_offset))
            places[owner] += 1
            share.next_offset += 3
        function(share, moved)
        heard.append(told)
        assert all(type(result) is Appended for _, results in told for result in results)
    assert heard[0] == heard[1]
    assert {owner for owner, _ in heard[0]} == set(owners)


def _ticket_of(owner: int, wanted: int, told: list[Any]) -> Ticket:
    kind = Ticket if owner else _Listener
    return kind([None] * wanted, lambda results: told.append((owner, list(results))))


class _Listener(Ticket):
    """One who is told by another way than a ticket is."""

    def settle(self, position: int, result: Appended) -> None:
        super().settle(position, result._replace(message="told"))
