"""The task assignor of streams groups: tables and properties."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streams_bench import tasks

from penstock.groups.streams.assignor import Assignee, assign_tasks
from penstock.groups.streams.tasks import Task, Tasks


def member(name: str, process: str | None = None, *, has: Tasks | None = None, **changelog_offsets: int) -> Assignee:
    has = has or Tasks()
    return Assignee(
        member_id=name, process_id=process or name, active=has.active, standby=has.standby,
        changelog_offsets={Task("0", int(index.removeprefix("_"))): at for index, at in changelog_offsets.items()},
    )  # fmt: skip


def counts(found: Mapping[str, Tasks]) -> dict[str, tuple[int, int]]:
    return {name: (len(one.active), len(one.standby)) for name, one in found.items()}


def test_nobody_gets_nothing() -> None:
    assert assign_tasks([], {"0": 3}, frozenset("0"), 1) == {}
    assert assign_tasks([member("a")], {}, frozenset(), 1) == {"a": Tasks()}


def test_processes_are_loaded_by_their_members() -> None:
    found = assign_tasks([member("a1", "a"), member("a2", "a"), member("b")], {"0": 6}, frozenset(), 0)
    assert counts(found) == {"a1": (2, 0), "a2": (2, 0), "b": (2, 0)}


def test_members_keep_what_they_have_up_to_their_share() -> None:
    found = assign_tasks([member("a", has=Tasks(tasks(_0=[1, 2, 3]))), member("b")], {"0": 4}, frozenset(), 0)
    assert found == {"a": Tasks(tasks(_0=[1, 2])), "b": Tasks(tasks(_0=[0, 3]))}


def test_who_has_a_copy_becomes_active() -> None:
    members = [member("a", has=Tasks(standby=tasks(_0=[1]))), member("b", has=Tasks(standby=tasks(_0=[0])))]
    found = assign_tasks(members, {"0": 2}, frozenset("0"), 0)
    assert found == {"a": Tasks(tasks(_0=[1])), "b": Tasks(tasks(_0=[0]))}


@pytest.mark.parametrize(("changelog_offsets", "winner"), [((5, 9), "b"), ((9, 5), "a")])
def test_who_has_come_furthest_becomes_active(changelog_offsets: tuple[int, int], winner: str) -> None:
    found = assign_tasks(
        [member("a", _0=changelog_offsets[0]), member("b", _0=changelog_offsets[1])], {"0": 1}, frozenset("0"), 0
    )
    assert found[winner].active == tasks(_0=[0])


def test_a_standby_comes_before_state_that_is_only_on_a_disk() -> None:
    members = [member("a", _0=9), member("b", has=Tasks(standby=tasks(_0=[0])))]
    assert assign_tasks(members, {"0": 1}, frozenset("0"), 0)["b"].active == tasks(_0=[0])


def test_whoever_was_active_keeps_a_copy() -> None:
    members = [member("a", has=Tasks(tasks(_0=range(4)))), member("b")]
    found = assign_tasks(members, {"0": 4}, frozenset("0"), 1)
    moved = tasks(_0=range(4)) - found["a"].active
    assert (len(moved), found["a"].standby) == (2, moved)


def test_copies_are_of_state_only() -> None:
    found = assign_tasks([member("a"), member("b")], {"0": 2, "1": 2}, frozenset("1"), 1)
    assert {task.subtopology_id for one in found.values() for task in one.standby} == {"1"}


def test_there_are_no_more_copies_than_processes() -> None:
    found = assign_tasks([member("a1", "a"), member("a2", "a"), member("b")], {"0": 3}, frozenset("0"), 5)
    assert sum(len(one.standby) for one in found.values()) == 3


_members = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), max_size=8, unique_by=lambda pair: pair[0])


@settings(max_examples=150, deadline=None)
@given(_members, _members, st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=4), st.integers(0, 2))
def test_every_task_is_active_once_and_loads_are_even(
    before: list[tuple[int, int]], after: list[tuple[int, int]], parts: list[tuple[int, bool]], copies: int
) -> None:
    task_counts = {str(number): count for number, (count, _) in enumerate(parts)}
    stateful = frozenset(str(number) for number, (_, has_state) in enumerate(parts) if has_state)
    processes = {f"m{number}": f"p{process}" for number, process in (*before, *after)}
    had: Mapping[str, Tasks] = {}
    for step in (before, after, after):
        members = [member(f"m{n}", processes[f"m{n}"], has=had.get(f"m{n}")) for n, _ in step]
        found = assign_tasks(reversed(members), task_counts, stateful, copies)
        assert found == assign_tasks(members, task_counts, stateful, copies), "whatever the order"
        wanted = [Task(part, index) for part, count in task_counts.items() for index in range(count)]
        active = Counter(task for one in found.values() for task in one.active)
        assert active == (Counter(wanted) if members else Counter())
        held = Counter(
            (processes[name], task) for name, one in found.items() for task in (*one.active, *one.standby)
        )  # fmt: skip
        assert not held or max(held.values()) == 1, "a process has the state of a task once"
        per_task = Counter(task for one in found.values() for task in one.standby)
        room = len({processes[name] for name in found}) - 1
        assert per_task == Counter(
            {task: min(copies, room) for task in wanted if task.subtopology_id in stateful and min(copies, room) > 0}
        )
        if copies == 0 and members:
            loads = [len(one.active) for one in found.values()]
            assert max(loads) <= -(-len(wanted) // len(members)) + 1
        had = found
