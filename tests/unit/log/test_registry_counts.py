"""What a virtual cluster has is counted as it changes: always as many as whoever walks over everything finds."""

from __future__ import annotations

from fixtures.log_world import registry_of, topic_of
from hypothesis import given
from hypothesis import strategies as st

from penstock.log.commits import CONTROL, Commit, CommitEntry, ProducerBatch, apply_entry
from penstock.log.model import Partition, ProducerState, Topic
from penstock.log.producers import idle_producers
from penstock.log.registry import Registry
from penstock.storage.wal import WalLocation

CLUSTERS = (1, 2)
SMALL = st.integers(0, 3)
STEP = st.tuples(
    st.sampled_from(("topic", "partitions", "delete", "write", "replay", "marker", "expire", "learn", "id", "forget")),
    st.sampled_from(CLUSTERS), SMALL, SMALL, SMALL,
)  # fmt: skip


class World:
    """Some topics of two clusters, and transactional ids that have producer ids."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.last_id = self.seq = 0
        self.ids: dict[tuple[int, int], int] = {}

    def topic(self, cluster_id: int, number: int) -> Topic | None:
        return self.registry.by_name(cluster_id, f"t{number}")

    def grow(self, topic: Topic, count: int) -> None:
        for _ in range(count):
            self.last_id += 1
            topic.partitions.append(
                Partition(partition_id=self.last_id, topic=topic, index=len(topic.partitions))
            )  # fmt: skip
        self.registry.add(topic)

    def step(self, what: str, cluster_id: int, number: int, producer_id: int, count: int) -> None:
        topic = self.topic(cluster_id, number)
        if what == "topic" and topic is None:
            made = topic_of(name=f"t{number}")
            made.cluster_id = cluster_id
            # Some of its producers are known before it is.
            made.partitions = [Partition(partition_id=-number - 10 * cluster_id, topic=made, index=0)]
            made.partitions[0].know({producer_id: ProducerState(producer_id, 0, count)})
            self.grow(made, count)
        elif what == "id":
            held, producer_counts = self.ids.pop((cluster_id, number), None), self.registry.producer_counts(cluster_id)
            producer_counts.removed(() if held is None else (held,))
            if count:
                self.ids[cluster_id, number] = producer_id
                producer_counts.added((producer_id,))
        elif what == "forget":
            self.registry.forget_cluster(cluster_id)
        elif topic is None:
            return
        elif what == "delete":
            self.registry.remove(topic)
            self.registry.remove(topic)
            topic.partitions[0].know({producer_id: ProducerState(producer_id, 0, 1)})  # Too late to count.
        elif what == "partitions":
            self.grow(topic, count)
        else:
            self.producer(what, topic.partitions[count % len(topic.partitions)], producer_id)

    def producer(self, what: str, partition: Partition, producer_id: int) -> None:
        if what == "expire":
            partition.forget_producers(idle_producers(partition.producers, self.seq // 2))
        elif what == "learn":
            partition.forget_producers((producer_id, 99))
        else:
            self.seq += 1
            made = ProducerBatch(producer_id, 0, 0, 0, 0, 5, CONTROL if what == "marker" else 0)
            entry = CommitEntry(partition.partition_id, 0, 100, 1, 1, 5, (made,))
            location = WalLocation("wal", 0, 4096)
            commit = Commit(self.seq, b"", location, self.seq, 1, (entry,), (partition.next_offset,))
            known = {producer_id: ProducerState(producer_id, 0, self.seq)} if what == "write" else None
            apply_entry(partition, commit, 0, None, known)

    def check(self) -> None:
        for cluster_id in CLUSTERS:
            topics = self.registry.all(cluster_id)
            assert self.registry.partition_total(cluster_id) == sum(len(topic.partitions) for topic in topics)
            walked = {one for topic in topics for partition in topic.partitions for one in partition.producers}
            walked.update(held for (owner, _), held in self.ids.items() if owner == cluster_id)
            assert self.registry.producer_total(cluster_id) == len(walked)


@given(st.lists(STEP, max_size=40))
def test_counts_are_what_a_walk_finds(steps: list[tuple[str, int, int, int, int]]) -> None:
    world = World()
    for step in steps:
        world.step(*step)
        world.check()


def test_nothing_is_kept_of_a_cluster_that_is_gone() -> None:
    topic = topic_of(1, 2)
    registry = registry_of(topic)
    registry.forget_cluster(topic.cluster_id)
    assert registry.partition_total(topic.cluster_id) == 2, "it is not gone"
    registry.remove(topic)
    registry.forget_cluster(topic.cluster_id)
    assert (registry._partition_totals, registry._producer_counts) == ({}, {})
