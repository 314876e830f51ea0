"""ListOffsets, OffsetForLeaderEpoch and DeleteRecords on the wire."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fixtures.wire import Wire, batch

from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import delete_records, list_offsets, offset_for_leader_epoch

BASE = 1_700_000_000_000


@pytest.fixture
def stamped(wire: Wire, topic: str) -> str:
    """Offsets 0-5 at BASE + 100, 300, 200 | 500, 400, 600: not in order, in two batches."""
    for stamps in ((100, 300, 200), (500, 400, 600)):
        times = [BASE + stamp for stamp in stamps]
        assert wire.produce(topic, batch(b"a", b"b", b"c", timestamps=times)).error_code == 0
    return topic


@pytest.mark.parametrize("version", range(1, 12))
def test_ends(wire: Wire, stamped: str, version: int) -> None:
    end = wire.list_offset(stamped, -1, version=version)
    start = wire.list_offset(stamped, -2, version=version)
    assert (end.error_code, end.offset, end.timestamp) == (0, 6, -1)
    assert (start.error_code, start.offset, start.timestamp) == (0, 0, -1)


def test_end_for_read_committed_is_the_last_stable_offset(wire: Wire, stamped: str) -> None:
    assert wire.list_offset(stamped, -1, isolation=1).offset == 6


@pytest.mark.parametrize(
    ("time", "offset", "found"),
    [
        (0, 0, 100),
        (100, 0, 100),
        (101, 1, 300),
        (200, 1, 300),
        (300, 1, 300),
        (301, 3, 500),
        (401, 3, 500),
        (501, 5, 600),
    ],
)
def test_lowest_offset_with_a_timestamp_at_or_after(
    wire: Wire, stamped: str, time: int, offset: int, found: int
) -> None:
    answer = wire.list_offset(stamped, BASE + time)
    assert (answer.error_code, answer.offset, answer.timestamp) == (0, offset, BASE + found)


def test_past_the_newest_timestamp_is_no_error(wire: Wire, stamped: str) -> None:
    answer = wire.list_offset(stamped, BASE + 601)
    assert (answer.error_code, answer.offset, answer.timestamp) == (0, -1, -1)


def test_maximum_timestamp(wire: Wire, stamped: str, fresh_name: Callable[..., str]) -> None:
    newest = wire.list_offset(stamped, -3, version=7)
    assert (newest.error_code, newest.offset, newest.timestamp) == (0, 5, BASE + 600)
    empty = fresh_name()
    wire.create_topic(empty)
    nothing = wire.list_offset(empty, -3, version=7)
    assert (nothing.error_code, nothing.offset, nothing.timestamp) == (0, -1, -1)


def test_tiers(wire: Wire, stamped: str) -> None:
    local = wire.list_offset(stamped, -4, version=8)
    assert (local.error_code, local.offset) == (0, 0)
    tiered = wire.list_offset(stamped, -5, version=9)
    assert (tiered.error_code, tiered.offset, tiered.leader_epoch) == (0, -1, -1)
    pending = wire.list_offset(stamped, -6, version=11)
    assert (pending.error_code, pending.offset) == (0, -1)


@pytest.mark.parametrize(("timestamp", "version"), [(-3, 6), (-4, 7), (-5, 8), (-6, 10), (-7, 11), (-(2**62), 9)])
def test_special_timestamps_below_their_version(wire: Wire, stamped: str, timestamp: int, version: int) -> None:
    assert wire.list_offset(stamped, timestamp, version=version).error_code == ErrorCode.UNSUPPORTED_VERSION


def test_unknown_partition_and_epochs(wire: Wire, stamped: str, fresh_name: Callable[..., str]) -> None:
    assert wire.list_offset(fresh_name(), -1).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert wire.list_offset(stamped, -1, partition=9).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    epoch = wire.metadata([stamped]).topics[0].partitions[0].leader_epoch
    assert wire.list_offset(stamped, -1, epoch=epoch).leader_epoch == epoch
    assert wire.list_offset(stamped, -1, epoch=epoch + 1).error_code == ErrorCode.UNKNOWN_LEADER_EPOCH


def test_partition_asked_twice(wire: Wire, stamped: str) -> None:
    twice = [list_offsets.ListOffsetsPartition(partition_index=0, timestamp=-1)] * 2
    request = list_offsets.ListOffsetsRequest(
        replica_id=-1, topics=[list_offsets.ListOffsetsTopic(name=stamped, partitions=twice)]
    )
    partitions = wire.call(ApiKey.LIST_OFFSETS, 7, request).topics[0].partitions
    assert {partition.error_code for partition in partitions} == {ErrorCode.INVALID_REQUEST}


@pytest.mark.parametrize("version", [2, 3, 4])
def test_end_of_a_leader_epoch(wire: Wire, stamped: str, version: int) -> None:
    current = wire.metadata([stamped]).topics[0].partitions[0].leader_epoch

    def ask(epoch: int, known: int = -1) -> tuple[int, int, int]:
        asked = offset_for_leader_epoch.OffsetForLeaderPartition(
            partition=0, leader_epoch=epoch, current_leader_epoch=known
        )
        request = offset_for_leader_epoch.OffsetForLeaderEpochRequest(
            topics=[offset_for_leader_epoch.OffsetForLeaderTopic(topic=stamped, partitions=[asked])]
        )
        answer = wire.call(ApiKey.OFFSET_FOR_LEADER_EPOCH, version, request).topics[0].partitions[0]
        return answer.error_code, answer.leader_epoch, answer.end_offset

    assert ask(current) == (0, current, 6)
    assert ask(current + 1) == (0, -1, -1)
    assert ask(-1) == (0, -1, -1)
    assert ask(current, known=current + 5)[0] == ErrorCode.UNKNOWN_LEADER_EPOCH


@pytest.mark.parametrize("version", [0, 1, 2])
def test_delete_records(wire: Wire, stamped: str, version: int) -> None:
    def trim(offset: int, partition: int = 0) -> tuple[int, int]:
        wanted = delete_records.DeleteRecordsPartition(partition_index=partition, offset=offset)
        request = delete_records.DeleteRecordsRequest(
            topics=[delete_records.DeleteRecordsTopic(name=stamped, partitions=[wanted])], timeout_ms=20_000
        )
        answer = wire.call(ApiKey.DELETE_RECORDS, version, request).topics[0].partitions[0]
        return answer.error_code, answer.low_watermark

    assert trim(2) == (0, 2)
    assert trim(1) == (0, 2), "lower than the start changes nothing"
    assert trim(7)[0] == ErrorCode.OFFSET_OUT_OF_RANGE
    assert trim(0, partition=9)[0] == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert wire.list_offset(stamped, -2).offset == 2
    # Offset 1 is gone, the next record at or after its time is offset 3.
    assert wire.list_offset(stamped, BASE + 250).offset == 3
    assert trim(-1) == (0, 6), "-1 is the high watermark"
    assert wire.list_offset(stamped, -2).offset == wire.list_offset(stamped, -1).offset == 6
    assert wire.produce(stamped, batch(b"next")).base_offset == 6
