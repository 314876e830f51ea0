"""Assignors: complete, fair, sticky, and the same for the same input."""

from __future__ import annotations

import itertools
import sys

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.groups import assignors
from penstock.groups.assignors import Subscriber, range_, uniform

TOPICS = [bytes([number]) * 16 for number in range(4)]


def subscriber(member_id: str, topics: set[bytes], target=None, instance_id: str | None = None) -> Subscriber:
    return Subscriber(member_id=member_id, instance_id=instance_id, topic_ids=frozenset(topics), target=target or {})


def loads(targets) -> list[int]:
    return [sum(map(len, target.values())) for target in targets.values()]


def check_complete(subscribers, counts, targets) -> None:
    """Every partition that anybody subscribes is at exactly one member, who subscribes it."""
    given_out = [(topic_id, p) for target in targets.values() for topic_id, found in target.items() for p in found]
    wanted = {
        (topic_id, p) for topic_id, count in counts.items() for p in range(count)
        if any(topic_id in s.topic_ids for s in subscribers)
    }  # fmt: skip
    assert sorted(given_out) == sorted(wanted)
    for s in subscribers:
        assert targets[s.member_id].keys() <= s.topic_ids


def test_uniform_moves_only_what_it_must() -> None:
    topic = TOPICS[0]
    first = uniform([subscriber("a", {topic})], {topic: 6})
    assert first == {"a": {topic: frozenset(range(6))}}
    second = uniform([subscriber("a", {topic}, first["a"]), subscriber("b", {topic})], {topic: 6})
    assert second == {"a": {topic: frozenset({0, 1, 2})}, "b": {topic: frozenset({3, 4, 5})}}
    again = uniform([subscriber(m, {topic}, second[m]) for m in "ab"], {topic: 6})
    assert again["a"] is second["a"]
    assert again["b"] is second["b"]


def test_uniform_lets_who_has_more_keep_more() -> None:
    topic = TOPICS[0]
    has = {"a": {topic: frozenset({0})}, "b": {topic: frozenset({1, 2})}}
    assert uniform([subscriber(m, {topic}, has[m]) for m in "ab"], {topic: 3}) == has


def test_uniform_forgets_partitions_and_topics_that_are_gone() -> None:
    target = {TOPICS[0]: frozenset({0, 5}), TOPICS[1]: frozenset({0})}
    targets = uniform([subscriber("a", {TOPICS[0]}, target)], {TOPICS[0]: 2})
    assert targets == {"a": {TOPICS[0]: frozenset({0, 1})}}


def test_range_gives_stretches_in_the_order_of_instances_and_ids() -> None:
    one, two = TOPICS[:2]
    members = [
        subscriber("z", {one, two}, instance_id="first"), subscriber("b", {one, two}), subscriber("a", {one}),
    ]  # fmt: skip
    assert range_(members, {one: 7, two: 3}) == {
        "z": {one: frozenset({0, 1, 2}), two: frozenset({0, 1})},
        "a": {one: frozenset({3, 4})},
        "b": {one: frozenset({5, 6}), two: frozenset({2})},
    }


def test_nobody_and_nothing() -> None:
    assert uniform([], {}) == range_([], {}) == {}
    assert uniform([subscriber("a", set())], {}) == {"a": {}}
    assert range_([subscriber("a", {TOPICS[0]}), subscriber("b", {TOPICS[0]})], {TOPICS[0]: 1})["b"] == {}


@st.composite
def groups(draw: st.DrawFn):
    """Members with subscriptions, topics with partitions."""
    counts = {topic_id: draw(st.integers(1, 8)) for topic_id in TOPICS}
    same = draw(st.booleans())
    everything = draw(st.sets(st.sampled_from(TOPICS), min_size=1))
    members = []
    for number in range(draw(st.integers(1, 6))):
        topics = everything if same else draw(st.sets(st.sampled_from(TOPICS)))
        members.append(subscriber(f"m{number}", topics, instance_id=draw(st.sampled_from([None, f"i{number}"]))))
    return members, {t: c for t, c in counts.items() if any(t in m.topic_ids for m in members)}, same


@settings(max_examples=300, deadline=None)
@given(groups())
def test_assignments_are_complete_and_fair(group) -> None:
    members, counts, same = group
    for assign in (uniform, range_):
        targets = assign(members, counts)
        check_complete(members, counts, targets)
        assert assign(members, counts) == targets
    targets = uniform(members, counts)
    if same:
        assert max(loads(targets)) - min(loads(targets)) <= 1
    # Nobody could take a partition from somebody who has two more.
    for giver, taker in itertools.permutations(members, 2):
        has, gets = (sum(map(len, targets[m.member_id].values())) for m in (giver, taker))
        if has - gets > 1:
            assert not targets[giver.member_id].keys() & taker.topic_ids


@settings(max_examples=300, deadline=None)
@given(groups(), st.randoms(use_true_random=False))
def test_uniform_is_sticky(group, random) -> None:
    """When a member goes, the others keep what they have, if all subscribe the same; nothing changes for nothing."""
    members, counts, same = group
    targets = uniform(members, counts)
    stay = [subscriber(m.member_id, set(m.topic_ids), targets[m.member_id]) for m in members]
    assert uniform(stay, counts) == targets
    if same and len(stay) > 1:
        stay.pop(random.randrange(len(stay)))
        after = uniform(stay, counts)
        check_complete(stay, counts, after)
        for member in stay:
            before = {(t, p) for t, found in member.target.items() for p in found}
            now = {(t, p) for t, found in after[member.member_id].items() for p in found}
            assert before <= now


def different_subscriptions(members: int, topics: int) -> tuple[list[Subscriber], dict[bytes, int]]:
    """Members that have everything of the topics they subscribe, each of others; the last few have just come."""
    names = [number.to_bytes(16) for number in range(topics)]
    counts = dict.fromkeys(names, 20)
    before = [subscriber(f"{n:05}", {names[(n + k) % topics] for k in range(20)}) for n in range(members * 9 // 10)]
    targets = uniform(before, counts)
    after = [subscriber(s.member_id, set(s.topic_ids), targets[s.member_id]) for s in before]
    after += [
        subscriber(f"{n:05}", {names[(n + k) % topics] for k in range(20)}) for n in range(members * 9 // 10, members)
    ]
    return after, counts


def steps_of_uniform(subscribers: list[Subscriber], counts: dict[bytes, int]) -> int:
    """How many lines of the assignors are run."""
    steps = 0

    def step(frame, event, _):
        nonlocal steps
        steps += event == "line"
        return step if frame.f_code.co_filename == assignors.__file__ else None

    before = sys.gettrace()
    sys.settrace(step)
    try:
        uniform(subscribers, counts)
    finally:
        sys.settrace(before)
    return steps


def test_the_work_of_different_subscriptions_grows_with_what_there_is_to_assign() -> None:
    """Twice as many members and topics: twice as much of everything, and about as much work for each."""
    small, large = (steps_of_uniform(*different_subscriptions(size, size)) for size in (100, 200))
    assert large < 2.5 * small


def test_a_move_costs_the_same_however_much_a_member_has() -> None:
    """One member has everything of many topics, and another one comes, who subscribes one of them less."""
    steps = []
    for topics in (20, 40):
        names = {number.to_bytes(16) for number in range(topics)}
        counts = dict.fromkeys(names, 50)
        first = subscriber("a", names)
        members = [subscriber("a", names, uniform([first], counts)["a"]), subscriber("b", names - {min(names)})]
        steps.append(steps_of_uniform(members, counts))
    assert steps[1] < 2.5 * steps[0]
