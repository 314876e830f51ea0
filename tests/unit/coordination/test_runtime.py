"""The coordinator runtime in a simulated loop: a journal that fails before, fails after, stalls and fences."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from fixtures.clocks import LoopClock
from fixtures.sim_loop import SimLoop

from penstock.base.errors import Conflict, Fenced, OutcomeUnknown, Unavailable
from penstock.coordination.model import CoordinatorLoading, Decision, Key, Reply, Timer, Waiter
from penstock.coordination.runtime import CoordinatorRuntime
from penstock.coordination.timers import LoopScheduler


@dataclass(frozen=True)
class Tally:
    """The state under test: a number, and who waits for it to reach ten."""

    number: int = 0
    parked: tuple[Waiter, ...] = ()


@dataclass(frozen=True)
class Added:
    amount: int


def add(amount: int):
    def decide(state: Tally | None, waiter: Waiter, now_ms: int) -> Decision:
        tally = state or Tally()
        number = tally.number + amount
        replies = [Reply(waiter, number)]
        parked = tally.parked
        if number >= 10:
            replies += [Reply(other, number) for other in parked]
            parked = ()
        return Decision(state=Tally(number, parked), records=(Added(amount),), replies=tuple(replies))

    return decide


def look(state: Tally | None, waiter: Waiter, now_ms: int) -> Decision:
    return Decision(state=state, replies=(Reply(waiter, 0 if state is None else state.number),))


def park(state: Tally | None, waiter: Waiter, now_ms: int) -> Decision:
    tally = state or Tally()
    return Decision(state=Tally(tally.number, (*tally.parked, waiter)))


def wind(delay_ms: int):
    def decide(state: Tally | None, waiter: Waiter, now_ms: int) -> Decision:
        return Decision(state=state, replies=(Reply(waiter, 0),), timers=(Timer("bell", delay_ms),))

    return decide


class TallyRules:
    def __init__(self) -> None:
        self.fired: list[tuple[str, float]] = []

    def expired(self, key: Key, state: Tally | None, timer: str, now_ms: int) -> Decision:
        self.fired.append((timer, now_ms))
        return Decision(state=Tally((state or Tally()).number + 1), records=(Added(1),))

    def restored(self, key: Key, state: Tally, now_ms: int) -> Decision:
        return Decision(state=state, timers=(Timer("bell", 1_000),) if state.number >= 100 else ())


UNWRITABLE = 666
REFUSED = 7_777


@dataclass
class FakeJournal:
    """Numbers in a dictionary, and what goes wrong with the next writes."""

    numbers: dict[Key, int] = field(default_factory=dict)
    faults: list[Exception | None] = field(default_factory=list)
    writes: list[list[tuple[Key, Added]]] = field(default_factory=list)
    loads: int = 0
    write_s: float = 0.01
    load_s: float = 0.001
    load_fault: Exception | None = None

    async def open(self) -> Sequence[tuple[Key, Tally]]:
        await asyncio.sleep(0.01)
        return [(key, Tally(number)) for key, number in self.numbers.items() if number >= 100]

    async def load(self, key: Key) -> Tally | None:
        self.loads += 1
        await asyncio.sleep(self.load_s)
        if self.load_fault is not None:
            raise self.load_fault
        return Tally(self.numbers[key]) if key in self.numbers else None

    async def write(self, records: Iterable[tuple[Key, Added]]) -> list[int]:
        batch = list(records)
        await asyncio.sleep(self.write_s)
        if any(record.amount == UNWRITABLE for _, record in batch):
            raise OverflowError("no such number in the database")
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            raise fault
        self.writes.append(batch)
        for key, record in batch:
            self.numbers[key] = self.numbers.get(key, 0) + record.amount
        return [number for number, (_, record) in enumerate(batch) if record.amount == REFUSED]


A, B = (1, "a"), (1, "b")


def runtime_of(
    journal: FakeJournal, rules: TallyRules | None = None, **options: Any
) -> CoordinatorRuntime[Tally, Added]:
    """A runtime in a simulated loop."""
    return CoordinatorRuntime(
        journal=journal, rules=rules or TallyRules(), clock=LoopClock(), scheduler=LoopScheduler(), **options
    )


def simulated(scenario, *, seeds: int = 20, **journal: object) -> None:
    for seed in range(seeds):
        loop = SimLoop(seed)
        fake, rules = FakeJournal(**journal), TallyRules()
        runtime = runtime_of(fake, rules)

        async def main(runtime=runtime, fake=fake, rules=rules) -> None:
            await runtime.open()
            await scenario(runtime, fake, rules)
            await runtime.close()

        loop.run(main())


def test_answers_leave_only_when_durable() -> None:
    async def scenario(runtime, journal, rules) -> None:
        assert await runtime.submit(A, add(3), int) == 3
        assert journal.numbers == {A: 3}

    simulated(scenario)


def test_who_waits_for_what_the_store_refused_is_told_to_ask_again() -> None:
    """And nobody else: the refusal is that of one decision among many, whose state holds."""

    async def scenario(runtime, journal, rules) -> None:
        journal.write_s = 0.1
        first = asyncio.ensure_future(runtime.submit(A, add(1), int))
        await asyncio.sleep(0.05)  # Its transaction runs, and the others share the next one.
        amounts = (2, REFUSED, 3)
        asking = [asyncio.ensure_future(runtime.submit(key, add(n), int)) for key in (A, B) for n in amounts]
        answers = await asyncio.gather(first, *asking, return_exceptions=True)
        assert [type(answer) for answer in answers] == [int, *(int, CoordinatorLoading, int) * 2]
        assert max(map(len, journal.writes)) > 1
        assert await runtime.submit(B, look, int) == REFUSED + 5

    simulated(scenario)


def test_decisions_that_wait_share_a_transaction() -> None:
    async def scenario(runtime, journal, rules) -> None:
        first = asyncio.ensure_future(runtime.submit(A, add(1), int))
        while not journal.loads:
            await asyncio.sleep(0)
        await asyncio.sleep(0.005)  # Its transaction runs now.
        others = [asyncio.ensure_future(runtime.submit((1, f"k{n}"), add(1), int)) for n in range(20)]
        again = [asyncio.ensure_future(runtime.submit(A, add(1), int)) for _ in range(20)]
        await asyncio.gather(first, *others, *again)
        assert len(journal.writes) <= 3
        assert journal.numbers[A] == 21

    simulated(scenario)


def test_reads_of_staged_state_wait_for_it() -> None:
    async def scenario(runtime, journal, rules) -> None:
        await runtime.submit(A, look, int)
        adding = asyncio.ensure_future(runtime.submit(A, add(7), int))
        while not adding.done():
            seen = await runtime.submit(A, look, int)
            assert seen == 0 or journal.numbers[A] == seen == 7
            await asyncio.sleep(0)
        assert await adding == 7

    simulated(scenario)


def test_reads_write_nothing_and_do_not_wait_for_other_keys() -> None:
    async def scenario(runtime, journal, rules) -> None:
        await runtime.submit(B, look, int)
        slow = asyncio.ensure_future(runtime.submit(A, add(1), int))
        await asyncio.sleep(0.005)
        assert await runtime.submit(B, look, int) == 0
        assert not slow.done()
        await slow
        assert sum(len(batch) for batch in journal.writes) == 1

    simulated(scenario, write_s=1.0)


def test_parked_requests_are_answered_by_later_decisions() -> None:
    async def scenario(runtime, journal, rules) -> None:
        parked = [asyncio.ensure_future(runtime.submit(A, park, int)) for _ in range(3)]
        await asyncio.sleep(0.1)
        assert not any(future.done() for future in parked)
        await runtime.submit(A, add(10), int)
        assert await asyncio.gather(*parked) == [10, 10, 10]

    simulated(scenario)


@pytest.mark.parametrize("fault", [Unavailable("down"), Fenced("lost"), ValueError("a bug")])
def test_failed_write_changes_nothing_and_tells_everybody(fault: Exception) -> None:
    async def scenario(runtime, journal, rules) -> None:
        parked = asyncio.ensure_future(runtime.submit(A, park, int))
        await asyncio.sleep(0.1)
        journal.faults = [fault]
        waiting = [parked, *(asyncio.ensure_future(runtime.submit(A, add(amount), int)) for amount in (3, 10))]
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        expected = Fenced if isinstance(fault, Fenced) else Unavailable
        assert all(type(outcome) is expected for outcome in outcomes)
        assert await runtime.submit(A, look, int) == 0
        assert await runtime.submit(A, add(1), int) == 1

    simulated(scenario)


def test_what_cannot_be_written_fails_nobody_else() -> None:
    async def scenario(runtime, journal, rules) -> None:
        first = asyncio.ensure_future(runtime.submit(A, add(1), int))
        while not journal.loads:
            await asyncio.sleep(0)
        await asyncio.sleep(0.005)  # Its transaction runs now, the others will share the next one.
        others = [asyncio.ensure_future(runtime.submit((1, f"k{n}"), add(1), int)) for n in range(5)]
        poison = asyncio.ensure_future(runtime.submit(B, add(UNWRITABLE), int))
        assert await asyncio.gather(first, *others) == [1] * 6
        with pytest.raises(Unavailable):
            await poison
        assert await runtime.submit(B, add(2), int) == 2

    simulated(scenario)


@pytest.mark.parametrize("fault", [Unavailable("down"), ValueError("a bug")])
def test_failed_load_is_told_and_tried_again(fault: Exception) -> None:
    async def scenario(runtime, journal, rules) -> None:
        journal.load_fault = fault
        async with asyncio.timeout(10):
            with pytest.raises(Unavailable):
                await runtime.submit(A, look, int)
        journal.load_fault = None
        assert await runtime.submit(A, look, int) == 5

    simulated(scenario, numbers={A: 5})


def test_timers_fire_once_at_their_time_and_can_be_moved() -> None:
    async def scenario(runtime, journal, rules) -> None:
        await runtime.submit(A, wind(1_000), int)
        await asyncio.sleep(0.9)
        await runtime.submit(A, wind(1_000), int)
        await asyncio.sleep(0.9)
        assert rules.fired == []
        await asyncio.sleep(0.2)
        assert [name for name, _ in rules.fired] == ["bell"]
        assert journal.numbers == {A: 1}

    simulated(scenario)


def test_timer_that_is_moved_while_a_write_runs_does_not_fire() -> None:
    async def scenario(runtime, journal, rules) -> None:
        await runtime.submit(A, wind(100), int)
        adding = asyncio.ensure_future(runtime.submit(A, add(1), int))
        moving = asyncio.ensure_future(runtime.submit(A, wind(10_000), int))
        await asyncio.gather(adding, moving)  # The write takes longer than the timer had left.
        assert rules.fired == []

    simulated(scenario, write_s=0.5)


def test_a_state_that_is_no_more_has_no_timers() -> None:
    def end(state: Tally | None, waiter: Waiter, now_ms: int) -> Decision:
        return Decision(state=None, records=(Added(-1),), replies=(Reply(waiter, 0),))

    async def scenario(runtime, journal, rules) -> None:
        await runtime.submit(A, add(1), int)
        await runtime.submit(A, wind(1_000), int)
        await runtime.submit(A, end, int)
        await asyncio.sleep(2)
        assert rules.fired == []

    simulated(scenario)


def test_states_with_timers_are_restored_and_others_read_on_demand() -> None:
    async def scenario(runtime, journal, rules) -> None:
        assert [key for key, _ in runtime.states()] == [A]
        assert await runtime.submit(B, look, int) == 5
        await asyncio.sleep(1.1)
        assert [name for name, _ in rules.fired] == ["bell"]

    simulated(scenario, numbers={A: 100, B: 5})


def test_a_state_that_rules_can_do_nothing_with_stops_nobody_else() -> None:
    class Particular(TallyRules):
        def restored(self, key: Key, state: Tally, now_ms: int) -> Decision:
            if key == A:
                raise ValueError("a bug")
            return super().restored(key, state, now_ms)

    async def main() -> None:
        runtime = runtime_of(FakeJournal({A: 100, B: 100}), Particular())
        await runtime.open()
        assert await runtime.submit(B, look, int) == 100
        async with asyncio.timeout(10):
            with pytest.raises(Unavailable):
                await runtime.submit(A, look, int)
        await runtime.close()

    SimLoop(0).run(main())


def test_dropped_state_with_timers_is_read_again_by_itself() -> None:
    async def scenario(runtime, journal, rules) -> None:
        journal.faults = [Unavailable("down")]
        with pytest.raises(Unavailable):
            await runtime.submit(A, add(1), int)
        await asyncio.sleep(1.5)  # Nobody asks, and yet its timer fires: first the reload, then a second.
        assert [name for name, _ in rules.fired] == ["bell"]

    simulated(scenario, numbers={A: 100})


def test_a_state_whose_only_timer_fired_for_nothing_is_read_again_by_itself() -> None:
    """A group's last member whose session ended while the database was away is still gone when it is back."""

    async def scenario(runtime, journal, rules) -> None:
        journal.faults = [Unavailable("down")]
        await asyncio.sleep(1.1)
        assert [name for name, _ in rules.fired] == ["bell"]
        await asyncio.sleep(1.5)
        assert [name for name, _ in rules.fired] == ["bell", "bell"]
        assert journal.writes == [[(A, Added(1))]]

    simulated(scenario, numbers={A: 100})


def test_dropped_state_is_read_again_though_somebody_has_asked_for_it_in_vain() -> None:
    async def scenario(runtime, journal, rules) -> None:
        journal.faults, journal.load_fault = [Unavailable("down")], Unavailable("down")
        journal.load_s = 0.3  # Longer than until it is read again.
        with pytest.raises(Unavailable):
            await runtime.submit(A, add(1), int)
        await asyncio.sleep(0.1)
        with pytest.raises(Unavailable):
            await runtime.submit(A, look, int)
        journal.load_fault = None
        await asyncio.sleep(2)
        assert [name for name, _ in rules.fired] == ["bell"]

    simulated(scenario, numbers={A: 100})


def test_nothing_runs_while_nothing_happens() -> None:
    loop = SimLoop(1)
    journal = FakeJournal()
    runtime = runtime_of(journal)

    async def main() -> None:
        await runtime.open()
        await runtime.submit(A, add(1), int)

    loop.run(main())
    assert loop.pending_timers() == 0
    assert len(journal.writes) == 1


def test_idle_states_are_bounded() -> None:
    loop = SimLoop(1)
    runtime = runtime_of(FakeJournal(), idle_states_max=10)

    async def main() -> None:
        await runtime.open()
        for number in range(100):
            await runtime.submit((1, f"k{number}"), look if number % 2 else add(1), int)
        assert len(list(runtime.states())) == 10
        assert await runtime.submit((1, "k0"), look, int) == 1

    loop.run(main())


def test_whoever_counts_states_is_told_when_there_begins_to_be_one_and_when_there_is_none() -> None:
    loop, told = SimLoop(1), list[tuple[Key, bool]]()
    journal = FakeJournal(numbers={A: 100, B: 1})
    runtime = runtime_of(
        journal, idle_states_max=2, is_stored=lambda tally: tally.number > 0,
        on_presence=lambda key, is_there: told.append((key, is_there)),
    )  # fmt: skip

    def begin(state: Tally | None, waiter: Waiter, now_ms: int) -> Decision:
        return Decision(state=state or Tally(), replies=(Reply(waiter, 0),))

    def end(state: Tally | None, waiter: Waiter, now_ms: int) -> Decision:
        return Decision(state=None, replies=(Reply(waiter, 0),))

    async def told_by(*rules: object, key: Key = (1, "new")) -> list[tuple[Key, bool]]:
        told.clear()
        for rule in rules:
            await runtime.submit(key, rule, int)
        return list(told)

    async def main() -> None:
        await runtime.open()
        assert await told_by(look, key=A) == await told_by(add(1), key=B) == [], "they were there"
        assert await told_by(look, begin, begin, add(1)) == [((1, "new"), True)]
        del journal.numbers[1, "new"]
        assert await told_by(end, end) == [((1, "new"), False)]
        assert await told_by(begin) == [((1, "new"), True)]
        journal.faults.append(Unavailable("away"))
        with pytest.raises(Unavailable):
            await told_by(add(1))
        assert told == [((1, "new"), False)], "what was only in memory is lost"
        assert await told_by(begin) == [((1, "new"), True)]
        told.clear()
        for number in range(3):
            await runtime.submit((1, f"other {number}"), add(1), int)
        assert told == [
            ((1, "other 0"), True), ((1, "other 1"), True), ((1, "new"), False), ((1, "other 2"), True),
        ], "room was made for others, by what is stored as well"  # fmt: skip

    loop.run(main())


def test_requests_before_open_and_after_close() -> None:
    loop = SimLoop(1)
    runtime = runtime_of(FakeJournal())

    async def main() -> None:
        with pytest.raises(CoordinatorLoading):
            await runtime.submit(A, look, int)
        await runtime.open()
        parked = asyncio.ensure_future(runtime.submit(A, park, int))
        adding = asyncio.ensure_future(runtime.submit(B, add(1), int))
        await asyncio.sleep(0)
        await runtime.close()
        assert await adding == 1  # Accepted, so finished.
        for late in (parked, runtime.submit(A, look, int)):
            with pytest.raises(Unavailable):
                await late

    loop.run(main())


def test_revision_guards_against_changes() -> None:
    async def scenario(runtime, journal, rules) -> None:
        await runtime.submit(A, add(1), int)
        _, revision = await runtime.peek(A)
        assert await runtime.submit(A, add(1), int, if_revision=revision) == 2
        with pytest.raises(Conflict):
            await runtime.submit(A, add(1), int, if_revision=revision)
        _, revision = await runtime.peek(A)
        adding = asyncio.ensure_future(runtime.submit(A, add(1), int))
        await asyncio.sleep(0.001)
        with pytest.raises(Conflict):
            await runtime.submit(A, add(1), int, if_revision=revision)
        await adding

    simulated(scenario)


def test_client_that_goes_away_disturbs_nobody() -> None:
    async def scenario(runtime, journal, rules) -> None:
        parked = asyncio.ensure_future(runtime.submit(A, park, int))
        await asyncio.sleep(0.1)
        parked.cancel()
        assert await runtime.submit(A, add(10), int) == 10

    simulated(scenario)


def test_random_clients_and_faults_never_lose_or_invent_an_addition() -> None:
    """Acknowledged additions are in the journal, refused ones are not, and answers grow with the order of commits."""

    async def client(runtime, draw: random.Random, done: list[tuple[Key, int]]) -> None:
        for _ in range(20):
            key = draw.choice([A, B])
            try:
                if draw.random() < 0.3:
                    await runtime.submit(key, look, int)
                else:
                    done.append((key, await runtime.submit(key, add(1), int)))
            except Unavailable:
                pass
            await asyncio.sleep(draw.random() * 0.02)

    async def scenario(runtime, journal, rules) -> None:
        draw = random.Random(f"{id(journal) and len(journal.writes)}:clients")
        journal.faults = [draw.choice([None, None, Unavailable("down")]) for _ in range(60)]
        done: list[tuple[Key, int]] = []
        async with asyncio.TaskGroup() as tasks:
            for _ in range(5):
                tasks.create_task(client(runtime, draw, done))
        for key in (A, B):
            answers = sorted(number for other, number in done if other == key)
            assert answers == list(range(1, journal.numbers.get(key, 0) + 1))

    simulated(scenario, seeds=50)


def test_waiting_for_matching_keys_ends_whether_writes_succeed_or_fail() -> None:
    async def scenario(runtime, journal, rules) -> None:
        journal.faults = [None, Unavailable("down")]
        journal.write_s = 0.1
        first = asyncio.ensure_future(runtime.submit(A, add(1), int))
        await asyncio.sleep(0.05)  # Its transaction runs, and the other waits for the next one.
        second = asyncio.ensure_future(runtime.submit(B, add(1), int))
        await asyncio.sleep(0.01)
        await runtime.await_durable_where(lambda key: key == A)
        assert (journal.numbers, second.done()) == ({A: 1}, False)
        await runtime.await_durable_where(lambda key: True)
        assert await first == 1
        assert isinstance((await asyncio.gather(second, return_exceptions=True))[0], Unavailable)

    simulated(scenario)


def test_what_is_forgotten_is_read_again_also_where_it_was_just_being_read() -> None:
    async def scenario(runtime, journal, rules) -> None:
        await runtime.submit(A, add(100), int)
        reading = asyncio.ensure_future(runtime.submit(B, look, int))
        await asyncio.sleep(0.0005)
        journal.numbers.clear()  # By somebody else's transaction.
        assert sorted(runtime.drop_where(lambda key: True)) == [A, B]
        assert isinstance((await asyncio.gather(reading, return_exceptions=True))[0], Unavailable)
        assert [await runtime.submit(key, look, int) for key in (A, B)] == [0, 0]
        await asyncio.sleep(2)
        assert not rules.fired, "timers of what is gone"

    simulated(scenario)


def test_number_and_weight_of_idle_states_are_bounded() -> None:
    for seed in range(5):
        loop = SimLoop(seed)

        async def main() -> None:
            fake = FakeJournal()
            runtime = runtime_of(fake, weigh=lambda tally: tally.number, idle_weight_max=50)
            await runtime.open()
            for number in range(20):
                await runtime.submit((1, f"k{number}"), add(9), int)
            assert len(runtime._idle) == 5
            assert runtime._idle_weight == 45
            await runtime.submit((1, "k19"), add(40), int)
            assert list(runtime._idle.values()) == [49], "others go for one that grows"
            await runtime.submit(A, add(60), int)
            assert (len(runtime._idle), runtime._idle_weight) == (0, 0), "one that is larger than all together may be"
            for number in range(19):
                assert await runtime.submit((1, f"k{number}"), look, int) == 9, "they are read again"
            await runtime.close()

        loop.run(main())


def keeping_states(scenario) -> None:
    """Run a scenario on a runtime that keeps states; a hundred is under A already."""
    for seed in range(5):
        loop = SimLoop(seed)

        async def main() -> None:
            fake, rules = FakeJournal(numbers={A: 100}), TallyRules()
            runtime = runtime_of(fake, rules, keeps_states=True, idle_states_max=0)
            await runtime.open()
            await scenario(runtime, fake, rules)
            await runtime.close()

        loop.run(main())


def test_a_state_whose_timer_fired_for_nothing_stays_in_memory_until_it_fires_again() -> None:
    async def scenario(runtime, fake, rules) -> None:
        fake.faults = [Unavailable("down")]
        await asyncio.sleep(1.1)
        assert len(rules.fired) == 1
        await asyncio.sleep(1.5)
        assert [name for name, _ in rules.fired] == ["bell", "bell"]
        assert (fake.numbers, fake.loads) == ({A: 101}, 0)

    keeping_states(scenario)


def test_a_state_is_loaded_again_when_the_outcome_of_its_write_is_unknown() -> None:
    async def scenario(runtime, fake, rules) -> None:
        fake.faults, fake.numbers = [OutcomeUnknown("lost")], {A: 107}  # It did happen.
        with pytest.raises(OutcomeUnknown):
            await runtime.submit(A, add(7), int)
        await asyncio.sleep(0.5)
        assert (fake.loads, runtime.current(A)) == (1, (True, Tally(107))), "somebody has to watch its timers"
        assert await runtime.submit(A, add(1), int) == 108

    keeping_states(scenario)


def test_timers_that_fired_for_nothing_are_set_again_though_something_else_is_on_its_way() -> None:
    async def scenario(runtime, fake, rules) -> None:
        fake.faults = [Unavailable("down")]
        await asyncio.sleep(1.1)
        assert len(rules.fired) == 1
        fake.write_s = 0.5
        assert await runtime.submit(A, add(1), int) == 101  # As long as it takes until timers are set again.
        await asyncio.sleep(2)
        assert [name for name, _ in rules.fired] == ["bell", "bell"]

    keeping_states(scenario)
