"""Requests and answers that take long to read, to look into or to write: nobody else waits for that."""

from __future__ import annotations

import asyncio
import time
from importlib import import_module
from typing import Any

import pytest
from agent_world import Client, turns
from wired_world import Gate, Wired, make_topic, others_are_answered, producing

from penstock.agent import long_requests
from penstock.base.context import DEFAULT_CLUSTER_ID, RequestContext
from penstock.log.topics import NewTopic
from penstock.wire import codec
from penstock.wire.api_keys import ApiKey
from penstock.wire.compression import Compression
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import produce
from penstock.wire.messages.api_versions import ApiVersionsRequest
from penstock.wire.messages.create_topics import CreatableTopic, CreatableTopicConfig, CreateTopicsRequest
from penstock.wire.messages.describe_groups import DescribeGroupsRequest
from penstock.wire.messages.fetch import FetchRequest
from penstock.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from penstock.wire.records import Record, build_batch

NOW_MS = time.time_ns() // 1_000_000


async def make_compacted_topic(wired: Wired, client: Client) -> None:
    """Its records are looked at."""
    config = CreatableTopicConfig(name="cleanup.policy", value="compact")
    topic = CreatableTopic(name="orders", num_partitions=1, replication_factor=1, configs=[config])
    answer = await wired.ask(client, ApiKey.CREATE_TOPICS, 5, CreateTopicsRequest(topics=[topic], timeout_ms=1000))
    assert not answer.topics[0].error_code


def full_of_zeros(size: int) -> bytes:
    """Two kilobytes that become many."""
    return build_batch([Record(0, NOW_MS, b"key", bytes(size))], compression=Compression.ZSTD)


@pytest.mark.parametrize("shape", ["first", "again", "with other acks", "several partitions"])
async def test_nobody_waits_while_it_is_looked_into_a_batch(wired: Wired, shape: str) -> None:
    """What is behind it on its connection does, so that batches are written in their order."""
    client = wired.connect()
    await make_compacted_topic(wired, client)
    gate = wired.agent.requests.produce.beside = Gate()
    small = producing("orders", acks=-1, data=build_batch([Record(0, NOW_MS, b"key", b"small")]))
    if shape == "again":
        await wired.ask(client, ApiKey.PRODUCE, 9, small)
    assert gate.works == 0, "small batches are looked into at once"
    bomb = producing("orders", acks=1 if shape == "with other acks" else -1, data=full_of_zeros(10_000_000))
    if shape == "several partitions":
        bomb.topic_data.append(
            produce.TopicProduceData(name="nothing", partition_data=small.topic_data[0].partition_data)
        )
    first = await wired.send(client, ApiKey.PRODUCE, 9, bomb)
    second = await wired.send(client, ApiKey.PRODUCE, 9, small)
    await others_are_answered(wired)
    assert gate.works == 1
    assert wired.agent.server.shared.pending_bytes() > 0, "what waits for it counts as memory"
    gate.open.set()
    before = int(shape == "again")
    for correlation_id, offset in ((first, before), (second, before + 1)):
        answer = await wired.receive(client, ApiKey.PRODUCE, 9, correlation_id)
        assert answer.responses[0].partition_responses[0].base_offset == offset
    assert wired.agent.server.shared.pending_bytes() == 0


async def test_who_hangs_up_while_it_is_looked_into_their_batch(wired: Wired) -> None:
    client = wired.connect()
    await make_compacted_topic(wired, client)
    gate = wired.agent.requests.produce.beside = Gate()
    await wired.send(client, ApiKey.PRODUCE, 9, producing("orders", acks=-1, data=full_of_zeros(10_000_000)))
    client.close()
    await turns(5)
    gate.open.set()
    await wired.agent.requests.produce.drain()
    other = wired.connect()
    answer = await wired.ask(
        other, ApiKey.PRODUCE, 9, producing("orders", acks=-1, data=build_batch([Record(0, NOW_MS, b"key", b"")]))
    )
    assert answer.responses[0].partition_responses[0].base_offset == 1, "what was sent is written"


async def test_a_batch_that_is_broken_is_refused_by_who_looks_into_it(wired: Wired) -> None:
    client = wired.connect()
    await make_compacted_topic(wired, client)
    gate = wired.agent.requests.produce.beside = Gate()
    gate.open.set()
    batch = build_batch([Record(0, NOW_MS, None, bytes(10_000_000))], compression=Compression.ZSTD)
    answer = await wired.ask(client, ApiKey.PRODUCE, 9, producing("orders", acks=-1, data=batch))
    (refused,) = answer.responses[0].partition_responses
    assert (refused.error_code, refused.record_errors[0].batch_index) == (ErrorCode.INVALID_RECORD, 0)
    assert gate.works == 1


def long_commit() -> OffsetCommitRequest:
    partitions = [OffsetCommitRequestPartition(partition_index=number, committed_offset=1) for number in range(5_000)]
    topics = [OffsetCommitRequestTopic(name="orders", partitions=partitions)]
    return OffsetCommitRequest(group_id="readers", member_id="", topics=topics)


async def test_nobody_waits_for_a_long_request_to_be_read(wired: Wired) -> None:
    client = wired.connect()
    await make_topic(wired, client)
    gate = wired.agent.requests.dispatcher.offload = Gate()
    first = await wired.send(client, ApiKey.OFFSET_COMMIT, 8, long_commit())
    second = await wired.send(client, ApiKey.API_VERSIONS, 0, ApiVersionsRequest())
    await others_are_answered(wired)
    assert gate.works == 1
    gate.open.set()
    answer = await wired.receive(client, ApiKey.OFFSET_COMMIT, 8, first)
    assert [one.error_code for one in answer.topics[0].partitions] == [0] + [3] * 4_999
    assert gate.works >= 2, "and its answer is written there, and forgotten"
    assert (await wired.receive(client, ApiKey.API_VERSIONS, 0, second)).error_code == 0


async def test_nobody_waits_for_a_long_fetch_to_be_read(wired: Wired) -> None:
    client = wired.connect()
    await make_topic(wired, client)
    gate = wired.agent.requests.dispatcher.offload = Gate()
    module = import_module("penstock.wire.messages.fetch")
    wanted = [module.FetchPartition(partition=number, partition_max_bytes=1) for number in range(3_000)]
    request = FetchRequest(session_epoch=-1, topics=[module.FetchTopic(topic="orders", partitions=wanted)])
    first = await wired.send(client, ApiKey.FETCH, 12, request)
    second = await wired.send(client, ApiKey.API_VERSIONS, 0, ApiVersionsRequest())
    await others_are_answered(wired)
    gate.open.set()
    answer = await wired.receive(client, ApiKey.FETCH, 12, first)
    assert len(answer.responses[0].partitions) == 3_000
    assert (await wired.receive(client, ApiKey.API_VERSIONS, 0, second)).error_code == 0


async def test_a_long_request_that_cannot_be_read_ends_its_connection(wired: Wired) -> None:
    client = wired.connect()
    frame = b"".join(bytes(part) for part in codec.encode_request(ApiKey.OFFSET_COMMIT, 8, 1, "c", long_commit()))
    await client.send((len(frame) - 104).to_bytes(4) + frame[4:-100])
    assert await client.is_closed()
    await others_are_answered(wired)


async def test_nobody_waits_for_many_things_in_few_bytes_to_be_read(wired: Wired) -> None:
    client = wired.connect()
    gate = wired.agent.requests.dispatcher.offload = Gate()
    groups = ["group"] * (long_requests.LONG_REQUEST_ELEMENTS + 1)
    first = await wired.send(client, ApiKey.DESCRIBE_GROUPS, 5, DescribeGroupsRequest(groups=groups))
    await others_are_answered(wired)
    assert gate.works == 1
    gate.open.set()
    assert len((await wired.receive(client, ApiKey.DESCRIBE_GROUPS, 5, first)).groups) == len(groups)
    works = gate.works
    assert (
        not (await wired.ask(client, ApiKey.DESCRIBE_GROUPS, 5, DescribeGroupsRequest(groups=["g"])))
        .groups[0]
        .error_code
    )
    assert gate.works == works, "what is short is read and answered at once"


def producing_many(partitions: int, *, acks: int = -1) -> produce.ProduceRequest:
    """To each of these partitions its number."""
    shares = [
        produce.PartitionProduceData(index=index, records=build_batch([Record(0, NOW_MS, None, b"%d" % index)]))
        for index in range(partitions)
    ]
    topic = produce.TopicProduceData(name="wide", partition_data=shares)
    return produce.ProduceRequest(transactional_id=None, acks=acks, timeout_ms=10_000, topic_data=[topic])


def ten_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_requests, "PRODUCED_AT_ONCE", 10)
    monkeypatch.setattr(long_requests, "SHORT_REQUEST_BYTES", 500)


async def make_wide_topic(wired: Wired, partitions: int) -> None:
    topic = NewTopic(name="wide", partition_count=partitions)
    await wired.agent.topics.create(DEFAULT_CLUSTER_ID, [topic])


def ends(wired: Wired) -> list[int]:
    """How many records each partition has."""
    topic = wired.agent.registry.by_name(DEFAULT_CLUSTER_ID, "wide")
    assert topic is not None
    return [partition.next_offset for partition in topic.partitions]


@pytest.mark.parametrize("version", [8, 9])
async def test_very_many_partitions_are_written_portion_by_portion(
    wired: Wired, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    ten_at_once(monkeypatch)
    await make_wide_topic(wired, 24)
    flushes: list[int] = []
    handle = wired.agent.requests.produce.handle

    def counting(context: RequestContext, request: produce.ProduceRequest, *rest: Any) -> None:
        flushes.append(sum(len(topic.partition_data) for topic in request.topic_data))
        handle(context, request, *rest)

    monkeypatch.setattr(wired.agent.requests.produce, "handle", counting)
    client, request = wired.connect(), producing_many(25)
    request.topic_data.append(producing("nothing", acks=-1).topic_data[0])
    first = await wired.send(client, ApiKey.PRODUCE, version, request)
    second = await wired.send(client, ApiKey.PRODUCE, version, producing("wide", acks=-1))
    wide, nothing = (await wired.receive(client, ApiKey.PRODUCE, version, first)).responses
    assert [one.index for one in wide.partition_responses] == list(range(25))
    assert [one.error_code for one in wide.partition_responses] == [0] * 24 + [ErrorCode.UNKNOWN_TOPIC_OR_PARTITION]
    assert [one.error_code for one in nothing.partition_responses] == [ErrorCode.UNKNOWN_TOPIC_OR_PARTITION]
    answer = await wired.receive(client, ApiKey.PRODUCE, version, second)
    assert answer.responses[0].partition_responses[0].base_offset == 1, "what is behind it is written after it"
    assert ends(wired) == [2] + [1] * 23
    assert flushes[:3] == [10, 10, 6]


async def test_a_partition_that_is_named_in_two_portions_is_written_once(
    wired: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    ten_at_once(monkeypatch)
    await make_wide_topic(wired, 12)
    request = producing_many(12)
    request.topic_data += producing_many(12).topic_data
    answer = await wired.ask(wired.connect(), ApiKey.PRODUCE, 9, request)
    assert [one.base_offset for one in answer.responses[0].partition_responses] == [0] * 12
    assert ends(wired) == [1] * 12


@pytest.mark.parametrize("acks", [0, 1])
async def test_who_hangs_up_while_very_many_partitions_are_written(
    wired: Wired, monkeypatch: pytest.MonkeyPatch, acks: int
) -> None:
    ten_at_once(monkeypatch)
    await make_wide_topic(wired, 40)
    client = wired.connect()
    gate = wired.agent.requests.dispatcher.offload = Gate()
    await wired.send(client, ApiKey.PRODUCE, 9, producing_many(40, acks=acks))
    client.close()
    await turns(5)
    gate.open.set()
    await wired.agent.requests.dispatcher.drain()
    assert ends(wired) == [1] * 40, "what was sent is written"


async def test_what_is_wrong_with_one_of_very_many_ends_the_connection_of_who_wants_no_answer(
    wired: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    ten_at_once(monkeypatch)
    await make_wide_topic(wired, 24)
    client = wired.connect()
    await wired.send(client, ApiKey.PRODUCE, 9, producing_many(24, acks=0))
    await others_are_answered(wired)
    await wired.agent.requests.dispatcher.drain()
    await wired.send(client, ApiKey.PRODUCE, 9, producing_many(25, acks=0))
    assert await client.is_closed()
    assert ends(wired) == [2] * 24


async def test_a_produce_request_of_very_many_that_cannot_be_read_ends_its_connection(
    wired: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    ten_at_once(monkeypatch)
    client = wired.connect()
    frame = b"".join(bytes(part) for part in codec.encode_request(ApiKey.PRODUCE, 8, 1, "c", producing_many(300)))
    await client.send((len(frame) - 104).to_bytes(4) + frame[4:-100])
    assert await client.is_closed()
    await others_are_answered(wired)


async def test_a_stop_does_not_wait_for_very_many_partitions_that_nobody_writes_any_more(
    wired: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    ten_at_once(monkeypatch)
    await make_wide_topic(wired, 24)

    def breaks(*args: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(wired.agent.log.commit_path, "commit_now", breaks)
    await wired.send(wired.connect(), ApiKey.PRODUCE, 9, producing_many(24, acks=0))
    while not wired.agent.log.writer.broken:
        await turns(1)
    await asyncio.wait_for(wired.agent.stop(), 5)
