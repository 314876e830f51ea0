"""Changes of topics: durable first, then in memory, then listeners are notified."""

from __future__ import annotations

import asyncio

import pytest
from admin_world import World

from penstock.base.config_values import ConfigResource
from penstock.base.errors import Unavailable
from penstock.log.model import Topic
from penstock.log.refusals import Refused
from penstock.log.topics import MAX_NEW_PARTITIONS, NewTopic
from penstock.wire.error_codes import ErrorCode


class Poll:
    """A waiter that counts its wake-ups."""

    def __init__(self) -> None:
        self.changes = 0

    def on_append(self, size_bytes: int) -> None:
        """Not of interest."""

    def on_change(self) -> None:
        self.changes += 1


async def test_topics_survive_a_restart_with_everything_they_have() -> None:
    world = World()
    topic = await world.topic("orders", 3, replication_factor=2, overrides={"cleanup.policy": "compact"})
    await world.topics.add_partitions(topic, 5)
    topic.partitions[1].next_offset = 9
    world.database.connection.execute("UPDATE partition SET next_offset = 9 WHERE partition_index = 1")
    await world.topics.trim(1, {topic.partitions[1]: 4})
    again = (await world.restarted()).registry.by_name(1, "orders")
    assert again is not None
    assert (again.topic_id, again.replication_factor, again.created_ms) == (topic.topic_id, 2, topic.created_ms)
    assert again.overrides == {"cleanup.policy": "compact"}
    assert again.config.compact
    assert not again.config.delete
    assert [p.partition_id for p in again.partitions] == [p.partition_id for p in topic.partitions]
    assert [(p.index, p.next_offset, p.log_start) for p in again.partitions][:2] == [(0, 0, 0), (1, 9, 4)]


async def test_partition_ids_are_never_given_twice_even_across_agents_and_deletions() -> None:
    world = World()
    first = await world.topic("a", 3)
    other = await world.restarted()
    second = await other.topic("b", 2)
    await other.topics.delete(1, [second])
    third = await world.topic("c", 2)
    ids = [p.partition_id for topic in (first, second, third) for p in topic.partitions]
    assert len(set(ids)) == len(ids) == 7


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        (NewTopic(name=""), ErrorCode.INVALID_TOPIC_EXCEPTION),
        (NewTopic(name="."), ErrorCode.INVALID_TOPIC_EXCEPTION),
        (NewTopic(name=".."), ErrorCode.INVALID_TOPIC_EXCEPTION),
        (NewTopic(name="x" * 250), ErrorCode.INVALID_TOPIC_EXCEPTION),
        (NewTopic(name="a b"), ErrorCode.INVALID_TOPIC_EXCEPTION),
        (NewTopic(name="ä"), ErrorCode.INVALID_TOPIC_EXCEPTION),
        (NewTopic(name="taken_name"), ErrorCode.INVALID_TOPIC_EXCEPTION),
        (NewTopic(name="taken.name"), ErrorCode.TOPIC_ALREADY_EXISTS),
        (NewTopic(name="n", partition_count=0), ErrorCode.INVALID_PARTITIONS),
        (NewTopic(name="n", replication_factor=0), ErrorCode.INVALID_REPLICATION_FACTOR),
        (NewTopic(name="n", overrides={"retention.ms": "x"}), ErrorCode.INVALID_CONFIG),
        (NewTopic(name="n", overrides={"no.such.key": "1"}), ErrorCode.INVALID_CONFIG),
        (NewTopic(name="n", partition_count=MAX_NEW_PARTITIONS + 1), ErrorCode.POLICY_VIOLATION),
    ],
)
async def test_a_topic_that_cannot_be_is_refused_and_the_others_are_made(wanted: NewTopic, code: ErrorCode) -> None:
    world = World()
    await world.topic("taken.name")
    refusal, made = await world.topics.create(1, [wanted, NewTopic(name="fine")])
    assert isinstance(refusal, Refused)
    assert refusal.code is code
    assert isinstance(made, Topic)
    assert world.heard.created == ["taken.name", "fine"]


async def test_names_that_metrics_cannot_tell_apart_collide_within_one_request_and_may_follow_each_other() -> None:
    world = World()
    made, refused = await world.topics.create(1, [NewTopic(name="a.b"), NewTopic(name="a_b")])
    assert isinstance(made, Topic)
    assert isinstance(refused, Refused)
    await world.topics.delete(1, [made])
    await world.topic("a_b")


async def test_a_name_that_another_agent_took_is_refused_by_the_database() -> None:
    world = World()
    other = await world.restarted()
    await other.topic("orders")
    (refusal,) = await world.topics.create(1, [NewTopic(name="orders")])
    assert isinstance(refusal, Refused)
    assert refusal.code is ErrorCode.TOPIC_ALREADY_EXISTS
    assert world.registry.by_name(1, "orders") is None


async def test_virtual_clusters_do_not_see_each_other() -> None:
    world = World()
    mine = await world.topic("orders")
    (theirs,) = await world.topics.create(2, [NewTopic(name="orders")])
    assert isinstance(theirs, Topic)
    assert world.registry.by_id(2, mine.topic_id) is None
    await world.topics.delete(2, [theirs])
    assert world.registry.by_name(1, "orders") is mine
    assert world.database.rows("SELECT cluster_id FROM topic") == [(1,)]


async def test_ensure_creates_once_whoever_asks_at_the_same_time() -> None:
    world = World(num_partitions="4")
    answers = await asyncio.gather(*(world.topics.ensure(1, ["new", "other"]) for _ in range(20)))
    made = [one.answer for one in answers[0]]
    assert all([one.answer for one in each] == made for each in answers)
    assert [len(topic.partitions) for topic in made if isinstance(topic, Topic)] == [4, 4]
    assert sum(one.is_new for each in answers for one in each) == 2
    assert world.heard.created == ["new", "other"]


@pytest.mark.parametrize("change", ["create", "add", "alter", "trim", "delete"])
async def test_a_lost_answer_of_the_database_changes_nothing_about_the_outcome(change: str) -> None:
    world = World()
    topic = await world.topic("orders", 2)
    topic.partitions[0].next_offset = 5
    world.database.lose_answers = 1
    match change:
        case "create":
            made = await world.topic("more", 3)
            rows = world.database.rows("SELECT partition_id FROM partition ORDER BY 1")
            assert [row[0] for row in rows[-3:]] == [p.partition_id for p in made.partitions]
        case "add":
            await world.topics.add_partitions(topic, 4)
            assert len(topic.partitions) == 4
        case "alter":
            await world.topics.alter_topic(topic, lambda before: {"retention.ms": "5"})
            assert topic.config.retention_ms == 5
        case "trim":
            await world.topics.trim(1, {topic.partitions[0]: 5})
            assert topic.partitions[0].log_start == 5
        case "delete":
            await world.topics.delete(1, [topic])
            assert world.database.rows("SELECT COUNT(*) FROM topic_deletion") == [(2,)]


async def test_nothing_happens_in_memory_when_the_database_is_away() -> None:
    world = World()
    topic = await world.topic("orders", 2)
    world.database.down = True
    topic.partitions[0].next_offset = 5
    for attempt in (
        world.topics.create(1, [NewTopic(name="more")]),
        world.topics.add_partitions(topic, 4),
        world.topics.alter_topic(topic, lambda before: {"retention.ms": "5"}),
        world.topics.alter_broker(1, "", lambda before: {"log.retention.ms": "5"}),
        world.topics.trim(1, {topic.partitions[0]: 5}),
        world.topics.delete(1, [topic]),
    ):
        with pytest.raises(Unavailable):
            await attempt
    assert [t.name for t in world.registry.all(1)] == ["orders"]
    assert (len(topic.partitions), topic.overrides, topic.deleted) == (2, {}, False)
    assert topic.partitions[0].log_start == 0
    assert topic.config.retention_ms == 604_800_000
    assert world.heard.deleted == world.heard.trimmed == []


async def test_a_caller_that_goes_away_does_not_tear_a_change_apart() -> None:
    world = World()
    task = asyncio.create_task(world.topics.create(1, [NewTopic(name="orders")]))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await world.topics.close()
    assert world.registry.by_name(1, "orders") is not None
    assert world.heard.created == ["orders"]


async def test_deletion_leaves_nothing_but_the_note_for_the_garbage_collector() -> None:
    world = World()
    topic = await world.topic("orders", 2, overrides={"retention.ms": "5"})
    world.database.connection.execute(
        "INSERT INTO producer_state (partition_id, producer_id, epoch, last_ms, batches) VALUES (?, 7, 0, 0, X'')",
        (topic.partitions[0].partition_id,),
    )
    poll = Poll()
    topic.partitions[1].waiters[poll] = None
    await world.topics.delete(1, [topic])
    assert (topic.deleted, poll.changes, world.heard.deleted) == (True, 1, ["orders"])
    for table in ("topic", "partition", "config", "producer_state"):
        assert world.database.rows(f"SELECT * FROM {table}") == []
    assert world.database.rows("SELECT partition_id FROM topic_deletion ORDER BY 1") == [
        (p.partition_id,) for p in topic.partitions
    ]
    assert world.registry.partition(topic.partitions[0].partition_id) is None
    again = await world.topic("orders")
    assert again.topic_id != topic.topic_id
    assert again.overrides == {}


async def test_deleting_twice_is_harmless_also_through_another_agent() -> None:
    world = World()
    topic = await world.topic("orders")
    other = await world.restarted()
    twin = other.registry.by_name(1, "orders")
    assert twin is not None
    await world.topics.delete(1, [topic])
    await world.topics.delete(1, [topic])
    await other.topics.delete(1, [twin])
    assert world.database.rows("SELECT COUNT(*) FROM topic_deletion") == [(1,)]


async def test_trim_only_goes_forward_and_wakes_who_waits() -> None:
    world = World()
    topic = await world.topic("orders")
    partition = topic.partitions[0]
    partition.next_offset = 10
    poll = Poll()
    partition.waiters[poll] = None
    await world.topics.trim(1, {partition: 6})
    await world.topics.trim(1, {partition: 4})
    assert (partition.log_start, poll.changes, world.heard.trimmed) == (6, 1, [("orders", 0, 6)])
    assert world.database.rows("SELECT log_start FROM partition") == [(6,)]


async def test_broker_wide_settings_are_the_defaults_of_topics_that_do_not_override_them() -> None:
    world = World()
    plain = await world.topic("plain")
    own = await world.topic("own", overrides={"retention.ms": "7"})
    await world.topics.alter_broker(1, "", lambda before: {"log.retention.ms": "5"})
    assert (plain.config.retention_ms, own.config.retention_ms) == (5, 7)
    await world.topics.alter_broker(1, "1", lambda before: {"log.retention.ms": "6"})
    assert plain.config.retention_ms == 6
    again = await world.restarted()
    topic = again.registry.by_name(1, "plain")
    assert topic is not None
    assert topic.config.retention_ms == 6
    assert again.settings.of(2).text("log.retention.ms") is None
    assert again.topics.overrides(1, ConfigResource.BROKER, "") == {"log.retention.ms": "5"}


async def test_a_deletion_that_has_to_wait_holds_up_no_other_change() -> None:
    """It may wait for room in the log, which is not made before retention has trimmed what it is to trim."""
    world, goes_on, asked = World(), asyncio.Event(), list[str]()
    topic, other = await world.topic("orders"), await world.topic("other")
    other.partitions[0].next_offset = 9

    async def wait(topic: Topic) -> None:
        asked.append(topic.name)
        await goes_on.wait()

    world.topics.before_deletion = wait
    deleting = [asyncio.ensure_future(world.topics.delete(1, [topic])) for _ in range(2)]
    await asyncio.wait_for(world.topics.trim(1, {other.partitions[0]: 4}), 5)
    assert (asked, topic.deleted, other.partitions[0].log_start) == (["orders"] * 2, False, 4)
    goes_on.set()
    await asyncio.gather(*deleting)
    assert (topic.deleted, world.heard.deleted) == (True, ["orders"])


async def test_growing_a_deleted_topic_is_refused() -> None:
    world = World()
    topic = await world.topic("orders")
    other = await world.restarted()
    twin = other.registry.by_name(1, "orders")
    assert twin is not None
    await other.topics.delete(1, [twin])
    with pytest.raises(Refused) as refusal:
        await world.topics.add_partitions(topic, 2)
    assert refusal.value.code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


async def test_nothing_is_kept_of_a_name_that_nothing_is_set_for_any_more() -> None:
    world = World()
    for number in range(3):
        name = f"group {number}"
        for after in ({"share.auto.offset.reset": "earliest"}, {}):
            await world.topics.alter_other(1, ConfigResource.GROUP, name, lambda before, after=after: after)
            assert world.topics.overrides(1, ConfigResource.GROUP, name) == after
    assert not world.topics._other_configs
