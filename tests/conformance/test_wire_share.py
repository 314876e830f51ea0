"""Share groups on the wire: membership, sessions, what is acquired and acknowledged, and the code for every mistake."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from fixtures.waiting import eventually
from fixtures.wire import ZERO_ID, Wire, batch, records_of

from penstock.base.randomness import uuid_text
from penstock.wire.api_keys import ApiKey
from penstock.wire.compression import Compression
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import alter_share_group_offsets as alter
from penstock.wire.messages import delete_records, share_acknowledge, share_fetch
from penstock.wire.messages import delete_share_group_offsets as delete
from penstock.wire.messages import describe_share_group_offsets as describe
from penstock.wire.messages import incremental_alter_configs as configs
from penstock.wire.messages.delete_groups import DeleteGroupsRequest
from penstock.wire.messages.find_coordinator import FindCoordinatorRequest
from penstock.wire.messages.list_groups import ListGroupsRequest
from penstock.wire.messages.share_group_describe import ShareGroupDescribeRequest
from penstock.wire.messages.share_group_heartbeat import ShareGroupHeartbeatRequest

Connect = Callable[..., Wire]
Said = dict[tuple[bytes, int], list[tuple[int, int, list[int]]]]
GAP, ACCEPT, RELEASE, REJECT, RENEW = range(5)
BROKER_CONFIG, GROUP_CONFIG = 4, 32


class Consumer:
    """One member of a share group on a connection of its own, as a client library is."""

    def __init__(self, wire: Wire, group: str, *, member_id: str | None = None) -> None:
        self.wire, self.group = wire, group
        self.member_id = member_id or str(uuid.uuid4())
        self.epoch = self.session_epoch = 0

    def heartbeat(self, topics: Sequence[str] | None = None, *, epoch: int | None = None, **fields: Any) -> Any:
        """One heartbeat, with the epoch of the last answer."""
        request = ShareGroupHeartbeatRequest(
            group_id=self.group, member_id=self.member_id, member_epoch=self.epoch if epoch is None else epoch,
            subscribed_topic_names=None if topics is None else list(topics), **fields,
        )  # fmt: skip
        answer = self.wire.call(ApiKey.SHARE_GROUP_HEARTBEAT, 1, request)
        if answer.error_code == 0:
            self.epoch = answer.member_epoch
        return answer

    def join(self, *topics: str) -> None:
        """Become a member that is assigned something."""
        assert self.heartbeat(topics).error_code == 0

        def is_assigned() -> bool:
            answer = self.heartbeat(topics)
            return answer.assignment is not None and bool(answer.assignment.topic_partitions)

        eventually(is_assigned, what="an assignment")

    def fetch(
        self, *partitions: tuple[bytes, int], said: Said | None = None,
        max_records: int = 500, batch_size: int = 500, max_wait_ms: int = 0, version: int = 2, epoch: int | None = None,
        exact: bool = False, **fields: Any,
    ) -> Any:  # fmt: skip
        """One ShareFetch in the consumer's session."""
        topics: dict[bytes, list[Any]] = {}
        for key in dict.fromkeys([*partitions, *(said or {})]):
            batches = [
                share_fetch.AcknowledgementBatch(first_offset=first, last_offset=last, acknowledge_types=types)
                for first, last, types in (said or {}).get(key, [])
            ]
            topics.setdefault(key[0], []).append(
                share_fetch.FetchPartition(partition_index=key[1], acknowledgement_batches=batches)
            )
        request = share_fetch.ShareFetchRequest(
            group_id=self.group, member_id=self.member_id,
            share_session_epoch=self.session_epoch if epoch is None else epoch, max_wait_ms=max_wait_ms,
            min_bytes=fields.pop("min_bytes", 1), max_bytes=fields.pop("max_bytes", 1 << 20), max_records=max_records,
            batch_size=batch_size, share_acquire_mode=int(exact),
            topics=[share_fetch.FetchTopic(topic_id=key, partitions=found) for key, found in topics.items()], **fields,
        )  # fmt: skip
        answer = self.wire.call(ApiKey.SHARE_FETCH, version, request)
        if answer.error_code == 0 and epoch is None:
            self.session_epoch += 1
        return answer

    def take(self, *partitions: tuple[bytes, int], **options: Any) -> list[tuple[int, int, int]]:
        """What a fetch acquires, as (first, last, delivery count)."""
        answer = self.fetch(*partitions, **options)
        assert answer.error_code == 0, answer.error_message
        return acquired(answer)

    def say(
        self, topic_id: bytes, *batches: tuple[int, int, list[int]], partition: int = 0, version: int = 2,
        epoch: int | None = None, is_renewal: bool = False,
    ) -> Any:  # fmt: skip
        """One ShareAcknowledge in the consumer's session."""
        found = [
            share_acknowledge.AcknowledgementBatch(first_offset=first, last_offset=last, acknowledge_types=types)
            for first, last, types in batches
        ]
        request = share_acknowledge.ShareAcknowledgeRequest(
            group_id=self.group, member_id=self.member_id,
            share_session_epoch=self.session_epoch if epoch is None else epoch, is_renew_ack=is_renewal,
            topics=[
                share_acknowledge.AcknowledgeTopic(
                    topic_id=topic_id,
                    partitions=[
                        share_acknowledge.AcknowledgePartition(
                            partition_index=partition, acknowledgement_batches=found
                        )
                    ],
                )
            ],
        )  # fmt: skip
        answer = self.wire.call(ApiKey.SHARE_ACKNOWLEDGE, version, request)
        if answer.error_code == 0 and epoch is None:
            self.session_epoch += 1
        return answer

    def says(self, topic_id: bytes, *batches: tuple[int, int, list[int]], **options: Any) -> int:
        """The partition's error code of what was said."""
        answer = self.say(topic_id, *batches, **options)
        assert answer.error_code == 0, answer.error_message
        return int(answer.responses[0].partitions[0].error_code)


def acquired(answer: Any) -> list[tuple[int, int, int]]:
    return [
        (found.first_offset, found.last_offset, found.delivery_count)
        for topic in answer.responses
        for partition in topic.partitions
        for found in partition.acquired_records
    ]


def set_group_config(wire: Wire, group: str, **values: str) -> None:
    named = {f"share.{name.replace('_', '.')}": value for name, value in values.items()}
    assert set_config(wire, GROUP_CONFIG, group, named) == 0


def set_config(wire: Wire, kind: int, name: str, values: Mapping[str, str | None]) -> int:
    """Set some, delete those without a value; the error code."""
    resource = configs.AlterConfigsResource(
        resource_type=kind, resource_name=name,
        configs=[
            configs.AlterableConfig(name=key, config_operation=int(value is None), value=value)
            for key, value in values.items()
        ],
    )  # fmt: skip
    request = configs.IncrementalAlterConfigsRequest(resources=[resource])
    return int(wire.call(ApiKey.INCREMENTAL_ALTER_CONFIGS, 1, request).responses[0].error_code)


@pytest.fixture
def group(wire: Wire, fresh_name: Callable[..., str]) -> str:
    """A fresh group that reads topics from their beginning."""
    name = fresh_name("share")
    set_group_config(wire, name, auto_offset_reset="earliest")
    return name


@pytest.fixture
def topic_id(wire: Wire, topic: str) -> bytes:
    """The id of the fresh topic."""
    return bytes(wire.metadata([topic]).topics[0].topic_id)


@pytest.fixture
def consumer(connect: Connect, group: str, topic: str) -> Consumer:
    """A member that is assigned the fresh topic."""
    member = Consumer(connect(), group)
    member.join(topic)
    return member


def fill(wire: Wire, topic: str, count: int, *, per_batch: int = 10) -> None:
    """So many records, in batches of so many."""
    for start in range(0, count, per_batch):
        records = [b"%d" % number for number in range(start, min(start + per_batch, count))]
        assert wire.produce(topic, batch(*records)).error_code == 0


def trim(wire: Wire, topic: str, offset: int) -> None:
    """Delete the records before an offset."""
    partition = delete_records.DeleteRecordsPartition(partition_index=0, offset=offset)
    topics = [delete_records.DeleteRecordsTopic(name=topic, partitions=[partition])]
    request = delete_records.DeleteRecordsRequest(topics=topics, timeout_ms=20_000)
    assert wire.call(ApiKey.DELETE_RECORDS, 2, request).topics[0].partitions[0].error_code == 0


# --- Membership ----------------------------------------------------------------------------------------------------


def test_a_member_joins_stays_and_leaves(wire: Wire, group: str, topic: str, topic_id: bytes) -> None:
    member = Consumer(wire, group)
    first = member.heartbeat([topic])
    assert (first.error_code, first.member_id, first.heartbeat_interval_ms > 0) == (0, member.member_id, True)
    member.join(topic)
    full = member.heartbeat([topic])
    assert [(t.topic_id, t.partitions) for t in full.assignment.topic_partitions] == [(topic_id, [0])]
    short = member.heartbeat()
    assert (short.error_code, short.assignment, short.member_epoch) == (0, None, member.epoch)
    left = member.heartbeat(epoch=-1)
    assert (left.error_code, left.member_epoch) == (0, -1)
    assert member.heartbeat(epoch=3).error_code == ErrorCode.UNKNOWN_MEMBER_ID


def test_heartbeats_that_are_refused(wire: Wire, group: str, topic: str) -> None:
    member = Consumer(wire, group)
    assert member.heartbeat(epoch=5).error_code == ErrorCode.GROUP_ID_NOT_FOUND
    assert member.heartbeat(epoch=0).error_code == ErrorCode.INVALID_REQUEST, "no topics"
    assert member.heartbeat([topic], epoch=-2).error_code == ErrorCode.INVALID_REQUEST
    assert member.heartbeat([topic], rack_id="").error_code == ErrorCode.INVALID_REQUEST
    assert Consumer(wire, "").heartbeat([topic]).error_code == ErrorCode.INVALID_REQUEST
    assert Consumer(wire, group, member_id=" ").heartbeat([topic]).error_code == ErrorCode.INVALID_REQUEST
    member.join(topic)
    assert member.heartbeat(epoch=member.epoch + 1).error_code == ErrorCode.FENCED_MEMBER_EPOCH
    assert Consumer(wire, group).heartbeat(epoch=1).error_code == ErrorCode.UNKNOWN_MEMBER_ID


def test_members_share_partitions(connect: Connect, wire: Wire, group: str, fresh_name: Callable[..., str]) -> None:
    topic = fresh_name()
    wire.create_topic(topic, partitions=2)
    members = [Consumer(connect(), group) for _ in range(3)]
    for member in members:
        member.join(topic)

    def everybody_has_one() -> bool:
        have = [member.heartbeat([topic]).assignment.topic_partitions for member in members]
        return all(len(found) == 1 and len(found[0].partitions) >= 1 for found in have) and {
            number for found in have for number in found[0].partitions
        } == {0, 1}

    eventually(everybody_has_one, what="every member and every partition to have something")


def test_groups_are_described_and_listed(
    wire: Wire, consumer: Consumer, group: str, topic: str, topic_id: bytes
) -> None:
    answer = wire.call(ApiKey.SHARE_GROUP_DESCRIBE, 1, ShareGroupDescribeRequest(group_ids=[group, "nobody"]))
    found, missing = answer.groups
    assert (found.error_code, found.group_state, found.assignor_name) == (0, "Stable", "simple")
    (member,) = found.members
    assert (member.member_id, member.subscribed_topic_names) == (consumer.member_id, [topic])
    (assigned,) = member.assignment.topic_partitions
    assert (assigned.topic_id, assigned.topic_name, assigned.partitions) == (topic_id, topic, [0])
    assert missing.error_code == ErrorCode.GROUP_ID_NOT_FOUND
    listed = wire.call(ApiKey.LIST_GROUPS, 5, ListGroupsRequest(types_filter=["share"]))
    assert [(g.group_type, g.protocol_type, g.group_state) for g in listed.groups if g.group_id == group] == [
        ("share", "share", "Stable")
    ]


def test_a_group_is_deleted_once_it_is_empty(wire: Wire, consumer: Consumer, group: str, topic_id: bytes) -> None:
    def remove() -> int:
        answer = wire.call(ApiKey.DELETE_GROUPS, 2, DeleteGroupsRequest(groups_names=[group]))
        return int(answer.results[0].error_code)

    assert remove() == ErrorCode.NON_EMPTY_GROUP
    consumer.heartbeat(epoch=-1)
    assert remove() == 0
    assert remove() == ErrorCode.GROUP_ID_NOT_FOUND


def test_coordinators_of_share_partitions(wire: Wire, topic_id: bytes) -> None:
    good = f"group:{uuid_text(topic_id)}:0"
    request = FindCoordinatorRequest(key_type=2, coordinator_keys=[good, "group"])
    found, refused = wire.call(ApiKey.FIND_COORDINATOR, 6, request).coordinators
    assert found.error_code in (0, ErrorCode.COORDINATOR_NOT_AVAILABLE)
    assert refused.error_code == ErrorCode.INVALID_REQUEST


# --- Sessions ------------------------------------------------------------------------------------------------------


def test_session_epochs(connect: Connect, consumer: Consumer, group: str, topic_id: bytes) -> None:
    here = (topic_id, 0)
    assert consumer.fetch(here, epoch=1).error_code == ErrorCode.SHARE_SESSION_NOT_FOUND
    assert consumer.fetch(here, epoch=-1).error_code == ErrorCode.SHARE_SESSION_NOT_FOUND
    assert consumer.say(topic_id, epoch=1).error_code == ErrorCode.SHARE_SESSION_NOT_FOUND
    assert consumer.say(topic_id, epoch=0).error_code == ErrorCode.INVALID_SHARE_SESSION_EPOCH
    speaking = consumer.fetch(here, said={here: [(0, 0, [ACCEPT])]}, epoch=0)
    assert speaking.error_code == ErrorCode.INVALID_REQUEST
    assert consumer.fetch(here).error_code == 0
    assert consumer.fetch(epoch=5).error_code == ErrorCode.INVALID_SHARE_SESSION_EPOCH
    assert consumer.say(topic_id, epoch=5).error_code == ErrorCode.INVALID_SHARE_SESSION_EPOCH
    assert consumer.fetch().error_code == 0
    assert consumer.fetch(here, epoch=-1).error_code == 0
    assert consumer.fetch(epoch=2).error_code == ErrorCode.SHARE_SESSION_NOT_FOUND


def test_requests_without_a_name(wire: Wire, consumer: Consumer, group: str, topic_id: bytes) -> None:
    assert Consumer(wire, group, member_id="x" * 37).fetch((topic_id, 0)).error_code == ErrorCode.INVALID_REQUEST
    nameless = Consumer(wire, group)
    nameless.member_id = ""
    assert nameless.fetch((topic_id, 0)).error_code == ErrorCode.INVALID_REQUEST


def test_partitions_that_cannot_be_read(consumer: Consumer, topic_id: bytes) -> None:
    answer = consumer.fetch((topic_id, 0), (topic_id, 7), (ZERO_ID[:-1] + b"\x07", 0))
    errors = {
        (bytes(topic.topic_id), partition.partition_index): partition.error_code
        for topic in answer.responses
        for partition in topic.partitions
    }
    assert errors[topic_id, 0] == 0
    assert errors[topic_id, 7] == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert errors[ZERO_ID[:-1] + b"\x07", 0] == ErrorCode.UNKNOWN_TOPIC_ID


def test_a_group_that_nobody_joined_reads_nothing(wire: Wire, group: str, topic_id: bytes) -> None:
    answer = Consumer(wire, group).fetch((topic_id, 0))
    assert answer.responses[0].partitions[0].error_code == ErrorCode.UNKNOWN_SERVER_ERROR


# --- Acquiring -----------------------------------------------------------------------------------------------------


def test_records_are_acquired_by_one_member_only(
    connect: Connect, wire: Wire, consumer: Consumer, group: str, topic: str, topic_id: bytes
) -> None:
    fill(wire, topic, 30)
    answer = consumer.fetch((topic_id, 0), max_records=10)
    (partition,) = answer.responses[0].partitions
    assert acquired(answer) == [(0, 9, 1)]
    assert answer.acquisition_lock_timeout_ms == 30_000
    assert len(records_of(partition.records)) == 10
    other = Consumer(connect(), group)
    other.join(topic)
    assert other.take((topic_id, 0), max_records=100) == [(10, 29, 1)]
    assert consumer.take() == []


def test_batches_stay_whole_unless_records_are_counted(
    wire: Wire, consumer: Consumer, topic: str, topic_id: bytes
) -> None:
    fill(wire, topic, 40)
    assert consumer.take((topic_id, 0), max_records=5) == [(0, 9, 1)]
    assert consumer.take(max_records=5, exact=True) == [(10, 14, 1)]
    assert consumer.take(max_records=5, exact=True) == [(15, 19, 1)]
    assert consumer.take(max_records=20, batch_size=10) == [(20, 29, 1), (30, 39, 1)]


def test_a_fetch_waits_for_records(
    connect: Connect, wire: Wire, consumer: Consumer, topic: str, topic_id: bytes
) -> None:
    assert consumer.take((topic_id, 0)) == []
    request = share_fetch.ShareFetchRequest(
        group_id=consumer.group, member_id=consumer.member_id, share_session_epoch=1, max_wait_ms=20_000, min_bytes=1,
        max_bytes=1 << 20, max_records=10, batch_size=10,
    )  # fmt: skip
    sent = consumer.wire.send(ApiKey.SHARE_FETCH, 2, request)
    fill(wire, topic, 1)
    assert acquired(consumer.wire.receive(ApiKey.SHARE_FETCH, 2, sent)) == [(0, 0, 1)]


def test_what_is_released_wakes_others(
    connect: Connect, wire: Wire, consumer: Consumer, group: str, topic: str, topic_id: bytes
) -> None:
    fill(wire, topic, 10)
    assert consumer.take((topic_id, 0)) == [(0, 9, 1)]
    other = Consumer(connect(), group)
    other.join(topic)
    assert other.take((topic_id, 0)) == []
    request = share_fetch.ShareFetchRequest(
        group_id=group, member_id=other.member_id, share_session_epoch=1, max_wait_ms=20_000, min_bytes=1,
        max_bytes=1 << 20, max_records=10, batch_size=10,
    )  # fmt: skip
    sent = other.wire.send(ApiKey.SHARE_FETCH, 2, request)
    assert consumer.says(topic_id, (0, 9, [RELEASE])) == 0
    assert acquired(other.wire.receive(ApiKey.SHARE_FETCH, 2, sent)) == [(0, 9, 2)]


def test_a_session_that_ends_releases_its_records(
    connect: Connect, wire: Wire, consumer: Consumer, group: str, topic: str, topic_id: bytes
) -> None:
    fill(wire, topic, 10)
    gone = Consumer(connect(), group)
    gone.join(topic)
    assert gone.take((topic_id, 0)) == [(0, 9, 1)]
    gone.wire.close()
    eventually(lambda: consumer_takes(consumer, topic_id) == [(0, 9, 2)], what="the records of a closed connection")
    assert consumer.fetch(epoch=-1).error_code == 0
    other = Consumer(connect(), group)
    other.join(topic)
    assert other.take((topic_id, 0)) == [(0, 9, 3)]


def consumer_takes(consumer: Consumer, topic_id: bytes) -> list[tuple[int, int, int]]:
    return consumer.take((topic_id, 0))


def test_a_group_starts_where_its_configuration_says(
    connect: Connect, wire: Wire, topic: str, topic_id: bytes, fresh_name: Callable[..., str]
) -> None:
    fill(wire, topic, 10)
    late, long_ago = fresh_name("share"), fresh_name("share")
    set_group_config(wire, long_ago, auto_offset_reset="by_duration:PT1H")
    latest, earlier = Consumer(connect(), late), Consumer(connect(), long_ago)
    latest.join(topic)
    earlier.join(topic)
    assert latest.take((topic_id, 0)) == []
    assert earlier.take((topic_id, 0)) == [(0, 9, 1)]
    fill(wire, topic, 1)
    assert latest.take() == [(10, 10, 1)]


def test_deleted_records_are_passed_over(wire: Wire, consumer: Consumer, topic: str, topic_id: bytes) -> None:
    fill(wire, topic, 30)
    assert consumer.take((topic_id, 0), max_records=10) == [(0, 9, 1)]
    trim(wire, topic, 20)
    assert consumer.take(max_records=100) == [(20, 29, 1)]
    assert consumer.says(topic_id, (0, 9, [ACCEPT])) == 0, "what is gone may be acknowledged"


# --- Acknowledging -------------------------------------------------------------------------------------------------


def test_records_meet_their_fates(wire: Wire, consumer: Consumer, topic: str, topic_id: bytes) -> None:
    fill(wire, topic, 10)
    assert consumer.take((topic_id, 0)) == [(0, 9, 1)]
    types = [ACCEPT, REJECT, GAP, RELEASE, RELEASE, ACCEPT]
    assert consumer.says(topic_id, (0, 5, types)) == 0
    assert consumer.take() == [(3, 4, 2)]
    answer = consumer.fetch(said={(topic_id, 0): [(3, 4, [ACCEPT]), (6, 9, [RELEASE])]})
    assert answer.responses[0].partitions[0].acknowledge_error_code == 0
    assert acquired(answer) == [(6, 9, 2)]


def test_acknowledgements_that_are_refused(
    connect: Connect, wire: Wire, consumer: Consumer, group: str, topic: str, topic_id: bytes
) -> None:
    fill(wire, topic, 10)
    assert consumer.take((topic_id, 0)) == [(0, 9, 1)]
    invalid = ErrorCode.INVALID_REQUEST
    assert consumer.says(topic_id, (5, 4, [ACCEPT])) == invalid
    assert consumer.says(topic_id, (0, 4, [])) == invalid
    assert consumer.says(topic_id, (0, 4, [ACCEPT, ACCEPT])) == invalid
    assert consumer.says(topic_id, (0, 0, [9])) == invalid
    assert consumer.says(topic_id, (5, 6, [ACCEPT]), (0, 1, [ACCEPT])) == invalid
    assert consumer.says(topic_id, (0, 0, [RENEW]), version=1) == invalid
    assert consumer.says(topic_id, (0, 0, [RENEW])) == invalid, "not said to be a renewal"
    assert consumer.says(topic_id, (8, 12, [ACCEPT])) == invalid, "beyond what is in flight"
    assert consumer.says(topic_id, (0, 0, [ACCEPT]), partition=9) == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert consumer.says(ZERO_ID[:-1] + b"\x07", (0, 0, [ACCEPT])) == ErrorCode.UNKNOWN_TOPIC_ID
    other = Consumer(connect(), group)
    other.join(topic)
    assert other.take((topic_id, 0)) == []
    assert other.says(topic_id, (0, 0, [ACCEPT])) == ErrorCode.INVALID_RECORD_STATE
    assert consumer.says(topic_id, (0, 4, [ACCEPT])) == 0
    assert consumer.says(topic_id, (4, 9, [ACCEPT])) == 0, "what lies before the start is not looked at"
    assert consumer.says(topic_id, (0, 9, [ACCEPT])) == 0


def test_nothing_counts_of_what_is_partly_wrong(wire: Wire, consumer: Consumer, topic: str, topic_id: bytes) -> None:
    fill(wire, topic, 20)
    assert consumer.take((topic_id, 0), max_records=10) == [(0, 9, 1)]
    assert consumer.says(topic_id, (5, 5, [ACCEPT])) == 0
    assert consumer.says(topic_id, (0, 3, [ACCEPT]), (4, 6, [ACCEPT])) == ErrorCode.INVALID_RECORD_STATE
    assert consumer.says(topic_id, (0, 4, [RELEASE]), (6, 9, [RELEASE])) == 0
    assert consumer.take(max_records=9) == [(0, 4, 2), (6, 9, 2)]


def test_locks_are_renewed(wire: Wire, consumer: Consumer, topic: str, topic_id: bytes) -> None:
    fill(wire, topic, 10)
    assert consumer.take((topic_id, 0)) == [(0, 9, 1)]
    answer = consumer.say(topic_id, (0, 9, [RENEW]), is_renewal=True)
    assert answer.responses[0].partitions[0].error_code == 0
    assert answer.acquisition_lock_timeout_ms == 30_000
    said = {(topic_id, 0): [(0, 9, [RENEW])]}
    refused = consumer.fetch(said=said, is_renew_ack=True)
    assert refused.error_code == ErrorCode.INVALID_REQUEST, "a renewal fetches nothing"
    renewed = consumer.fetch(said=said, is_renew_ack=True, max_records=0, min_bytes=0, max_bytes=0)
    assert renewed.responses[0].partitions[0].acknowledge_error_code == 0
    set_group_config(wire, consumer.group, renew_acknowledge_enable="false")
    assert consumer.says(topic_id, (0, 9, [RENEW]), is_renewal=True) == ErrorCode.INVALID_RECORD_STATE


def test_deliveries_are_counted_and_limited(wire: Wire, consumer: Consumer, topic: str, topic_id: bytes) -> None:
    set_group_config(wire, consumer.group, delivery_count_limit="2")
    fill(wire, topic, 5)
    assert consumer.take((topic_id, 0)) == [(0, 4, 1)]
    assert consumer.says(topic_id, (0, 4, [RELEASE])) == 0
    assert consumer.take() == [(0, 4, 2)]
    assert consumer.says(topic_id, (0, 4, [RELEASE])) == 0
    assert consumer.take() == []
    fill(wire, topic, 1)
    assert consumer.take() == [(5, 5, 1)]


def test_suspects_are_delivered_in_ever_smaller_parts(
    wire: Wire, consumer: Consumer, topic: str, topic_id: bytes
) -> None:
    fill(wire, topic, 16, per_batch=16)
    here = (topic_id, 0)
    assert consumer.take(here) == [(0, 15, 1)]
    assert consumer.take(said={here: [(0, 15, [RELEASE])]}) == [(0, 15, 2)]
    assert consumer.take(said={here: [(0, 15, [RELEASE])]}) == [(0, 15, 3)]
    assert consumer.take(said={here: [(0, 15, [RELEASE])]}) == [(0, 7, 4)]
    assert consumer.take(said={here: [(0, 7, [RELEASE])]}) == [(0, 0, 5)]
    assert consumer.take(said={here: [(0, 0, [RELEASE])]}) == [(1, 1, 5)], "0 was delivered often enough"


# --- Dead letters ---------------------------------------------------------------------------------------------------

REJECTED, EXHAUSTED = b"Offset rejected by client.", b"Offset delivery count exceeded the threshold."
DLQ = "__dlq.errors."
QUEUE_NAME, COPIES = "errors.deadletterqueue.topic.name", "errors.deadletterqueue.copy.record.enable"


@pytest.fixture
def queue(wire: Wire, group: str, fresh_name: Callable[..., str]) -> str:
    """The group's dead letter queue."""
    name = fresh_name("dlq.jobs")
    wire.create_topic(name, partitions=2, configs={"errors.deadletterqueue.group.enable": "true"})
    assert set_config(wire, GROUP_CONFIG, group, {QUEUE_NAME: name}) == 0
    return name


def letters(wire: Wire, queue: str, count: int, *, partition: int = 0) -> list[tuple[int, bytes, int]]:
    """Offset, cause and delivery count of everything in a queue, once there is so much."""

    def all_there() -> list[tuple[int, bytes, int]] | None:
        told = [dict(record.headers) for record in wire.fetch_records(queue, partition=partition)]
        found = [(one[f"{DLQ}offset"], one[f"{DLQ}message"], one[f"{DLQ}delivery.count"]) for one in told]
        return [(int(offset), message, int(times)) for offset, message, times in found] if len(told) >= count else None

    return eventually(all_there, what=f"{count} letters in {queue}")


def test_what_is_rejected_is_told_of_in_the_dead_letter_queue(
    wire: Wire, consumer: Consumer, group: str, topic: str, topic_id: bytes, queue: str
) -> None:
    fill(wire, topic, 10)
    assert consumer.take((topic_id, 0)) == [(0, 9, 1)]
    assert consumer.says(topic_id, (0, 4, [ACCEPT, REJECT, REJECT, GAP, RELEASE]), (5, 9, [ACCEPT])) == 0
    assert letters(wire, queue, 2) == [(1, REJECTED, 1), (2, REJECTED, 1)]
    eventually(lambda: offsets(wire, group, topic) == [(0, 4, 1)], what="what was given up being done with")
    first, _ = wire.fetch_records(queue)
    assert (first.key, first.value) == (None, None)
    assert abs(first.timestamp - time.time() * 1000) < 60_000
    assert first.headers == (
        (f"{DLQ}topic", topic.encode()), (f"{DLQ}partition", b"0"), (f"{DLQ}offset", b"1"),
        (f"{DLQ}group", group.encode()), (f"{DLQ}delivery.count", b"1"), (f"{DLQ}message", REJECTED),
    )  # fmt: skip
    # And said with a fetch.
    assert consumer.take() == [(4, 4, 2)]
    assert consumer.take(said={(topic_id, 0): [(4, 4, [REJECT])]}) == []
    assert letters(wire, queue, 3)[2:] == [(4, REJECTED, 2)]


def test_what_is_delivered_too_often_is_told_of_and_copied(
    wire: Wire, consumer: Consumer, group: str, topic: str, topic_id: bytes, queue: str
) -> None:
    set_group_config(wire, group, delivery_count_limit="2")
    assert set_config(wire, GROUP_CONFIG, group, {COPIES: "true"}) == 0
    assert wire.produce(topic, batch(b"a", b"b", key=b"k", compression=Compression.ZSTD)).error_code == 0
    assert wire.produce(topic, batch(b"c")).error_code == 0
    assert consumer.take((topic_id, 0)) == [(0, 2, 1)]
    assert consumer.says(topic_id, (0, 2, [RELEASE])) == 0
    assert consumer.take() == [(0, 2, 2)]
    assert consumer.fetch(epoch=-1).error_code == 0, "the session ends"
    assert letters(wire, queue, 3) == [(number, EXHAUSTED, 2) for number in range(3)]
    told = [(record.key, record.value) for record in wire.fetch_records(queue)]
    assert told == [(b"k", b"a"), (b"k", b"b"), (None, b"c")]


def test_a_partition_has_its_letters_in_one_partition_of_the_queue(
    connect: Connect, wire: Wire, group: str, queue: str, fresh_name: Callable[..., str]
) -> None:
    topic = fresh_name("wide")
    topic_id = wire.create_topic(topic, partitions=4)
    consumer = Consumer(connect(), group)
    consumer.join(topic)
    for partition in range(4):
        assert wire.produce(topic, batch(b"x"), partition=partition).error_code == 0
        assert consumer.take((topic_id, partition)) == [(0, 0, 1)]
        assert consumer.says(topic_id, (0, 0, [REJECT]), partition=partition) == 0
    for partition in range(2):
        assert letters(wire, queue, 2, partition=partition) == [(0, REJECTED, 1)] * 2
        told = [dict(record.headers)[f"{DLQ}partition"] for record in wire.fetch_records(queue, partition=partition)]
        assert sorted(told) == [b"%d" % partition, b"%d" % (partition + 2)]


@pytest.mark.parametrize("what", ["missing", "not enabled", "named otherwise", "compacted"])
def test_where_no_queue_will_have_them_records_are_given_up_all_the_same(
    wire: Wire, consumer: Consumer, group: str, topic: str, topic_id: bytes, fresh_name: Callable[..., str], what: str
) -> None:
    name, enabled = fresh_name("jobs" if what == "named otherwise" else "dlq.jobs"), what != "not enabled"
    settings = {"errors.deadletterqueue.group.enable": str(enabled).lower()}
    if what == "compacted":
        settings["cleanup.policy"] = "compact"  # Letters without copies have no keys.
    if what != "missing":
        wire.create_topic(name, configs=settings)
    assert set_config(wire, GROUP_CONFIG, group, {QUEUE_NAME: name}) == 0
    fill(wire, topic, 5)
    assert consumer.take((topic_id, 0)) == [(0, 4, 1)]
    assert consumer.says(topic_id, (0, 2, [REJECT]), (3, 3, [RELEASE])) == 0
    eventually(lambda: offsets(wire, group, topic)[0][1] == 3, what="what was given up being done with")
    assert consumer.take() == [(3, 3, 2)]
    if what == "missing":
        assert wire.metadata([name]).topics[0].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    else:
        assert wire.list_offset(name, -1).offset == 0


def test_a_queue_is_created_where_that_is_wanted(
    wire: Wire, consumer: Consumer, group: str, topic: str, topic_id: bytes, fresh_name: Callable[..., str]
) -> None:
    name, wanted = fresh_name("dlq.jobs"), "errors.deadletterqueue.auto.create.topics.enable"
    assert set_config(wire, GROUP_CONFIG, group, {QUEUE_NAME: name}) == 0
    fill(wire, topic, 1)
    assert consumer.take((topic_id, 0)) == [(0, 0, 1)]
    try:
        assert set_config(wire, BROKER_CONFIG, "", {wanted: "true"}) == 0
        assert consumer.says(topic_id, (0, 0, [REJECT])) == 0
        eventually(lambda: wire.metadata([name]).topics[0].error_code == 0, what="the queue being created")
    finally:
        assert set_config(wire, BROKER_CONFIG, "", {wanted: None}) == 0
    assert letters(wire, name, 1) == [(0, REJECTED, 1)]


def test_a_group_that_is_deleted_has_told_of_what_it_gave_up_and_one_of_its_name_begins_anew(
    connect: Connect, wire: Wire, consumer: Consumer, group: str, topic: str, topic_id: bytes, queue: str
) -> None:
    fill(wire, topic, 10)
    assert consumer.take((topic_id, 0)) == [(0, 9, 1)]
    assert consumer.says(topic_id, (0, 2, [REJECT]), (3, 3, [ACCEPT])) == 0
    consumer.heartbeat(epoch=-1)
    removed = wire.call(ApiKey.DELETE_GROUPS, 2, DeleteGroupsRequest(groups_names=[group]))
    assert removed.results[0].error_code == 0
    assert letters(wire, queue, 3) == [(number, REJECTED, 1) for number in range(3)]
    again = Consumer(connect(), group)
    again.join(topic)
    assert again.take((topic_id, 0)) == [(0, 9, 1)]


def test_what_is_refused_by_the_queue_keeps_nothing_else_from_it(
    wire: Wire, consumer: Consumer, group: str, topic: str, topic_id: bytes, queue: str
) -> None:
    """A compacted queue has no room for letters without a key."""
    assert set_config(wire, 2, queue, {"cleanup.policy": "compact"}) == 0
    assert set_config(wire, GROUP_CONFIG, group, {COPIES: "true"}) == 0
    assert wire.produce(topic, batch(b"a", b"b", key=b"k")).error_code == 0
    assert wire.produce(topic, batch(b"c")).error_code == 0
    assert wire.produce(topic, batch(b"d", key=b"k")).error_code == 0
    assert consumer.take((topic_id, 0)) == [(0, 3, 1)]
    assert consumer.says(topic_id, (0, 3, [REJECT])) == 0
    assert letters(wire, queue, 3) == [(0, REJECTED, 1), (1, REJECTED, 1), (3, REJECTED, 1)]
    eventually(lambda: offsets(wire, group, topic) == [(0, 4, 0)], what="everything being done with")


def test_internal_topics_are_no_dead_letter_queues(wire: Wire, group: str) -> None:
    assert set_config(wire, GROUP_CONFIG, group, {QUEUE_NAME: "__consumer_offsets"}) == ErrorCode.INVALID_CONFIG


# --- Administration ------------------------------------------------------------------------------------------------


def offsets(wire: Wire, group: str, topic: str | None, *, version: int = 1) -> list[tuple[int, int, int]]:
    """(partition, start offset, lag) of a topic."""
    topics = None
    if topic is not None:
        topics = [describe.DescribeShareGroupOffsetsRequestTopic(topic_name=topic, partitions=[0])]
    request = describe.DescribeShareGroupOffsetsRequest(
        groups=[describe.DescribeShareGroupOffsetsRequestGroup(group_id=group, topics=topics)]
    )
    (found,) = wire.call(ApiKey.DESCRIBE_SHARE_GROUP_OFFSETS, version, request).groups
    assert found.error_code == 0, found.error_message
    return [(p.partition_index, p.start_offset, p.lag) for t in found.topics for p in t.partitions]


def test_offsets_and_lag_are_described(wire: Wire, consumer: Consumer, group: str, topic: str, topic_id: bytes) -> None:
    fill(wire, topic, 10)
    assert offsets(wire, group, topic) == [(0, -1, -1)], "not begun"
    assert consumer.take((topic_id, 0)) == [(0, 9, 1)]
    assert consumer.says(topic_id, (0, 3, [ACCEPT]), (6, 7, [ACCEPT])) == 0
    assert offsets(wire, group, topic) == [(0, 4, 4)]
    assert offsets(wire, group, None) == [(0, 4, 4)]
    assert offsets(wire, "nobody-at-all", None) == []


def test_offsets_are_altered_and_deleted(
    wire: Wire, connect: Connect, consumer: Consumer, group: str, topic: str, topic_id: bytes
) -> None:
    fill(wire, topic, 10)
    assert consumer.take((topic_id, 0)) == [(0, 9, 1)]

    def set_to(offset: int, name: str = topic) -> Any:
        partition = alter.AlterShareGroupOffsetsRequestPartition(partition_index=0, start_offset=offset)
        return wire.call(
            ApiKey.ALTER_SHARE_GROUP_OFFSETS, 0,
            alter.AlterShareGroupOffsetsRequest(
                group_id=group,
                topics=[alter.AlterShareGroupOffsetsRequestTopic(topic_name=name, partitions=[partition])],
            ),
        )  # fmt: skip

    def remove(name: str) -> Any:
        topics = [delete.DeleteShareGroupOffsetsRequestTopic(topic_name=name)]
        request = delete.DeleteShareGroupOffsetsRequest(group_id=group, topics=topics)
        return wire.call(ApiKey.DELETE_SHARE_GROUP_OFFSETS, 0, request)

    assert set_to(4).error_code == ErrorCode.NON_EMPTY_GROUP
    assert remove(topic).error_code == ErrorCode.NON_EMPTY_GROUP
    assert consumer.fetch(epoch=-1).error_code == 0
    consumer.heartbeat(epoch=-1)
    assert set_to(4).responses[0].partitions[0].error_code == 0
    assert set_to(4, "nothing").responses[0].partitions[0].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert offsets(wire, group, topic) == [(0, 4, 6)]
    again = Consumer(connect(), group)
    again.join(topic)
    assert again.take((topic_id, 0)) == [(4, 9, 1)]
    assert again.fetch(epoch=-1).error_code == 0
    again.heartbeat(epoch=-1)
    assert remove(topic).responses[0].error_code == 0
    assert remove(topic).responses[0].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert offsets(wire, group, topic) == [(0, -1, -1)]
