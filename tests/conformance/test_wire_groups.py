"""Classic groups on the wire: joining, syncing, static members, offsets, and the code for every mistake."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fixtures.waiting import eventually
from fixtures.wire import Wire

from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import join_group, leave_group, offset_commit, offset_delete, offset_fetch, sync_group
from penstock.wire.messages.delete_groups import DeleteGroupsRequest
from penstock.wire.messages.describe_groups import DescribeGroupsRequest
from penstock.wire.messages.find_coordinator import FindCoordinatorRequest
from penstock.wire.messages.heartbeat import HeartbeatRequest
from penstock.wire.messages.list_groups import ListGroupsRequest

Connect = Callable[..., Wire]
RANGE = ("range", b"opaque")


class Member:
    """One member on a connection of its own; `call` names are those of the protocol."""

    def __init__(self, wire: Wire, group: str, *, instance: str | None = None) -> None:
        self.wire, self.group, self.instance = wire, group, instance
        self.member_id = ""
        self.generation = -1

    def send_join(
        self, *, version: int = 9, protocols: tuple[tuple[str, bytes], ...] = (RANGE,), kind: str = "consumer",
        session_ms: int = 10_000, rebalance_ms: int = 15_000,
    ) -> tuple[int, int]:  # fmt: skip
        request = join_group.JoinGroupRequest(
            group_id=self.group, session_timeout_ms=session_ms, rebalance_timeout_ms=rebalance_ms,
            member_id=self.member_id, group_instance_id=self.instance, protocol_type=kind,
            protocols=[join_group.JoinGroupRequestProtocol(name=name, metadata=data) for name, data in protocols],
        )  # fmt: skip
        return version, self.wire.send(ApiKey.JOIN_GROUP, version, request)

    def receive_join(self, sent: tuple[int, int]) -> Any:
        answer = self.wire.receive(ApiKey.JOIN_GROUP, *sent)
        if answer.error_code == 0:
            self.member_id, self.generation = answer.member_id, answer.generation_id
        return answer

    def join(self, **options: Any) -> Any:
        """One JoinGroup and its answer."""
        return self.receive_join(self.send_join(**options))

    def join_with_id(self, **options: Any) -> Any:
        """Join as a dynamic member does from version 4 on: ask for an id, then join with it."""
        self.get_id(**options)
        return self.join(**options)

    def get_id(self, **options: Any) -> None:
        answer = self.join(**options)
        assert answer.error_code == ErrorCode.MEMBER_ID_REQUIRED
        self.member_id = answer.member_id

    def send_sync(
        self, assignments: dict[str, bytes] | None = None, *, generation: int | None = None, protocol: str = "range"
    ) -> int:
        request = sync_group.SyncGroupRequest(
            group_id=self.group,
            generation_id=self.generation if generation is None else generation,
            member_id=self.member_id,
            group_instance_id=self.instance,
            protocol_type="consumer",
            protocol_name=protocol,
            assignments=[
                sync_group.SyncGroupRequestAssignment(member_id=member, assignment=data)
                for member, data in (assignments or {}).items()
            ],
        )
        return self.wire.send(ApiKey.SYNC_GROUP, 5, request)

    def sync(self, assignments: dict[str, bytes] | None = None, **options: Any) -> Any:
        return self.wire.receive(ApiKey.SYNC_GROUP, 5, self.send_sync(assignments, **options))

    def heartbeat(self, *, generation: int | None = None) -> int:
        request = HeartbeatRequest(
            group_id=self.group,
            generation_id=self.generation if generation is None else generation,
            member_id=self.member_id,
            group_instance_id=self.instance,
        )
        return int(self.wire.call(ApiKey.HEARTBEAT, 4, request).error_code)

    def leave(self) -> int:
        member = leave_group.MemberIdentity(member_id=self.member_id, group_instance_id=self.instance)
        request = leave_group.LeaveGroupRequest(group_id=self.group, members=[member])
        answer = self.wire.call(ApiKey.LEAVE_GROUP, 5, request)
        return int(answer.error_code or answer.members[0].error_code)

    def commit(
        self, topic: str, offset: int, *, partition: int = 0, metadata: str = "", generation: int | None = None,
        version: int = 8,
    ) -> int:  # fmt: skip
        wanted = offset_commit.OffsetCommitRequestPartition(
            partition_index=partition, committed_offset=offset, committed_metadata=metadata
        )
        request = offset_commit.OffsetCommitRequest(
            group_id=self.group,
            generation_id_or_member_epoch=self.generation if generation is None else generation,
            member_id=self.member_id,
            group_instance_id=self.instance,
            topics=[offset_commit.OffsetCommitRequestTopic(name=topic, partitions=[wanted])],
        )
        answer = self.wire.call(ApiKey.OFFSET_COMMIT, version, request)
        return int(answer.topics[0].partitions[0].error_code)

    def fetch_offset(self, topic: str, *, partition: int = 0) -> tuple[int, int, str]:
        """Error code, offset and metadata."""
        wanted = offset_fetch.OffsetFetchRequestTopics(name=topic, partition_indexes=[partition])
        group = offset_fetch.OffsetFetchRequestGroup(group_id=self.group, topics=[wanted])
        answer = self.wire.call(ApiKey.OFFSET_FETCH, 8, offset_fetch.OffsetFetchRequest(groups=[group])).groups[0]
        found = answer.topics[0].partitions[0]
        return answer.error_code or found.error_code, found.committed_offset, found.metadata


@pytest.fixture
def group(wire: Wire, fresh_name: Callable[..., str]) -> str:
    """The name of a group whose coordinator is ready to serve."""
    name = fresh_name("g")
    ask = FindCoordinatorRequest(key_type=0, coordinator_keys=[name])

    def ready() -> bool:
        found = wire.call(ApiKey.FIND_COORDINATOR, 4, ask).coordinators[0]
        if found.error_code or not found.port:
            return False
        described = wire.call(ApiKey.DESCRIBE_GROUPS, 5, DescribeGroupsRequest(groups=[name])).groups[0]
        return bool(described.error_code == 0)

    eventually(ready, what="a coordinator", within_s=30)
    return name


@pytest.fixture
def member(connect: Connect, group: str) -> Callable[..., Member]:
    """Makes members of the group."""

    def make(**options: Any) -> Member:
        return Member(connect(), options.pop("group", group), **options)

    return make


def stable(*members: Member) -> None:
    """Bring these members, the first of them joining alone first, into one generation, all synced."""
    leader, others = members[0], members[1:]
    answer = (leader.join if leader.instance else leader.join_with_id)()
    assert answer.error_code == 0
    assert leader.sync({leader.member_id: b"alone"}).error_code == 0
    if not others:
        return
    sent = []
    for other in others:
        if not other.instance:
            other.get_id()
        sent.append(other.send_join())
    eventually(lambda: leader.heartbeat() == ErrorCode.REBALANCE_IN_PROGRESS, what="the rebalance")
    answers = [leader.receive_join(leader.send_join())]
    answers += [other.receive_join(one) for other, one in zip(others, sent, strict=True)]
    assert {one.error_code for one in answers} == {0}
    assert len({one.generation_id for one in answers}) == 1
    syncs = [other.send_sync() for other in others]
    assert leader.sync({one.member_id: one.member_id.encode() for one in members}).assignment == (
        leader.member_id.encode()
    )
    for other, one in zip(others, syncs, strict=True):
        assert other.wire.receive(ApiKey.SYNC_GROUP, 5, one).assignment == other.member_id.encode()


def test_dynamic_member_gets_its_id_first(member: Callable[..., Member]) -> None:
    one = member()
    asked = one.join()
    assert asked.error_code == ErrorCode.MEMBER_ID_REQUIRED
    assert asked.member_id.startswith("raw-client-")
    one.member_id = asked.member_id
    answer = one.join()
    assert (answer.error_code, answer.generation_id, answer.leader) == (0, 1, one.member_id)
    assert (answer.protocol_type, answer.protocol_name) == ("consumer", "range")
    assert [(found.member_id, bytes(found.metadata)) for found in answer.members] == [(one.member_id, b"opaque")]


@pytest.mark.parametrize("version", range(4))
def test_older_versions_join_at_once(member: Callable[..., Member], version: int) -> None:
    answer = member().join(version=version)
    assert answer.error_code == 0
    assert answer.member_id == answer.leader


def test_two_members_share_a_generation(member: Callable[..., Member]) -> None:
    first, second = member(), member()
    stable(first, second)
    assert first.generation == second.generation == 2
    assert first.heartbeat() == second.heartbeat() == 0


def test_only_the_leader_sees_the_members(member: Callable[..., Member]) -> None:
    first, second = member(), member()
    assert first.join_with_id().error_code == 0
    first.sync({})
    second.get_id()
    sent = second.send_join()
    eventually(lambda: first.heartbeat() == ErrorCode.REBALANCE_IN_PROGRESS)
    leader = first.join()
    follower = second.receive_join(sent)
    assert leader.leader == follower.leader == first.member_id, "the first to join leads"
    assert {found.member_id for found in leader.members} == {first.member_id, second.member_id}
    assert follower.members == []
    waiting = second.send_sync()
    assert first.sync({second.member_id: b"all"}).assignment == b"", "who is not mentioned gets nothing"
    assert second.wire.receive(ApiKey.SYNC_GROUP, 5, waiting).assignment == b"all"


def test_a_member_that_leaves_makes_the_others_rebalance(member: Callable[..., Member]) -> None:
    first, second = member(), member()
    stable(first, second)
    assert second.leave() == 0
    eventually(lambda: first.heartbeat() == ErrorCode.REBALANCE_IN_PROGRESS)
    answer = first.join()
    assert (answer.error_code, answer.generation_id, len(answer.members)) == (0, 3, 1)
    assert second.heartbeat() == ErrorCode.UNKNOWN_MEMBER_ID
    assert second.leave() == ErrorCode.UNKNOWN_MEMBER_ID


def test_the_protocol_all_members_support_is_chosen(member: Callable[..., Member]) -> None:
    first, second = member(), member()
    own = (("sticky", b"s"), ("range", b"r"))
    first.join_with_id(protocols=own)
    first.sync({}, protocol="sticky")
    second.get_id()
    sent = second.send_join(protocols=(("range", b"other"),))
    eventually(lambda: first.heartbeat() == ErrorCode.REBALANCE_IN_PROGRESS)
    answer = first.join(protocols=own)
    assert answer.protocol_name == second.receive_join(sent).protocol_name == "range"
    assert {bytes(found.metadata) for found in answer.members} == {b"r", b"other"}


@pytest.mark.parametrize("kind", ["connect", "sr", "my own"])
def test_any_protocol_type_is_opaque(member: Callable[..., Member], kind: str) -> None:
    one = member()
    answer = one.join_with_id(kind=kind, protocols=(("anything", b"\xff\x00"),))
    assert (answer.error_code, answer.protocol_type, answer.protocol_name) == (0, kind, "anything")


# ---- mistakes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("session_ms", [5_999, 1_800_001, 0, -1])
def test_session_timeouts_have_bounds(member: Callable[..., Member], session_ms: int) -> None:
    assert member().join(session_ms=session_ms).error_code == ErrorCode.INVALID_SESSION_TIMEOUT


def test_empty_group_id(member: Callable[..., Member]) -> None:
    assert member(group="").join().error_code == ErrorCode.INVALID_GROUP_ID


def test_unknown_members(member: Callable[..., Member]) -> None:
    stranger = member()
    stranger.member_id = "nobody"
    assert stranger.heartbeat(generation=1) == ErrorCode.UNKNOWN_MEMBER_ID, "in a group that is not there"
    stable(member())
    assert stranger.join().error_code == ErrorCode.UNKNOWN_MEMBER_ID
    assert stranger.heartbeat(generation=1) == ErrorCode.UNKNOWN_MEMBER_ID
    assert stranger.sync(generation=1).error_code == ErrorCode.UNKNOWN_MEMBER_ID
    assert stranger.leave() == ErrorCode.UNKNOWN_MEMBER_ID


@pytest.mark.parametrize(
    "options",
    [{"kind": "connect"}, {"protocols": (("other", b""),)}, {"protocols": ()}, {"kind": "", "protocols": (RANGE,)}],
)
def test_inconsistent_protocols(member: Callable[..., Member], options: dict[str, Any]) -> None:
    stable(member())
    assert member().join(version=3, **options).error_code == ErrorCode.INCONSISTENT_GROUP_PROTOCOL


def test_wrong_generation(member: Callable[..., Member], topic: str) -> None:
    one = member()
    stable(one)
    assert one.heartbeat(generation=7) == ErrorCode.ILLEGAL_GENERATION
    assert one.sync(generation=7).error_code == ErrorCode.ILLEGAL_GENERATION
    assert one.commit(topic, 1, generation=7) == ErrorCode.ILLEGAL_GENERATION


def test_sync_with_another_protocol(member: Callable[..., Member]) -> None:
    one = member()
    one.join_with_id()
    assert one.sync({}, protocol="other").error_code == ErrorCode.INCONSISTENT_GROUP_PROTOCOL


def test_phases_of_a_rebalance(member: Callable[..., Member], topic: str) -> None:
    first, second = member(), member()
    stable(first)
    second.get_id()
    sent = second.send_join()
    eventually(lambda: first.heartbeat() == ErrorCode.REBALANCE_IN_PROGRESS, what="preparing")
    assert first.commit(topic, 5) == 0, "commits are taken until the member rejoins"
    assert first.sync().error_code == ErrorCode.REBALANCE_IN_PROGRESS
    first.join()
    second.receive_join(sent)
    assert first.heartbeat() == 0, "completing: the leader is computing"
    assert first.commit(topic, 6) == ErrorCode.REBALANCE_IN_PROGRESS
    assert first.fetch_offset(topic)[1] == 5


# ---- static members ------------------------------------------------------------------------------------------


def test_static_member_returns_without_a_rebalance(member: Callable[..., Member]) -> None:
    first = member(instance="one")
    answer = first.join()
    assert (answer.error_code, answer.generation_id) == (0, 1)
    assert answer.member_id.startswith("one-")
    first.sync({first.member_id: b"mine"})
    again = member(instance="one")
    rejoined = again.join()
    assert (rejoined.error_code, rejoined.generation_id, rejoined.skip_assignment) == (0, 1, True)
    assert rejoined.member_id != first.member_id
    assert again.sync().assignment == b"mine"
    assert first.heartbeat() == ErrorCode.FENCED_INSTANCE_ID
    assert first.join().error_code == ErrorCode.FENCED_INSTANCE_ID
    assert again.heartbeat() == 0


def test_unknown_instance(member: Callable[..., Member]) -> None:
    stable(member(instance="one"))
    stranger = member(instance="two")
    stranger.member_id = "two-1234"
    assert stranger.heartbeat(generation=1) == ErrorCode.UNKNOWN_MEMBER_ID


def test_static_member_is_removed_by_its_instance(member: Callable[..., Member]) -> None:
    one = member(instance="one")
    stable(one)
    administrator = member(instance="one")
    assert administrator.leave() == 0
    assert one.heartbeat() in (ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.FENCED_INSTANCE_ID)


# ---- offsets -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(2, 10))
def test_simple_commits_need_no_members(member: Callable[..., Member], topic: str, version: int) -> None:
    one = member()
    assert one.fetch_offset(topic) == (0, -1, "")
    assert one.commit(topic, 42, metadata="note", version=version) == 0
    assert one.fetch_offset(topic) == (0, 42, "note")


def test_simple_commit_to_a_group_with_members(member: Callable[..., Member], topic: str) -> None:
    stable(member())
    assert member().commit(topic, 1) == ErrorCode.UNKNOWN_MEMBER_ID


def test_member_commits(member: Callable[..., Member], topic: str) -> None:
    one = member()
    stable(one)
    assert one.commit(topic, 3, metadata="m") == 0
    assert one.fetch_offset(topic) == (0, 3, "m")


def test_commit_errors(member: Callable[..., Member], topic: str, fresh_name: Callable[..., str]) -> None:
    one = member()
    assert one.commit(topic, 1, metadata="x" * 4097) == ErrorCode.OFFSET_METADATA_TOO_LARGE
    assert one.commit(topic, 1, metadata="x" * 4096) == 0
    assert one.commit(fresh_name(), 1) == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert one.commit(topic, 1, partition=9) == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    nobody = member(group=fresh_name("g"))
    nobody.member_id = "nobody"
    assert nobody.commit(topic, 1, generation=4, version=9) == ErrorCode.GROUP_ID_NOT_FOUND
    assert nobody.commit(topic, 1, generation=4, version=8) == ErrorCode.ILLEGAL_GENERATION


def test_offsets_by_topic_id(member: Callable[..., Member], fresh_name: Callable[..., str]) -> None:
    one = member()
    name = fresh_name()
    topic_id = one.wire.create_topic(name)

    def commit(wanted: bytes) -> int:
        partition = offset_commit.OffsetCommitRequestPartition(
            partition_index=0, committed_offset=5, committed_metadata=""
        )
        request = offset_commit.OffsetCommitRequest(
            group_id=one.group,
            topics=[offset_commit.OffsetCommitRequestTopic(topic_id=wanted, partitions=[partition])],
        )
        return int(one.wire.call(ApiKey.OFFSET_COMMIT, 10, request).topics[0].partitions[0].error_code)

    assert commit(topic_id) == 0
    assert commit(b"\x09" * 16) == ErrorCode.UNKNOWN_TOPIC_ID
    asked = offset_fetch.OffsetFetchRequestTopics(topic_id=topic_id, partition_indexes=[0])
    group = offset_fetch.OffsetFetchRequestGroup(group_id=one.group, topics=[asked])
    answer = one.wire.call(ApiKey.OFFSET_FETCH, 10, offset_fetch.OffsetFetchRequest(groups=[group]))
    assert answer.groups[0].topics[0].partitions[0].committed_offset == 5


@pytest.mark.parametrize("version", range(1, 10))
def test_offset_fetch_in_every_version(member: Callable[..., Member], topic: str, version: int) -> None:
    one = member()
    one.commit(topic, 11)
    if version >= 8:
        group = offset_fetch.OffsetFetchRequestGroup(group_id=one.group, topics=None)
        request = offset_fetch.OffsetFetchRequest(groups=[group], require_stable=True)
        found = one.wire.call(ApiKey.OFFSET_FETCH, version, request).groups[0].topics
    else:
        asked = [offset_fetch.OffsetFetchRequestTopic(name=topic, partition_indexes=[0])]
        request = offset_fetch.OffsetFetchRequest(group_id=one.group, topics=asked if version < 2 else None)
        found = one.wire.call(ApiKey.OFFSET_FETCH, version, request).topics
    assert [(part.name, part.partitions[0].committed_offset) for part in found] == [(topic, 11)]


def _delete_offset(wire: Wire, group: str, topic: str) -> tuple[int, int]:
    wanted = offset_delete.OffsetDeleteRequestTopic(
        name=topic, partitions=[offset_delete.OffsetDeleteRequestPartition(partition_index=0)]
    )
    answer = wire.call(ApiKey.OFFSET_DELETE, 0, offset_delete.OffsetDeleteRequest(group_id=group, topics=[wanted]))
    return answer.error_code, answer.topics[0].partitions[0].error_code if answer.topics else 0


def _subscription(topic: str) -> bytes:
    name = topic.encode()
    return b"\0\0" + b"\0\0\0\1" + len(name).to_bytes(2, "big") + name + b"\xff\xff\xff\xff"


def test_offset_delete(member: Callable[..., Member], topic: str) -> None:
    one = member()
    assert _delete_offset(one.wire, one.group, topic)[0] == ErrorCode.GROUP_ID_NOT_FOUND
    one.commit(topic, 5)
    assert _delete_offset(one.wire, one.group, topic) == (0, 0)
    assert one.fetch_offset(topic)[1] == -1


def test_offset_delete_of_a_subscribed_topic(member: Callable[..., Member], topic: str) -> None:
    one = member()
    protocols = (("range", _subscription(topic)),)
    one.join_with_id(protocols=protocols)
    one.sync({})
    assert one.commit(topic, 5) == 0
    assert _delete_offset(one.wire, one.group, topic) == (0, ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC)


# ---- administration ------------------------------------------------------------------------------------------


def _delete_group(wire: Wire, group: str) -> int:
    return int(wire.call(ApiKey.DELETE_GROUPS, 2, DeleteGroupsRequest(groups_names=[group])).results[0].error_code)


def test_delete_groups(member: Callable[..., Member], topic: str) -> None:
    one = member()
    assert _delete_group(one.wire, one.group) == ErrorCode.GROUP_ID_NOT_FOUND
    stable(one)
    one.commit(topic, 5)
    assert _delete_group(one.wire, one.group) == ErrorCode.NON_EMPTY_GROUP
    one.leave()
    assert _delete_group(one.wire, one.group) == 0
    assert one.fetch_offset(topic)[1] == -1


def test_describe_groups(member: Callable[..., Member]) -> None:
    one = member()

    def describe(version: int) -> Any:
        request = DescribeGroupsRequest(groups=[one.group])
        return one.wire.call(ApiKey.DESCRIBE_GROUPS, version, request).groups[0]

    assert describe(6).error_code == ErrorCode.GROUP_ID_NOT_FOUND
    assert (describe(5).error_code, describe(5).group_state) == (0, "Dead")
    stable(one)
    for version in range(7):
        found = describe(version)
        assert (found.error_code, found.group_state, found.protocol_type) == (0, "Stable", "consumer")
        assert found.protocol_data == "range"
        (described,) = found.members
        assert described.member_id == one.member_id
        assert described.client_id == "raw-client"
        assert described.client_host.lstrip("/") == "127.0.0.1"
        assert bytes(described.member_metadata) == b"opaque"
        assert bytes(described.member_assignment) == b"alone"
    one.leave()
    assert describe(5).group_state == "Empty"


def test_list_groups(member: Callable[..., Member]) -> None:
    one = member()
    stable(one)

    def listed(version: int, **filters: list[str]) -> dict[str, Any]:
        answer = one.wire.call(ApiKey.LIST_GROUPS, version, ListGroupsRequest(**filters))
        assert answer.error_code == 0
        return {found.group_id: found for found in answer.groups}

    for version in range(6):
        found = listed(version)[one.group]
        assert found.protocol_type == "consumer"
        assert version < 4 or found.group_state == "Stable"
        assert version < 5 or found.group_type.lower() == "classic"
    assert one.group in listed(5, states_filter=["Stable"])
    assert one.group not in listed(5, states_filter=["Empty"])
    assert one.group in listed(5, types_filter=["classic"])
    assert listed(5, states_filter=["Nonsense"]) == {}


@pytest.mark.parametrize("version", range(7))
def test_find_coordinator(wire: Wire, group: str, version: int) -> None:
    if version >= 4:
        request = FindCoordinatorRequest(key_type=0, coordinator_keys=[group])
        found = wire.call(ApiKey.FIND_COORDINATOR, version, request).coordinators[0]
    else:
        found = wire.call(ApiKey.FIND_COORDINATOR, version, FindCoordinatorRequest(key=group, key_type=0))
    assert found.error_code == 0
    assert (found.node_id, found.port) in {(broker.node_id, broker.port) for broker in wire.metadata([]).brokers}


def test_a_silent_member_is_dropped_after_its_session(member: Callable[..., Member]) -> None:
    first, second = member(), member()
    first.join_with_id(session_ms=6_000)
    first.sync({})
    second.get_id()
    sent = second.send_join(session_ms=30_000)
    answer = second.receive_join(sent)  # The first never rejoins: its session ends, or its time to rejoin does.
    assert (answer.error_code, answer.leader) == (0, second.member_id)
    assert len(answer.members) == 1
