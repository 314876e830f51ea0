"""Transactions over a restart of the process, with either kind of metadata."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures.server import Server
from fixtures.wire import Wire, batch

from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import txn_offset_commit as committing
from penstock.wire.messages.delete_groups import DeleteGroupsRequest
from penstock.wire.messages.delete_topics import DeleteTopicsRequest
from penstock.wire.messages.describe_transactions import DescribeTransactionsRequest
from penstock.wire.messages.end_txn import EndTxnRequest
from penstock.wire.messages.init_producer_id import InitProducerIdRequest


@pytest.fixture(params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """A broker."""
    environment = {}
    if request.param == "postgresql":
        environment["PENSTOCK_METADATA"] = request.getfixturevalue("postgres_dsn")
    server = Server(tmp_path, environment=environment)
    server.start()
    yield server
    if server.running:
        server.kill()


class Producer:
    """A transactional producer of version 2, request by request."""

    def __init__(self, name: str) -> None:
        self.name, self.id, self.epoch, self.sequence = name, -1, -1, 0

    def init(self, wire: Wire) -> None:
        request = InitProducerIdRequest(transactional_id=self.name, transaction_timeout_ms=60_000)
        answer = wire.call(ApiKey.INIT_PRODUCER_ID, 5, request)
        assert answer.error_code == 0
        self.id, self.epoch, self.sequence = answer.producer_id, answer.producer_epoch, 0

    def send(self, wire: Wire, topic: bytes, value: bytes) -> int:
        data = batch(
            value, producer_id=self.id, producer_epoch=self.epoch, base_sequence=self.sequence, is_transactional=True
        )
        self.sequence += 1
        return int(wire.produce(topic, data, transactional_id=self.name).error_code)

    def send_offset(self, wire: Wire, group: str, topic: str, offset: int) -> int:
        partition = committing.TxnOffsetCommitRequestPartition(partition_index=0, committed_offset=offset)
        request = committing.TxnOffsetCommitRequest(
            transactional_id=self.name, group_id=group, producer_id=self.id, producer_epoch=self.epoch,
            topics=[committing.TxnOffsetCommitRequestTopic(name=topic, partitions=[partition])],
        )  # fmt: skip
        return int(wire.call(ApiKey.TXN_OFFSET_COMMIT, 5, request).topics[0].partitions[0].error_code)

    def end(self, wire: Wire, *, commit: bool) -> int:
        request = EndTxnRequest(
            transactional_id=self.name, producer_id=self.id, producer_epoch=self.epoch, committed=commit
        )
        answer = wire.call(ApiKey.END_TXN, 5, request)
        if answer.error_code == 0:
            self.id, self.epoch, self.sequence = answer.producer_id, answer.producer_epoch, 0
        return int(answer.error_code)


def stable_offset(wire: Wire, topic: str) -> int:
    return int(wire.fetch(topic, isolation_level=1).last_stable_offset)


def delete_topic(wire: Wire, name: str) -> None:
    request = DeleteTopicsRequest(topic_names=[name], timeout_ms=10_000)
    assert wire.call(ApiKey.DELETE_TOPICS, 5, request).responses[0].error_code == 0


def test_an_open_transaction_goes_on_after_a_restart(server: Server) -> None:
    one, other = Producer("one"), Producer("other")
    with Wire(server.bootstrap) as wire:
        orders = wire.create_topic("orders")
        for producer in (one, other):
            producer.init(wire)
            assert producer.send(wire, orders, producer.name.encode()) == 0
        assert one.send_offset(wire, "group", "orders", 3) == 0
    server.kill()
    server.start()
    with Wire(server.bootstrap) as wire:
        assert stable_offset(wire, "orders") == 0
        assert one.sequence == 1
        assert other.end(wire, commit=False) == 0
        assert one.send(wire, orders, b"more") == 0
        assert one.end(wire, commit=True) == 0
        assert stable_offset(wire, "orders") == 5
        assert wire.committed("group", [("orders", 0)]) == {("orders", 0): 3}
    server.kill()
    server.start()
    with Wire(server.bootstrap) as wire:
        assert one.end(wire, commit=True) == ErrorCode.INVALID_TXN_STATE
        assert one.end(wire, commit=False) == 0
        assert server.stop() == 0


def test_offsets_are_there_after_each_kill(server: Server) -> None:
    """Whatever was answered last before it: offsets, an end, or the deletion of their group."""
    one, places = Producer("one"), [("orders", 0)]
    with Wire(server.bootstrap) as wire:
        orders = wire.create_topic("orders")
        one.init(wire)
        for offset in range(3):
            assert one.send_offset(wire, "group", "orders", offset) == 0
    server.kill()
    server.start()
    with Wire(server.bootstrap) as wire:
        assert wire.committed("group", places) == {("orders", 0): -1}
        assert one.send(wire, orders, b"a") == 0
        assert one.end(wire, commit=True) == 0
        assert wire.committed("group", places) == {("orders", 0): 2}
        for offset in (5, 6):
            assert one.send(wire, orders, b"b") == 0
            assert one.send_offset(wire, "group", "orders", offset) == 0
            assert one.end(wire, commit=offset == 5) == 0
        assert one.send_offset(wire, "group", "orders", 7) == 0
    server.kill()
    server.start()
    with Wire(server.bootstrap) as wire:
        assert wire.committed("group", places) == {("orders", 0): 5}
        assert one.send_offset(wire, "group", "orders", 8) == 0
        deleted = wire.call(ApiKey.DELETE_GROUPS, 2, DeleteGroupsRequest(groups_names=["group"]))
        assert deleted.results[0].error_code == 0
        assert one.end(wire, commit=True) == 0
    server.kill()
    server.start()
    with Wire(server.bootstrap) as wire:
        assert wire.committed("group", places) == {("orders", 0): -1}
        assert server.stop() == 0


def test_offsets_alone_are_a_transaction_that_outlives_a_restart(server: Server) -> None:
    one = Producer("one")
    with Wire(server.bootstrap) as wire:
        wire.create_topic("orders")
        one.init(wire)
        assert one.send_offset(wire, "group", "orders", 3) == 0
    server.kill()
    server.start()
    with Wire(server.bootstrap) as wire:
        described = wire.call(ApiKey.DESCRIBE_TRANSACTIONS, 0, DescribeTransactionsRequest(transactional_ids=["one"]))
        assert described.transaction_states[0].transaction_state == "Ongoing"
        assert described.transaction_states[0].transaction_start_time_ms > 0
        assert one.end(wire, commit=True) == 0
        assert wire.committed("group", [("orders", 0)]) == {("orders", 0): 3}


@pytest.mark.parametrize("commit", [True, False])
def test_a_transaction_whose_only_topic_is_deleted_can_be_ended_after_a_restart(server: Server, commit: bool) -> None:
    one = Producer("one")
    with Wire(server.bootstrap) as wire:
        orders = wire.create_topic("orders")
        one.init(wire)
        assert one.send(wire, orders, b"a") == 0
        delete_topic(wire, "orders")
    server.kill()
    server.start()
    with Wire(server.bootstrap) as wire:
        assert one.end(wire, commit=commit) == 0
        assert one.end(wire, commit=True) == ErrorCode.INVALID_TXN_STATE
        assert server.stop() == 0
