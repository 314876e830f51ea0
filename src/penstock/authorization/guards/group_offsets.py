"""Guards of committed offsets: READ on the group to commit, DESCRIBE to fetch, DELETE to delete; and on the topics."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.authorization.guards.access import GROUP, GROUP_DENIED, TOPIC, TOPIC_DENIED, Handler, RequestAccess
from penstock.base.acls import Operation
from penstock.base.cooperative import map_each, map_nested, yield_if_due
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import offset_commit as committing
from penstock.wire.messages import offset_delete as deleting
from penstock.wire.messages import offset_fetch as fetching

COMMIT_IDS_SINCE, FETCH_IDS_SINCE = 10, 10
SEVERAL_SINCE = 8
"""The first version of OffsetFetch with several groups."""


async def offset_commit(
    access: RequestAccess, request: committing.OffsetCommitRequest, handle: Handler
) -> committing.OffsetCommitResponse:
    """READ on the group, else 30 for all; READ on each topic, else 29 for its partitions."""
    if not access.may(Operation.READ, GROUP, request.group_id):
        return committing.OffsetCommitResponse(topics=await _uncommitted(request.topics, GROUP_DENIED.code))
    by_id = access.context.api_version >= COMMIT_IDS_SINCE
    request.topics, denied = await access.split(
        Operation.READ, TOPIC, request.topics, lambda one: access.topic_of(one.name, one.topic_id, by_id=by_id)
    )
    response: committing.OffsetCommitResponse = await handle(request)
    response.topics += await _uncommitted(denied, TOPIC_DENIED.code)
    return response


async def _uncommitted(
    topics: Sequence[committing.OffsetCommitRequestTopic], code: ErrorCode
) -> list[committing.OffsetCommitResponseTopic]:
    return await map_nested(
        topics,
        lambda topic: topic.partitions,
        lambda one: committing.OffsetCommitResponsePartition(partition_index=one.partition_index, error_code=code),
        lambda topic, partitions: committing.OffsetCommitResponseTopic(
            name=topic.name, topic_id=topic.topic_id, partitions=partitions
        ),
    )


async def offset_fetch(
    access: RequestAccess, request: fetching.OffsetFetchRequest, handle: Handler
) -> fetching.OffsetFetchResponse:
    """DESCRIBE on each group, else 30; on each topic, else 29. "All topics" are filtered by DESCRIBE."""
    if access.context.api_version < SEVERAL_SINCE:
        return await _fetch_one(access, request, handle)
    asked, refused = await access.split(Operation.DESCRIBE, GROUP, request.groups, lambda group: group.group_id)
    by_id = access.context.api_version >= FETCH_IDS_SINCE
    hidden: list[list[fetching.OffsetFetchRequestTopics]] = []
    for number, group in enumerate(asked):
        await yield_if_due(number)
        denied: list[fetching.OffsetFetchRequestTopics] = []
        if group.topics is not None:
            group.topics, denied = await access.split(
                Operation.DESCRIBE, TOPIC, group.topics,
                lambda one: access.topic_of(one.name, one.topic_id, by_id=by_id),
            )  # fmt: skip
        hidden.append(denied)
    request.groups = asked
    response: fetching.OffsetFetchResponse = await handle(request)
    for number, (group, answer, denied) in enumerate(zip(asked, response.groups, hidden, strict=True)):
        await yield_if_due(number)
        if group.topics is None:
            answer.topics = await access.visible(
                Operation.DESCRIBE, TOPIC, answer.topics,
                lambda one: access.topic_of(one.name, one.topic_id, by_id=by_id),
            )  # fmt: skip
        elif not answer.error_code:
            answer.topics += await _unfetched(denied)
    response.groups += await map_each(
        refused, lambda group: fetching.OffsetFetchResponseGroup(group_id=group.group_id, error_code=GROUP_DENIED.code)
    )
    return response


async def _unfetched(
    topics: Sequence[fetching.OffsetFetchRequestTopics],
) -> list[fetching.OffsetFetchResponseTopics]:  # fmt: skip
    return await map_nested(
        topics,
        lambda topic: topic.partition_indexes,
        lambda index: fetching.OffsetFetchResponsePartitions(
            partition_index=index, committed_offset=-1, committed_leader_epoch=-1, error_code=TOPIC_DENIED.code
        ),
        lambda topic, partitions: fetching.OffsetFetchResponseTopics(
            name=topic.name, topic_id=topic.topic_id, partitions=partitions
        ),
    )


async def _fetch_one(
    access: RequestAccess, request: fetching.OffsetFetchRequest, handle: Handler
) -> fetching.OffsetFetchResponse:
    """The versions with a single group."""
    if not access.may(Operation.DESCRIBE, GROUP, request.group_id):
        # Version 1 has error codes in partitions only.
        topics = (request.topics or []) if access.context.api_version < 2 else []
        return fetching.OffsetFetchResponse(
            error_code=GROUP_DENIED.code, topics=await _unfetched_of_one(topics, GROUP_DENIED.code)
        )
    denied: list[fetching.OffsetFetchRequestTopic] = []
    lists_all = request.topics is None
    if request.topics is not None:
        request.topics, denied = await access.split(Operation.DESCRIBE, TOPIC, request.topics, lambda topic: topic.name)
    response: fetching.OffsetFetchResponse = await handle(request)
    if lists_all:
        response.topics = await access.visible(Operation.DESCRIBE, TOPIC, response.topics, lambda one: one.name)
    elif not response.error_code:
        response.topics += await _unfetched_of_one(denied, TOPIC_DENIED.code)
    return response


async def _unfetched_of_one(
    topics: Sequence[fetching.OffsetFetchRequestTopic], code: ErrorCode
) -> list[fetching.OffsetFetchResponseTopic]:
    return await map_nested(
        topics,
        lambda topic: topic.partition_indexes,
        lambda index: fetching.OffsetFetchResponsePartition(
            partition_index=index, committed_offset=-1, committed_leader_epoch=-1, error_code=code
        ),
        lambda topic, partitions: fetching.OffsetFetchResponseTopic(name=topic.name, partitions=partitions),
    )


async def offset_delete(
    access: RequestAccess, request: deleting.OffsetDeleteRequest, handle: Handler
) -> deleting.OffsetDeleteResponse:
    """DELETE on the group, else 30; READ on each topic, else 29 for its partitions."""
    if not access.may(Operation.DELETE, GROUP, request.group_id):
        return deleting.OffsetDeleteResponse(error_code=GROUP_DENIED.code)
    request.topics, denied = await access.split(Operation.READ, TOPIC, request.topics, lambda topic: topic.name)
    response: deleting.OffsetDeleteResponse = await handle(request)
    if response.error_code:
        return response
    response.topics += await map_nested(
        denied,
        lambda topic: topic.partitions,
        lambda one: deleting.OffsetDeleteResponsePartition(
            partition_index=one.partition_index, error_code=TOPIC_DENIED.code
        ),
        lambda topic, partitions: deleting.OffsetDeleteResponseTopic(name=topic.name, partitions=partitions),
    )
    return response
