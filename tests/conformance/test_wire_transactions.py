"""Transactions on the wire: every rule of KIP-98, KIP-360 and KIP-890, for clients of both generations."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from fixtures.unusual_names import LONG
from fixtures.wire import Wire, batch, records_of

from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import add_partitions_to_txn as adding
from penstock.wire.messages import offset_commit, offset_delete, offset_fetch
from penstock.wire.messages import txn_offset_commit as committing
from penstock.wire.messages import write_txn_markers as marking
from penstock.wire.messages.add_offsets_to_txn import AddOffsetsToTxnRequest
from penstock.wire.messages.api_versions import ApiVersionsRequest
from penstock.wire.messages.delete_groups import DeleteGroupsRequest
from penstock.wire.messages.delete_topics import DeleteTopicsRequest
from penstock.wire.messages.describe_producers import DescribeProducersRequest, TopicRequest
from penstock.wire.messages.describe_transactions import DescribeTransactionsRequest
from penstock.wire.messages.end_txn import EndTxnRequest
from penstock.wire.messages.init_producer_id import InitProducerIdRequest
from penstock.wire.messages.list_transactions import ListTransactionsRequest
from penstock.wire.records import iter_batches

Connect = Callable[..., Wire]
E = ErrorCode


@dataclass
class Producer:
    """A transactional producer, request by request. Version 2 unless told otherwise."""

    wire: Wire
    name: str
    id: int = -1
    epoch: int = -1
    sequence: int = 0

    def init(self, *, version: int = 4, timeout_ms: int = 60_000, expected: bool = False) -> int:
        request = InitProducerIdRequest(
            transactional_id=self.name, transaction_timeout_ms=timeout_ms,
            producer_id=self.id if expected else -1, producer_epoch=self.epoch if expected else -1,
        )  # fmt: skip
        answer = self.wire.call(ApiKey.INIT_PRODUCER_ID, version, request)
        if answer.error_code == 0:
            self.id, self.epoch, self.sequence = answer.producer_id, answer.producer_epoch, 0
        return int(answer.error_code)

    def send(
        self, topic: str | bytes, *values: bytes, version: int = 13, partition: int = 0,
        timestamps: Sequence[int] | None = None,
    ) -> Any:  # fmt: skip
        data = batch(
            *values, timestamps=timestamps, producer_id=self.id, producer_epoch=self.epoch,
            base_sequence=self.sequence, is_transactional=True,
        )  # fmt: skip
        answer = self.wire.produce(topic, data, version=version, transactional_id=self.name, partition=partition)
        if answer.error_code == 0:
            self.sequence += len(values)
        return answer

    def end(self, *, commit: bool, version: int = 5) -> Any:
        request = EndTxnRequest(
            transactional_id=self.name, producer_id=self.id, producer_epoch=self.epoch, committed=commit
        )
        answer = self.wire.call(ApiKey.END_TXN, version, request)
        if answer.error_code == 0 and version >= 5:
            self.id, self.epoch, self.sequence = answer.producer_id, answer.producer_epoch, 0
        return answer

    def add(self, *places: tuple[str, int], version: int = 3) -> dict[tuple[str, int], int]:
        topics = [adding.AddPartitionsToTxnTopic(name=name, partitions=[index]) for name, index in places]
        request = adding.AddPartitionsToTxnRequest(
            v3_and_below_transactional_id=self.name, v3_and_below_producer_id=self.id,
            v3_and_below_producer_epoch=self.epoch, v3_and_below_topics=topics,
        )  # fmt: skip
        answer = self.wire.call(ApiKey.ADD_PARTITIONS_TO_TXN, version, request)
        return {
            (topic.name, result.partition_index): result.partition_error_code
            for topic in answer.results_by_topic_v3_and_below
            for result in topic.results_by_partition
        }

    def add_offsets(self, group: str, *, version: int = 3) -> int:
        request = AddOffsetsToTxnRequest(
            transactional_id=self.name, producer_id=self.id, producer_epoch=self.epoch, group_id=group
        )
        return int(self.wire.call(ApiKey.ADD_OFFSETS_TO_TXN, version, request).error_code)

    def commit_offset(
        self, group: str, topic: str | bytes, offset: int, *, version: int = 5, generation: int = -1, member: str = ""
    ) -> int:
        by_id = isinstance(topic, bytes)
        partition = committing.TxnOffsetCommitRequestPartition(partition_index=0, committed_offset=offset)
        asked = committing.TxnOffsetCommitRequestTopic(
            name="" if by_id else topic, topic_id=topic if by_id else b"\0" * 16, partitions=[partition]
        )
        request = committing.TxnOffsetCommitRequest(
            transactional_id=self.name, group_id=group, producer_id=self.id, producer_epoch=self.epoch,
            generation_id_or_member_epoch=generation, member_id=member, topics=[asked],
        )  # fmt: skip
        answer = self.wire.call(ApiKey.TXN_OFFSET_COMMIT, version, request)
        return int(answer.topics[0].partitions[0].error_code)


@pytest.fixture
def producer(wire: Wire, fresh_name: Callable[..., str]) -> Producer:
    """A producer that was just given its id."""
    one = Producer(wire, fresh_name())
    assert one.init() == 0
    return one


@pytest.fixture
def topic_id(wire: Wire, topic: str) -> bytes:
    """The id of the topic."""
    return bytes(wire.metadata([topic]).topics[0].topic_id)


def committed_values(wire: Wire, topic: str) -> list[bytes]:
    """What a reader of committed data is left with."""
    answer = wire.fetch(topic, isolation_level=1)
    aborted = sorted((one.first_offset, one.producer_id) for one in answer.aborted_transactions)
    values, gone = [], set[int]()
    view = memoryview(answer.records)
    for position, header in iter_batches(view):
        while aborted and aborted[0][0] <= header.base_offset:
            gone.add(aborted.pop(0)[1])
        if header.is_control:
            gone.discard(header.producer_id)
        elif not (header.is_transactional and header.producer_id in gone):
            values += [record.value for record in records_of(view[position : position + header.size_bytes])]
    return values


# ---- who owns an id ----------------------------------------------------------------------------------------------


def test_features_say_that_transactions_have_version_2(wire: Wire) -> None:
    request = ApiVersionsRequest(client_software_name="test", client_software_version="1")
    for version in (3, 4):
        answer = wire.call(ApiKey.API_VERSIONS, version, request)
        levels = {one.name: one.max_version_level for one in answer.finalized_features}
        assert levels["transaction.version"] == 2
        assert answer.finalized_features_epoch >= 0
        assert ("transaction.version" in {one.name for one in answer.supported_features}) == (version >= 4)


def test_ids_that_no_string_can_hold_close_the_connection(connect: Connect, fresh_name: Callable[..., str]) -> None:
    """Compact strings could be longer than those that come with an int16."""
    client, name = connect(), fresh_name()
    request = InitProducerIdRequest(transactional_id=name.ljust(32_768, "x"), transaction_timeout_ms=60_000)
    client.send(ApiKey.INIT_PRODUCER_ID, 4, request)
    assert client.is_closed_by_broker()
    assert Producer(connect(), name).init() == 0


def test_the_newest_record_may_be_the_end_of_a_transaction(producer: Producer, topic: str, topic_id: bytes) -> None:
    before_ms = int(time.time() * 1000) - 1_000  # Of two that are equally new it is the first.
    assert producer.send(topic_id, b"one", timestamps=[before_ms]).error_code == 0
    assert producer.end(commit=True).error_code == 0
    newest = producer.wire.list_offset(topic, -3)
    assert (newest.error_code, newest.offset) == (0, 1)
    assert producer.wire.list_offset(topic, newest.timestamp).offset == 1


def test_a_transaction_may_have_groups_with_long_ids(producer: Producer, topic: str) -> None:
    groups = [f"{number} {'é' * 11_000}" for number in range(3)]
    for number, group in enumerate(groups):
        assert producer.add_offsets(group) == 0
        assert producer.commit_offset(group, topic, number + 1, version=4) == 0
    assert producer.end(commit=True, version=3).error_code == 0
    assert [producer.wire.committed(group, [(topic, 0)]) for group in groups] == [
        {(topic, 0): number + 1} for number in range(len(groups))
    ]


def test_transactional_ids_and_groups_have_any_names(
    wire: Wire, topic: str, topic_id: bytes, fresh_name: Callable[..., str]
) -> None:
    """As long as a string can be, and with what PostgreSQL has no characters for."""
    name = fresh_name()
    long = (name + LONG)[:10_000]
    longest = (long + "\0").ljust(32_767 - (len(long.encode()) - len(long)), "x")
    assert len(longest.encode()) == 32_767
    odd = [name + "\0", long, longest]
    for number, one in enumerate(odd):
        producer = Producer(wire, one)
        assert producer.init(version=1) == 0
        assert producer.send(topic_id, b"%d" % number).error_code == 0
        assert producer.commit_offset(one, topic, number) == 0
        first = producer.id, producer.epoch
        assert producer.end(commit=True).error_code == 0
        assert wire.committed(one, [(topic, 0)]) == {(topic, 0): number}
        again = Producer(wire, one)
        assert again.init() == 0
        assert (again.id, again.epoch) == (first[0], first[1] + 2)
    assert committed_values(wire, topic) == [b"0", b"1", b"2"]
    described = wire.call(ApiKey.DESCRIBE_TRANSACTIONS, 0, DescribeTransactionsRequest(transactional_ids=odd))
    assert [(one.error_code, one.transactional_id) for one in described.transaction_states] == [(0, one) for one in odd]
    listed = wire.call(ApiKey.LIST_TRANSACTIONS, 1, ListTransactionsRequest())
    assert set(odd) <= {one.transactional_id for one in listed.transaction_states}


@pytest.mark.parametrize("version", range(6))
def test_every_initialisation_raises_the_epoch(wire: Wire, fresh_name: Callable[..., str], version: int) -> None:
    one = Producer(wire, fresh_name())
    assert one.init(version=version) == 0
    first = one.id
    assert (one.epoch, one.init(version=version)) == (0, 0)
    assert (one.id, one.epoch) == (first, 1)


def test_ids_and_time_outs_that_are_refused(wire: Wire) -> None:
    assert Producer(wire, "").init() == E.INVALID_REQUEST
    for timeout_ms in (0, -1, 900_001):
        assert Producer(wire, "x").init(timeout_ms=timeout_ms) == E.INVALID_TRANSACTION_TIMEOUT


@pytest.mark.parametrize(("version", "code"), [(3, E.INVALID_PRODUCER_EPOCH), (4, E.PRODUCER_FENCED)])
def test_a_stale_producer_does_not_get_the_id_back(producer: Producer, version: int, code: ErrorCode) -> None:
    stale = Producer(producer.wire, producer.name, producer.id, producer.epoch)
    assert producer.init() == 0
    assert producer.init() == 0
    assert stale.init(version=version, expected=True) == code


def test_an_initialisation_is_repeated_with_the_same_answer(producer: Producer) -> None:
    before = Producer(producer.wire, producer.name, producer.id, producer.epoch)
    assert producer.init(expected=True) == 0
    assert before.init(expected=True) == 0
    assert (before.id, before.epoch) == (producer.id, producer.epoch)


def test_a_new_producer_aborts_what_the_old_one_left(producer: Producer, topic: str, topic_id: bytes) -> None:
    assert producer.send(topic_id, b"left").error_code == 0
    zombie = Producer(producer.wire, producer.name, producer.id, producer.epoch, producer.sequence)
    assert producer.init() == 0
    assert producer.epoch > zombie.epoch
    assert zombie.send(topic_id, b"late").error_code == E.INVALID_PRODUCER_EPOCH
    assert zombie.end(commit=True).error_code == E.PRODUCER_FENCED
    assert zombie.end(commit=True, version=1).error_code == E.INVALID_PRODUCER_EPOCH
    assert committed_values(producer.wire, topic) == []
    assert producer.wire.list_offset(topic, -1, isolation=1).offset == 2


# ---- writing and ending ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [12, 13])
def test_version_2_from_end_to_end(producer: Producer, topic: str, topic_id: bytes, version: int) -> None:
    wire, name = producer.wire, topic_id if version >= 13 else topic
    first = (producer.id, producer.epoch)
    assert producer.send(name, b"a", b"b", version=version).base_offset == 0
    assert wire.list_offset(topic, -1, isolation=1).offset == 0
    assert wire.list_offset(topic, -1).offset == 2
    seen = wire.fetch(topic, isolation_level=1)
    assert (seen.high_watermark, seen.last_stable_offset, seen.aborted_transactions) == (2, 0, [])
    assert not seen.records
    assert wire.fetch(topic).aborted_transactions is None
    answer = producer.end(commit=True)
    assert (answer.error_code, answer.producer_id, answer.producer_epoch) == (0, first[0], first[1] + 1)
    assert committed_values(wire, topic) == [b"a", b"b"]
    assert wire.list_offset(topic, -1, isolation=1).offset == 3
    marker = [header for _, header in iter_batches(memoryview(wire.fetch(topic).records))][-1]
    assert (marker.base_offset, marker.is_control, marker.is_transactional) == (2, True, True)
    assert (marker.producer_epoch, marker.base_sequence) == (first[1] + 1, -1)


def test_aborted_batches_are_listed_where_they_are(producer: Producer, topic: str, topic_id: bytes) -> None:
    wire = producer.wire
    assert producer.send(topic_id, b"gone").error_code == 0
    assert producer.end(commit=False).error_code == 0
    assert producer.send(topic_id, b"kept").error_code == 0
    assert producer.end(commit=True).error_code == 0
    assert committed_values(wire, topic) == [b"kept"]
    answer = wire.fetch(topic, isolation_level=1)
    assert [(one.producer_id, one.first_offset) for one in answer.aborted_transactions] == [(producer.id, 0)]
    assert wire.fetch(topic, 2, isolation_level=1).aborted_transactions == []


def test_a_repeated_end_is_answered_the_same(producer: Producer, topic_id: bytes) -> None:
    before = Producer(producer.wire, producer.name, producer.id, producer.epoch)
    assert producer.send(topic_id, b"a").error_code == 0
    first = producer.end(commit=True)
    other = Producer(before.wire, before.name, before.id, before.epoch)
    assert other.end(commit=False).error_code == E.INVALID_TXN_STATE
    again = before.end(commit=True)
    assert (again.error_code, again.producer_epoch) == (0, first.producer_epoch)


def test_an_end_comes_after_what_was_sent_before_it(producer: Producer, topic: str, topic_id: bytes) -> None:
    """Nothing is waited for, and there is more than goes with one flush."""
    wire, values = producer.wire, [b"%d" % number for number in range(300)]
    sent = []
    for number, value in enumerate(values):
        data = batch(
            value, producer_id=producer.id, producer_epoch=producer.epoch, base_sequence=number, is_transactional=True
        )
        sent.append(wire.send_produce(topic_id, data, transactional_id=producer.name))
    request = EndTxnRequest(
        transactional_id=producer.name, producer_id=producer.id, producer_epoch=producer.epoch, committed=True
    )
    ending = wire.send(ApiKey.END_TXN, 5, request)
    for offset, (version, correlation_id) in enumerate(sent):
        (answer,) = wire.receive(ApiKey.PRODUCE, version, correlation_id).responses[0].partition_responses
        assert (answer.error_code, answer.base_offset) == (0, offset)
    assert wire.receive(ApiKey.END_TXN, 5, ending).error_code == 0
    assert committed_values(wire, topic) == values


def test_ends_of_nothing(producer: Producer) -> None:
    assert producer.end(commit=True).error_code == E.INVALID_TXN_STATE
    before = producer.epoch
    assert producer.end(commit=False).error_code == 0
    assert producer.epoch == before + 1
    unknown = Producer(producer.wire, producer.name + "-unknown", producer.id, producer.epoch)
    assert unknown.end(commit=True).error_code == E.INVALID_PRODUCER_ID_MAPPING


def test_version_1_from_end_to_end(producer: Producer, topic: str) -> None:
    wire, epoch = producer.wire, producer.epoch
    assert producer.send(topic, b"x", version=11).error_code == E.TRANSACTION_ABORTABLE
    assert producer.send(topic, b"x", version=9).error_code == E.INVALID_TXN_STATE
    for turn, commit in enumerate((True, False, True)):
        assert producer.add((topic, 0), version=turn) == {(topic, 0): 0}
        assert producer.send(topic, b"%d" % turn, version=9).error_code == 0
        assert producer.end(commit=commit, version=turn + 1).error_code == 0
    assert committed_values(wire, topic) == [b"0", b"2"]
    assert producer.end(commit=True, version=1).error_code == 0  # As it ended: a repetition.
    assert producer.end(commit=False, version=1).error_code == E.INVALID_TXN_STATE
    marker = [header for _, header in iter_batches(memoryview(wire.fetch(topic).records))][-1]
    assert marker.producer_epoch == epoch == producer.epoch


def test_adding_partitions(producer: Producer, topic: str, fresh_name: Callable[..., str]) -> None:
    unknown = fresh_name()
    assert producer.add((topic, 0), (unknown, 0)) == {
        (topic, 0): E.OPERATION_NOT_ATTEMPTED, (unknown, 0): E.UNKNOWN_TOPIC_OR_PARTITION
    }  # fmt: skip
    for version, code in ((1, E.INVALID_PRODUCER_EPOCH), (2, E.PRODUCER_FENCED)):
        stale = Producer(producer.wire, producer.name, producer.id, producer.epoch + 1)
        assert stale.add((topic, 0), version=version) == {(topic, 0): code}
    other = Producer(producer.wire, producer.name, producer.id + 77, producer.epoch)
    assert other.add((topic, 0)) == {(topic, 0): E.INVALID_PRODUCER_ID_MAPPING}
    assert producer.add((topic, 0)) == {(topic, 0): 0}
    assert producer.end(commit=True, version=3).error_code == 0
    assert producer.wire.list_offset(topic, -1).offset == 1  # The marker, although nothing was written.


def test_batches_that_do_not_fit_the_transaction(producer: Producer, topic: str, topic_id: bytes) -> None:
    wire = producer.wire
    assert producer.send(topic_id, b"a").error_code == 0
    plain = batch(b"x", producer_id=producer.id, producer_epoch=producer.epoch, base_sequence=1)
    assert wire.produce(topic, plain).error_code == E.INVALID_TXN_STATE
    flagged = batch(
        b"x", producer_id=producer.id, producer_epoch=producer.epoch, base_sequence=1, is_transactional=True
    )
    assert wire.produce(topic, flagged).error_code == E.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    newer = Producer(wire, producer.name, producer.id, producer.epoch + 1)
    assert newer.send(topic_id, b"x").error_code == E.INVALID_PRODUCER_EPOCH
    gap = Producer(wire, producer.name, producer.id, producer.epoch, 5)
    assert gap.send(topic_id, b"x").error_code == E.OUT_OF_ORDER_SEQUENCE_NUMBER
    again = Producer(wire, producer.name, producer.id, producer.epoch, 0)
    assert again.send(topic_id, b"a").base_offset == 0
    stranger = Producer(wire, producer.name, producer.id + 77, 0, 0)
    # Where the database knows better than the agent, the first answer is to try again.
    answers = [stranger.send(topic_id, b"x").error_code]
    while answers[-1] == E.NOT_LEADER_OR_FOLLOWER:
        answers.append(stranger.send(topic_id, b"x").error_code)
    assert answers[-1] == E.INVALID_PRODUCER_ID_MAPPING


def test_version_2_begins_each_epoch_at_sequence_0(producer: Producer, topic_id: bytes) -> None:
    producer.sequence = 3
    assert producer.send(topic_id, b"a").error_code == E.OUT_OF_ORDER_SEQUENCE_NUMBER


def test_the_stable_offset_waits_for_the_earliest(
    producer: Producer, wire: Wire, topic: str, topic_id: bytes, fresh_name: Callable[..., str]
) -> None:
    other = Producer(wire, fresh_name())
    assert other.init() == 0
    assert producer.send(topic_id, b"first").error_code == 0
    assert other.send(topic_id, b"second").error_code == 0
    assert wire.produce(topic, batch(b"plain")).base_offset == 2
    assert other.end(commit=True).error_code == 0
    assert wire.list_offset(topic, -1, isolation=1).offset == 0
    assert producer.end(commit=False).error_code == 0
    assert wire.list_offset(topic, -1, isolation=1).offset == 5
    assert committed_values(wire, topic) == [b"second", b"plain"]


def test_a_waiting_reader_hears_of_the_end(connect: Connect, producer: Producer, topic: str, topic_id: bytes) -> None:
    reader = connect()
    version, correlation_id = reader.send_fetch(topic, max_wait_ms=15_000, isolation_level=1)
    assert producer.send(topic_id, b"a").error_code == 0
    assert producer.end(commit=True).error_code == 0
    answer = reader.receive(ApiKey.FETCH, version, correlation_id).responses[0].partitions[0]
    assert answer.last_stable_offset == 2
    assert answer.records


# ---- offsets -----------------------------------------------------------------------------------------------------


def stable_offset(wire: Wire, group: str, topic: str, *, stable: bool) -> tuple[int, int]:
    """Error and offset of one partition."""
    wanted = offset_fetch.OffsetFetchRequestTopics(name=topic, partition_indexes=[0])
    request = offset_fetch.OffsetFetchRequest(
        groups=[offset_fetch.OffsetFetchRequestGroup(group_id=group, topics=[wanted])], require_stable=stable
    )
    found = wire.call(ApiKey.OFFSET_FETCH, 8, request).groups[0].topics[0].partitions[0]
    return found.error_code, found.committed_offset


@pytest.mark.parametrize("commit", [True, False])
def test_offsets_go_with_the_transaction(
    producer: Producer, topic: str, topic_id: bytes, fresh_name: Callable[..., str], commit: bool
) -> None:
    wire, group = producer.wire, fresh_name()
    assert producer.commit_offset(group, topic_id, 7, version=6) == 0
    assert stable_offset(wire, group, topic, stable=True)[0] == E.UNSTABLE_OFFSET_COMMIT
    assert stable_offset(wire, group, topic, stable=False) == (0, -1)
    assert producer.end(commit=commit).error_code == 0
    assert stable_offset(wire, group, topic, stable=True) == (0, 7 if commit else -1)


def test_offsets_of_version_1(producer: Producer, topic: str, fresh_name: Callable[..., str]) -> None:
    wire, group = producer.wire, fresh_name()
    assert producer.commit_offset(group, topic, 7, version=4) == E.TRANSACTION_ABORTABLE
    assert producer.add_offsets(group) == 0
    assert producer.commit_offset(group, topic, 7, version=3) == 0
    assert producer.commit_offset(group, topic, 8, version=1) == 0
    assert producer.end(commit=True, version=3).error_code == 0
    assert stable_offset(wire, group, topic, stable=True) == (0, 8)


def commit_offset(wire: Wire, group: str, topic: str, offset: int) -> int:
    """OffsetCommit of the group itself."""
    partition = offset_commit.OffsetCommitRequestPartition(partition_index=0, committed_offset=offset)
    asked = offset_commit.OffsetCommitRequestTopic(name=topic, partitions=[partition])
    request = offset_commit.OffsetCommitRequest(group_id=group, generation_id_or_member_epoch=-1, topics=[asked])
    return int(wire.call(ApiKey.OFFSET_COMMIT, 8, request).topics[0].partitions[0].error_code)


def test_a_relay_finds_its_offsets_after_each_end(
    producer: Producer, topic: str, topic_id: bytes, fresh_name: Callable[..., str]
) -> None:
    wire, group, last = producer.wire, fresh_name(), -1
    for number in range(12):
        commits = number % 3 > 0
        assert producer.send(topic_id, b"relayed").error_code == 0
        assert producer.commit_offset(group, topic, number) == 0
        assert stable_offset(wire, group, topic, stable=True)[0] == E.UNSTABLE_OFFSET_COMMIT
        assert stable_offset(wire, group, topic, stable=False) == (0, last)
        assert producer.end(commit=commits).error_code == 0
        last = number if commits else last
        assert stable_offset(wire, group, topic, stable=True) == (0, last)


def test_what_a_group_commits_itself_meanwhile_stays(
    producer: Producer, topic: str, fresh_name: Callable[..., str]
) -> None:
    wire, group = producer.wire, fresh_name()
    for overtaken in (True, False, True):
        if not overtaken:
            assert commit_offset(wire, group, topic, 40) == 0
        assert producer.commit_offset(group, topic, 50) == 0
        if overtaken:
            assert commit_offset(wire, group, topic, 60) == 0
        assert producer.end(commit=True).error_code == 0
        assert stable_offset(wire, group, topic, stable=True) == (0, 60 if overtaken else 50)


def test_offsets_that_are_deleted_meanwhile_do_not_come_back(
    producer: Producer, topic: str, fresh_name: Callable[..., str]
) -> None:
    wire, group = producer.wire, fresh_name()
    wanted = offset_delete.OffsetDeleteRequestTopic(
        name=topic, partitions=[offset_delete.OffsetDeleteRequestPartition(partition_index=0)]
    )
    for _ in range(2):
        assert producer.commit_offset(group, topic, 50) == 0
        answer = wire.call(ApiKey.OFFSET_DELETE, 0, offset_delete.OffsetDeleteRequest(group_id=group, topics=[wanted]))
        assert (answer.error_code, answer.topics[0].partitions[0].error_code) == (0, 0)
        assert stable_offset(wire, group, topic, stable=True) == (0, -1), "nothing is waited for"
        assert producer.end(commit=True).error_code == 0
        assert stable_offset(wire, group, topic, stable=True) == (0, -1)
        assert commit_offset(wire, group, topic, 40) == 0


def test_offsets_go_with_their_group_and_their_topic(
    producer: Producer, topic: str, fresh_name: Callable[..., str]
) -> None:
    """They are gone for good, and the transaction that they were part of can be committed."""
    wire, group, other = producer.wire, fresh_name(), fresh_name()
    gone = fresh_name()
    wire.create_topic(gone)
    for _ in range(2):
        for asked in (topic, gone):
            assert producer.commit_offset(group, asked, 7) == 0
            assert producer.commit_offset(other, asked, 8) == 0
    deleted = wire.call(ApiKey.DELETE_GROUPS, 2, DeleteGroupsRequest(groups_names=[group]))
    assert deleted.results[0].error_code == 0
    request = DeleteTopicsRequest(topic_names=[gone], timeout_ms=10_000)
    assert wire.call(ApiKey.DELETE_TOPICS, 5, request).responses[0].error_code == 0
    assert stable_offset(wire, group, topic, stable=True) == (0, -1)
    assert stable_offset(wire, other, topic, stable=True)[0] == E.UNSTABLE_OFFSET_COMMIT
    assert producer.end(commit=True).error_code == 0
    assert stable_offset(wire, group, topic, stable=True) == (0, -1)
    assert stable_offset(wire, other, topic, stable=True) == (0, 8)
    everything = offset_fetch.OffsetFetchRequest(
        groups=[offset_fetch.OffsetFetchRequestGroup(group_id=name, topics=None) for name in (group, other)]
    )
    found = wire.call(ApiKey.OFFSET_FETCH, 8, everything).groups
    assert [[one.name for one in answer.topics] for answer in found] == [[], [topic]]


def test_more_offsets_than_a_record_can_tell(producer: Producer, fresh_name: Callable[..., str]) -> None:
    wire, group, topic = producer.wire, fresh_name(), fresh_name()
    wire.create_topic(topic, partitions=30)
    for offset in (1, 2):
        asked = committing.TxnOffsetCommitRequestTopic(
            name=topic,
            partitions=[
                committing.TxnOffsetCommitRequestPartition(
                    partition_index=index, committed_offset=offset, committed_metadata="m" * 4_000
                )
                for index in range(30)
            ],
        )
        request = committing.TxnOffsetCommitRequest(
            transactional_id=producer.name, group_id=group, producer_id=producer.id, producer_epoch=producer.epoch,
            topics=[asked],
        )  # fmt: skip
        answer = wire.call(ApiKey.TXN_OFFSET_COMMIT, 5, request)
        assert {one.error_code for one in answer.topics[0].partitions} == {0}
        assert producer.end(commit=True).error_code == 0
        assert set(wire.committed(group, [(topic, index) for index in range(30)]).values()) == {offset}


def test_offsets_that_are_refused(producer: Producer, topic: str, fresh_name: Callable[..., str]) -> None:
    group = fresh_name()
    stale = Producer(producer.wire, producer.name, producer.id, producer.epoch - 1)
    assert stale.commit_offset(group, topic, 1) == E.INVALID_PRODUCER_EPOCH
    other = Producer(producer.wire, producer.name, producer.id + 77, producer.epoch)
    assert other.commit_offset(group, topic, 1) == E.INVALID_PRODUCER_ID_MAPPING
    assert producer.commit_offset(group, topic, 1, generation=3, member="m") == E.ILLEGAL_GENERATION
    assert producer.commit_offset(group, fresh_name(), 1) == E.UNKNOWN_TOPIC_OR_PARTITION


# ---- administration ----------------------------------------------------------------------------------------------


def test_transactions_are_described_and_listed(producer: Producer, topic: str, topic_id: bytes) -> None:
    wire = producer.wire

    def described(name: str) -> Any:
        request = DescribeTransactionsRequest(transactional_ids=[name])
        return wire.call(ApiKey.DESCRIBE_TRANSACTIONS, 0, request).transaction_states[0]

    def listed(**filters: Any) -> list[str]:
        answer = wire.call(ApiKey.LIST_TRANSACTIONS, 2, ListTransactionsRequest(**filters))
        return [one.transactional_id for one in answer.transaction_states]

    assert described(producer.name + "-unknown").error_code == E.TRANSACTIONAL_ID_NOT_FOUND
    assert described(producer.name).transaction_state == "Empty"
    assert producer.send(topic_id, b"a").error_code == 0
    found = described(producer.name)
    assert (found.transaction_state, found.producer_id, found.producer_epoch) == (
        "Ongoing",
        producer.id,
        producer.epoch,
    )
    assert [(one.topic, one.partitions) for one in found.topics] == [(topic, [0])]
    assert found.transaction_start_time_ms > 0
    assert producer.name in listed(state_filters=["Ongoing"])
    assert producer.name in listed(producer_id_filters=[producer.id], transactional_id_pattern=f"{producer.name}.*")
    assert producer.name not in listed(duration_filter=600_000)
    assert listed(transactional_id_pattern="(") == []
    assert producer.end(commit=True).error_code == 0
    assert described(producer.name).transaction_state == "CompleteCommit"
    assert producer.name not in listed(state_filters=["Ongoing"])


def test_no_pattern_of_ids_holds_up_the_broker(producer: Producer) -> None:
    def listed(pattern: str) -> Any:
        request = ListTransactionsRequest(transactional_id_pattern=pattern)
        return producer.wire.call(ApiKey.LIST_TRANSACTIONS, 2, request)

    producer.name = "a" * 60 + "!"
    assert producer.init() == 0
    # Tried out one way after the other, this would take longer than anybody waits.
    assert listed("(a+)+").transaction_states == []
    assert [one.transactional_id for one in listed("(a+)+!").transaction_states] == [producer.name]
    for pattern in ("x" * 5000, "a{1000000}", "("):
        assert listed(pattern).error_code == E.INVALID_REGULAR_EXPRESSION, pattern[:20]


def test_an_administrator_ends_what_a_producer_left(producer: Producer, topic: str, topic_id: bytes) -> None:
    wire = producer.wire
    assert producer.send(topic_id, b"a").error_code == 0

    def first_offset() -> int:
        request = DescribeProducersRequest(topics=[TopicRequest(name=topic, partition_indexes=[0])])
        found = wire.call(ApiKey.DESCRIBE_PRODUCERS, 0, request).topics[0].partitions[0].active_producers[0]
        return int(found.current_txn_start_offset)

    assert first_offset() == 0
    marker = marking.WritableTxnMarker(
        producer_id=producer.id, producer_epoch=producer.epoch, transaction_result=False, coordinator_epoch=0,
        topics=[marking.WritableTxnMarkerTopic(name=topic, partition_indexes=[0])],
    )  # fmt: skip
    answer = wire.call(ApiKey.WRITE_TXN_MARKERS, 1, marking.WriteTxnMarkersRequest(markers=[marker]))
    assert answer.markers[0].topics[0].partitions[0].error_code == 0
    assert first_offset() == -1
    assert wire.list_offset(topic, -1, isolation=1).offset == 2
    assert committed_values(wire, topic) == []


@pytest.mark.parametrize("version", [9, 11, 12])
def test_a_partition_that_was_written_to_takes_batches_of_older_versions_too(
    producer: Producer, topic: str, topic_id: bytes, version: int
) -> None:
    """They do not make it part of the transaction, but it is already."""
    assert producer.send(topic_id, b"a", version=13).error_code == 0
    assert producer.send(topic, b"b", version=version).error_code == 0
    assert producer.end(commit=True).error_code == 0
    wire, sent = producer.wire, []
    for sequence, (name, used) in enumerate([(topic_id, 13), (topic, version)]):  # Both at once.
        data = batch(
            b"%d" % sequence, producer_id=producer.id, producer_epoch=producer.epoch, base_sequence=sequence,
            is_transactional=True,
        )  # fmt: skip
        sent.append(wire.send_produce(name, data, version=used, transactional_id=producer.name))
    answers = [wire.receive(ApiKey.PRODUCE, *each) for each in sent]
    assert [each.responses[0].partition_responses[0].error_code for each in answers] == [0, 0]
    assert producer.end(commit=True).error_code == 0
    assert committed_values(wire, topic) == [b"a", b"b", b"0", b"1"]


def test_whether_partitions_belong_to_a_transaction_is_told_one_by_one(
    producer: Producer, wire: Wire, topic: str, topic_id: bytes, fresh_name: Callable[..., str]
) -> None:
    other = fresh_name()
    wire.create_topic(other)
    assert producer.send(topic_id, b"a").error_code == 0
    asked = adding.AddPartitionsToTxnTransaction(
        transactional_id=producer.name, producer_id=producer.id, producer_epoch=producer.epoch, verify_only=True,
        topics=[adding.AddPartitionsToTxnTopic(name=name, partitions=[0]) for name in (topic, other)],
    )  # fmt: skip
    answer = wire.call(ApiKey.ADD_PARTITIONS_TO_TXN, 5, adding.AddPartitionsToTxnRequest(transactions=[asked]))
    (result,) = answer.results_by_transaction
    codes = {one.name: one.results_by_partition[0].partition_error_code for one in result.topic_results}
    assert codes == {topic: 0, other: E.TRANSACTION_ABORTABLE}


def test_empty_names_are_refused_before_anything_else(wire: Wire, producer: Producer, topic: str) -> None:
    assert producer.commit_offset("", topic, 1) == E.INVALID_GROUP_ID
    nobody = Producer(wire, "", id=producer.id, epoch=producer.epoch)
    assert nobody.commit_offset("g", topic, 1) == E.INVALID_REQUEST
    assert nobody.add_offsets("") == E.INVALID_REQUEST
