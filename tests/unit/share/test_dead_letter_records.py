"""Letters for dead letter queues: what they say, how many go together, which topics take them; and what waits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from fixtures.log_world import topic_of
from hypothesis import given
from hypothesis import strategies as st

from penstock.agent.settings import SETTINGS
from penstock.base.errors import CorruptData
from penstock.base.settings import BrokerSettings
from penstock.log.batches import Accepted, Rejected
from penstock.log.markers import marker
from penstock.log.model import TopicConfig
from penstock.share import dead_letter_records, transitions
from penstock.share.dead_letter_records import DeadLetterSource, RecordCopies, RecordCopy, build_records, invalid_reason
from penstock.share.encoding import decode, encode, encode_ranges
from penstock.share.model import (
    ACQUIRED,
    ARCHIVED,
    AVAILABLE,
    EXHAUSTED,
    REJECTED,
    Acknowledgement,
    AcknowledgeType,
    Acquire,
    Batch,
    Fetched,
    Limits,
    Run,
    SharePartition,
    StateStored,
)
from penstock.wire.compression import Compression
from penstock.wire.records import Record, build_batch

WAITER = 1
LIMITS = Limits(max_deliveries=2, dead_letters=True)
SOURCE = DeadLetterSource("workers", "jobs", 3)
NEVER = 2**62


def run(first: int, last: int, state=REJECTED, deliveries: int = 1) -> Run:
    return Run(first, last, state, deliveries, "", 0, (first, last))


def taken(count: int = 10, *, limits: Limits = LIMITS) -> SharePartition:
    """A partition of which a member has everything."""
    new = transitions.initialise(None, 0, WAITER).state
    assert new is not None
    return retaken(new, count, limits=limits)


def retaken(partition: SharePartition, count: int = 10, *, limits: Limits = LIMITS) -> SharePartition:
    offset = transitions.next_fetch_offset(partition)
    fetched = Fetched(offset, 0, [Batch(0, count - 1)])
    after = transitions.acquire(partition, Acquire("anna", 100, 100, exact=False), fetched, limits, WAITER, 0).state
    assert after is not None
    return after


def said(partition: SharePartition, first: int, last: int, kind: AcknowledgeType, limits: Limits = LIMITS):
    return transitions.acknowledge(partition, "anna", [Acknowledgement(first, last, [kind])], limits, WAITER, 0)


# --- What is given up waits for its letter ------------------------------------------------------------------------


def test_what_is_rejected_is_done_with_when_its_letter_is_written() -> None:
    decision = said(taken(), 0, 3, AcknowledgeType.REJECT)
    waiting = decision.state
    assert waiting is not None
    assert waiting.runs[0] == run(0, 3)._replace(batch=(0, 9))
    assert decision.records == (StateStored(waiting),)
    assert (waiting.start_offset, waiting.delivery_complete, waiting.archiving) == (0, 0, 4)
    assert transitions.DEAD_LETTERS in {timer.name for timer in decision.timers}
    done = transitions.archive(replace(waiting, dead_lettered=((0, 1),)), 0, [(0, 1), (2, 3)], WAITER, 0)
    assert done.state is not None
    assert (done.state.start_offset, done.state.archiving, done.state.dead_lettered) == (4, 0, ())
    assert done.records == (StateStored(done.state, is_settled=True),)
    assert done.replies[0].answer is True
    assert transitions.DEAD_LETTERS not in {timer.name for timer in done.timers}


def test_a_gap_has_no_letter_and_neither_has_a_group_without_a_queue() -> None:
    gaps = said(taken(), 0, 3, AcknowledgeType.GAP).state
    plain = replace(LIMITS, dead_letters=False)
    rejected = said(taken(), 0, 3, AcknowledgeType.REJECT, plain).state
    assert gaps is not None
    assert rejected is not None
    assert gaps.start_offset == rejected.start_offset == 4


@pytest.mark.parametrize("how", ["release", "leave", "lock"])
def test_what_was_delivered_too_often_waits_as_well(how: str) -> None:
    partition = taken()
    for _ in range(LIMITS.max_deliveries):
        if how == "release":
            after = said(partition, 0, 9, AcknowledgeType.RELEASE).state
        elif how == "leave":
            after = transitions.release(partition, "anna", LIMITS, WAITER, 0).state
        else:
            after = transitions.expired(partition, LIMITS, LIMITS.lock_ms).state
        assert after is not None
        partition = after
        if partition.runs[0].state is AVAILABLE:
            partition = retaken(partition)
    assert partition.runs == (run(0, 9, EXHAUSTED, 2),)


def test_only_what_is_archiving_is_archived_and_only_of_the_same_epoch() -> None:
    waiting = said(taken(), 0, 3, AcknowledgeType.REJECT).state
    assert waiting is not None
    beyond = transitions.archive(waiting, 0, [(2, 5), (20, 21)], WAITER, 0).state
    assert beyond is not None
    assert [(one.first, one.last, one.state) for one in beyond.runs] == [
        (0, 1, REJECTED), (2, 3, ARCHIVED), (4, 9, ACQUIRED),
    ]  # fmt: skip
    other = transitions.archive(waiting, 1, [(0, 3)], WAITER, 0)
    assert other.state is waiting
    assert not other.records
    assert other.replies[0].answer is False
    assert transitions.archive(None, 0, [(0, 0)], WAITER, 0).replies[0].answer is False


def test_trimming_the_log_keeps_what_a_queue_is_to_hear_of() -> None:
    waiting = said(taken(), 2, 3, AcknowledgeType.REJECT).state
    assert waiting is not None
    trimmed = transitions.trimmed(waiting, 8)
    assert [(one.first, one.last, one.state) for one in trimmed.runs] == [
        (2, 3, REJECTED), (4, 9, ACQUIRED),
    ]  # fmt: skip
    assert said(trimmed, 4, 5, AcknowledgeType.ACCEPT).replies[0].answer.error == 0, "its member has it still"
    freed = transitions.release(waiting, "anna", LIMITS, WAITER, 0).state
    assert freed is not None
    beyond = transitions.trimmed(freed, 30)
    assert [(one.first, one.last, one.state) for one in beyond.runs] == [(2, 3, REJECTED), (4, 29, ARCHIVED)]
    assert beyond.next_offset == 30
    done = transitions.archive(beyond, 0, [(2, 3)], WAITER, 0).state
    assert done is not None
    assert (done.start_offset, done.runs) == (30, ())


def test_why_it_was_given_up_is_stored() -> None:
    partition = SharePartition(start_offset=0, next_offset=4, runs=(run(0, 1), run(2, 3, EXHAUSTED, 5)))
    assert decode(encode(partition), start_offset=0, state_epoch=0) == partition
    dead_lettered = replace(partition, dead_lettered=((0, 0), (2, 3)))
    assert (
        decode(
            encode(dead_lettered),
            start_offset=0,
            state_epoch=0,
            dead_lettered=encode_ranges(dead_lettered.dead_lettered),
        )
        == dead_lettered
    )
    with pytest.raises(CorruptData):
        decode(encode(dead_lettered), start_offset=0, state_epoch=0, dead_lettered=b"cut short")


# --- Letters --------------------------------------------------------------------------------------------------------


def test_letters_say_where_the_record_is_and_why_it_is_there() -> None:
    written = build_records(SOURCE, [run(7, 7, EXHAUSTED, 5), run(9, 9)], {9: RecordCopy(b"k", b"v")}, read_to=NEVER,
                    batch_max_bytes=10**6, now_ms=42)  # fmt: skip
    common = (("__dlq.errors.topic", b"jobs"), ("__dlq.errors.partition", b"3"))
    assert written.offsets == [7, 9]
    assert written.records == [
        Record(
            0, 42, None, None,
            (
                *common, ("__dlq.errors.offset", b"7"), ("__dlq.errors.group", b"workers"),
                ("__dlq.errors.delivery.count", b"5"),
                ("__dlq.errors.message", b"Offset delivery count exceeded the threshold."),
            ),
        ),
        Record(
            1, 42, b"k", b"v",
            (
                *common, ("__dlq.errors.offset", b"9"), ("__dlq.errors.group", b"workers"),
                ("__dlq.errors.delivery.count", b"1"), ("__dlq.errors.message", b"Offset rejected by client."),
            ),
        ),
    ]  # fmt: skip


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=6), room=st.integers(300, 4_000),
    sizes=st.dictionaries(st.integers(0, 100), st.integers(0, 5_000)), read_to=st.integers(0, 200),
)  # fmt: skip
def test_batches_of_letters_fit_and_leave_nothing_out(
    lengths: list[int], room: int, sizes: Mapping[int, int], read_to: int
) -> None:
    at, runs = 0, []
    for length in lengths:
        runs.append(run(at, at + length - 1))
        at += length + 1
    copies = {offset: RecordCopy(None, bytes(size)) for offset, size in sizes.items()}
    written = build_records(SOURCE, runs, copies, read_to=read_to, batch_max_bytes=room, now_ms=10**12)
    dead_lettered = [int(dict(letter.headers)["__dlq.errors.offset"]) for letter in written.records]
    assert dead_lettered == written.offsets
    assert dead_lettered == [offset for one in runs for offset in range(one.first, one.last + 1)][: len(dead_lettered)]
    assert len(dead_lettered) == 1 or dead_lettered[-1] <= read_to
    data = build_batch(written.records)
    # With a limit below what a letter takes without any copy, the queue refuses it.
    assert len(data) <= room or (len(dead_lettered) == 1 and written.records[0].value is None)


def test_no_more_letters_go_together_than_are_quickly_made() -> None:
    written = build_records(SOURCE, [run(0, 9_999)], {}, read_to=NEVER, batch_max_bytes=10**9, now_ms=1)
    assert len(written.records) == dead_letter_records.MAX_BATCH_RECORDS
    assert dead_letter_records.first_offsets([run(0, 9_999)]) == [run(0, 499)._replace(batch=(0, 9_999))]
    short = dead_letter_records.first_offsets([run(0, 9), run(20, 20), run(30, 39)], 12)
    assert [(one.first, one.last) for one in short] == [(0, 9), (20, 20), (30, 30)]


def test_offsets_are_told_of_in_stretches() -> None:
    assert dead_letter_records.ranges_of([]) == []
    assert dead_letter_records.ranges_of([1, 2, 3, 7, 9, 10]) == [(1, 3), (7, 7), (9, 10)]
    assert dead_letter_records.ranges_after([(1, 3), (7, 7), (9, 10)], 2) == [(3, 3), (7, 7), (9, 10)]
    assert dead_letter_records.ranges_after([(1, 3)], 3) == []


def made(runs: list[Run], copies: Mapping[int, RecordCopy], **config) -> dead_letter_records.BuiltBatch:
    return dead_letter_records.build_batch_for(
        SOURCE, runs, copies, read_to=NEVER, queue=TopicConfig(**config), now_ms=10**12
    )


def test_a_queue_that_refuses_letters_says_which() -> None:
    everything = made([run(0, 9)], {})
    assert isinstance(everything.verdict, Accepted)
    assert everything.offsets == list(range(10))
    keyed = {offset: RecordCopy(b"k", b"v") for offset in range(10) if offset not in (3, 8)}
    refused = made([run(0, 9)], keyed, compact=True)
    assert isinstance(refused.verdict, Rejected)
    assert refused.offsets == [3, 8]
    too_large = made([run(0, 9)], {}, max_message_bytes=100)
    assert isinstance(too_large.verdict, Rejected)
    assert too_large.offsets == [0]


# --- Copies ---------------------------------------------------------------------------------------------------------


def stored(*values: bytes, base: int = 0, **options) -> bytes:
    records = [Record(base + number, 5, b"k", value) for number, value in enumerate(values)]
    return build_batch(records, **options)


def looked(views, *wanted: tuple[int, int], room: int = 10**6, largest: int = 10**6) -> RecordCopies:
    copies = RecordCopies(room, largest)
    copies.scan([memoryview(view) for view in views], list(wanted))
    return copies


def test_copies_are_found_in_batches() -> None:
    end = marker(producer_id=1, epoch=0, commit=True, coordinator_epoch=0, now_ms=5)
    control = bytearray(end.data)
    control[:8] = (3).to_bytes(8, "big")
    broken = bytearray(stored(b"x" * 50, base=4, compression=Compression.ZSTD))
    broken[70:] = bytes(len(broken) - 70)
    views = [
        stored(b"a", b"b", b"c", compression=Compression.LZ4) + bytes(control),
        stored(b"d", b"e", base=6) + bytes(broken),
    ]
    some = looked(views, (0, 0), (2, 3), (7, 9))
    assert some.found == {0: RecordCopy(b"k", b"a"), 2: RecordCopy(b"k", b"c"), 7: RecordCopy(b"k", b"e")}
    assert some.scanned_to == 7, "8 may be in what follows"
    full = looked(views, (1, 6), room=1)
    assert (full.found, full.scanned_to, full.is_full) == ({1: RecordCopy(b"k", b"b")}, 1, True)
    assert looked([], (1, 6)).scanned_to == -1, "nothing is there"
    assert looked(views, (1, 6), largest=1).found == {}
    unreadable = looked([bytes(broken), stored(b"d", base=5)], (4, 5))
    assert (unreadable.found, unreadable.scanned_to, unreadable.is_full) == ({}, 4, True)


def test_what_is_behind_a_gap_that_compaction_left_is_found() -> None:
    copies = looked([stored(b"a", b"b", base=10)], (2, 5), (11, 11))
    assert (copies.found, copies.scanned_to) == ({11: RecordCopy(b"k", b"b")}, 11)


def test_a_batch_is_decoded_once_whatever_is_wanted_of_it() -> None:
    batch = stored(*(b"%d" % number for number in range(2_000)), compression=Compression.ZSTD)
    wanted = [(number, number) for number in range(0, 1_000, 2)]
    copies = looked([batch], *wanted)
    assert list(copies.found) == [offset for offset, _ in wanted]
    decoded = sum(len(b"%d" % number) + 8 for number in range(2_000))
    assert len(batch) < copies.scanned_bytes <= len(batch) + 2 * decoded


def test_what_decompresses_to_too_much_is_not_copied_and_counts_as_work() -> None:
    bomb = stored(bytes(dead_letter_records.MAX_COPIED_BATCH_BYTES + 1), compression=Compression.ZSTD)
    copies = looked([bomb + stored(b"a", base=1)], (0, 1))
    assert (copies.found, copies.scanned_to, copies.is_full) == ({}, 0, True)


def test_nothing_is_copied_of_a_batch_that_is_too_large_as_it_is() -> None:
    large = stored(bytes(dead_letter_records.MAX_COPIED_BATCH_BYTES + 1))
    copies = looked([large + stored(b"a", base=1)], (0, 1))
    assert 0 not in copies.found


# --- Queues ---------------------------------------------------------------------------------------------------------

OPEN = replace(topic_of(1, name="dlq.jobs").config, takes_dead_letters=True)
CREATES = SETTINGS.started_with({"errors.deadletterqueue.auto.create.topics.enable": "true"})
ANY_NAME = SETTINGS.started_with({"errors.deadletterqueue.topic.name.prefix": ""})


@pytest.mark.parametrize(
    ("name", "exists", "enabled", "settings", "wrong"),
    [
        ("dlq.jobs", True, True, SETTINGS.started_with({}), None),
        ("dlq.jobs", True, False, SETTINGS.started_with({}), "group.enable"),
        ("dlq.jobs", False, False, SETTINGS.started_with({}), "auto.create"),
        ("dlq.jobs", False, False, CREATES, None),
        ("jobs", False, False, CREATES, "begin with 'dlq.'"),
        ("jobs", True, True, SETTINGS.started_with({}), "begin with 'dlq.'"),
        ("jobs", True, True, ANY_NAME, None),
        ("__jobs", True, True, ANY_NAME, "__"),
        ("jobs\nERROR", False, False, CREATES, r"'jobs\nERROR'"),
        ("", False, False, CREATES, "any more"),
    ],
)
def test_which_topics_may_be_queues(
    name: str, exists: bool, enabled: bool, settings: BrokerSettings, wrong: str | None
) -> None:
    topic = topic_of(1, name=name)
    if enabled:
        topic.config = OPEN
    said = invalid_reason(name, topic if exists else None, settings)
    assert said is None if wrong is None else said is not None and wrong in said
