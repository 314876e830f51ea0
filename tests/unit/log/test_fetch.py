"""Fetch: waiting and not waiting, limits, errors, sessions. Every rule of Kafka that is decided here."""

from __future__ import annotations

import asyncio

import pytest
from fetch_world import ONE, World, asking, size_of
from log_parts import batch

from penstock.base.errors import CorruptData, Unavailable
from penstock.log.fetch import FetchHandler
from penstock.log.fetch_sessions import MIN_EVICTION_MS
from penstock.wire.error_codes import ErrorCode

NONE, RANGE = ErrorCode.NONE, ErrorCode.OFFSET_OUT_OF_RANGE


# ---- answers -------------------------------------------------------------------------------------------------


async def test_what_is_there_is_returned_at_once() -> None:
    world = World()
    world.append(world.orders.partitions[0], ONE, ONE)
    poll = world.start(asking((0, 1), max_wait_ms=60_000))
    (data,) = poll.partitions
    assert (data.error_code, data.high_watermark, data.last_stable_offset, data.log_start_offset) == (NONE, 2, 2, 0)
    assert size_of(data) == len(ONE)
    assert poll.cancel is None


@pytest.mark.parametrize("isolation", [0, 1])
async def test_nothing_is_empty_and_never_null(isolation: int) -> None:
    world = World()
    (data,) = world.start(asking((0, 0), isolation_level=isolation)).partitions
    assert (data.error_code, data.records) == (NONE, b"")
    assert data.aborted_transactions == (None if isolation == 0 else [])
    assert data.preferred_read_replica == -1


@pytest.mark.parametrize(
    ("offset", "fields", "error"),
    [
        pytest.param(6, {}, NONE, id="the end"),
        pytest.param(7, {}, RANGE, id="beyond the end"),
        pytest.param(-1, {}, RANGE, id="negative"),
        pytest.param(1, {}, RANGE, id="below the start"),
        pytest.param(2, {}, NONE, id="the start"),
        pytest.param(3, {"current_leader_epoch": 0}, NONE, id="our epoch"),
        pytest.param(3, {"current_leader_epoch": -1}, NONE, id="no epoch"),
        pytest.param(3, {"current_leader_epoch": 1}, ErrorCode.UNKNOWN_LEADER_EPOCH, id="a later epoch"),
        pytest.param(3, {"last_fetched_epoch": 0}, NONE, id="fetched in our epoch"),
        pytest.param(3, {"last_fetched_epoch": 1}, RANGE, id="fetched in a later epoch"),
    ],
)
async def test_offsets_and_epochs(offset: int, fields: dict[str, int], error: ErrorCode) -> None:
    world = World()
    partition = world.orders.partitions[0]
    world.append(partition, *[ONE] * 6)
    partition.log_start = 2
    (data,) = world.start(asking((0, offset), max_wait_ms=0, **fields)).partitions
    assert data.error_code == error
    if error:
        assert (data.high_watermark, data.last_stable_offset, data.log_start_offset, data.records) == (-1, -1, -1, b"")


@pytest.mark.parametrize(
    ("topic", "index", "version", "error"),
    [
        ("orders", 3, 12, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        ("orders", -1, 12, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        ("nothing", 0, 12, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (bytes(16), 0, 13, ErrorCode.UNKNOWN_TOPIC_ID),
        (b"orders".ljust(16, b"\0"), 3, 13, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
    ],
)
async def test_unknown_partitions(topic: str | bytes, index: int, version: int, error: ErrorCode) -> None:
    poll = World().start(asking((index, 0), topic=topic, max_wait_ms=60_000), version=version)
    assert poll.answer.error_code == NONE
    assert poll.partitions[0].error_code == error


async def test_topics_are_named_as_they_were_asked_for() -> None:
    world = World()
    answer = world.start(asking((0, 0), topic=world.orders.topic_id), version=13).answer
    assert answer.responses[0].topic_id == world.orders.topic_id
    assert world.start(asking((0, 0))).answer.responses[0].topic == "orders"


# ---- limits --------------------------------------------------------------------------------------------------


async def test_the_first_batch_of_the_first_partition_with_data_is_always_returned() -> None:
    world = World()
    for partition in world.orders.partitions[1:]:
        world.append(partition, ONE, ONE)
    empty, first, second = world.start(asking((0, 0), (1, 0), (2, 0), max_bytes=1)).partitions
    assert [size_of(data) for data in (empty, first, second)] == [0, len(ONE), 0]
    assert second.high_watermark == 2


@pytest.mark.parametrize(
    ("max_bytes", "partition_max_bytes", "sizes"),
    [
        (10_000, 10_000, (3, 3)),
        (10_000, len(ONE), (1, 1)),
        (10_000, len(ONE) - 1, (1, 0)),
        (10_000, 0, (1, 0)),
        (len(ONE) * 4, 10_000, (3, 1)),
        (len(ONE) * 4 + 50, 10_000, (3, 1)),
        (0, 10_000, (1, 0)),
        (-5, -5, (1, 0)),
    ],
)
async def test_limits(max_bytes: int, partition_max_bytes: int, sizes: tuple[int, int]) -> None:
    world = World()
    for partition in world.orders.partitions[:2]:
        world.append(partition, ONE, ONE, ONE)
    request = asking((0, 0), (1, 0), max_bytes=max_bytes, partition_max_bytes=partition_max_bytes)
    found = world.start(request).partitions
    assert tuple(size_of(data) // len(ONE) for data in found) == sizes
    assert all(size_of(data) % len(ONE) == 0 for data in found)


async def test_one_answer_is_bounded_whatever_is_asked_for() -> None:
    world = World()
    handler = FetchHandler(
        registry=world.registry, reader=world.log.reader, sessions=world.sessions, max_bytes=2 * len(ONE)
    )
    world.append(world.orders.partitions[0], ONE, ONE, ONE)
    world.handler = handler
    (data,) = world.start(asking((0, 0), max_bytes=2**31 - 1, partition_max_bytes=2**31 - 1)).partitions
    assert size_of(data) == 2 * len(ONE)


# ---- waiting -------------------------------------------------------------------------------------------------


async def test_a_commit_wakes_a_long_poll() -> None:
    world = World()
    partition = world.orders.partitions[0]
    poll = world.start(asking((0, 0), (1, 0), max_wait_ms=60_000))
    assert not poll.answers
    assert len(partition.waiters) == 1
    world.append(partition, ONE)
    assert not poll.answers, "not inside the commit"
    await poll.wait()
    assert [size_of(data) for data in poll.partitions] == [len(ONE), 0]
    assert not any(partition.waiters for partition in world.orders.partitions)


async def test_min_bytes_are_waited_for() -> None:
    world = World()
    partition = world.orders.partitions[0]
    world.append(partition, ONE)
    poll = world.start(asking((0, 0), min_bytes=2 * len(ONE) + 1, max_wait_ms=60_000))
    world.append(partition, ONE)
    await asyncio.sleep(0)
    assert not poll.answers
    world.append(partition, ONE)
    await poll.wait()
    assert size_of(poll.partitions[0]) == 3 * len(ONE)


@pytest.mark.parametrize(
    ("min_bytes", "max_bytes", "partition_max_bytes", "is_enough"),
    [
        (10_000, 2 * len(ONE), 10_000, True),  # No response has more.
        (2 * len(ONE) + 50, 2 * len(ONE) + 50, 10_000, True),  # A third batch does not fit.
        (2 * len(ONE) + 50, 10_000, 2 * len(ONE) + 50, True),
        (2 * len(ONE) + 51, 10_000, 2 * len(ONE) + 50, False),  # As in Kafka, what one partition may have is the bound.
        (3 * len(ONE), 10_000, 10_000, True),
        (3 * len(ONE) + 1, 10_000, 10_000, False),
    ],
)
async def test_what_is_held_back_by_limits_counts_towards_min_bytes(
    min_bytes: int, max_bytes: int, partition_max_bytes: int, is_enough: bool
) -> None:
    world = World()
    world.append(world.orders.partitions[0], ONE, ONE, ONE)
    poll = world.start(
        asking(
            (0, 0), min_bytes=min_bytes, max_bytes=max_bytes, partition_max_bytes=partition_max_bytes,
            max_wait_ms=60_000,
        )
    )  # fmt: skip
    assert bool(poll.answers) is is_enough


async def test_a_long_poll_ends_with_what_there_is() -> None:
    world = World()
    world.append(world.orders.partitions[0], ONE)
    poll = world.start(asking((0, 0), min_bytes=10_000, max_wait_ms=20))
    await asyncio.sleep(0.1)
    assert size_of(poll.partitions[0]) == len(ONE)


@pytest.mark.parametrize("change", ["deleted", "trimmed"])
async def test_a_change_wakes_a_long_poll(change: str) -> None:
    world = World()
    partition = world.orders.partitions[0]
    world.append(partition, ONE, ONE)
    poll = world.start(asking((0, 1), min_bytes=10_000, max_wait_ms=60_000))
    if change == "deleted":
        world.registry.remove(world.orders)
    else:
        partition.log_start = 2
    partition.wake()
    await poll.wait()
    expected = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION if change == "deleted" else RANGE
    assert poll.partitions[0].error_code == expected


async def test_an_error_is_not_waited_with() -> None:
    poll = World().start(asking((0, 0), (7, 0), max_wait_ms=60_000, min_bytes=10_000))
    assert [data.error_code for data in poll.partitions] == [NONE, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION]


async def test_giving_up_leaves_nothing_behind() -> None:
    world = World()
    poll = world.start(asking((0, 0), max_wait_ms=60_000))
    poll.cancel()
    world.append(world.orders.partitions[0], ONE)
    await asyncio.sleep(0)
    assert not poll.answers
    assert not world.orders.partitions[0].waiters


async def test_asking_for_nothing_is_answered() -> None:
    assert World().start(asking(max_wait_ms=60_000)).answer.responses == []


# ---- reading from elsewhere ------------------------------------------------------------------------------------


LARGE = {"max_bytes": 4 << 20, "partition_max_bytes": 4 << 20}
"""As much for one partition as for all: the first must not take the room of the others."""


async def test_cold_batches_are_read_and_the_rest_answered() -> None:
    world = World()
    world.log.add_commit(ONE, in_memory=False)
    world.append(world.orders.partitions[1], ONE)
    poll = world.start(asking((0, 0), (1, 0), max_wait_ms=60_000, **LARGE))
    assert not poll.answers
    await poll.wait()
    assert [size_of(data) for data in poll.partitions] == [len(ONE), len(ONE)]


@pytest.mark.parametrize(
    ("failure", "version", "error"),
    [
        (Unavailable("away"), 6, ErrorCode.KAFKA_STORAGE_ERROR),
        (Unavailable("away"), 5, ErrorCode.NOT_LEADER_OR_FOLLOWER),
        (CorruptData("torn"), 5, ErrorCode.UNKNOWN_SERVER_ERROR),
    ],
)
async def test_a_failed_read_is_one_partitions_error(failure: Exception, version: int, error: ErrorCode) -> None:
    world = World()
    world.log.add_commit(ONE, in_memory=False)
    world.append(world.orders.partitions[1], ONE)

    def fail(*args: object) -> memoryview:
        raise failure

    world.log.wal.read = fail  # type: ignore[method-assign]
    poll = world.start(asking((0, 0), (1, 0), **LARGE), version=version)
    await poll.wait()
    assert [(data.error_code, size_of(data)) for data in poll.partitions] == [(error, 0), (NONE, len(ONE))]


async def test_marks_are_not_below_what_was_appended_during_a_cold_read() -> None:
    world = World()
    partition = world.orders.partitions[0]
    world.log.add_commit(ONE, in_memory=False)
    poll = world.start(asking((0, 0)))
    world.log.add_commit(ONE, in_memory=False)
    await poll.wait()
    (data,) = poll.partitions
    assert size_of(data) == 2 * len(ONE)
    assert data.high_watermark == data.last_stable_offset == partition.next_offset == 2


@pytest.mark.parametrize(
    ("max_bytes", "partition_max_bytes", "sizes"),
    [
        (10_000, len(ONE), (1, 1, 1)),
        (10_000, len(ONE) - 1, (1, 0, 0)),
        (10_000, 0, (1, 0, 0)),
        (2 * len(ONE) + 50, len(ONE), (1, 1, 0)),
        (0, 10_000, (1, 0, 0)),
    ],
)
async def test_limits_of_cold_batches(max_bytes: int, partition_max_bytes: int, sizes: tuple[int, ...]) -> None:
    world = World()
    for partition in world.orders.partitions:
        world.shelve(partition, ONE, ONE)
    poll = world.start(asking((0, 0), (1, 0), (2, 0), max_bytes=max_bytes, partition_max_bytes=partition_max_bytes))
    await poll.wait()
    assert tuple(size_of(data) // len(ONE) for data in poll.partitions) == sizes


async def test_a_fetch_does_not_wait_for_memory_that_it_has_itself() -> None:
    """What it has no memory for is left to the next one."""
    world, large = World(partitions=20, cold_bytes=64 * 1024, pinned_max_bytes=500_000), batch(b"v" * 100_000)
    for partition in world.orders.partitions:
        world.shelve(partition, large)
    left, fetches = dict.fromkeys(range(20), 0), 0
    while left:
        poll = world.start(asking(*left.items(), max_bytes=8 << 20, partition_max_bytes=1 << 20))
        async with asyncio.timeout(5):
            while not poll.answers:
                await asyncio.sleep(0.01)
        served = [data.partition_index for data in poll.partitions if size_of(data)]
        assert served
        for number in served:
            del left[number]
        fetches += 1
    assert fetches < 10


async def test_giving_up_a_cold_read() -> None:
    world = World()
    world.log.add_commit(ONE, in_memory=False)
    poll = world.start(asking((0, 0)))
    poll.cancel()
    await asyncio.sleep(0.01)
    assert not poll.answers


# ---- sessions --------------------------------------------------------------------------------------------------


def opened(world: World, *wanted: tuple[int, int]) -> int:
    """A session on these partitions."""
    answer = world.start(asking(*wanted, session_epoch=0)).answer
    assert answer.session_id != 0
    return int(answer.session_id)


async def test_a_session_tells_what_changed() -> None:
    world = World()
    first, second, _ = world.orders.partitions
    session_id = opened(world, (0, 0), (1, 0))
    answer = world.start(asking(session_id=session_id, session_epoch=1)).answer
    assert (answer.session_id, answer.responses) == (session_id, [])
    world.append(second, ONE)
    (data,) = world.start(asking(session_id=session_id, session_epoch=2)).partitions
    assert (data.partition_index, size_of(data)) == (1, len(ONE))
    # The client has not moved on, so it is given the same again.
    (data,) = world.start(asking(session_id=session_id, session_epoch=3)).partitions
    assert size_of(data) == len(ONE)
    assert world.start(asking((1, 1), session_id=session_id, session_epoch=4)).answer.responses == []
    first.log_start = first.next_offset = 7
    (data,) = world.start(asking((0, 7), session_id=session_id, session_epoch=5)).partitions
    assert (data.partition_index, data.high_watermark, data.log_start_offset) == (0, 7, 7)


async def test_a_session_notices_what_becomes_of_a_partition_that_was_quiet() -> None:
    world = World()
    second = world.orders.partitions[1]
    session_id = opened(world, (0, 0), (1, 0), (2, 0))
    assert world.start(asking(session_id=session_id, session_epoch=1)).answer.responses == []
    second.log_start = second.next_offset = 5
    world.orders.deleted = True
    world.registry.remove(world.orders)
    answer = world.start(asking(session_id=session_id, session_epoch=2)).answer
    (found,) = answer.responses
    assert [(data.partition_index, data.error_code) for data in found.partitions] == [
        (index, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION) for index in range(3)
    ]
    world.orders.deleted = False
    world.registry.add(world.orders)
    answer = world.start(asking(session_id=session_id, session_epoch=3)).answer
    assert [data.error_code for data in answer.responses[0].partitions] == [NONE, RANGE, NONE]


async def test_a_session_that_knew_a_topic_is_told_that_it_is_gone() -> None:
    world = World()
    orders = world.orders.topic_id
    answer = world.start(asking((0, 0), topic=orders, session_epoch=0), version=13).answer
    world.orders.deleted = True
    world.registry.remove(world.orders)
    for epoch in (1, 2):
        (data,) = world.start(asking(session_id=answer.session_id, session_epoch=epoch), version=13).partitions
        assert data.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    (data,) = world.start(asking((0, 0), topic=orders, max_wait_ms=0), version=13).partitions
    assert data.error_code == ErrorCode.UNKNOWN_TOPIC_ID


async def test_a_session_notices_that_its_client_knows_another_epoch_now() -> None:
    world = World()
    session_id = opened(world, (0, 0))
    request = asking((0, 0), session_id=session_id, session_epoch=1, current_leader_epoch=3)
    (data,) = world.start(request).partitions
    assert data.error_code == ErrorCode.UNKNOWN_LEADER_EPOCH


async def test_partitions_of_a_session_take_turns() -> None:
    world = World()
    for partition in world.orders.partitions:
        world.append(partition, ONE, ONE)
    session_id = opened(world, (0, 2), (1, 2), (2, 2))
    room = {"session_id": session_id, "max_bytes": 2 * len(ONE), "partition_max_bytes": 2 * len(ONE)}
    request = asking((0, 0), (1, 0), (2, 0), session_epoch=1, **room)
    served = [data.partition_index for data in world.start(request).partitions if data.records]
    for epoch in (2, 3, 4):
        answer = world.start(asking(session_epoch=epoch, **room))
        served += [data.partition_index for data in answer.partitions if data.records]
    assert served == [0, 1, 2, 0]


async def test_a_session_wakes_for_partitions_it_was_not_asked_about_again() -> None:
    world = World()
    session_id = opened(world, (0, 0), (1, 0))
    poll = world.start(asking(session_id=session_id, session_epoch=1, max_wait_ms=60_000))
    world.append(world.orders.partitions[1], ONE)
    await poll.wait()
    assert [data.partition_index for data in poll.partitions] == [1]


async def test_errors_are_told_until_they_are_gone() -> None:
    world = World()
    session_id = opened(world, (0, 99), (1, 0))
    for epoch in (1, 2):
        (data,) = world.start(asking(session_id=session_id, session_epoch=epoch)).partitions
        assert data.error_code == RANGE
    (data,) = world.start(asking((0, 0), session_id=session_id, session_epoch=3)).partitions
    assert (data.error_code, data.high_watermark) == (NONE, 0)


async def test_partitions_are_forgotten() -> None:
    world = World()
    session_id = opened(world, (0, 0), (1, 0))
    world.append(world.orders.partitions[0], ONE)
    answer = world.start(asking(session_id=session_id, session_epoch=1, forgotten=(0,))).answer
    assert answer.responses == []


@pytest.mark.parametrize(
    ("session_id", "epoch", "error"),
    [
        (None, 2, ErrorCode.INVALID_FETCH_SESSION_EPOCH),
        (None, 7, ErrorCode.INVALID_FETCH_SESSION_EPOCH),
        (4711, 1, ErrorCode.FETCH_SESSION_ID_NOT_FOUND),
        (0, 1, ErrorCode.FETCH_SESSION_ID_NOT_FOUND),
    ],
)
async def test_a_session_out_of_step(session_id: int | None, epoch: int, error: ErrorCode) -> None:
    world = World()
    known = opened(world, (0, 0))
    request = asking((0, 0), session_id=known if session_id is None else session_id, session_epoch=epoch)
    answer = world.start(request).answer
    assert (answer.error_code, answer.session_id, answer.responses) == (error, 0, [])


async def test_names_and_ids_do_not_mix_in_a_session() -> None:
    world = World()
    session_id = opened(world, (0, 0))
    request = asking((0, 0), topic=world.orders.topic_id, session_id=session_id, session_epoch=1)
    assert world.start(request, version=13).answer.error_code == ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR


async def test_a_session_ends() -> None:
    world = World()
    session_id = opened(world, (0, 0))
    answer = world.start(asking((0, 0), session_id=session_id, session_epoch=-1)).answer
    assert (answer.session_id, len(world.sessions)) == (0, 0)
    assert len(answer.responses) == 1
    world.start(asking((0, 0), session_id=opened(world, (0, 0)), session_epoch=0))
    assert len(world.sessions) == 1, "beginning anew ends the old one"


async def test_sessions_in_use_are_not_pushed_out() -> None:
    world = World(slots=2)
    first, second = opened(world, (0, 0)), opened(world, (1, 0))
    assert world.start(asking((2, 0), session_epoch=0)).answer.session_id == 0
    world.clock.time_ms += MIN_EVICTION_MS
    world.start(asking(session_id=first, session_epoch=1))
    assert opened(world, (2, 0)) not in (first, second)
    assert world.start(asking(session_id=first, session_epoch=2)).answer.error_code == NONE
    gone = world.start(asking(session_id=second, session_epoch=1)).answer
    assert gone.error_code == ErrorCode.FETCH_SESSION_ID_NOT_FOUND


async def test_no_slots_means_no_sessions() -> None:
    assert World(slots=0).start(asking((0, 0), session_epoch=0)).answer.session_id == 0


async def test_the_epoch_wraps() -> None:
    world = World()
    session_id = opened(world, (0, 0))
    session = world.sessions._sessions[session_id]
    session.epoch = 0x7FFFFFFF
    assert world.start(asking(session_id=session_id, session_epoch=0x7FFFFFFF)).answer.error_code == NONE
    assert world.start(asking(session_id=session_id, session_epoch=1)).answer.error_code == NONE


# ---- found by the comparison with Apache Kafka -----------------------------------------------------------------


async def test_a_client_that_fetched_more_than_there_is_learns_where_the_epoch_ends() -> None:
    world = World()
    world.append(world.orders.partitions[0], ONE)
    poll = world.start(asking((0, 4), last_fetched_epoch=0, max_wait_ms=60_000, session_epoch=0))
    (data,) = poll.partitions
    assert (data.error_code, data.high_watermark, data.log_start_offset, data.records) == (NONE, 1, 0, b"")
    assert (data.diverging_epoch.epoch, data.diverging_epoch.end_offset) == (0, 1)
    again = world.start(asking(session_id=poll.answer.session_id, session_epoch=1, max_wait_ms=60_000))
    assert [one.diverging_epoch.end_offset for one in again.partitions] == [1]


async def test_a_partition_named_twice_counts_once_as_it_was_named_last() -> None:
    world = World()
    world.append(world.orders.partitions[0], ONE, ONE)
    for epoch in (-1, 0):
        (data,) = world.start(asking((0, 0), (0, 1), session_epoch=epoch)).partitions
        assert size_of(data) == len(ONE)


async def test_partitions_with_errors_have_an_empty_list_of_aborted_transactions() -> None:
    (data,) = World().start(asking((7, 0))).partitions
    assert (data.error_code, data.aborted_transactions) == (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, [])


async def test_a_session_begins_empty_and_ends_with_its_last_partition() -> None:
    world = World()
    session_id = world.start(asking(session_epoch=0)).answer.session_id
    assert session_id != 0
    more = world.start(asking((0, 0), session_id=session_id, session_epoch=1))
    assert (more.answer.session_id, len(more.partitions)) == (session_id, 1)
    left = world.start(asking(session_id=session_id, session_epoch=2, forgotten=(0,)))
    assert (left.answer.error_code, left.answer.session_id, left.partitions) == (NONE, 0, [])
    gone = world.start(asking(session_id=session_id, session_epoch=3))
    assert gone.answer.error_code == ErrorCode.FETCH_SESSION_ID_NOT_FOUND


# ---- many partitions -----------------------------------------------------------------------------------------


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two partitions are many."""
    monkeypatch.setattr("penstock.log.fetch.LONG_PARTITIONS", 1)
    monkeypatch.setattr("penstock.log.fetch.LOOKED_AT_ONCE", 1)


async def test_others_have_their_turn_while_it_is_looked_at_many_partitions(slowly: None) -> None:
    world = World()
    world.append(world.orders.partitions[0], ONE)
    poll = world.start(asking((0, 0), (1, 0), (2, 0)))
    assert poll.answers == []
    await asyncio.sleep(0)
    assert poll.answers == []
    await poll.wait()
    assert [size_of(data) for data in poll.partitions] == [len(ONE), 0, 0]


async def test_limits_of_bytes_count_for_all_of_many_partitions(slowly: None) -> None:
    world = World()
    for partition in world.orders.partitions:
        world.append(partition, ONE, ONE)
    poll = world.start(asking((0, 0), (1, 0), (2, 0), max_bytes=3 * len(ONE)))
    await poll.wait()
    assert [size_of(data) // len(ONE) for data in poll.partitions] == [2, 1, 0]


@pytest.mark.parametrize("turns", range(8))
async def test_nothing_is_missed_that_comes_while_it_is_looked_at_many_partitions(slowly: None, turns: int) -> None:
    """Nor is anything told twice."""
    world = World()
    poll = world.start(asking((0, 0), (1, 0), (2, 0), max_wait_ms=60_000))
    for _ in range(turns):
        await asyncio.sleep(0)
    world.append(world.orders.partitions[1], ONE)
    await poll.wait()
    assert [size_of(data) for data in poll.partitions] == [0, len(ONE), 0]
    for _ in range(8):
        await asyncio.sleep(0)
    assert len(poll.answers) == 1
    assert not any(partition.waiters for partition in world.orders.partitions)


@pytest.mark.parametrize("turns", range(6))
async def test_who_hangs_up_while_it_is_looked_at_many_partitions(slowly: None, turns: int) -> None:
    world = World()
    poll = world.start(asking((0, 0), (1, 0), (2, 0), max_wait_ms=60_000))
    for _ in range(turns):
        await asyncio.sleep(0)
    poll.cancel()
    world.append(world.orders.partitions[1], ONE)
    for _ in range(8):
        await asyncio.sleep(0)
    assert poll.answers == []
    assert not any(partition.waiters for partition in world.orders.partitions)
