"""Internal topics of streams applications, created on behalf of the application's principal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from penstock.base.context import RequestContext
from penstock.groups.streams.model import InternalTopic
from penstock.log.admin.topics import OPEN, TopicHandlers
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import create_topics as wire

_CREATE_VERSION = 7
"""The version of CreateTopics that is used."""


class InternalTopics:
    """Creates topics as if the member had requested each, quota included."""

    def __init__(self, topics: TopicHandlers) -> None:
        self._topics = topics
        self._under_way: set[tuple[int, str]] = set()
        self.on_created: Callable[[RequestContext, str, int], None] = lambda context, name, partition_count: None
        """Called for each topic that was created."""

    async def create(self, context: RequestContext, wanted: Sequence[InternalTopic]) -> dict[str, str]:
        """Create topics, except those that are being created already; returns why some could not be."""
        mine = [topic for topic in wanted if (context.cluster_id, topic.name) not in self._under_way]
        if not mine:
            return {}
        keys = {(context.cluster_id, topic.name) for topic in mine}
        self._under_way |= keys
        try:
            request = wire.CreateTopicsRequest(topics=[_creatable(topic) for topic in mine])
            response = await self._topics.create_topics(replace(context, api_version=_CREATE_VERSION), request)
        finally:
            self._under_way -= keys
        for made in response.topics:
            if made.error_code == ErrorCode.NONE:
                self.on_created(context, made.name, made.num_partitions)
        return {
            topic.name: topic.error_message or ErrorCode(topic.error_code).name
            for topic in response.topics
            if topic.error_code not in (ErrorCode.NONE, ErrorCode.TOPIC_ALREADY_EXISTS)
        }


def _creatable(topic: InternalTopic) -> wire.CreatableTopic:
    return wire.CreatableTopic(
        name=topic.name,
        num_partitions=topic.partitions,
        replication_factor=topic.replication_factor or OPEN,
        configs=[wire.CreatableTopicConfig(name=name, value=value) for name, value in topic.configs],
    )
