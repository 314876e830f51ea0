"""Fair queueing of flushes: one cluster gets whole flushes, several get a share of each in turn."""

from __future__ import annotations

from fixtures.log_world import topic_of

from penstock.base.context import PLATFORM_CLUSTER_ID
from penstock.log.fair_queue import (
    SHARED_QUOTA,
    SHARED_S,
    SHORT_FOR_S,
    SHORT_QUOTA,
    SHORT_WRITE_S,
    UNLIMITED,
    FairQueue,
)
from penstock.log.model import Partition

NOW_S = 100.0


def partition_of(cluster_id: int, partition_id: int = 1) -> Partition:
    topic = topic_of(partition_id)
    topic.cluster_id = cluster_id
    return topic.partitions[0]


def serve(queue: FairQueue, now_s: float = NOW_S, *, each: int = 1) -> list[int]:
    """Let every cluster take so many partitions; the clusters, in turn."""
    served = []
    for cluster_id, partitions in queue.queues():
        for _ in range(min(each, len(partitions))):
            partitions.popleft()
        queue.served(cluster_id, now_s)
        served.append(cluster_id)
    return served


def test_partitions_of_one_cluster_go_in_the_order_in_which_they_came() -> None:
    queue, waiting = FairQueue(), [partition_of(1, number) for number in range(5)]
    for partition in waiting:
        queue.add(partition)
    ((cluster_id, partitions),) = queue.queues()
    assert (cluster_id, list(partitions)) == (1, waiting)
    assert queue.quota(NOW_S) == UNLIMITED
    partitions.popleft()
    queue.served(1, NOW_S)
    assert queue
    assert queue.quota(NOW_S) == UNLIMITED
    partitions.clear()
    queue.served(1, NOW_S)
    assert not queue


def test_clusters_have_their_parts_in_turn() -> None:
    queue = FairQueue()
    for cluster_id in (5, 5, 5, 7, 8, 8):
        queue.add(partition_of(cluster_id))
    assert queue.quota(NOW_S) == SHARED_QUOTA
    first, partitions = queue.queues()[0]
    partitions.popleft()
    queue.served(first, NOW_S)  # The flush is full: it has had its turn, and the others have not.
    queue.add(partition_of(9))
    assert serve(queue) == [7, 8, 5, 9]
    assert serve(queue) == [8, 5]
    assert not queue


def test_a_cluster_that_appended_lately_is_expected_again() -> None:
    queue = FairQueue()
    for cluster_id, shared in ((5, False), (5, False), (7, True), (7, True)):
        queue.add(partition_of(cluster_id))
        assert serve(queue) == [cluster_id]
        assert queue.is_shared(NOW_S) is shared
    just_before = NOW_S + SHARED_S - 0.001
    assert queue.quota(just_before) == SHARED_QUOTA
    assert queue.quota(NOW_S + SHARED_S) == UNLIMITED
    queue.add(partition_of(7))
    serve(queue, just_before)
    assert queue.quota(NOW_S + SHARED_S) == UNLIMITED  # It is the same one that goes on.


def test_the_cluster_of_the_platform_limits_nobody() -> None:
    queue = FairQueue()
    for _ in range(2):
        for cluster_id in (5, PLATFORM_CLUSTER_ID):
            queue.add(partition_of(cluster_id))
        assert queue.quota(NOW_S) == UNLIMITED
        assert serve(queue) == [5, PLATFORM_CLUSTER_ID]
        assert queue.quota(NOW_S) == UNLIMITED


def test_nobody_waits_once_all_is_given_up() -> None:
    queue = FairQueue()
    queue.add(partition_of(5))
    queue.clear()
    assert (bool(queue), list(queue.queues())) == (False, [])


def test_flushes_are_short_while_there_are_participants() -> None:
    queue = FairQueue()
    assert not queue.is_limited(NOW_S)
    queue.shorten(NOW_S, 5 * SHORT_WRITE_S)
    assert queue.quota(NOW_S) == (5 * SHORT_QUOTA.size_bytes, 5 * SHORT_QUOTA.batches)
    queue.shorten(NOW_S, SHORT_WRITE_S / 9)
    assert queue.quota(NOW_S + SHORT_FOR_S - 0.001) == SHORT_QUOTA
    assert queue.is_limited(NOW_S + SHORT_FOR_S - 0.001)
    assert queue.quota(NOW_S + SHORT_FOR_S) == UNLIMITED
    for cluster_id in (5, 7):
        queue.add(partition_of(cluster_id))
    assert queue.quota(NOW_S + SHORT_FOR_S) == SHARED_QUOTA
    assert queue.is_limited(NOW_S + SHORT_FOR_S)
