"""The group APIs end to end over real SQL: handlers, service, runner, journal."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from group_bench import subscription
from group_world import ORDERS, PAYMENTS, Process, World, settle

from penstock.coordination.model import CoordinatorLoading, Key
from penstock.groups.model import CommitOffsets, OffsetAndMetadata, TransactionOwner
from penstock.transactions.model import Transaction
from penstock.transactions.store import put
from penstock.wire.api_keys import ApiKey
from penstock.wire.codec import encode_response
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.delete_groups import DeleteGroupsRequest
from penstock.wire.messages.describe_groups import DescribeGroupsRequest
from penstock.wire.messages.find_coordinator import FindCoordinatorRequest
from penstock.wire.messages.heartbeat import HeartbeatRequest
from penstock.wire.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse
from penstock.wire.messages.leave_group import LeaveGroupRequest, MemberIdentity
from penstock.wire.messages.list_groups import ListGroupsRequest
from penstock.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from penstock.wire.messages.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic,
)
from penstock.wire.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopic,
    OffsetFetchRequestTopics,
)
from penstock.wire.messages.sync_group import SyncGroupRequest, SyncGroupRequestAssignment

DAY_MS = 24 * 3_600_000


def join(
    member_id: str = "", *, group: str = "g", metadata: bytes = subscription("orders"), **more
) -> JoinGroupRequest:
    return JoinGroupRequest(
        group_id=group, session_timeout_ms=10_000, rebalance_timeout_ms=60_000, member_id=member_id,
        protocol_type=more.pop("protocol_type", "consumer"),
        protocols=[JoinGroupRequestProtocol(name="range", metadata=metadata)], **more,
    )  # fmt: skip


def commit(offset: int = 5, *, topics=("orders",), partition: int = 0, metadata: str = "", **more):
    return OffsetCommitRequest(
        group_id=more.pop("group", "g"),
        topics=[
            OffsetCommitRequestTopic(
                name=topic if isinstance(topic, str) else "",
                topic_id=topic if isinstance(topic, bytes) else bytes(16),
                partitions=[
                    OffsetCommitRequestPartition(
                        partition_index=partition, committed_offset=offset, committed_metadata=metadata
                    )
                ],
            )
            for topic in topics
        ],
        **more,
    )


async def committed(process: Process, group: str = "g") -> dict[tuple[str, int], int]:
    request = OffsetFetchRequest(groups=[OffsetFetchRequestGroup(group_id=group, topics=None)])
    response = await process.ask("offset_fetch", request, version=9)
    return {
        (topic.name, partition.partition_index): partition.committed_offset
        for topic in response.groups[0].topics
        for partition in topic.partitions
    }


async def stable(process: Process, count: int = 1, group: str = "g", **more) -> list[JoinGroupResponse]:
    """That many members of a stable group; returns their answers to the join, the leader's first."""
    joining = [process.asking("join_group", join(group=group, **more), version=3) for _ in range(count)]
    await process.world.clock.pass_ms(500)
    answers = await asyncio.gather(*joining)
    answers.sort(key=lambda answer: answer.leader != answer.member_id)
    syncing = [
        process.asking(
            "sync_group",
            SyncGroupRequest(
                group_id=group,
                generation_id=answer.generation_id,
                member_id=answer.member_id,
                protocol_type="consumer",
                protocol_name="range",
                assignments=[
                    SyncGroupRequestAssignment(member_id=member.member_id, assignment=member.member_id.encode())
                    for member in answer.members
                ],
            ),
            version=5,
        )
        for answer in answers
    ]
    for answer, synced in zip(answers, await asyncio.gather(*syncing), strict=True):
        assert (synced.error_code, synced.assignment) == (0, answer.member_id.encode())
    return answers


def beat(answer: JoinGroupResponse, group: str = "g") -> HeartbeatRequest:
    return HeartbeatRequest(group_id=group, generation_id=answer.generation_id, member_id=answer.member_id)


# --- Members -------------------------------------------------------------------------------------------------------


async def test_members_keep_their_generation_over_a_restart() -> None:
    world = World()
    process = await world.start()
    leader, follower = await stable(process, 2)
    restarted = await world.start()
    assert (await restarted.ask("heartbeat", beat(follower), version=4)).error_code == 0
    request = SyncGroupRequest(
        group_id="g", generation_id=1, member_id=leader.member_id, protocol_type="consumer", protocol_name="range"
    )  # fmt: skip
    synced = await restarted.ask("sync_group", request, version=5)
    assert synced.assignment == leader.member_id.encode()
    await world.clock.pass_ms(9_000)
    await restarted.ask("heartbeat", beat(leader), version=4)
    await world.clock.pass_ms(2_000)
    assert (await restarted.ask("heartbeat", beat(leader), version=4)).error_code == ErrorCode.REBALANCE_IN_PROGRESS
    assert (await restarted.ask("heartbeat", beat(follower), version=4)).error_code == ErrorCode.UNKNOWN_MEMBER_ID


async def test_fifty_members_that_join_at_once_get_one_generation_and_two_writes() -> None:
    world = World()
    process = await world.start()

    async def member() -> JoinGroupResponse:
        first = await process.ask("join_group", join(), version=9)
        assert first.error_code == ErrorCode.MEMBER_ID_REQUIRED
        return await process.ask("join_group", join(first.member_id), version=9)

    before = world.database.transactions
    members = [asyncio.ensure_future(member()) for _ in range(50)]
    await world.clock.pass_ms(40)
    answers = await asyncio.gather(*members)
    assert {answer.generation_id for answer in answers} == {1}
    assert world.database.transactions - before == 1


async def test_stale_coordinator_changes_nothing() -> None:
    world = World()
    old = await world.start()
    (member,) = await stable(old)
    new = await world.start()
    response = await old.ask("offset_commit", commit(99, generation_id_or_member_epoch=1, member_id=member.member_id),
                             version=8)  # fmt: skip
    assert response.topics[0].partitions[0].error_code == ErrorCode.NOT_COORDINATOR
    assert (await old.ask("heartbeat", beat(member), version=4)).error_code == ErrorCode.NOT_COORDINATOR
    assert await committed(new) == {}
    assert (await new.ask("heartbeat", beat(member), version=4)).error_code == 0


@pytest.mark.parametrize(("fault", "error", "durable"), [
    ("before", ErrorCode.COORDINATOR_NOT_AVAILABLE, {}),
    ("lost", ErrorCode.COORDINATOR_NOT_AVAILABLE, {}),
    ("after", ErrorCode.NONE, {("orders", 0): 5}),
])  # fmt: skip
async def test_commit_tells_the_truth_about_what_the_database_did(fault: str, error: ErrorCode, durable) -> None:
    world = World()
    process = await world.start()
    (member,) = await stable(process)
    world.database.faults = [fault, "before"]  # The first attempt to find out fails as well.
    if fault == "before":
        world.database.faults.pop()
    request = commit(generation_id_or_member_epoch=1, member_id=member.member_id)
    asking = process.asking("offset_commit", request, version=8)
    await world.clock.pass_ms(1_000)
    assert (await asking).topics[0].partitions[0].error_code == error
    assert await committed(process) == durable
    assert (await process.ask("heartbeat", beat(member), version=4)).error_code == 0


async def test_requests_before_the_groups_are_read() -> None:
    world = World()
    process = await world.start()
    process.service._runtime._open = False
    assert (await process.ask("join_group", join(), version=9)).error_code == ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    assert (await process.ask("list_groups", ListGroupsRequest(), version=4)).error_code == 14
    # Whoever is a member must not be made to believe otherwise.
    assert (await process.ask("heartbeat", HeartbeatRequest(group_id="g", member_id="m"), version=4)).error_code == 0


async def test_shutting_down_lets_everybody_go() -> None:
    process = await World().start()
    parked = process.asking("join_group", join(), version=3)
    await settle()
    await process.service.close()
    assert (await parked).error_code == ErrorCode.COORDINATOR_NOT_AVAILABLE


async def test_idle_groups_write_nothing() -> None:
    world = World()
    process = await world.start()
    (member,) = await stable(process)
    before = world.database.transactions
    for _ in range(20):
        await world.clock.pass_ms(3_000)
        assert (await process.ask("heartbeat", beat(member), version=4)).error_code == 0
    assert world.database.transactions == before
    await process.ask("leave_group", LeaveGroupRequest(group_id="g", member_id=member.member_id), version=2)
    assert world.clock.pending() == 0


@pytest.mark.parametrize("api", ["join_group", "sync_group", "heartbeat", "leave_group"])
async def test_empty_group_ids_are_refused(api: str) -> None:
    process = await World().start()
    request = {"join_group": join(group=""), "sync_group": SyncGroupRequest(), "heartbeat": HeartbeatRequest(),
               "leave_group": LeaveGroupRequest()}[api]  # fmt: skip
    assert (await process.ask(api, request, version=3)).error_code == ErrorCode.INVALID_GROUP_ID


@pytest.mark.parametrize("version", range(10))
async def test_join_answers_can_be_written_in_every_version(version: int) -> None:
    process = await World().start()
    refused = await process.ask("join_group", join("nobody"), version=version)
    encode_response(ApiKey.JOIN_GROUP, version, 1, refused)
    response = (await stable(process))[0]
    encode_response(ApiKey.JOIN_GROUP, version, 1, response)


async def test_leaving_in_old_and_new_versions() -> None:
    process = await World().start()
    (member,) = await stable(process)
    old = LeaveGroupRequest(group_id="g", member_id="nobody")
    assert (await process.ask("leave_group", old, version=2)).error_code == ErrorCode.UNKNOWN_MEMBER_ID
    new = LeaveGroupRequest(
        group_id="g", members=[MemberIdentity(member_id="nobody"), MemberIdentity(member_id=member.member_id)]
    )
    response = await process.ask("leave_group", new, version=5)
    assert [one.error_code for one in response.members] == [ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.NONE]
    assert response.error_code == 0


# --- Offsets -------------------------------------------------------------------------------------------------------


async def test_offsets_survive_a_restart() -> None:
    world = World()
    process = await world.start()
    response = await process.ask("offset_commit", commit(7, metadata="mine", topics=("orders", "payments")), version=8)
    assert [topic.partitions[0].error_code for topic in response.topics] == [0, 0]
    assert await committed(await world.start()) == {("orders", 0): 7, ("payments", 0): 7}


@pytest.mark.parametrize(("request_", "version", "error"), [
    (commit(topics=("nothing",)), 8, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
    (commit(partition=4), 8, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
    (commit(partition=-1), 8, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
    (commit(topics=(bytes([1]) * 16,)), 10, ErrorCode.UNKNOWN_TOPIC_ID),
    (commit(topics=(ORDERS,)), 10, ErrorCode.NONE),
    (commit(metadata="x" * 4097), 8, ErrorCode.OFFSET_METADATA_TOO_LARGE),
    (commit(metadata="x" * 4096), 8, ErrorCode.NONE),
    (commit(metadata="x" * 4097, generation_id_or_member_epoch=3, member_id="m"), 9, ErrorCode.GROUP_ID_NOT_FOUND),
    (commit(topics=("nothing",), generation_id_or_member_epoch=3), 9, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
    (commit(generation_id_or_member_epoch=3, member_id="m"), 9, ErrorCode.GROUP_ID_NOT_FOUND),
    (commit(generation_id_or_member_epoch=3, member_id="m"), 8, ErrorCode.ILLEGAL_GENERATION),
])  # fmt: skip
async def test_commits_are_checked_per_partition(request_: OffsetCommitRequest, version: int, error) -> None:
    process = await World().start()
    response = await process.ask("offset_commit", request_, version=version)
    assert response.topics[0].partitions[0].error_code == error
    assert bool(await committed(process)) is (error is ErrorCode.NONE)


async def test_fetching_what_was_never_committed() -> None:
    process = await World().start()
    request = OffsetFetchRequest(
        group_id="unknown", topics=[OffsetFetchRequestTopic(name="nothing", partition_indexes=[0])]
    )
    response = await process.ask("offset_fetch", request, version=1)
    partition = response.topics[0].partitions[0]
    assert (partition.committed_offset, partition.committed_leader_epoch) == (-1, -1)
    assert (partition.metadata, partition.error_code) == ("", 0)


async def test_offsets_of_a_transaction_that_the_database_does_not_know_are_not_acknowledged() -> None:
    world = World()
    process = await world.start()
    offset = OffsetAndMetadata(committed_offset=5, leader_epoch=-1, metadata="", committed_ms=0)
    owner = TransactionOwner(transactional_id="txn", producer_id=7, epoch=1, begins=True)
    asked = CommitOffsets(offsets={(ORDERS, 0): offset}, owner=owner)
    with pytest.raises(CoordinatorLoading):
        await process.service.commit_offsets((1, "g"), asked)
    txn = Transaction(key=(1, "txn"), producer_id=7, epoch=1, timeout_ms=1_000, updated_ms=0)
    await world.database.transaction(lambda: put(txn))
    assert await process.service.commit_offsets((1, "g"), asked) is ErrorCode.NONE
    world.database.faults = ["after"]
    with pytest.raises(CoordinatorLoading):
        await process.service.commit_offsets((1, "g"), asked)
    _, pending = await process.service.stable_offsets((1, "g"))
    assert pending == {(ORDERS, 0)}


async def test_offsets_that_cannot_be_read_are_asked_for_again() -> None:
    """After COORDINATOR_NOT_AVAILABLE consumers would give up."""
    world = World()
    process = await world.start()
    world.database.faults = ["unread"]
    topic = OffsetFetchRequestTopics(name="orders", partition_indexes=[0])
    request = OffsetFetchRequest(groups=[OffsetFetchRequestGroup(group_id="g", topics=[topic])])
    response = await process.ask("offset_fetch", request, version=9)
    assert response.groups[0].error_code is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    assert response.groups[0].topics[0].partitions[0].error_code is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS


async def test_fetching_by_topic_id() -> None:
    process = await World().start()
    await process.ask("offset_commit", commit(7), version=8)
    request = OffsetFetchRequest(
        groups=[
            OffsetFetchRequestGroup(
                group_id="g",
                topics=[
                    OffsetFetchRequestTopics(topic_id=ORDERS, partition_indexes=[0]),
                    OffsetFetchRequestTopics(topic_id=bytes([1]) * 16, partition_indexes=[0]),
                ],
            ),
            OffsetFetchRequestGroup(group_id="unknown", topics=None),
        ]
    )
    response = await process.ask("offset_fetch", request, version=10)
    first, second = (topic.partitions[0] for topic in response.groups[0].topics)
    assert (first.committed_offset, first.error_code) == (7, 0)
    assert (second.committed_offset, second.error_code) == (-1, ErrorCode.UNKNOWN_TOPIC_ID)
    assert response.groups[1].topics == []


async def test_offsets_go_with_their_topic() -> None:
    world = World()
    process = await world.start()
    await process.ask("offset_commit", commit(7, topics=("orders", "payments")), version=8)
    await process.service.forget_topic(1, PAYMENTS)
    assert await committed(process) == {("orders", 0): 7}


async def test_deleting_offsets() -> None:
    process = await World().start()
    (member,) = await stable(process)
    more = {"generation_id_or_member_epoch": 1, "member_id": member.member_id}
    await process.ask("offset_commit", commit(7, topics=("orders", "payments"), **more), version=8)

    def delete(group: str) -> OffsetDeleteRequest:
        topics = [
            OffsetDeleteRequestTopic(name=name, partitions=[OffsetDeleteRequestPartition(partition_index=0)])
            for name in ("orders", "payments", "nothing")
        ]
        return OffsetDeleteRequest(group_id=group, topics=topics)

    response = await process.ask("offset_delete", delete("g"), version=0)
    codes = [topic.partitions[0].error_code for topic in response.topics]
    assert codes == [ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC, 0, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION]
    assert await committed(process) == {("orders", 0): 7}
    response = await process.ask("offset_delete", delete("unknown"), version=0)
    assert response.error_code == ErrorCode.GROUP_ID_NOT_FOUND


async def test_expired_offsets_go_and_their_group_with_the_last() -> None:
    world = World()
    process = await world.start()
    await process.ask("offset_commit", commit(group="old"), version=8)
    (member,) = await stable(process)
    more = {"generation_id_or_member_epoch": 1, "member_id": member.member_id}
    await process.ask("offset_commit", commit(7, topics=("orders", "payments"), **more), version=8)
    assert await process.service.expire_offsets() == 0
    world.clock.now_s += 8 * DAY_MS / 1000
    await process.ask("offset_commit", commit(group="new"), version=8)
    assert await process.service.expire_offsets() == 2  # `old`, and what the member does not subscribe any more.
    assert await committed(process) == {("orders", 0): 7}
    listed = await process.ask("list_groups", ListGroupsRequest(), version=4)
    assert [group.group_id for group in listed.groups] == ["g", "new"]


async def test_offsets_expire_beside_those_that_wait_for_a_transaction() -> None:
    world = World()
    process = await world.start()
    await process.ask("offset_commit", commit(topics=("orders", "payments")), version=8)
    txn = Transaction(key=(1, "txn"), producer_id=7, epoch=1, timeout_ms=1_000, updated_ms=0)
    await world.database.transaction(lambda: put(txn))
    owner = TransactionOwner(transactional_id="txn", producer_id=7, epoch=1, begins=True)
    waiting = OffsetAndMetadata(committed_offset=5, leader_epoch=-1, metadata="", committed_ms=0)
    world.clock.now_s += 8 * DAY_MS / 1000
    asked = CommitOffsets(offsets={(ORDERS, 0): waiting}, owner=owner)
    assert await process.service.commit_offsets((1, "g"), asked) is ErrorCode.NONE
    assert await process.service.expire_offsets() == 1
    assert (await committed(process)).keys() == {("orders", 0)}


# --- Administration ------------------------------------------------------------------------------------------------


async def test_listing_and_filters() -> None:
    world = World()
    process = await world.start()
    await stable(process, group="busy")
    await process.ask("offset_commit", commit(group="simple"), version=8)
    rebalancing = process.asking("join_group", join(group="new"), version=3)
    await settle()

    async def listed(**filters) -> list[tuple[str, str, str]]:
        response = await process.ask("list_groups", ListGroupsRequest(**filters), version=5)
        return [(group.group_id, group.protocol_type, group.group_state) for group in response.groups]

    busy, simple = ("busy", "consumer", "Stable"), ("simple", "", "Empty")
    assert await listed() == [busy, ("new", "consumer", "PreparingRebalance"), simple]
    assert await listed(states_filter=["stable", "EMPTY"]) == [busy, simple]
    assert await listed(states_filter=["nonsense"]) == []
    assert await listed(types_filter=["Classic"], states_filter=["Empty"]) == [simple]
    assert await listed(types_filter=["share"]) == []
    rebalancing.cancel()
    again = await world.start()
    response = await again.ask("list_groups", ListGroupsRequest(), version=5)
    assert [(group.group_id, group.group_state) for group in response.groups] == [
        ("busy", "Stable"),
        ("simple", "Empty"),
    ]


async def test_clusters_do_not_see_each_other() -> None:
    process = await World().start()
    await process.ask("offset_commit", commit(), version=8)
    assert (await process.ask("list_groups", ListGroupsRequest(), version=4, cluster_id=2)).groups == []
    described = await process.ask("describe_groups", DescribeGroupsRequest(groups=["g"]), version=6, cluster_id=2)
    assert described.groups[0].error_code == ErrorCode.GROUP_ID_NOT_FOUND


async def test_describing() -> None:
    process = await World().start()
    (member,) = await stable(process)
    request = DescribeGroupsRequest(groups=["g", "unknown"], include_authorized_operations=True)
    group, unknown = (await process.ask("describe_groups", request, version=6)).groups
    assert (group.group_state, group.protocol_type, group.protocol_data) == ("Stable", "consumer", "range")
    described = group.members[0]
    assert (described.member_id, described.client_id, described.client_host) == (
        member.member_id, "client", "/127.0.0.1",
    )  # fmt: skip
    assert described.member_metadata == subscription("orders")
    assert described.member_assignment == member.member_id.encode()
    assert group.authorized_operations == 3400
    assert (unknown.error_code, unknown.group_state) == (ErrorCode.GROUP_ID_NOT_FOUND, "Dead")
    old = (await process.ask("describe_groups", DescribeGroupsRequest(groups=["unknown"]), version=5)).groups[0]
    assert (old.error_code, old.group_state, old.authorized_operations) == (0, "Dead", -(1 << 31))


async def test_deleting_groups() -> None:
    world = World()
    process = await world.start()
    await stable(process)
    await process.ask("offset_commit", commit(group="simple"), version=8)
    request = DeleteGroupsRequest(groups_names=["g", "simple", "unknown"])
    results = (await process.ask("delete_groups", request, version=2)).results
    codes = [result.error_code for result in results]
    assert codes == [ErrorCode.NON_EMPTY_GROUP, ErrorCode.NONE, ErrorCode.GROUP_ID_NOT_FOUND]
    assert await committed(process, "simple") == {}


async def test_a_deletion_that_nobody_waits_for_any_more_is_made_to_its_end() -> None:
    """Whoever keeps something of a group hears of it though the client has hung up."""
    world = World()
    process = await world.start()
    await process.ask("offset_commit", commit(), version=8)
    began, heard = asyncio.Event(), list[bool]()

    async def delete_with(key: Key, delete: Callable[[], Awaitable[bool]]) -> None:
        began.set()
        heard.append(await delete())

    process.service.delete_with = delete_with
    asking = process.asking("delete_groups", DeleteGroupsRequest(groups_names=["g"]), version=2)
    await began.wait()
    asking.cancel()
    assert heard == []
    await settle()
    assert heard == [True]
    assert await committed(process, "g") == {}


async def test_finding_the_coordinator() -> None:
    process = await World().start()
    old = await process.ask("find_coordinator", FindCoordinatorRequest(key="g"), version=0)
    assert (old.error_code, old.node_id, old.host, old.port) == (0, 1, "localhost", 9092)
    request = FindCoordinatorRequest(key_type=1, coordinator_keys=["a", "b"])
    new = await process.ask("find_coordinator", request, version=4)
    assert [(found.key, found.port) for found in new.coordinators] == [("a", 9092), ("b", 9092)]
    share = FindCoordinatorRequest(key_type=2, coordinator_keys=["g"])
    refused = await process.ask("find_coordinator", share, version=6)
    assert refused.coordinators[0].error_code == ErrorCode.INVALID_REQUEST


# --- How much is answered, and how long it takes ----------------------------------------------------------------------


async def test_an_answer_has_room_for_so_many_offsets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request may name a group that has many a hundred thousand times. Clients ask again for what is missing."""
    monkeypatch.setattr("penstock.base.cooperative.MAX_RESPONSE_PARTS", 10)
    process = await World().start()
    for group in ("a", "b"):
        await process.ask("offset_commit", commit(group=group, topics=("orders", "payments")), version=8)
    asked = [OffsetFetchRequestGroup(group_id=group, topics=None) for group in ("a", "b", "a", "a", "b")]
    answer = await process.ask("offset_fetch", OffsetFetchRequest(groups=asked), version=9)
    assert [group.group_id for group in answer.groups] == ["a", "b", "a", "a", "b"]
    assert [group.error_code for group in answer.groups] == [0, 0, 14, 14, 14]
    assert [len(group.topics) for group in answer.groups] == [2, 2, 0, 0, 0]


async def test_a_group_with_more_than_there_is_room_for_is_shown_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.base.cooperative.MAX_RESPONSE_PARTS", 1)
    process = await World().start()
    await process.ask("offset_commit", commit(topics=("orders", "payments")), version=8)
    assert len(await committed(process)) == 2


async def test_an_answer_has_room_for_so_many_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.base.cooperative.MAX_RESPONSE_PARTS", 5)
    process = await World().start()
    await stable(process, 3)
    answer = await process.ask("describe_groups", DescribeGroupsRequest(groups=["g", "g", "other", "g"]), version=5)
    assert [group.group_id for group in answer.groups] == ["g", "g", "other", "g"]
    assert [group.error_code for group in answer.groups] == [0, 0, 14, 14]
    assert [len(group.members) for group in answer.groups] == [3, 3, 0, 0]


async def test_what_members_say_at_length_takes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.base.cooperative.MAX_RESPONSE_PARTS", 50)
    process = await World().start()
    await stable(process, 1, metadata=subscription("orders") + bytes(10_000))
    answer = await process.ask("describe_groups", DescribeGroupsRequest(groups=["g", "g"]), version=5)
    assert [group.error_code for group in answer.groups] == [0, 14]


async def turns_during(asking: asyncio.Future) -> int:
    """How often others had their turn until it was answered."""
    count = 0
    while not asking.done():
        await asyncio.sleep(0)
        count += 1
    return count


async def test_others_have_their_turn_during_a_long_commit() -> None:
    process = await World().start()
    request = commit()
    request.topics[0].partitions *= 10_000
    assert await turns_during(process.asking("offset_commit", request, version=8)) > 60


async def test_others_have_their_turn_while_coordinators_are_found() -> None:
    process = await World().start()
    request = FindCoordinatorRequest(coordinator_keys=[str(number) for number in range(10_000)])
    assert await turns_during(process.asking("find_coordinator", request, version=4)) > 30


# --- How much a group may have in memory ------------------------------------------------------------------------------


async def test_a_group_has_only_so_many_members(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those count, too, who were given an id and never come back with it."""
    monkeypatch.setattr("penstock.groups.join.MAX_MEMBERS", 3)
    process = await World().start()
    (leader,) = await stable(process, 1)
    ids = [await process.ask("join_group", join(), version=5) for _ in range(3)]
    assert [answer.error_code for answer in ids] == [79, 79, 81]
    assert (await process.ask("heartbeat", beat(leader), version=4)).error_code == 0
    again = process.asking("join_group", join(ids[0].member_id), version=5)
    await process.world.clock.pass_ms(500)
    assert not again.done(), "who has an id has a place, and waits for the others"
    again.cancel()


async def test_members_of_a_group_say_only_so_much_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.groups.capacity.MAX_METADATA_BYTES", 25_000)
    process = await World().start()
    long = subscription("orders") + bytes(10_000)
    await stable(process, 2, metadata=long)
    refused = await process.ask("join_group", join(metadata=long), version=3)
    assert (refused.error_code, refused.member_id) == (81, "")
    short = process.asking("join_group", join(metadata=subscription("orders")), version=3)
    await process.world.clock.pass_ms(500)
    assert not short.done(), "it is let in, and waits for the others to join again"
    short.cancel()


async def test_the_id_of_a_member_does_not_grow_with_its_clients() -> None:
    process = await World().start()
    assert len(process.service.new_member_id("x" * 30_000)) == 255 + 37
    assert process.service.new_member_id("app").startswith("app-")


async def test_many_members_leave_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.groups.handlers.LEAVING_AT_ONCE", 2)
    process = await World().start()
    answers = await stable(process, 3)
    members = [MemberIdentity(member_id=answer.member_id) for answer in answers]
    members.insert(1, MemberIdentity(member_id="nobody"))
    left = await process.ask("leave_group", LeaveGroupRequest(group_id="g", members=members), version=5)
    assert [member.error_code for member in left.members] == [0, 25, 0, 0]
    described = await process.ask("describe_groups", DescribeGroupsRequest(groups=["g"]), version=5)
    assert described.groups[0].group_state == "Empty"
