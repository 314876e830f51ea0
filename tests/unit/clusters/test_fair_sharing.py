"""How what all clusters share is divided: nobody keeps others from having any, and nothing goes back and forth."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.clusters.sharing import Shared


def gets(shared: Shared, cluster_id: int) -> bool:
    """Whether a cluster gets one more, from whoever has most if nothing is left."""
    if not shared.may_have(cluster_id, 1):
        return False
    if not shared.left:
        shared.take(shared.richest(but_not=cluster_id), -1)
    shared.take(cluster_id, 1)
    return True


def test_whoever_is_alone_has_all_of_it() -> None:
    shared = Shared(5)
    assert [gets(shared, 1) for _ in range(7)] == [True] * 5 + [False] * 2
    assert (shared.of(1), shared.left) == (5, 0)


def test_who_comes_later_gets_a_fair_share_and_no_more() -> None:
    shared = Shared(6)
    while gets(shared, 1):
        pass
    assert [gets(shared, 2) for _ in range(4)] == [True, True, True, False]
    assert [gets(shared, 3) for _ in range(3)] == [True, True, False]
    assert [shared.of(cluster_id) for cluster_id in (1, 2, 3)] == [2, 2, 2]
    assert not any(gets(shared, cluster_id) for cluster_id in (1, 2, 3))


def test_what_is_given_back_is_for_everybody() -> None:
    shared = Shared(2)
    assert gets(shared, 1)
    assert gets(shared, 2)
    assert not gets(shared, 3), "nobody has more than it would then have"
    shared.take(1, -1)
    assert gets(shared, 3)
    assert shared.of(1) == 0


def test_more_at_once_than_others_can_spare() -> None:
    shared = Shared(100)
    shared.take(1, 60)
    shared.take(2, 40)
    assert shared.may_have(3, 30), "from one that has 60, of which it keeps more"
    assert not shared.may_have(3, 41)
    assert not shared.may_have(2, 30)
    assert shared.richest(but_not=3) == 1
    assert shared.richest(but_not=1) == 2


@given(st.integers(1, 12), st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=120))
def test_nobody_is_kept_out_and_nobody_gets_back_what_went_from_them(total: int, asked: list[tuple[int, bool]]) -> None:
    shared = Shared(total)
    for cluster_id, wants_more in asked:
        if not wants_more:
            shared.take(cluster_id, -min(1, shared.of(cluster_id)))
            continue
        before = {other: shared.of(other) for other in range(1, 5)}
        if not gets(shared, cluster_id):
            assert shared.left == 0
            assert max(before.values()) <= before[cluster_id] + 1, "somebody has two more, and gives none"
            continue
        for other in (other for other in before if shared.of(other) < before[other]):
            assert shared.of(other) >= shared.of(cluster_id), "who gave has no less, and so cannot ask for it back"
    assert sum(shared.of(other) for other in range(1, 5)) + shared.left == total
    assert shared.left >= 0
