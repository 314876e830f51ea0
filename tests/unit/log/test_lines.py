"""Fair queueing of flushes: one cluster gets whole flushes, several get a share of each in turn."""

from __future__ import annotations

from fixtures.log_world import topic_of

from penstock.base.context import PLATFORM_CLUSTER_ID
from penstock.log.lines import EVERYTHING, HURRIED_S, PART, SHARED_S, SHORT, SHORT_S, Lines
from penstock.log.model import Partition

NOW_S = 100.0


def partition_of(cluster_id: int, partition_id: int = 1) -> Partition:
    topic = topic_of(partition_id)
    topic.cluster_id = cluster_id
    return topic.partitions[0]


def serve(lines: Lines, now_s: float = NOW_S, *, each: int = 1) -> list[int]:
    """Let every cluster take so many partitions; the clusters, in turn."""
    served = []
    for cluster_id, line in lines.in_turn():
        for _ in range(min(each, len(line))):
            line.popleft()
        lines.served(cluster_id, now_s)
        served.append(cluster_id)
    return served


def test_partitions_of_one_cluster_go_in_the_order_in_which_they_came() -> None:
    lines, waiting = Lines(), [partition_of(1, number) for number in range(5)]
    for partition in waiting:
        lines.add(partition)
    ((cluster_id, line),) = lines.in_turn()
    assert (cluster_id, list(line)) == (1, waiting)
    assert lines.portion(NOW_S) == EVERYTHING
    line.popleft()
    lines.served(1, NOW_S)
    assert lines
    assert lines.portion(NOW_S) == EVERYTHING
    line.clear()
    lines.served(1, NOW_S)
    assert not lines


def test_clusters_have_their_parts_in_turn() -> None:
    lines = Lines()
    for cluster_id in (5, 5, 5, 7, 8, 8):
        lines.add(partition_of(cluster_id))
    assert lines.portion(NOW_S) == PART
    first, line = lines.in_turn()[0]
    line.popleft()
    lines.served(first, NOW_S)  # The flush is full: it has had its turn, and the others have not.
    lines.add(partition_of(9))
    assert serve(lines) == [7, 8, 5, 9]
    assert serve(lines) == [8, 5]
    assert not lines


def test_a_cluster_that_appended_lately_is_expected_again() -> None:
    lines = Lines()
    for cluster_id, shared in ((5, False), (5, False), (7, True), (7, True)):
        lines.add(partition_of(cluster_id))
        assert serve(lines) == [cluster_id]
        assert lines.is_shared(NOW_S) is shared
    just_before = NOW_S + SHARED_S - 0.001
    assert lines.portion(just_before) == PART
    assert lines.portion(NOW_S + SHARED_S) == EVERYTHING
    lines.add(partition_of(7))
    serve(lines, just_before)
    assert lines.portion(NOW_S + SHARED_S) == EVERYTHING  # It is the same one that goes on.


def test_the_cluster_of_the_platform_limits_nobody() -> None:
    lines = Lines()
    for _ in range(2):
        for cluster_id in (5, PLATFORM_CLUSTER_ID):
            lines.add(partition_of(cluster_id))
        assert lines.portion(NOW_S) == EVERYTHING
        assert serve(lines) == [5, PLATFORM_CLUSTER_ID]
        assert lines.portion(NOW_S) == EVERYTHING


def test_nobody_waits_once_all_is_given_up() -> None:
    lines = Lines()
    lines.add(partition_of(5))
    lines.clear()
    assert (bool(lines), list(lines.in_turn())) == (False, [])


def test_flushes_are_short_while_there_are_participants() -> None:
    lines = Lines()
    assert not lines.go_in_parts(NOW_S)
    lines.hurry(NOW_S, 5 * SHORT_S)
    assert lines.portion(NOW_S) == (5 * SHORT.size_bytes, 5 * SHORT.batches)
    lines.hurry(NOW_S, SHORT_S / 9)
    assert lines.portion(NOW_S + HURRIED_S - 0.001) == SHORT
    assert lines.go_in_parts(NOW_S + HURRIED_S - 0.001)
    assert lines.portion(NOW_S + HURRIED_S) == EVERYTHING
    for cluster_id in (5, 7):
        lines.add(partition_of(cluster_id))
    assert lines.portion(NOW_S + HURRIED_S) == PART
    assert lines.go_in_parts(NOW_S + HURRIED_S)
