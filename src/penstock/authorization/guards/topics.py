"""Guards of topics: what there is, what comes and goes. A topic that may not be described does not seem to exist."""

from __future__ import annotations

from typing import Any

from penstock.authorization.guards.access import NO_TOPIC, TOLD_AT_ONCE, TOPIC, ZERO_UUID, Access, Ask
from penstock.base.acls import Operation
from penstock.base.portions import breathe, counted, distinct, each, in_order, nested
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import create_partitions as creating_partitions
from penstock.wire.messages import create_topics as creating
from penstock.wire.messages import delete_topics as deleting
from penstock.wire.messages import describe_producers as producers
from penstock.wire.messages import describe_topic_partitions as describing
from penstock.wire.messages import metadata as listing

METADATA_TOPIC = "__cluster_metadata"
IDS_SINCE = 12
"""The version of Metadata from which on topics may be asked for by id."""


async def metadata(access: Access, request: listing.MetadataRequest, ask: Ask) -> listing.MetadataResponse:
    """DESCRIBE on topics, else 29; CREATE on those that would be created. "All topics" are those one may describe."""
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
    response: listing.MetadataResponse = await ask(request)
    if lists_all:
        response.topics = await access.visible(Operation.DESCRIBE, TOPIC, response.topics, lambda one: one.name)
    elif not wanted:
        # An empty list would mean all topics to the oldest version.
        response.topics = []
    if request.include_topic_authorized_operations:
        for number, topic in enumerate(response.topics):
            await breathe(number, TOLD_AT_ONCE)
            if topic.name is not None:
                topic.topic_authorized_operations = access.operations(TOPIC, topic.name)
    if request.include_cluster_authorized_operations:
        response.cluster_authorized_operations = access.cluster_operations()
    response.topics.extend(denied)
    return response


async def _describable(
    access: Access, wanted: list[listing.MetadataRequestTopic], may_create: bool
) -> tuple[list[listing.MetadataRequestTopic], list[listing.MetadataResponseTopic]]:
    """What may be described or created, and the refusals of the others."""
    cluster_id = access.context.cluster_id
    if True in await distinct(topic.topic_id != ZERO_UUID for topic in wanted):
        wanted = [topic for topic in wanted if topic.topic_id != ZERO_UUID]  # Names beside ids are not looked at.

    def name_of(topic: listing.MetadataRequestTopic) -> str | None:
        if topic.topic_id != ZERO_UUID:
            return access.topics.topic_name(cluster_id, topic.topic_id)
        return topic.name

    allowed, denied = await access.split(Operation.DESCRIBE, TOPIC, wanted, name_of)
    # An id is no secret, a name is.
    refusals = await each(
        list(await distinct((one.name, one.topic_id) for one in denied)),
        lambda one: (
            listing.MetadataResponseTopic(error_code=NO_TOPIC.code, name=None, topic_id=one[1])
            if one[1] != ZERO_UUID
            else listing.MetadataResponseTopic(error_code=NO_TOPIC.code, name=one[0])
        ),
    )
    may_create = may_create and access.settings.flag("auto.create.topics.enable")
    if not may_create or access.might_cluster(Operation.CREATE):
        return allowed, refusals
    new = await distinct(one.name for one in allowed if one.name is not None and not access.has_topic(one.name))
    if new:
        _, refused = await access.split(Operation.CREATE, TOPIC, await in_order(list(new), str), lambda name: name)
        uncreatable = set(refused)
        allowed = [one for one in allowed if one.name not in uncreatable]
        refusals += await each(refused, lambda name: listing.MetadataResponseTopic(error_code=NO_TOPIC.code, name=name))
    return allowed, refusals


async def describe_topic_partitions(
    access: Access, request: describing.DescribeTopicPartitionsRequest, ask: Ask
) -> describing.DescribeTopicPartitionsResponse:
    """DESCRIBE on each topic, else 29; "all topics" are those one may describe."""
    cursor = request.cursor
    named = await distinct(topic.name for topic in request.topics)
    if cursor is not None and (cursor.partition_index < 0 or (named and cursor.topic_name not in named)):
        # Refused as a whole, before it is looked at who may see what.
        refusal: describing.DescribeTopicPartitionsResponse = await ask(request)
        return refusal
    if named:
        return await _describe_named(access, request, ask)
    # Pages of all topics are made of those that may be seen, so that a page is as long as it says.
    known = access.topics.names(access.context.cluster_id)
    visible = await access.visible(Operation.DESCRIBE, TOPIC, known, lambda name: name)
    after = "" if cursor is None else cursor.topic_name
    rest = [name for name in visible if name >= after]
    request.topics = await each(rest, lambda name: describing.TopicRequest(name=name))
    if not request.topics:
        return describing.DescribeTopicPartitionsResponse(next_cursor=None)
    return await _with_operations(access, await _ask_from_cursor(request, ask))


async def _describe_named(
    access: Access, request: describing.DescribeTopicPartitionsRequest, ask: Ask
) -> describing.DescribeTopicPartitionsResponse:
    after = "" if request.cursor is None else request.cursor.topic_name
    named = [topic for topic in request.topics if topic.name >= after]
    request.topics, denied = await access.split(Operation.DESCRIBE, TOPIC, named, lambda topic: topic.name)
    response = describing.DescribeTopicPartitionsResponse(next_cursor=None)
    if request.topics:
        response = await _with_operations(access, await _ask_from_cursor(request, ask))
    response.topics += await each(
        list(await distinct(topic.name for topic in denied)),
        lambda name: describing.DescribeTopicPartitionsResponseTopic(error_code=NO_TOPIC.code, name=name),
    )
    return response


async def _ask_from_cursor(request: describing.DescribeTopicPartitionsRequest, ask: Ask) -> Any:
    """Ask about what is left, none of it before the cursor, whose own topic may be gone, or not be for the caller."""
    cursor = request.cursor
    if cursor is not None and cursor.topic_name not in await distinct(topic.name for topic in request.topics):
        request.cursor = None
    return await ask(request)


async def _with_operations(
    access: Access, response: describing.DescribeTopicPartitionsResponse
) -> describing.DescribeTopicPartitionsResponse:
    for number, topic in enumerate(response.topics):
        await breathe(number, TOLD_AT_ONCE)
        if topic.error_code in (ErrorCode.NONE, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION):
            topic.topic_authorized_operations = access.operations(TOPIC, topic.name or "")
    return response


async def create_topics(
    access: Access, request: creating.CreateTopicsRequest, ask: Ask
) -> creating.CreateTopicsResponse:
    """CREATE on the cluster or on the topic, else 29. Who has DESCRIBE_CONFIGS is shown what the topic has become."""
    counts = await counted(topic.name for topic in request.topics)

    def name_of(topic: creating.CreatableTopic) -> str | None:
        return None if counts[topic.name] > 1 or topic.name == METADATA_TOPIC else topic.name

    denied: list[creating.CreatableTopic] = []
    if not access.might_cluster(Operation.CREATE):
        request.topics, denied = await access.split(Operation.CREATE, TOPIC, request.topics, name_of)
    response: creating.CreateTopicsResponse = await ask(request)
    for number, result in enumerate(response.topics):
        await breathe(number)
        if not result.error_code and not access.might(Operation.DESCRIBE_CONFIGS, TOPIC, result.name):
            result.topic_config_error_code = NO_TOPIC.code
            result.num_partitions, result.replication_factor, result.configs = -1, -1, []
    response.topics += await each(
        denied,
        lambda topic: creating.CreatableTopicResult(
            name=topic.name, error_code=NO_TOPIC.code, error_message="Authorization failed.", num_partitions=-1,
            replication_factor=-1,
        ),
    )  # fmt: skip
    return response


async def create_partitions(
    access: Access, request: creating_partitions.CreatePartitionsRequest, ask: Ask
) -> creating_partitions.CreatePartitionsResponse:
    """ALTER on each topic, else 29."""
    counts = await counted(topic.name for topic in request.topics)
    request.topics, denied = await access.split(
        Operation.ALTER, TOPIC, request.topics, lambda topic: None if counts[topic.name] > 1 else topic.name
    )
    response: creating_partitions.CreatePartitionsResponse = await ask(request)
    response.results += await each(
        denied,
        lambda topic: creating_partitions.CreatePartitionsTopicResult(
            name=topic.name, error_code=NO_TOPIC.code, error_message=None
        ),
    )
    return response


async def delete_topics(
    access: Access, request: deleting.DeleteTopicsRequest, ask: Ask
) -> deleting.DeleteTopicsResponse:
    """DELETE on the cluster or on each topic, else 29. The name for an id is told to whom may describe the topic."""
    if not access.settings.flag("delete.topic.enable") or access.might_cluster(Operation.DELETE):
        response: deleting.DeleteTopicsResponse = await ask(request)
        return response
    wanted = request.topics or await each(request.topic_names, lambda name: deleting.DeleteTopicState(name=name))
    names = await counted(state.name for state in wanted if state.topic_id == ZERO_UUID)
    ids = await counted(state.topic_id for state in wanted if state.name is None)
    allowed, refusals = [], []
    for number, state in enumerate(wanted):
        await breathe(number)
        is_plain = (state.name is None) != (state.topic_id == ZERO_UUID)
        is_repeated = names[state.name] > 1 if state.name is not None else ids[state.topic_id] > 1
        refusal = _undeletable(access, state) if is_plain and not is_repeated else None
        if refusal is None:
            allowed.append(state)
        else:
            refusals.append(refusal)
    response = deleting.DeleteTopicsResponse()
    if allowed:
        if request.topics:
            request.topics = allowed
        else:
            request.topic_names = [state.name or "" for state in allowed]
        response = await ask(request)
    response.responses.extend(refusals)
    return response


def _undeletable(access: Access, state: deleting.DeleteTopicState) -> deleting.DeletableTopicResult | None:
    """Why a topic may not be deleted by the caller; None if it may, or does not exist as far as the caller may know."""
    name = state.name
    if name is None:
        known = access.topics.topic_name(access.context.cluster_id, state.topic_id)
        if known is None or access.may(Operation.DELETE, TOPIC, known):
            return None
        shown = known if access.might(Operation.DESCRIBE, TOPIC, known) else None
        return deleting.DeletableTopicResult(
            name=shown, topic_id=state.topic_id, error_code=NO_TOPIC.code, error_message=NO_TOPIC.message
        )
    may_describe = access.might(Operation.DESCRIBE, TOPIC, name)
    if may_describe and not access.has_topic(name):
        return None
    # Who is denied to describe a topic cannot name it, as in Kafka, but may know its id.
    if access.may(Operation.DELETE, TOPIC, name) and (may_describe or access.may(Operation.DESCRIBE, TOPIC, name)):
        return None
    return deleting.DeletableTopicResult(name=name, error_code=NO_TOPIC.code, error_message=NO_TOPIC.message)


async def describe_producers(
    access: Access, request: producers.DescribeProducersRequest, ask: Ask
) -> producers.DescribeProducersResponse:
    """READ on each topic, else 29 for its partitions."""
    request.topics, denied = await access.split(Operation.READ, TOPIC, request.topics, lambda topic: topic.name)
    response: producers.DescribeProducersResponse = await ask(request)
    response.topics += await nested(
        denied,
        lambda topic: topic.partition_indexes,
        lambda index: producers.PartitionResponse(
            partition_index=index, error_code=NO_TOPIC.code, error_message=NO_TOPIC.message
        ),
        lambda topic, partitions: producers.TopicResponse(name=topic.name, partitions=partitions),
    )
    return response
