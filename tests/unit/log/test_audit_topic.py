"""The topic of the audit log: made when there is something to keep, made again, and never taken for granted."""

from __future__ import annotations

import json

import pytest
from admin_world import World
from fixtures.fake_commits import FakeCommits

from penstock.audit.topic import AUDIT_TOPIC, TopicAppender
from penstock.base.errors import InvalidRequest, Unavailable
from penstock.log.model import Topic
from penstock.log.writer import Writer, forget_views
from penstock.storage.arena import Arena
from penstock.wire.records import iter_batches, iter_records

EVENTS = [json.dumps({"number": number}).encode() for number in range(3)]


class Place:
    """An appender, and what is under it."""

    def __init__(self, world: World | None = None) -> None:
        self.world = world or World()
        self.commits = FakeCommits()
        writer = Writer(
            arena=Arena(1 << 22, on_recycle=forget_views), commit_path=self.commits, clock=self.world.clock
        )  # fmt: skip
        self.appender = TopicAppender(
            topics=self.world.topics, writer=writer, clock=self.world.clock, cluster_id=1, retention_ms=1234
        )

    @property
    def topic(self) -> Topic | None:
        return self.world.registry.by_name(1, AUDIT_TOPIC)

    def records(self) -> list:
        assert self.topic is not None
        found = []
        for span in self.topic.partitions[0].spans:
            for position, header in iter_batches(span.view):
                found += iter_records(memoryview(span.view)[position : position + header.size_bytes])
        return found


async def test_the_topic_is_made_by_the_first_events() -> None:
    place = Place()
    assert place.topic is None
    await place.appender.append(EVENTS)
    assert place.topic is not None
    assert place.topic.overrides == {"cleanup.policy": "delete", "retention.ms": "1234"}
    assert len(place.topic.partitions) == 1
    await place.appender.append(EVENTS[:1])
    records = place.records()
    assert [record.value for record in records] == [*EVENTS, EVENTS[0]]
    assert [record.offset for record in records] == [0, 1, 2, 3]
    assert records[0].timestamp == place.world.clock.now_ms()
    assert records[0].headers == (("content-type", b"application/cloudevents+json; charset=UTF-8"),)


async def test_a_topic_that_is_there_is_used_as_it_is() -> None:
    world = World()
    await world.topic(AUDIT_TOPIC, 3, overrides={"retention.ms": "9"})
    place = Place(await world.restarted())
    await place.appender.append(EVENTS)
    assert place.topic is not None
    assert place.topic.overrides == {"retention.ms": "9"}
    assert [partition.next_offset for partition in place.topic.partitions] == [3, 0, 0]


async def test_a_topic_that_was_deleted_is_made_again() -> None:
    place = Place()
    await place.appender.append(EVENTS)
    assert place.topic is not None
    await place.world.topics.delete(1, [place.topic])
    assert place.topic is None
    await place.appender.append(EVENTS)
    assert len(place.records()) == 3


async def test_what_may_pass_is_told_from_what_will_not() -> None:
    place = Place()
    place.world.database.down = True
    with pytest.raises(Unavailable):
        await place.appender.append(EVENTS)
    place.world.database.down = False
    place.commits.failures = [Unavailable("the disk is away")]
    with pytest.raises(Unavailable):
        await place.appender.append(EVENTS)
    await place.appender.append(EVENTS)
    assert len(place.records()) == 3
    world = World()
    await world.topic(AUDIT_TOPIC, 1, overrides={"max.message.bytes": "100"})
    with pytest.raises(InvalidRequest, match="100"):
        await Place(world).appender.append(EVENTS * 100)
