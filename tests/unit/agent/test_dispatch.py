"""From frames to responses, over a whole agent in memory: the table of APIs, versions, and what ends a connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from agent_world import Client, turns
from wired_world import Wired, make_topic, producing

from penstock.agent.agent import Agent
from penstock.agent.apis import Api
from penstock.agent.main import _metrics
from penstock.agent.unserved import NOT_SERVED
from penstock.authorization.authorizer import Decision
from penstock.authorization.settings import STANDARD_AUTHORIZER
from penstock.base.acls import Acl, AclFilter, Operation, Permission, ResourceType
from penstock.base.context import ANONYMOUS, DEFAULT_CLUSTER_ID, RequestContext
from penstock.base.errors import Fenced
from penstock.base.options import UpOptions
from penstock.identity.model import Identity
from penstock.wire import codec
from penstock.wire.api_keys import FIRST_OWN_API, ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import alter_client_quotas as quotas
from penstock.wire.messages.api_versions import ApiVersionsRequest
from penstock.wire.messages.end_txn import EndTxnRequest
from penstock.wire.messages.fetch import FetchRequest
from penstock.wire.messages.index import APIS
from penstock.wire.messages.init_producer_id import InitProducerIdRequest

README = Path(__file__).parents[3] / "README.md"


@pytest.fixture
async def guarded() -> AsyncIterator[Wired]:
    """An agent that asks what one may do: with topics anything, to begin with."""
    settings = {"authorizer.class.name": STANDARD_AUTHORIZER}
    agent = Agent(UpOptions(data_dir=None, kafka_port=0, http_port=0, settings=settings))
    await agent.start()
    wired = Wired(agent)
    await agent.access.acls.create(DEFAULT_CLUSTER_ID, [rule("*", Operation.ALL)])
    yield wired
    await wired.close()


def rule(topic: str, operation: Operation = Operation.WRITE, permission: Permission = Permission.ALLOW) -> Acl:
    """For whoever does not say who it is."""
    return Acl(
        resource_type=ResourceType.TOPIC, resource_name=topic, principal=ANONYMOUS, operation=operation,
        permission=permission,
    )  # fmt: skip


def raw(key: int, version: int, body: bytes = b"", *, correlation_id: int = 7) -> bytes:
    """A request with the oldest header."""
    head = key.to_bytes(2) + version.to_bytes(2) + correlation_id.to_bytes(4) + b"\xff\xff"
    return (len(head) + len(body)).to_bytes(4) + head + body


def default_request(key: int) -> Any:
    """A request that asks for nothing in particular."""
    name = APIS[key][0]
    module = import_module(f"penstock.wire.messages.{name}")
    class_name = "".join(part.capitalize() for part in name.split("_")) + "Request"
    return getattr(module, class_name)


# ---- the table -------------------------------------------------------------------------------------------------


async def test_the_codec_knows_what_the_table_serves(wired: Wired) -> None:
    assert len(wired.table) >= 30
    for key, api in wired.table.items():
        assert isinstance(api, Api)
        known = codec.versions(key)
        assert api.versions.step == 1
        assert known.start <= api.versions.start < api.versions.stop <= known.stop, ApiKey(key).name
        if api.advertised_from is not None:
            assert api.advertised_from <= api.versions.start


async def test_what_is_not_served_is_explained(wired: Wired) -> None:
    """Of the APIs that clients can ask Apache Kafka's brokers for."""
    assert not NOT_SERVED.keys() & wired.table.keys(), "served, and yet explained away"
    unexplained = [key.name for key in ApiKey if codec.versions(key) and key not in wired.table.keys() | NOT_SERVED]
    assert not unexplained


async def test_the_readme_counts_them(wired: Wired) -> None:
    count = sum(key < FIRST_OWN_API for key in wired.table)
    assert f"[{count} APIs](docs/reference/protocol.md)" in README.read_text()


async def test_every_version_of_every_api_can_be_read_and_written(wired: Wired) -> None:
    for key, api in wired.table.items():
        request = default_request(key)
        for version in api.versions:
            frame = b"".join(bytes(part) for part in codec.encode_request(key, version, 1, "c", request()))
            header = codec.read_request_header(frame, 4)
            assert (header.api_key, header.api_version, header.client_id) == (key, version, "c")
            codec.read_request(key, version, frame, header.body)


async def test_no_default_request_is_a_bug(wired: Wired, caplog: pytest.LogCaptureFixture) -> None:
    """Each version gets an answer or the end of its connection; an exception that nobody foresaw would be logged."""
    answered = 0
    for key, api in wired.table.items():
        if key in (ApiKey.PRODUCE, ApiKey.JOIN_GROUP):
            continue  # Without acknowledgement, or waiting for members.
        for version in api.versions:
            client = wired.connect()
            await wired.send(client, key, version, default_request(key)())
            try:
                await client.receive(1)
                answered += 1
            except ConnectionResetError:
                continue
    assert answered > 100
    bugs = [record for record in caplog.records if record.exc_info]
    assert not bugs, bugs


# ---- versions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [6, 99, 32767])
async def test_an_unknown_version_of_api_versions_is_told_the_known_ones(wired: Wired, version: int) -> None:
    """KIP-511: in the form of version 0, with error 35 and the range of ApiVersions itself. The connection stays."""
    client = wired.connect()
    await client.send(raw(ApiKey.API_VERSIONS, version, b"\0whatever"))
    (frame,) = await client.receive(1)
    correlation_id, position = codec.read_response_header(ApiKey.API_VERSIONS, 0, frame, 0)
    answer = codec.read_response(ApiKey.API_VERSIONS, 0, frame, position)
    assert (correlation_id, answer.error_code) == (7, ErrorCode.UNSUPPORTED_VERSION)
    assert [(one.api_key, one.min_version, one.max_version) for one in answer.api_keys] == [(18, 0, 5)]
    served = await wired.ask(client, ApiKey.API_VERSIONS, 0, ApiVersionsRequest())
    assert {one.api_key for one in served.api_keys} == {key for key in wired.table if key < FIRST_OWN_API}


@pytest.mark.parametrize("version", range(6))
async def test_api_versions(wired: Wired, version: int) -> None:
    client = wired.connect()
    request = ApiVersionsRequest(client_software_name="apache-kafka-java", client_software_version="4.3.1")
    answer = await wired.ask(client, ApiKey.API_VERSIONS, version, request)
    assert answer.error_code == 0
    found = {one.api_key: (one.min_version, one.max_version) for one in answer.api_keys}
    kafkas = {key: api for key, api in wired.table.items() if key < FIRST_OWN_API}
    assert found.keys() == kafkas.keys()
    # KAFKA-18659: older librdkafka gives up unless Produce begins at 0, which it never sends.
    assert found[ApiKey.PRODUCE] == (0, 13)
    for key, api in kafkas.items():
        assert found[key][1] == api.versions.stop - 1


async def test_our_own_apis_are_told_to_our_own_client_only(wired: Wired) -> None:
    client = wired.connect()
    request = ApiVersionsRequest(client_software_name="penstock", client_software_version="1")
    answer = await wired.ask(client, ApiKey.API_VERSIONS, 4, request)
    assert {one.api_key for one in answer.api_keys} == set(wired.table)


@pytest.mark.parametrize("name", ["", "-java", "java-", "a b", "java/1", "jäva", "."])
async def test_software_names_are_checked(wired: Wired, name: str) -> None:
    client = wired.connect()
    request = ApiVersionsRequest(client_software_name=name, client_software_version="1")
    assert (await wired.ask(client, ApiKey.API_VERSIONS, 3, request)).error_code == ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize(
    ("key", "version"),
    [(ApiKey.PRODUCE, 2), (ApiKey.PRODUCE, 14), (ApiKey.FETCH, 3), (ApiKey.METADATA, 99), (4, 0), (777, 0), (-1, 0)],
)
async def test_what_is_not_served_ends_the_connection(wired: Wired, key: int, version: int) -> None:
    client = wired.connect()
    await client.send(raw(key & 0xFFFF, version))
    assert await client.is_closed()
    assert (await wired.ask(wired.connect(), ApiKey.API_VERSIONS, 0, ApiVersionsRequest())).error_code == 0


@pytest.mark.parametrize("frame", [b"\0", b"\0\x12", b"\0\x12\0\0\0\0\0", b"\0\x12\0\3\0\0\0\1\0\5ab"])
async def test_a_header_that_is_cut_ends_the_connection(wired: Wired, frame: bytes) -> None:
    client = wired.connect()
    await client.send(len(frame).to_bytes(4) + frame)
    assert await client.is_closed()


# ---- produce and fetch -------------------------------------------------------------------------------------------


async def test_nothing_is_answered_without_acknowledgement(wired: Wired) -> None:
    client = wired.connect()
    await make_topic(wired, client)
    for _ in range(3):
        await wired.send(client, ApiKey.PRODUCE, 9, producing("orders", acks=0))
    answer = await wired.ask(client, ApiKey.PRODUCE, 9, producing("orders", acks=1))
    assert answer.responses[0].partition_responses[0].base_offset == 3


class FullLog:
    """A log that has no room until it is told to."""

    def __init__(self) -> None:
        self.room = asyncio.Event()

    @property
    def is_short(self) -> bool:
        return not self.room.is_set()

    async def wait(self) -> None:
        await self.room.wait()


@pytest.mark.parametrize("acks", [0, -1])
async def test_a_request_behind_batches_finds_them_in_the_log(wired: Wired, acks: int) -> None:
    """As Kafka promises: requests of a connection are processed in the order in which they were sent."""
    client = wired.connect()
    await make_topic(wired, client)
    wired.agent.log.writer._room = full = FullLog()
    module = import_module("penstock.wire.messages.list_offsets")
    latest = module.ListOffsetsPartition(partition_index=0, timestamp=-1)
    topic = module.ListOffsetsTopic(name="orders", partitions=[latest])
    produced = await wired.send(client, ApiKey.PRODUCE, 9, producing("orders", acks=acks))
    asked = await wired.send(client, ApiKey.LIST_OFFSETS, 7, module.ListOffsetsRequest(replica_id=-1, topics=[topic]))
    following = await wired.send(client, ApiKey.PRODUCE, 9, producing("orders", acks=-1))
    await turns(10)
    full.room.set()
    if acks:
        await wired.receive(client, ApiKey.PRODUCE, 9, produced)
    answer = await wired.receive(client, ApiKey.LIST_OFFSETS, 7, asked)
    assert answer.topics[0].partitions[0].offset == 1
    answer = await wired.receive(client, ApiKey.PRODUCE, 9, following)
    assert answer.responses[0].partition_responses[0].base_offset == 1


@pytest.mark.parametrize("what", ["topic", "batch"])
async def test_a_failure_without_acknowledgement_ends_the_connection(wired: Wired, what: str) -> None:
    client = wired.connect()
    await make_topic(wired, client)
    bad = producing("nothing", acks=0) if what == "topic" else producing("orders", acks=0, data=b"x" * 100)
    await wired.send(client, ApiKey.PRODUCE, 9, bad)
    assert await client.is_closed()


async def limit(wired: Wired, key: str, value: float | None) -> None:
    """What everybody here may do from now on; None for anything."""
    entry = quotas.AlterClientQuotasRequestEntryData(
        entity=[quotas.AlterClientQuotasRequestEntityData(entity_type="client-id", entity_name="tester")],
        ops=[quotas.OpData(key=key, value=value or 0.0, remove=value is None)],
    )
    answer = await wired.ask(
        wired.connect(), ApiKey.ALTER_CLIENT_QUOTAS, 1, quotas.AlterClientQuotasRequest(entries=[entry])
    )
    assert answer.entries[0].error_code == 0


@pytest.mark.parametrize("acks", [1, -1])
async def test_a_limit_counts_for_the_very_next_request(wired: Wired, acks: int) -> None:
    """Also of a producer that sends the same again and again, whose requests are hardly looked at."""
    await make_topic(wired, wired.connect())

    async def told_ms(client: Client) -> int:
        answer = await wired.ask(client, ApiKey.PRODUCE, 9, producing("orders", acks=acks))
        assert answer.responses[0].partition_responses[0].error_code == 0
        return int(answer.throttle_time_ms)

    for _ in range(2):
        muted, other = wired.connect(), wired.connect()
        assert [await told_ms(client) for client in (muted, other, muted, other)] == [0, 0, 0, 0]
        await limit(wired, "producer_byte_rate", 10**12)
        assert [await told_ms(client) for client in (muted, other)] == [0, 0]
        await limit(wired, "producer_byte_rate", 1)
        assert await told_ms(muted) > 0
        await limit(wired, "producer_byte_rate", None)
        assert await told_ms(other) == 0


@pytest.mark.parametrize("known", [False, True])
async def test_the_time_of_a_produce_request_counts_for_the_next_one(wired: Wired, known: bool) -> None:
    """Whether it is read for the first time, or is like the one before it."""
    client = wired.connect()
    await make_topic(wired, client)

    async def told_ms() -> int:
        answer = await wired.ask(client, ApiKey.PRODUCE, 9, producing("orders", acks=1))
        return int(answer.throttle_time_ms)

    if known:
        assert await told_ms() == 0
    await limit(wired, "request_percentage", 1e-9)
    assert await told_ms() == 0
    assert 0 < await told_ms() <= 1_000


class Heard:
    """A listener of the authorizer's."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []

    def on_decision(self, context: RequestContext, decision: Decision) -> None:
        self.decisions.append(decision)


async def errors_of(wired: Wired, client: Client, *topics: str) -> list[int]:
    """What each of these requests is answered, one after the other."""
    answers = [await wired.ask(client, ApiKey.PRODUCE, 9, producing(topic, acks=1)) for topic in topics]
    return [answer.responses[0].partition_responses[0].error_code for answer in answers]


async def test_a_change_of_permissions_counts_for_the_very_next_request(guarded: Wired) -> None:
    """Of a producer that sends the same again and again. What is allowed is heard of once, what is denied each time."""
    client, denied = guarded.connect(), ErrorCode.TOPIC_AUTHORIZATION_FAILED
    await make_topic(guarded, client)
    acls, forbids = guarded.agent.access.acls, rule("orders", permission=Permission.DENY)
    authorizer, heard = guarded.agent.access.authorizer, Heard()
    assert authorizer is not None
    authorizer.listener = heard
    for _ in range(2):
        heard.decisions.clear()
        assert await errors_of(guarded, client, *["orders"] * 4) == [0] * 4
        await acls.create(DEFAULT_CLUSTER_ID, [forbids])
        assert await errors_of(guarded, client, *["orders"] * 3) == [denied] * 3
        await acls.delete(DEFAULT_CLUSTER_ID, [AclFilter(permission=Permission.DENY)])
        told = [one.verdict.allowed for one in heard.decisions if one.operation is Operation.WRITE]
        assert told == [True, False, False, False]
        # What was remembered is forgotten, so the next one is heard of again.


async def test_what_is_allowed_for_one_topic_says_nothing_of_another(guarded: Wired) -> None:
    client = guarded.connect()
    for topic in ("orders", "secret"):
        await make_topic(guarded, client, topic)
    await guarded.agent.access.acls.create(DEFAULT_CLUSTER_ID, [rule("secret", permission=Permission.DENY)])
    denied = ErrorCode.TOPIC_AUTHORIZATION_FAILED
    asked = ["orders", "orders", "secret", "secret", "orders", "secret", "orders", "orders"]
    assert await errors_of(guarded, client, *asked) == [denied if topic == "secret" else 0 for topic in asked]


async def test_nothing_is_remembered_of_a_connection_that_changes_hands(guarded: Wired) -> None:
    """The same request names something else in another virtual cluster, and is somebody else's there."""
    client = guarded.connect()
    (connection,) = guarded.agent.server._connections.values()
    await make_topic(guarded, client)
    assert await errors_of(guarded, client, "orders", "orders") == [0, 0]
    assert connection.repeated_produce is not None
    topic = guarded.agent.registry.by_name(DEFAULT_CLUSTER_ID, "orders")
    assert topic is not None
    for identity in (Identity(principal="User:other"), Identity(cluster_id=7)):
        connection.belongs_to(identity)
        assert await errors_of(guarded, client, "orders", "orders") == [ErrorCode.TOPIC_AUTHORIZATION_FAILED] * 2
    assert sum(partition.next_offset for partition in topic.partitions) == 2
    connection.belongs_to(Identity())
    assert await errors_of(guarded, client, "orders", "orders") == [0, 0]


async def test_a_fetch_that_waits_holds_what_is_behind_it(wired: Wired) -> None:
    client, other = wired.connect(), wired.connect()
    await make_topic(wired, client)
    module = import_module("penstock.wire.messages.fetch")
    wanted = module.FetchPartition(partition=0, fetch_offset=0, partition_max_bytes=1000)
    request = FetchRequest(
        max_wait_ms=30_000, min_bytes=1, max_bytes=1000, session_epoch=-1,
        topics=[module.FetchTopic(topic="orders", partitions=[wanted])],
    )  # fmt: skip
    first = await wired.send(client, ApiKey.FETCH, 12, request)
    second = await wired.send(client, ApiKey.API_VERSIONS, 0, ApiVersionsRequest())
    await asyncio.sleep(0.02)
    await wired.ask(other, ApiKey.PRODUCE, 9, producing("orders", acks=-1))
    fetched = await wired.receive(client, ApiKey.FETCH, 12, first)
    assert fetched.responses[0].partitions[0].high_watermark == 1
    assert (await wired.receive(client, ApiKey.API_VERSIONS, 0, second)).error_code == 0


async def test_who_hangs_up_while_waiting_leaves_nothing_behind(wired: Wired) -> None:
    client = wired.connect()
    await make_topic(wired, client)
    module = import_module("penstock.wire.messages.fetch")
    wanted = module.FetchPartition(partition=0, fetch_offset=0, partition_max_bytes=1000)
    request = FetchRequest(
        max_wait_ms=30_000, min_bytes=1, max_bytes=1000, session_epoch=-1,
        topics=[module.FetchTopic(topic="orders", partitions=[wanted])],
    )  # fmt: skip
    await wired.send(client, ApiKey.FETCH, 12, request)
    topic = wired.agent.registry.by_name(1, "orders")
    assert topic is not None
    assert len(topic.partitions[0].waiters) == 1
    client.close()
    await turns(5)
    assert not topic.partitions[0].waiters


async def test_an_agent_whose_log_was_taken_over_refuses_with_what_clients_retry(
    wired: Wired, caplog: pytest.LogCaptureFixture
) -> None:
    """Until it has stopped, as it is told to."""
    agent, told = wired.agent, list[str | None]()
    agent.on_broken = lambda: told.append(agent.why_not_ready)
    client = wired.connect()
    await make_topic(wired, client)
    initialising = InitProducerIdRequest(transactional_id="t", transaction_timeout_ms=60_000)
    assert (await wired.ask(client, ApiKey.INIT_PRODUCER_ID, 4, initialising)).error_code == 0
    assert (agent.ready, agent.has_failed, told) == (True, False, [])
    for _ in range(2):
        agent.log.writer.fence(Fenced("somebody else has it"))
    assert (agent.ready, agent.has_failed, told) == (False, True, ["somebody else has it"])
    for _ in range(2):
        answer = await wired.ask(client, ApiKey.PRODUCE, 9, producing("orders", acks=-1))
        (share,) = answer.responses[0].partition_responses
        assert (share.error_code, share.error_message) == (ErrorCode.NOT_LEADER_OR_FOLLOWER, "somebody else has it")
    refused = await wired.ask(client, ApiKey.INIT_PRODUCER_ID, 4, initialising)
    assert refused.error_code == ErrorCode.NOT_COORDINATOR
    assert agent.log.writer.pending_bytes == 0
    assert (b"penstock_fenced 1.0" in await _metrics(agent), caplog.text.count("somebody else")) == (True, 1)


async def test_a_transaction_ends_though_its_producer_hangs_up(wired: Wired) -> None:
    client = wired.connect()
    initialising = InitProducerIdRequest(transactional_id="t", transaction_timeout_ms=60_000)
    given = await wired.ask(client, ApiKey.INIT_PRODUCER_ID, 4, initialising)
    ending = EndTxnRequest(
        transactional_id="t", producer_id=given.producer_id, producer_epoch=given.producer_epoch, committed=False
    )
    ended = await wired.ask(client, ApiKey.END_TXN, 5, ending)
    assert (ended.error_code, ended.producer_epoch) == (0, given.producer_epoch + 1)
    ending.producer_epoch = ended.producer_epoch
    frame = codec.encode_request(ApiKey.END_TXN, 5, 9, "tester", ending)
    client.sock.sendall(b"".join(bytes(part) for part in frame))
    client.close()
    cell = wired.agent.transactions.cell((1, "t"))
    assert cell is not None
    while cell.txn.epoch == ended.producer_epoch:
        await turns(1)
    assert not wired.agent.log.writer.broken
