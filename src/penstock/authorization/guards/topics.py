"""Guards of topics. A topic that the caller may not describe looks like one that does not exist."""

from __future__ import annotations

from typing import Any

from penstock.authorization.guards.access import (
    OPERATIONS_AT_ONCE,
    TOPIC,
    TOPIC_DENIED,
    ZERO_UUID,
    Handler,
    RequestAccess,
)
from penstock.base.acls import Operation
from penstock.base.cooperative import count_keys, distinct, map_each, map_nested, sort_items, yield_if_due
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import create_partitions as creating_partitions
from penstock.wire.messages import create_topics as creating
from penstock.wire.messages import delete_topics as deleting
from penstock.wire.messages import describe_producers as producers
from penstock.wire.messages import describe_topic_partitions as describing
from penstock.wire.messages import metadata as listing

METADATA_TOPIC = "__cluster_metadata"
IDS_SINCE = 12
"""The first version of Metadata with topics by id."""


async def metadata(
    access: RequestAccess, request: listing.MetadataRequest, handle: Handler
) -> listing.MetadataResponse:
    """DESCRIBE on topics, else 29; CREATE on those to be auto-created. "All topics" are filtered by DESCRIBE."""
    version = access.context.api_version
    wanted: list[listing.MetadataRequestTopic] | None = request.topics
    denied: list[listing.MetadataResponseTopic] = []
    lists_all = wanted is None or (version == 0 and not wanted)
    if wanted is not None and not lists_all:
        is_refused = version < IDS_SINCE and True in await distinct(
            one.name is None or one.topic_id != ZERO_UUID for one in wanted
        )
        if not is_refused:
            wanted, denied = await _describable(access, wanted, request.allow_auto_topic_creation)
            request.topics = wanted
    response: listing.MetadataResponse = await handle(request)
    if lists_all:
        response.topics = await access.visible(Operation.DESCRIBE, TOPIC, response.topics, lambda one: one.name)
    elif not wanted:
        # In version 0 an empty list means all topics.
        response.topics = []
    if request.include_topic_authorized_operations:
        for number, topic in enumerate(response.topics):
            await yield_if_due(number, OPERATIONS_AT_ONCE)
            if topic.name is not None:
                topic.topic_authorized_operations = access.operations(TOPIC, topic.name)
    if request.include_cluster_authorized_operations:
        response.cluster_authorized_operations = access.cluster_operations()
    response.topics.extend(denied)
    return response


async def _describable(
    access: RequestAccess, wanted: list[listing.MetadataRequestTopic], may_create: bool
) -> tuple[list[listing.MetadataRequestTopic], list[listing.MetadataResponseTopic]]:
    """The topics that may be described or auto-created, and the denials of the others."""
    cluster_id = access.context.cluster_id
    if True in await distinct(topic.topic_id != ZERO_UUID for topic in wanted):
        wanted = [topic for topic in wanted if topic.topic_id != ZERO_UUID]  # With ids, names are ignored.

    def name_of(topic: listing.MetadataRequestTopic) -> str | None:
        if topic.topic_id != ZERO_UUID:
            return access.topics.topic_name(cluster_id, topic.topic_id)
        return topic.name

    allowed, denied = await access.split(Operation.DESCRIBE, TOPIC, wanted, name_of)
    # A denial of a topic by id must not reveal its name.
    denials = await map_each(
        list(await distinct((one.name, one.topic_id) for one in denied)),
        lambda one: (
            listing.MetadataResponseTopic(error_code=TOPIC_DENIED.code, name=None, topic_id=one[1])
            if one[1] != ZERO_UUID
            else listing.MetadataResponseTopic(error_code=TOPIC_DENIED.code, name=one[0])
        ),
    )
    may_create = may_create and access.settings.flag("auto.create.topics.enable")
    if not may_create or access.may_quietly_on_cluster(Operation.CREATE):
        return allowed, denials
    new = await distinct(one.name for one in allowed if one.name is not None and not access.has_topic(one.name))
    if new:
        _, refused = await access.split(Operation.CREATE, TOPIC, await sort_items(list(new), str), lambda name: name)
        uncreatable = set(refused)
        allowed = [one for one in allowed if one.name not in uncreatable]
        denials += await map_each(
            refused, lambda name: listing.MetadataResponseTopic(error_code=TOPIC_DENIED.code, name=name)
        )
    return allowed, denials


async def describe_topic_partitions(
    access: RequestAccess, request: describing.DescribeTopicPartitionsRequest, handle: Handler
) -> describing.DescribeTopicPartitionsResponse:
    """DESCRIBE on each topic, else 29. "All topics" are filtered by DESCRIBE."""
    cursor = request.cursor
    named = await distinct(topic.name for topic in request.topics)
    if cursor is not None and (cursor.partition_index < 0 or (named and cursor.topic_name not in named)):
        # The handler refuses the whole request: no topic is decided about.
        response: describing.DescribeTopicPartitionsResponse = await handle(request)
        return response
    if named:
        return await _describe_named(access, request, handle)
    # Filtered before paging, so that each page has the requested size.
    known = access.topics.names(access.context.cluster_id)
    visible = await access.visible(Operation.DESCRIBE, TOPIC, known, lambda name: name)
    after = "" if cursor is None else cursor.topic_name
    rest = [name for name in visible if name >= after]
    request.topics = await map_each(rest, lambda name: describing.TopicRequest(name=name))
    if not request.topics:
        return describing.DescribeTopicPartitionsResponse(next_cursor=None)
    return await _with_operations(access, await _handle_from_cursor(request, handle))


async def _describe_named(
    access: RequestAccess, request: describing.DescribeTopicPartitionsRequest, handle: Handler
) -> describing.DescribeTopicPartitionsResponse:
    after = "" if request.cursor is None else request.cursor.topic_name
    named = [topic for topic in request.topics if topic.name >= after]
    request.topics, denied = await access.split(Operation.DESCRIBE, TOPIC, named, lambda topic: topic.name)
    response = describing.DescribeTopicPartitionsResponse(next_cursor=None)
    if request.topics:
        response = await _with_operations(access, await _handle_from_cursor(request, handle))
    response.topics += await map_each(
        list(await distinct(topic.name for topic in denied)),
        lambda name: describing.DescribeTopicPartitionsResponseTopic(error_code=TOPIC_DENIED.code, name=name),
    )
    return response


async def _handle_from_cursor(request: describing.DescribeTopicPartitionsRequest, handle: Handler) -> Any:
    """Pass on what is left. The cursor is dropped if its topic was deleted or denied: no topic precedes it."""
    cursor = request.cursor
    if cursor is not None and cursor.topic_name not in await distinct(topic.name for topic in request.topics):
        request.cursor = None
    return await handle(request)


async def _with_operations(
    access: RequestAccess, response: describing.DescribeTopicPartitionsResponse
) -> describing.DescribeTopicPartitionsResponse:
    for number, topic in enumerate(response.topics):
        await yield_if_due(number, OPERATIONS_AT_ONCE)
        if topic.error_code in (ErrorCode.NONE, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION):
            topic.topic_authorized_operations = access.operations(TOPIC, topic.name or "")
    return response


async def create_topics(
    access: RequestAccess, request: creating.CreateTopicsRequest, handle: Handler
) -> creating.CreateTopicsResponse:
    """CREATE on the cluster or on the topic, else 29. The configuration in the result needs DESCRIBE_CONFIGS."""
    counts = await count_keys(topic.name for topic in request.topics)

    def name_of(topic: creating.CreatableTopic) -> str | None:
        return None if counts[topic.name] > 1 or topic.name == METADATA_TOPIC else topic.name

    denied: list[creating.CreatableTopic] = []
    if not access.may_quietly_on_cluster(Operation.CREATE):
        request.topics, denied = await access.split(Operation.CREATE, TOPIC, request.topics, name_of)
    response: creating.CreateTopicsResponse = await handle(request)
    for number, result in enumerate(response.topics):
        await yield_if_due(number)
        if not result.error_code and not access.may_quietly(Operation.DESCRIBE_CONFIGS, TOPIC, result.name):
            result.topic_config_error_code = TOPIC_DENIED.code
            result.num_partitions, result.replication_factor, result.configs = -1, -1, []
    response.topics += await map_each(
        denied,
        lambda topic: creating.CreatableTopicResult(
            name=topic.name, error_code=TOPIC_DENIED.code, error_message="Authorization failed.", num_partitions=-1,
            replication_factor=-1,
        ),
    )  # fmt: skip
    return response


async def create_partitions(
    access: RequestAccess, request: creating_partitions.CreatePartitionsRequest, handle: Handler
) -> creating_partitions.CreatePartitionsResponse:
    """ALTER on each topic, else 29."""
    counts = await count_keys(topic.name for topic in request.topics)
    request.topics, denied = await access.split(
        Operation.ALTER, TOPIC, request.topics, lambda topic: None if counts[topic.name] > 1 else topic.name
    )
    response: creating_partitions.CreatePartitionsResponse = await handle(request)
    response.results += await map_each(
        denied,
        lambda topic: creating_partitions.CreatePartitionsTopicResult(
            name=topic.name, error_code=TOPIC_DENIED.code, error_message=None
        ),
    )
    return response


async def delete_topics(
    access: RequestAccess, request: deleting.DeleteTopicsRequest, handle: Handler
) -> deleting.DeleteTopicsResponse:
    """DELETE on the cluster or on each topic, else 29. The name of a topic by id needs DESCRIBE."""
    if not access.settings.flag("delete.topic.enable") or access.may_quietly_on_cluster(Operation.DELETE):
        response: deleting.DeleteTopicsResponse = await handle(request)
        return response
    wanted = request.topics or await map_each(request.topic_names, lambda name: deleting.DeleteTopicState(name=name))
    names = await count_keys(state.name for state in wanted if state.topic_id == ZERO_UUID)
    ids = await count_keys(state.topic_id for state in wanted if state.name is None)
    allowed, denials = [], []
    for number, state in enumerate(wanted):
        await yield_if_due(number)
        is_plain = (state.name is None) != (state.topic_id == ZERO_UUID)
        is_repeated = names[state.name] > 1 if state.name is not None else ids[state.topic_id] > 1
        denial = _deletion_denial(access, state) if is_plain and not is_repeated else None
        if denial is None:
            allowed.append(state)
        else:
            denials.append(denial)
    response = deleting.DeleteTopicsResponse()
    if allowed:
        if request.topics:
            request.topics = allowed
        else:
            request.topic_names = [state.name or "" for state in allowed]
        response = await handle(request)
    response.responses.extend(denials)
    return response


def _deletion_denial(access: RequestAccess, state: deleting.DeleteTopicState) -> deleting.DeletableTopicResult | None:
    """The denial of a deletion; None if it is allowed, or if the caller may know that the topic does not exist."""
    name = state.name
    if name is None:
        known = access.topics.topic_name(access.context.cluster_id, state.topic_id)
        if known is None or access.may(Operation.DELETE, TOPIC, known):
            return None
        shown = known if access.may_quietly(Operation.DESCRIBE, TOPIC, known) else None
        return deleting.DeletableTopicResult(
            name=shown, topic_id=state.topic_id, error_code=TOPIC_DENIED.code, error_message=TOPIC_DENIED.message
        )
    may_describe = access.may_quietly(Operation.DESCRIBE, TOPIC, name)
    if may_describe and not access.has_topic(name):
        return None
    # As in Kafka, deleting by name needs DESCRIBE as well; deleting by id does not.
    if access.may(Operation.DELETE, TOPIC, name) and (may_describe or access.may(Operation.DESCRIBE, TOPIC, name)):
        return None
    return deleting.DeletableTopicResult(name=name, error_code=TOPIC_DENIED.code, error_message=TOPIC_DENIED.message)


async def describe_producers(
    access: RequestAccess, request: producers.DescribeProducersRequest, handle: Handler
) -> producers.DescribeProducersResponse:
    """READ on each topic, else 29 for its partitions."""
    request.topics, denied = await access.split(Operation.READ, TOPIC, request.topics, lambda topic: topic.name)
    response: producers.DescribeProducersResponse = await handle(request)
    response.topics += await map_nested(
        denied,
        lambda topic: topic.partition_indexes,
        lambda index: producers.PartitionResponse(
            partition_index=index, error_code=TOPIC_DENIED.code, error_message=TOPIC_DENIED.message
        ),
        lambda topic, partitions: producers.TopicResponse(name=topic.name, partitions=partitions),
    )
    return response
