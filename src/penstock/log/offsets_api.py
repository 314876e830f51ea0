"""Kafka's APIs about offsets: ListOffsets, OffsetForLeaderEpoch, DeleteRecords.

Log starts, high watermarks and last stable offsets are in memory. Only a look-up by timestamp reads the log; it is
injected as a function.
"""

from __future__ import annotations

from typing import NamedTuple

from penstock.base.context import RequestContext
from penstock.base.cooperative import CHEAP_ITEMS_PER_TURN, TurnBudget, build_dict, count_keys, yield_if_due
from penstock.base.errors import PlatformError
from penstock.log.admin.failures import admin_failure, read_failure
from penstock.log.model import LEADER_EPOCH, Partition
from penstock.log.registry import Registry
from penstock.log.timestamps import OffsetForTimestamp
from penstock.log.topics import Topics
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.delete_records import (
    DeleteRecordsPartitionResult,
    DeleteRecordsRequest,
    DeleteRecordsResponse,
    DeleteRecordsTopicResult,
)
from penstock.wire.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsPartitionResponse,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopicResponse,
)
from penstock.wire.messages.offset_for_leader_epoch import (
    EpochEndOffset,
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
    OffsetForLeaderPartition,
    OffsetForLeaderTopicResult,
)

NONE = -1
READ_COMMITTED = 1

LATEST = -1
EARLIEST = -2
MAX_TIMESTAMP = -3
EARLIEST_LOCAL = -4
LATEST_TIERED = -5
EARLIEST_PENDING_UPLOAD = -6
SINCE_VERSION = {
    LATEST: 1, EARLIEST: 1, MAX_TIMESTAMP: 7, EARLIEST_LOCAL: 8, LATEST_TIERED: 9, EARLIEST_PENDING_UPLOAD: 11,
}  # fmt: skip
"""The version from which a client may use each special timestamp."""

HIGH_WATERMARK = -1
"""Stands for the high watermark in DeleteRecords."""


class ListedOffset(NamedTuple):
    """The answer for one partition of ListOffsets."""

    offset: int = NONE
    timestamp: int = NONE
    leader_epoch: int = NONE


class LogOffsetHandlers:
    """Kafka's APIs about log starts, ends and epochs."""

    def __init__(self, topics: Topics, offset_for_timestamp: OffsetForTimestamp) -> None:
        self._topics = topics
        self._registry: Registry = topics.registry
        self._offset_for_timestamp = offset_for_timestamp

    async def list_offsets(self, context: RequestContext, request: ListOffsetsRequest) -> ListOffsetsResponse:
        """ListOffsets, key 2, v1-11. v2: isolation level. v4: leader epochs. v6: flexible. v7-9, v11: more special
        timestamps. v10: the client's time-out, which has no effect here."""
        seen = await count_keys(
            (topic.name, part.partition_index) for topic in request.topics for part in topic.partitions
        )
        committed = request.isolation_level == READ_COMMITTED
        response, budget = ListOffsetsResponse(), TurnBudget()
        for topic in request.topics:
            await budget.spend()
            results = []
            for wanted in topic.partitions:
                await budget.spend()
                index = wanted.partition_index
                result = ListOffsetsPartitionResponse(partition_index=index)
                partition = self._partition(context, topic.name, index)
                times = seen.pop((topic.name, index), 0)
                if times == 0:  # Refused, and answered already.
                    continue
                if times > 1:
                    result.error_code = ErrorCode.INVALID_REQUEST
                elif partition is None:
                    result.error_code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
                else:
                    await self._answer(context, partition, wanted, committed, result)
                results.append(result)
            if results:
                response.topics.append(ListOffsetsTopicResponse(name=topic.name, partitions=results))
        return response

    async def _answer(
        self, context: RequestContext, partition: Partition, wanted: ListOffsetsPartition, committed: bool,
        result: ListOffsetsPartitionResponse,
    ) -> None:  # fmt: skip
        time = wanted.timestamp
        if time < 0 and context.api_version < SINCE_VERSION.get(time, 2**15):
            result.error_code = ErrorCode.UNSUPPORTED_VERSION
            return
        result.error_code = epoch_error(wanted.current_leader_epoch)
        if result.error_code != ErrorCode.NONE:
            return
        try:
            found = await self._find(partition, time, committed)
        except PlatformError as error:
            result.error_code = read_failure(error)
            return
        result.offset, result.timestamp = found.offset, found.timestamp
        result.leader_epoch = found.leader_epoch if context.api_version >= 4 else NONE

    async def _find(self, partition: Partition, time: int, committed: bool) -> ListedOffset:
        end = partition.last_stable_offset if committed else partition.next_offset
        if time == LATEST:
            return ListedOffset(end, NONE, LEADER_EPOCH)
        if time in (EARLIEST, EARLIEST_LOCAL):
            return ListedOffset(partition.log_start, NONE, LEADER_EPOCH)
        if time in (LATEST_TIERED, EARLIEST_PENDING_UPLOAD):
            # There is one tier: no data is in another, and none waits to be moved.
            return ListedOffset()
        record = await self._offset_for_timestamp(partition, time, max_only=time == MAX_TIMESTAMP)
        if record is None or record[0] >= end:
            return ListedOffset()
        return ListedOffset(*record, LEADER_EPOCH)

    async def offset_for_leader_epoch(
        self, context: RequestContext, request: OffsetForLeaderEpochRequest
    ) -> OffsetForLeaderEpochResponse:
        """OffsetForLeaderEpoch, key 23, v2-4. v3: replica id. v4: flexible. The only epoch ends at the log end
        offset."""
        response, budget = OffsetForLeaderEpochResponse(), TurnBudget()
        for topic in request.topics:
            await budget.spend()
            results = []
            for wanted in topic.partitions:
                await budget.spend()
                results.append(self._epoch_end(context, topic.topic, wanted))
            response.topics.append(OffsetForLeaderTopicResult(topic=topic.topic, partitions=results))
        return response

    def _epoch_end(self, context: RequestContext, name: str, wanted: OffsetForLeaderPartition) -> EpochEndOffset:
        result = EpochEndOffset(partition=wanted.partition)
        partition = self._partition(context, name, wanted.partition)
        if partition is None:
            result.error_code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            return result
        result.error_code = epoch_error(wanted.current_leader_epoch)
        if result.error_code == ErrorCode.NONE and wanted.leader_epoch == LEADER_EPOCH:
            result.leader_epoch, result.end_offset = LEADER_EPOCH, partition.next_offset
        elif result.error_code == ErrorCode.NONE and wanted.leader_epoch < NONE:
            # An epoch before the first one ends where the first one began.
            result.leader_epoch, result.end_offset = wanted.leader_epoch, partition.log_start
        return result

    async def delete_records(self, context: RequestContext, request: DeleteRecordsRequest) -> DeleteRecordsResponse:
        """DeleteRecords, key 21, v0-2. v2: flexible. Topics that are only compacted cannot be trimmed."""
        response, budget = DeleteRecordsResponse(), TurnBudget()
        marks: dict[Partition, int] = {}
        trimmed: list[tuple[Partition, DeleteRecordsPartitionResult]] = []
        # Of a topic or a partition that is named twice the last one counts.
        topics = await build_dict(request.topics, lambda topic: (topic.name, topic))
        for topic in topics.values():
            await budget.spend()
            results = []
            partitions = await build_dict(topic.partitions, lambda wanted: (wanted.partition_index, wanted))
            for wanted in partitions.values():
                await budget.spend()
                result = DeleteRecordsPartitionResult(partition_index=wanted.partition_index, low_watermark=NONE)
                partition = self._partition(context, topic.name, wanted.partition_index)
                if partition is None:
                    result.error_code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
                elif partition.topic.config.compact and not partition.topic.config.delete:
                    result.error_code = ErrorCode.POLICY_VIOLATION
                else:
                    end = partition.next_offset
                    offset = end if wanted.offset == HIGH_WATERMARK else wanted.offset
                    if 0 <= offset <= end:
                        marks[partition] = offset
                        trimmed.append((partition, result))
                    else:
                        result.error_code = ErrorCode.OFFSET_OUT_OF_RANGE
                results.append(result)
            if results:
                response.topics.append(DeleteRecordsTopicResult(name=topic.name, partitions=results))
        await self._trim(context, marks, trimmed)
        return response

    async def _trim(
        self, context: RequestContext, marks: dict[Partition, int],
        trimmed: list[tuple[Partition, DeleteRecordsPartitionResult]],
    ) -> None:  # fmt: skip
        try:
            await self._topics.trim(context.cluster_id, marks)
        except PlatformError as error:
            code, _ = admin_failure(error)
            retriable = code is ErrorCode.NOT_CONTROLLER
            for number, (_, result) in enumerate(trimmed):
                await yield_if_due(number, CHEAP_ITEMS_PER_TURN)
                result.error_code = ErrorCode.NOT_LEADER_OR_FOLLOWER if retriable else code
            return
        for number, (partition, result) in enumerate(trimmed):
            await yield_if_due(number, CHEAP_ITEMS_PER_TURN)
            result.low_watermark = partition.log_start

    def _partition(self, context: RequestContext, name: str, index: int) -> Partition | None:
        topic = self._registry.by_name(context.cluster_id, name)
        return topic.partitions[index] if topic is not None and 0 <= index < len(topic.partitions) else None


def epoch_error(current_leader_epoch: int) -> ErrorCode:
    """The error for a client that has this leader epoch; -1: it has none."""
    if current_leader_epoch > LEADER_EPOCH:
        return ErrorCode.UNKNOWN_LEADER_EPOCH
    if current_leader_epoch in (NONE, LEADER_EPOCH):
        return ErrorCode.NONE
    return ErrorCode.FENCED_LEADER_EPOCH
