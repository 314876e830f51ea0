"""Streams groups on the wire: topologies, internal topics, tasks, descriptions, and the code for every mistake."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fixtures.streams_members import AT_ONCE, Member, owned, pairs, set_config, simple, task_ids, topology
from fixtures.waiting import eventually
from fixtures.wire import Wire

from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import describe_configs as showing
from penstock.wire.messages import offset_fetch
from penstock.wire.messages import streams_group_heartbeat as beats
from penstock.wire.messages.api_versions import ApiVersionsRequest
from penstock.wire.messages.consumer_group_describe import ConsumerGroupDescribeRequest
from penstock.wire.messages.consumer_group_heartbeat import ConsumerGroupHeartbeatRequest
from penstock.wire.messages.delete_groups import DeleteGroupsRequest
from penstock.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState
from penstock.wire.messages.describe_groups import DescribeGroupsRequest
from penstock.wire.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol
from penstock.wire.messages.list_groups import ListGroupsRequest
from penstock.wire.messages.share_group_describe import ShareGroupDescribeRequest
from penstock.wire.messages.streams_group_describe import StreamsGroupDescribeRequest

TOPIC_CONFIG = 2
MISSING_SOURCE, WRONG_PARTITIONS, MISSING_INTERNAL, SHUTDOWN, DELAYED, MISSING_TAGS = range(1, 7)


def codes(answer: Any) -> list[int]:
    return [status.status_code for status in answer.status]


@pytest.fixture
def application(wire: Wire, fresh_name: Callable[..., str]) -> Callable[..., str]:
    """Makes ids of applications that are assigned tasks at once."""

    def make(**settings: str) -> str:
        group = fresh_name("app")
        set_config(wire, group, AT_ONCE)
        set_config(wire, group, {key.replace("_", "."): value for key, value in settings.items()})
        return group

    return make


@pytest.fixture
def lines(wire: Wire, fresh_name: Callable[..., str]) -> str:
    """A topic of two partitions."""
    name = fresh_name("lines")
    wire.create_topic(name, partitions=2)
    return name


@pytest.fixture
def member(connect: Callable[..., Wire], application: Callable[..., str], lines: str) -> Callable[..., Member]:
    """Makes members of an application that counts words."""
    group, count = application(), iter(range(100))

    def make(member_id: str | None = None, *, counts: beats.Topology | None = None) -> Member:
        name = f"member-{next(count)}" if member_id is None else member_id
        return Member(connect(), group, name, topology(lines) if counts is None else counts)

    return make


def described(wire: Wire, group: str, *, version: int = 1, **fields: Any) -> Any:
    fields |= {"include_topology_description": True} if version >= 1 else {}
    request = StreamsGroupDescribeRequest(group_ids=[group], include_authorized_operations=True, **fields)
    return wire.call(ApiKey.STREAMS_GROUP_DESCRIBE, version, request).groups[0]


def test_features_say_that_there_are_streams_groups(wire: Wire) -> None:
    answer = wire.call(
        ApiKey.API_VERSIONS, 4, ApiVersionsRequest(client_software_name="test", client_software_version="1")
    )
    assert {one.name: one.max_version_level for one in answer.finalized_features}["streams.version"] == 1


@pytest.mark.parametrize("version", [0, 1])
def test_an_application_comes_to_life(wire: Wire, member: Callable[..., Member], lines: str, version: int) -> None:
    one = member()
    first = one.beat(version=version)
    assert (first.error_code, first.member_id, first.member_epoch) == (0, one.member_id, 2)
    assert (first.task_offset_interval_ms, first.acceptable_recovery_lag) == (60_000, 10_000 if version else -1)
    assert codes(first) == [MISSING_INTERNAL]
    words, counts = f"{lines}-repartition", f"{lines}-changelog"
    assert first.status[0].status_detail == f"Internal topics are missing: {counts}, {words}"
    one.settle(4)
    assert one.active == {"0": [0, 1], "1": [0, 1]}
    for name in (words, counts):
        assert len(wire.metadata([name]).topics[0].partitions) == 2
    assert _topic_configs(wire, counts)["cleanup.policy"] == "compact"
    assert _topic_configs(wire, words)["retention.ms"] == "-1"
    group = described(wire, one.group, version=version)
    assert (group.error_code, group.group_state, group.group_epoch) == (0, "Stable", one.epoch)
    assert group.assignment_epoch == one.epoch
    assert group.authorized_operations != -(1 << 31)
    assert (group.assignor_name, group.topology_description_status) == (("sticky", 1) if version else (None, 0))
    first_part, second_part = group.topology.subtopologies
    assert (list(first_part.source_topics), list(first_part.repartition_sink_topics)) == ([lines], [words])
    (changelog,) = second_part.state_changelog_topics
    assert (changelog.name, changelog.partitions, len(changelog.topic_configs)) == (counts, 2, 2)
    (shown,) = group.members
    assert (shown.member_id, shown.member_epoch, shown.topology_epoch) == (one.member_id, one.epoch, 0)
    assert (shown.process_id, shown.is_classic, shown.user_endpoint) == (one.member_id, False, None)
    for assignment in (shown.assignment, shown.target_assignment):
        assert owned(assignment.active_tasks) == one.active
    (listed,) = (
        entry for entry in wire.call(ApiKey.LIST_GROUPS, 5, ListGroupsRequest(types_filter=["streams"])).groups
        if entry.group_id == one.group
    )  # fmt: skip
    assert (listed.group_type, listed.protocol_type, listed.group_state) == ("streams", "streams", "Stable")


def _topic_configs(wire: Wire, topic: str) -> dict[str, str]:
    resource = showing.DescribeConfigsResource(resource_type=TOPIC_CONFIG, resource_name=topic, configuration_keys=None)
    answer = wire.call(ApiKey.DESCRIBE_CONFIGS, 4, showing.DescribeConfigsRequest(resources=[resource]))
    return {config.name: config.value for config in answer.results[0].configs}


def test_two_members_share_tasks_and_one_takes_over(member: Callable[..., Member]) -> None:
    one, other = member(), member()
    one.beat()
    one.settle(4)
    other.beat()
    one.settle(2)
    other.settle(2)
    together = {part: sorted(one.active.get(part, []) + other.active.get(part, [])) for part in ("0", "1")}
    assert together == {"0": [0, 1], "1": [0, 1]}
    assert one.epoch == other.epoch
    left = one.beat(member_epoch=-1)
    assert (left.error_code, left.member_id, left.member_epoch, left.active_tasks) == (0, one.member_id, -1, None)
    other.settle(4)


def test_standbys_and_endpoints(connect: Callable[..., Wire], application: Callable[..., str], lines: str) -> None:
    group = application(streams_num_standby_replicas="1")
    one, other = (Member(connect(), group, name, topology(lines)) for name in ("a", "b"))
    endpoint = beats.StreamsGroupHeartbeatRequestEndpoint(host="here", port=4242)
    one.beat(user_endpoint=endpoint)
    other.beat()
    one.settle(2)
    other.settle(2)
    one.settle(2)
    assert [len(each.standby.get("1", [])) for each in (one, other)] == [1, 1]
    assert one.standby.get("1") == other.active.get("1")
    told = other.beat(endpoint_information_epoch=-1)
    (found,) = told.partitions_by_user_endpoint
    assert (found.user_endpoint.host, found.user_endpoint.port) == ("here", 4242)
    assert {topic.topic: topic.partitions for topic in found.standby_partitions} == {
        f"{lines}-repartition": one.standby["1"]
    }
    assert {topic.topic for topic in found.active_partitions} == {lines, f"{lines}-repartition"}
    again = other.beat(endpoint_information_epoch=told.endpoint_information_epoch)
    assert again.partitions_by_user_endpoint is None


def test_topics_that_are_missing_or_do_not_fit(
    wire: Wire, connect: Callable[..., Wire], application: Callable[..., str], fresh_name: Callable[..., str]
) -> None:
    one, two, late = fresh_name("one"), fresh_name("two"), fresh_name("late")
    wire.create_topic(one, partitions=1)
    wire.create_topic(two, partitions=2)
    group = [beats.CopartitionGroup(source_topics=[0, 1])]
    uneven = Member(connect(), application(), "m", simple(one, two, copartition_groups=group))
    answer = uneven.beat()
    assert codes(answer) == [WRONG_PARTITIONS]
    assert answer.status[0].status_detail == (
        f"Following topics do not have the same number of partitions: [{{{one}=1, {two}=2}}]"
    )
    early = Member(connect(), application(), "m", simple(late))
    answer = early.beat()
    assert codes(answer) == [MISSING_SOURCE]
    assert answer.status[0].status_detail == f"Source topics {late} are missing."
    assert described(wire, early.group).group_state == "NotReady"
    wire.create_topic(late, partitions=3)
    early.settle(3)
    request = DeleteTopicsRequest(topics=[DeleteTopicState(name=late)], timeout_ms=10_000)
    assert wire.call(ApiKey.DELETE_TOPICS, 6, request).responses[0].error_code == 0
    assert codes(early.beat()) == [MISSING_SOURCE]
    early.settle(0)


def test_shutting_down_everybody(member: Callable[..., Member]) -> None:
    one, other = member(), member()
    one.beat()
    other.beat()
    assert SHUTDOWN in codes(one.beat(shutdown_application=True))
    assert SHUTDOWN in codes(other.beat())


def test_the_first_assignment_waits(connect: Callable[..., Wire], application: Callable[..., str], lines: str) -> None:
    group = application(streams_initial_rebalance_delay_ms="500")
    one = Member(connect(), group, "a", simple(lines))
    answer = one.beat()
    assert (codes(answer), answer.member_epoch) == ([DELAYED], 1)
    assert one.active == {}
    one.settle(2)


def test_client_tags(connect: Callable[..., Wire], application: Callable[..., str], lines: str) -> None:
    group = application(streams_rack_aware_assignment_tags="zone,rack")
    one = Member(connect(), group, "a", simple(lines))
    assert codes(one.beat(version=0)) == []
    assert codes(one.beat()) == [MISSING_TAGS]
    one.epoch = 0
    assert codes(one.beat(client_tags=pairs({"zone": "a", "rack": "b"}))) == []
    (shown,) = described(one.wire, group).members
    assert {tag.key: tag.value for tag in shown.client_tags} == {"zone": "a", "rack": "b"}


def test_task_offsets_are_shown(member: Callable[..., Member]) -> None:
    one = member()
    one.beat()
    one.settle(4)
    at = [beats.TaskOffset(subtopology_id="1", partition=0, offset=17)]
    assert one.beat(task_offsets=at, task_end_offsets=at).error_code == 0
    (shown,) = described(one.wire, one.group).members
    for offsets in (shown.task_offsets, shown.task_end_offsets):
        assert [(each.subtopology_id, each.partition, each.offset) for each in offsets] == [("1", 0, 17)]
    assert one.beat(task_offsets=at * 2).error_code == ErrorCode.INVALID_REQUEST


def test_static_members(member: Callable[..., Member]) -> None:
    one = member("a")
    one.beat(instance_id="i")
    eventually(lambda: one.beat(instance_id="i").error_code == 0 and one.active.get("1") == [0, 1], what="tasks")
    other = member("b")
    assert other.beat(instance_id="i").error_code == ErrorCode.UNRELEASED_INSTANCE_ID
    assert other.beat(instance_id="i", member_epoch=one.epoch, topology=None).error_code == ErrorCode.FENCED_INSTANCE_ID
    assert other.beat(instance_id="j", member_epoch=one.epoch, topology=None).error_code == ErrorCode.UNKNOWN_MEMBER_ID
    left = one.beat(instance_id="i", member_epoch=-2)
    assert (left.error_code, left.member_epoch) == (0, -2)
    joined = other.beat(instance_id="i", process_id="a")
    assert (joined.error_code, other.active) == (0, {"0": [0, 1], "1": [0, 1]})
    (shown,) = described(other.wire, other.group).members
    assert (shown.member_id, shown.instance_id) == ("b", "i")


JOINING: dict[str, tuple[dict[str, Any], ErrorCode, str]] = {
    "no member id": ({"member_id": " "}, ErrorCode.INVALID_REQUEST, "MemberId can't be empty."),
    "no group id": ({"group_id": ""}, ErrorCode.INVALID_REQUEST, "GroupId can't be empty."),
    "empty instance": ({"instance_id": ""}, ErrorCode.INVALID_REQUEST, "InstanceId can't be empty."),
    "empty rack": ({"rack_id": ""}, ErrorCode.INVALID_REQUEST, "RackId can't be empty."),
    "no time-out": (
        {"rebalance_timeout_ms": -1}, ErrorCode.INVALID_REQUEST,
        "RebalanceTimeoutMs must be provided in first request.",
    ),
    "tasks": (
        {"active_tasks": task_ids({"0": [0]})}, ErrorCode.INVALID_REQUEST,
        "ActiveTasks must be empty when (re-)joining.",
    ),
    "no word of tasks": (
        {"standby_tasks": None}, ErrorCode.INVALID_REQUEST, "StandbyTasks must be empty when (re-)joining.",
    ),
    "no topology": ({"topology": None}, ErrorCode.INVALID_REQUEST, "Topology must be non-null when (re-)joining."),
    "a regular expression": (
        {"topology": simple("t", source_topic_regex=["t.*"])}, ErrorCode.INVALID_REQUEST,
        "Regular expressions for source topics are not supported yet.",
    ),
    "a topic of Kafka's": (
        {"topology": simple("__consumer_offsets")}, ErrorCode.STREAMS_INVALID_TOPOLOGY,
        "Use of Kafka internal topics __consumer_offsets in a Kafka Streams topology is prohibited.",
    ),
    "a topic that cannot be": (
        {"topology": simple("a b")}, ErrorCode.STREAMS_INVALID_TOPOLOGY, "Topic names a b are not valid topic names.",
    ),
    "a changelog that says how large it is": (
        {"topology": simple("t", state_changelog_topics=[beats.TopicInfo(name="c", partitions=3)])},
        ErrorCode.STREAMS_INVALID_TOPOLOGY,
        "Changelog topic c must have an undefined partition count, but it is set to 3.",
    ),
    "too many subtopologies": (
        {"topology": beats.Topology(epoch=0, subtopologies=[beats.Subtopology(subtopology_id="0")] * 1001)},
        ErrorCode.STREAMS_INVALID_TOPOLOGY, "The topology has 1001 subtopologies; at most 1000 are possible.",
    ),
    "too many copartition groups": (
        {"topology": simple("t", copartition_groups=[beats.CopartitionGroup(source_topics=[0])] * 1001)},
        ErrorCode.STREAMS_INVALID_TOPOLOGY, "The topology has 1001 copartition groups; at most 1000 are possible.",
    ),
    "too many topics": (
        {"topology": simple(*(["t"] * 9_000), copartition_groups=[beats.CopartitionGroup(source_topics=[0] * 1001)])},
        ErrorCode.STREAMS_INVALID_TOPOLOGY, "The topology has 10001 topics; at most 10000 are possible.",
    ),
    "too many settings of topics": (
        {
            "topology": simple(
                "t", state_changelog_topics=[beats.TopicInfo(name="c", topic_configs=[beats.KeyValue()] * 20_001)]
            )
        },
        ErrorCode.STREAMS_INVALID_TOPOLOGY, "The topology has 20001 settings of topics; at most 20000 are possible.",
    ),
    "too many tags": (
        {"topology": simple("t"), "client_tags": [beats.KeyValue()] * 1_001}, ErrorCode.INVALID_REQUEST,
        "A member may have 1000 client tags.",
    ),
    "nothing to read": (
        {"topology": simple()}, ErrorCode.STREAMS_INVALID_TOPOLOGY, "No source topics found for subtopology 0",
    ),
    "an epoch that cannot be": (
        {"member_epoch": -3, "topology": None}, ErrorCode.INVALID_REQUEST,
        "MemberEpoch is -3, but must be greater than or equal to -2.",
    ),
    "away without a name": (
        {"member_epoch": -2, "topology": None}, ErrorCode.INVALID_REQUEST, "InstanceId can't be null.",
    ),
    "half of the tasks": (
        {"member_epoch": 1, "topology": None, "warmup_tasks": None}, ErrorCode.INVALID_REQUEST,
        "If one task-type is non-null, all must be non-null.",
    ),
    "a topology afterwards": (
        {"member_epoch": 1, "topology": simple("t")}, ErrorCode.INVALID_REQUEST,
        "Topology can only be provided when (re-)joining.",
    ),
    "a member of no group": (
        {"member_epoch": 1, "topology": None}, ErrorCode.GROUP_ID_NOT_FOUND, "Streams group not found.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("wrong", JOINING)
def test_requests_that_mean_nothing(wire: Wire, application: Callable[..., str], wrong: str) -> None:
    fields, code, message = JOINING[wrong]
    answer = Member(wire, application(), "m", simple("t")).beat(**fields)
    assert (answer.error_code, answer.error_message) == (code, message)


def test_mistakes_of_members(member: Callable[..., Member], lines: str) -> None:
    one = member()
    one.beat()
    one.settle(4)
    wrong = task_ids({"7": [0]})
    answer = one.beat(active_tasks=wrong)
    assert (answer.error_code, answer.error_message) == (
        ErrorCode.INVALID_REQUEST, "Subtopology 7 does not exist in the topology.",
    )  # fmt: skip
    assert one.beat(active_tasks=task_ids({"0": [2]})).error_code == ErrorCode.INVALID_REQUEST
    assert one.beat(member_epoch=one.epoch + 1).error_code == ErrorCode.FENCED_MEMBER_EPOCH
    assert one.beat(member_epoch=one.epoch, member_id="nobody").error_code == ErrorCode.UNKNOWN_MEMBER_ID
    other = member(counts=topology(lines, epoch=1))
    answer = other.beat()
    assert (answer.error_code, answer.error_message) == (
        ErrorCode.INVALID_REQUEST, "Topology updates are not supported yet.",
    )  # fmt: skip


def test_groups_of_other_kinds(wire: Wire, member: Callable[..., Member], lines: str) -> None:
    one = member()
    one.beat()
    group = one.group
    join = ConsumerGroupHeartbeatRequest(
        group_id=group, member_id="c", member_epoch=0, rebalance_timeout_ms=1_000, topic_partitions=[],
        subscribed_topic_names=[lines],
    )  # fmt: skip
    assert wire.call(ApiKey.CONSUMER_GROUP_HEARTBEAT, 1, join).error_code == ErrorCode.GROUP_ID_NOT_FOUND
    classic = JoinGroupRequest(
        group_id=group, session_timeout_ms=10_000, rebalance_timeout_ms=10_000, member_id="", protocol_type="consumer",
        protocols=[JoinGroupRequestProtocol(name="range", metadata=b"")],
    )  # fmt: skip
    assert wire.call(ApiKey.JOIN_GROUP, 9, classic).error_code == ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    for kind, key, version, request in (
        ("consumer", ApiKey.CONSUMER_GROUP_DESCRIBE, 1, ConsumerGroupDescribeRequest(group_ids=[group])),
        ("classic", ApiKey.DESCRIBE_GROUPS, 6, DescribeGroupsRequest(groups=[group])),
        ("share", ApiKey.SHARE_GROUP_DESCRIBE, 1, ShareGroupDescribeRequest(group_ids=[group])),
    ):
        answer = wire.call(key, version, request).groups[0]
        assert (answer.error_code, answer.error_message) == (
            ErrorCode.GROUP_ID_NOT_FOUND,
            f"Group {group} is not a {kind} group.",
        )
    for absent in (f"{group}-absent", ""):
        expected = ErrorCode.GROUP_ID_NOT_FOUND if absent else ErrorCode.INVALID_GROUP_ID
        assert described(wire, absent).error_code == expected
    delete = DeleteGroupsRequest(groups_names=[group])
    assert wire.call(ApiKey.DELETE_GROUPS, 2, delete).results[0].error_code == ErrorCode.NON_EMPTY_GROUP
    assert one.beat(member_epoch=-1).error_code == 0
    assert described(wire, group).group_state == "Empty"
    assert wire.call(ApiKey.DELETE_GROUPS, 2, delete).results[0].error_code == 0
    answer = described(wire, group)
    assert (answer.error_code, answer.error_message) == (ErrorCode.GROUP_ID_NOT_FOUND, f"Group {group} not found.")


def test_offsets_of_members(wire: Wire, member: Callable[..., Member], lines: str) -> None:
    one = member()
    one.beat()
    one.settle(4)

    def commit(epoch: int, **fields: Any) -> int:
        return one.commit(lines, 0, 5, generation_id_or_member_epoch=epoch, **fields)

    def fetch(epoch: int, member_id: str | None) -> tuple[int, int]:
        topic = offset_fetch.OffsetFetchRequestTopics(name=lines, partition_indexes=[0])
        asked = offset_fetch.OffsetFetchRequestGroup(
            group_id=one.group, member_id=member_id, member_epoch=epoch, topics=[topic]
        )
        answer = wire.call(ApiKey.OFFSET_FETCH, 9, offset_fetch.OffsetFetchRequest(groups=[asked])).groups[0]
        return answer.error_code, answer.topics[0].partitions[0].committed_offset if answer.topics else -1

    assert commit(one.epoch) == 0
    assert commit(one.epoch + 1) == ErrorCode.STALE_MEMBER_EPOCH
    assert commit(one.epoch, version=8) == ErrorCode.UNSUPPORTED_VERSION
    assert commit(one.epoch, member_id="nobody") == ErrorCode.UNKNOWN_MEMBER_ID
    assert fetch(one.epoch, one.member_id) == (0, 5)
    assert fetch(-1, None) == (0, 5)
    assert fetch(one.epoch - 1, one.member_id) == (ErrorCode.STALE_MEMBER_EPOCH, -1)
    assert fetch(one.epoch, "nobody") == (ErrorCode.UNKNOWN_MEMBER_ID, -1)


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"streams.session.timeout.ms": "44999"}, ErrorCode.INVALID_CONFIG),
        ({"streams.heartbeat.interval.ms": "15001"}, ErrorCode.INVALID_CONFIG),
        ({"streams.num.standby.replicas": "3"}, ErrorCode.INVALID_CONFIG),
        ({"streams.assignor.name": "mine"}, ErrorCode.INVALID_CONFIG),
        ({"streams.rack.aware.assignment.tags": "a,a"}, ErrorCode.INVALID_CONFIG),
        ({"streams.num.standby.replicas": "2", "streams.assignor.name": "sticky"}, ErrorCode.NONE),
    ],
    ids=str,
)
def test_configuration_of_groups(
    wire: Wire, fresh_name: Callable[..., str], values: dict[str, str], code: ErrorCode
) -> None:
    assert set_config(wire, fresh_name("app"), values) == code
