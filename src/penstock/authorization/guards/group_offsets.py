"""Guards of committed offsets: READ on the group to commit, DESCRIBE to look, DELETE to forget; and on the topics."""

from __future__ import annotations

from penstock.authorization.guards.access import GROUP, NO_GROUP, NO_TOPIC, TOPIC, Access, Ask
from penstock.base.acls import Operation
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import offset_commit as committing
from penstock.wire.messages import offset_delete as deleting
from penstock.wire.messages import offset_fetch as fetching

COMMIT_IDS_SINCE, FETCH_IDS_SINCE = 10, 10
SEVERAL_SINCE = 8
"""The version of OffsetFetch that asks for several groups."""


async def offset_commit(
    access: Access, request: committing.OffsetCommitRequest, ask: Ask
) -> committing.OffsetCommitResponse:
    """READ on the group, else 30 for all; READ on each topic, else 29 for its partitions."""
    if not access.may(Operation.READ, GROUP, request.group_id):
        return committing.OffsetCommitResponse(
            topics=[_uncommitted(topic, ErrorCode.GROUP_AUTHORIZATION_FAILED) for topic in request.topics]
        )
    by_id = access.context.api_version >= COMMIT_IDS_SINCE
    request.topics, denied = await access.split(
        Operation.READ, TOPIC, request.topics, lambda one: access.topic_of(one.name, one.topic_id, by_id=by_id)
    )
    response: committing.OffsetCommitResponse = await ask(request)
    response.topics.extend(_uncommitted(topic, ErrorCode.TOPIC_AUTHORIZATION_FAILED) for topic in denied)
    return response


def _uncommitted(topic: committing.OffsetCommitRequestTopic, code: ErrorCode) -> committing.OffsetCommitResponseTopic:
    return committing.OffsetCommitResponseTopic(
        name=topic.name,
        topic_id=topic.topic_id,
        partitions=[
            committing.OffsetCommitResponsePartition(partition_index=partition.partition_index, error_code=code)
            for partition in topic.partitions
        ],
    )


async def offset_fetch(access: Access, request: fetching.OffsetFetchRequest, ask: Ask) -> fetching.OffsetFetchResponse:
    """DESCRIBE on each group, else 30; on each topic, else 29. Of "all topics" those one may describe are shown."""
    if access.context.api_version < SEVERAL_SINCE:
        return await _fetch_one(access, request, ask)
    asked, refused = await access.split(Operation.DESCRIBE, GROUP, request.groups, lambda group: group.group_id)
    by_id = access.context.api_version >= FETCH_IDS_SINCE
    hidden: list[list[fetching.OffsetFetchRequestTopics]] = []
    for group in asked:
        denied: list[fetching.OffsetFetchRequestTopics] = []
        if group.topics is not None:
            group.topics, denied = await access.split(
                Operation.DESCRIBE, TOPIC, group.topics,
                lambda one: access.topic_of(one.name, one.topic_id, by_id=by_id),
            )  # fmt: skip
        hidden.append(denied)
    request.groups = asked
    response: fetching.OffsetFetchResponse = await ask(request)
    for group, answer, denied in zip(asked, response.groups, hidden, strict=True):
        if group.topics is None:
            answer.topics = await access.visible(
                Operation.DESCRIBE, TOPIC, answer.topics,
                lambda one: access.topic_of(one.name, one.topic_id, by_id=by_id),
            )  # fmt: skip
        elif not answer.error_code:
            answer.topics.extend(_unfetched(topic) for topic in denied)
    response.groups.extend(
        fetching.OffsetFetchResponseGroup(group_id=group.group_id, error_code=NO_GROUP.code) for group in refused
    )
    return response


def _unfetched(topic: fetching.OffsetFetchRequestTopics) -> fetching.OffsetFetchResponseTopics:
    return fetching.OffsetFetchResponseTopics(
        name=topic.name,
        topic_id=topic.topic_id,
        partitions=[
            fetching.OffsetFetchResponsePartitions(
                partition_index=index, committed_offset=-1, committed_leader_epoch=-1, error_code=NO_TOPIC.code
            )
            for index in topic.partition_indexes
        ],
    )


async def _fetch_one(access: Access, request: fetching.OffsetFetchRequest, ask: Ask) -> fetching.OffsetFetchResponse:
    """The versions that ask for one group."""
    if not access.may(Operation.DESCRIBE, GROUP, request.group_id):
        # The first version has no place for an error but partitions.
        topics = (request.topics or []) if access.context.api_version < 2 else []
        return fetching.OffsetFetchResponse(
            error_code=NO_GROUP.code, topics=[_unfetched_one(topic, NO_GROUP.code) for topic in topics]
        )
    denied: list[fetching.OffsetFetchRequestTopic] = []
    lists_all = request.topics is None
    if request.topics is not None:
        request.topics, denied = await access.split(Operation.DESCRIBE, TOPIC, request.topics, lambda topic: topic.name)
    response: fetching.OffsetFetchResponse = await ask(request)
    if lists_all:
        response.topics = await access.visible(Operation.DESCRIBE, TOPIC, response.topics, lambda one: one.name)
    elif not response.error_code:
        response.topics.extend(_unfetched_one(topic, NO_TOPIC.code) for topic in denied)
    return response


def _unfetched_one(topic: fetching.OffsetFetchRequestTopic, code: ErrorCode) -> fetching.OffsetFetchResponseTopic:
    return fetching.OffsetFetchResponseTopic(
        name=topic.name,
        partitions=[
            fetching.OffsetFetchResponsePartition(
                partition_index=index, committed_offset=-1, committed_leader_epoch=-1, error_code=code
            )
            for index in topic.partition_indexes
        ],
    )


async def offset_delete(
    access: Access, request: deleting.OffsetDeleteRequest, ask: Ask
) -> deleting.OffsetDeleteResponse:
    """DELETE on the group, else 30; READ on each topic, else 29 for its partitions."""
    if not access.may(Operation.DELETE, GROUP, request.group_id):
        return deleting.OffsetDeleteResponse(error_code=NO_GROUP.code)
    request.topics, denied = await access.split(Operation.READ, TOPIC, request.topics, lambda topic: topic.name)
    response: deleting.OffsetDeleteResponse = await ask(request)
    if response.error_code:
        return response
    response.topics.extend(
        deleting.OffsetDeleteResponseTopic(
            name=topic.name,
            partitions=[
                deleting.OffsetDeleteResponsePartition(
                    partition_index=partition.partition_index, error_code=NO_TOPIC.code
                )
                for partition in topic.partitions
            ],
        )
        for topic in denied
    )
    return response
