"""Fair division among clusters: no cluster keeps others out, and units do not move back and forth."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.clusters.sharing import FairPool


def gets(pool: FairPool, cluster_id: int) -> bool:
    """Whether a cluster gets one more, from whoever has most if nothing is left."""
    if not pool.may_have(cluster_id, 1):
        return False
    if not pool.free:
        pool.take(pool.largest_holder(but_not=cluster_id), -1)
    pool.take(cluster_id, 1)
    return True


def test_a_single_cluster_may_have_all_units() -> None:
    pool = FairPool(5)
    assert [gets(pool, 1) for _ in range(7)] == [True] * 5 + [False] * 2
    assert (pool.of(1), pool.free) == (5, 0)


def test_a_later_cluster_gets_a_fair_share_and_no_more() -> None:
    pool = FairPool(6)
    while gets(pool, 1):
        pass
    assert [gets(pool, 2) for _ in range(4)] == [True, True, True, False]
    assert [gets(pool, 3) for _ in range(3)] == [True, True, False]
    assert [pool.of(cluster_id) for cluster_id in (1, 2, 3)] == [2, 2, 2]
    assert not any(gets(pool, cluster_id) for cluster_id in (1, 2, 3))


def test_returned_units_are_free_for_any_cluster() -> None:
    pool = FairPool(2)
    assert gets(pool, 1)
    assert gets(pool, 2)
    assert not gets(pool, 3), "nobody has more than it would then have"
    pool.take(1, -1)
    assert gets(pool, 3)
    assert pool.of(1) == 0


def test_a_request_for_more_than_others_have_in_excess_is_refused() -> None:
    pool = FairPool(100)
    pool.take(1, 60)
    pool.take(2, 40)
    assert pool.may_have(3, 30), "from one that has 60, of which it keeps more"
    assert not pool.may_have(3, 41)
    assert not pool.may_have(2, 30)
    assert pool.largest_holder(but_not=3) == 1
    assert pool.largest_holder(but_not=1) == 2


@given(st.integers(1, 12), st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=120))
def test_no_cluster_is_kept_out_and_none_gets_back_what_it_gave_up(total: int, asked: list[tuple[int, bool]]) -> None:
    pool = FairPool(total)
    for cluster_id, wants_more in asked:
        if not wants_more:
            pool.take(cluster_id, -min(1, pool.of(cluster_id)))
            continue
        before = {other: pool.of(other) for other in range(1, 5)}
        if not gets(pool, cluster_id):
            assert pool.free == 0
            assert max(before.values()) <= before[cluster_id] + 1, "somebody has two more, and gives none"
            continue
        for other in (other for other in before if pool.of(other) < before[other]):
            assert pool.of(other) >= pool.of(cluster_id), "who gave has no less, and so cannot ask for it back"
    assert sum(pool.of(other) for other in range(1, 5)) + pool.free == total
    assert pool.free >= 0
