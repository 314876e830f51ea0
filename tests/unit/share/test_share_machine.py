"""Share partitions under random use, beside a model that knows every single record."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from penstock.share import transitions
from penstock.share.encoding import decode, encode
from penstock.share.model import (
    ACKNOWLEDGED,
    ACQUIRED,
    ARCHIVED,
    AVAILABLE,
    Acknowledged,
    Acknowledgement,
    AcknowledgeType,
    Acquire,
    Acquired,
    Batch,
    Fetched,
    Limits,
    SharePartition,
    StateStored,
)

MEMBERS = ("anna", "berta", "carl")
LIMITS = Limits(max_deliveries=4, lock_ms=1_000, max_locks=40)
WAITER = 1


@dataclass
class Record:
    """What is known of one record."""

    deliveries: int = 0
    holder: str | None = None
    expires_ms: int = 0
    accepted: bool = False
    gone: bool = False
    owed: bool = False
    """Given up, so that a dead letter queue hears of it, if there is one."""
    letters: int = 0


class SharePartitionMachine(RuleBasedStateMachine):
    """A log that grows, members that come and go, and a process that dies now and then."""

    limits = LIMITS

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 1_000
        self.log: list[Batch] = []
        self.log_start = 0
        self.records: dict[int, Record] = {}
        self.state: SharePartition | None = transitions.initialise(None, 0, WAITER).state
        self.stored: SharePartition = self.partition
        self.stored_now = False
        self.stored_deliveries: dict[int, int] = {}

    @property
    def partition(self) -> SharePartition:
        assert self.state is not None
        return self.state

    @property
    def end(self) -> int:
        return self.log[-1].last + 1 if self.log else 0

    def adopt(self, decision: Any) -> Any:
        """What the runner does, and what the journal keeps."""
        self.state = decision.state
        for record in decision.records:
            assert isinstance(record, StateStored)
            self.stored, self.stored_now = record.partition, True
        return decision.replies[0].answer if decision.replies else None

    def keep(self) -> None:
        """Note what a restart would find, once the model knows what the decision did."""
        if self.stored_now:
            self.stored_deliveries = {
                offset: record.deliveries - (record.holder is not None) for offset, record in self.records.items()
            }
        self.stored_now = False

    # --- The world ---

    @rule(sizes=st.lists(st.integers(1, 7), min_size=1, max_size=6), hole=st.integers(0, 3))
    def append(self, sizes: list[int], hole: int) -> None:
        for size in sizes:
            self.log.append(Batch(self.end + hole, self.end + hole + size - 1))
            hole = 0

    @rule(passed_ms=st.integers(0, 700))
    def wait(self, passed_ms: int) -> None:
        self.now_ms += passed_ms

    @precondition(lambda self: self.log)
    @rule(data=st.data())
    def trim(self, data: st.DataObject) -> None:
        self.log_start = data.draw(st.integers(self.log_start, self.end))

    @precondition(lambda self: len(self.log) > 2)
    @rule(data=st.data())
    def compact(self, data: st.DataObject) -> None:
        """A batch that nobody holds disappears from the log."""
        del self.log[data.draw(st.integers(0, len(self.log) - 2))]

    @rule()
    def crash(self) -> None:
        """The process comes back with what is stored."""
        stored = self.stored
        self.state = decode(encode(stored), start_offset=stored.start_offset, state_epoch=stored.state_epoch)
        for offset, record in self.records.items():
            record.holder, record.expires_ms = None, 0
            record.deliveries = self.stored_deliveries.get(offset, 0)

    # --- Members ---

    @precondition(lambda self: self.log)
    @rule(
        member=st.sampled_from(MEMBERS), most=st.integers(1, 30), size=st.integers(1, 12), exact=st.booleans(),
        count=st.integers(1, 8), aborted=st.booleans(),
    )  # fmt: skip
    def acquire(self, member: str, most: int, size: int, exact: bool, count: int, aborted: bool) -> None:
        if not transitions.has_room(self.partition, self.limits):
            return
        offset = max(transitions.next_fetch_offset(self.partition), self.log_start)
        batches = [batch for batch in self.log if batch.last >= offset][:count]
        # What is aborted was so from the beginning: nobody has had any of it.
        unseen = [batch for batch in batches[1:2] if aborted and not self.was_delivered(batch)]
        decision = transitions.acquire(
            self.partition, Acquire(member, most, size, exact), Fetched(offset, self.log_start, batches, unseen),
            self.limits, WAITER, self.now_ms,
        )  # fmt: skip
        acquired = self.adopt(decision)
        assert isinstance(acquired, Acquired)
        assert not decision.records
        assert not exact or acquired.count <= most
        before = -1
        for taken in acquired.ranges:
            assert before < taken.first <= taken.last
            before = taken.last
            for number in range(taken.first, taken.last + 1):
                record = self.records.setdefault(number, Record())
                assert record.holder is None, "a record was given to two members"
                assert not record.accepted, "an accepted record was delivered again"
                assert not record.gone, "an archived record was delivered again"
                assert number >= self.log_start
                assert not any(batch.first <= number <= batch.last for batch in unseen), "an aborted record was seen"
                record.holder, record.expires_ms = member, self.now_ms + self.limits.lock_ms
                record.deliveries += 1
                assert record.deliveries == taken.deliveries <= self.limits.max_deliveries

    @rule(member=st.sampled_from(MEMBERS), data=st.data())
    def acknowledge(self, member: str, data: st.DataObject) -> None:
        held = sorted(number for number, record in self.records.items() if record.holder == member)
        if not held:
            return
        first = data.draw(st.sampled_from(held))
        last = first
        while last + 1 in held and data.draw(st.booleans()):
            last += 1
        kinds = st.sampled_from(list(AcknowledgeType))
        types = [data.draw(kinds)] if data.draw(st.booleans()) else [data.draw(kinds) for _ in range(first, last + 1)]
        start = self.partition.start_offset
        answer = self.adopt(
            transitions.acknowledge(
                self.partition, member, [Acknowledgement(first, last, types)], self.limits, WAITER, self.now_ms
            )
        )
        assert isinstance(answer, Acknowledged)
        assert answer.error == 0, answer
        for number in range(first, last + 1):
            self.said(number, types[number - first] if len(types) > 1 else types[0], start)
        self.keep()

    def said(self, number: int, kind: int, start: int) -> None:
        """Of what lay before the start when it was said, nothing is heard."""
        record = self.records[number]
        if kind == AcknowledgeType.RENEW:
            record.expires_ms = self.now_ms + self.limits.lock_ms
            return
        record.holder = None
        record.accepted = record.accepted or kind == AcknowledgeType.ACCEPT
        exhausted = kind == AcknowledgeType.RELEASE and record.deliveries >= self.limits.max_deliveries
        record.owed = self.limits.dead_letters and number >= start and (exhausted or kind == AcknowledgeType.REJECT)
        # What the log start has passed may come back with a crash, and goes again with the next acquisition.
        record.gone = number >= start and (exhausted or kind in (AcknowledgeType.GAP, AcknowledgeType.REJECT))

    @rule(member=st.sampled_from(MEMBERS), data=st.data())
    def acknowledge_what_is_not_held(self, member: str, data: st.DataObject) -> None:
        before = self.partition
        if not before.runs:
            return
        offset = data.draw(st.integers(before.start_offset, before.next_offset - 1))
        record = self.records.get(offset)
        if record is not None and record.holder == member:
            return
        given = [Acknowledgement(offset, offset, [AcknowledgeType.ACCEPT])]
        answer = self.adopt(transitions.acknowledge(before, member, given, self.limits, WAITER, self.now_ms))
        assert answer.error != 0
        assert self.partition is before

    @rule(member=st.sampled_from(MEMBERS))
    def leave(self, member: str) -> None:
        start = self.partition.start_offset
        self.adopt(transitions.release(self.partition, member, self.limits, WAITER, self.now_ms))
        for number, record in self.records.items():
            if record.holder == member:
                self.said(number, AcknowledgeType.RELEASE, start)
        self.keep()

    @rule()
    def ring(self) -> None:
        start = self.partition.start_offset
        self.adopt(transitions.expired(self.partition, self.limits, self.now_ms))
        for number, record in self.records.items():
            if record.holder is not None and record.expires_ms <= self.now_ms:
                self.said(number, AcknowledgeType.RELEASE, start)
        self.keep()

    # --- What always holds ---

    @invariant()
    def covers_what_is_in_flight(self) -> None:
        at = self.partition.start_offset
        for run in self.partition.runs:
            assert run.first == at
            assert run.last >= run.first
            assert run.batch[0] <= run.first
            assert run.last <= run.batch[1] or run.terminal
            at = run.last + 1
        assert at == self.partition.next_offset
        assert not self.partition.runs or not self.partition.runs[0].terminal

    @invariant()
    def agrees_with_the_model(self) -> None:
        for run in self.partition.runs:
            for number in range(run.first, run.last + 1):
                record = self.records.get(number, Record())
                if run.state is ACQUIRED:
                    assert (record.holder, record.expires_ms) == (run.member, run.expires_ms)
                    assert record.deliveries == run.deliveries
                elif run.state is AVAILABLE:
                    assert record.holder is None
                    assert not record.gone
                    assert record.deliveries == run.deliveries < self.limits.max_deliveries
                elif run.state is ACKNOWLEDGED:
                    assert record.accepted
                elif run.archiving:
                    assert record.owed
                    assert not record.letters
                    assert record.deliveries == run.deliveries
                else:
                    assert run.state is ARCHIVED
                    assert record.holder is None
                    assert record.letters == record.owed, "done with before the queue heard of it"

    @invariant()
    def is_stored_faithfully(self) -> None:
        stored = self.stored
        read = decode(encode(stored), start_offset=stored.start_offset, state_epoch=stored.state_epoch)
        assert (read.start_offset, read.next_offset) == (stored.start_offset, stored.next_offset)
        assert encode(replace(read)) == encode(stored)

    def teardown(self) -> None:
        """Nothing that was appended is lost: with everybody gone, all of it can be acquired or is done with."""
        for member in MEMBERS:
            self.leave(member)
        for run in self.partition.runs:
            assert run.state is not ACQUIRED
        for number, record in self.records.items():
            if number < self.partition.start_offset and number >= self.log_start:
                lost = not (record.accepted or record.gone)
                assert (
                    not lost
                    or not any(batch.first <= number <= batch.last for batch in self.log)
                    or self.unseen(number)
                ), f"{number} was never done with"

    def was_delivered(self, batch: Batch) -> bool:
        return any(
            self.records[number].deliveries for number in range(batch.first, batch.last + 1) if number in self.records
        )

    def unseen(self, number: int) -> bool:
        return self.records[number].deliveries == 0


class WithDeadLetters(SharePartitionMachine):
    """The same for a group that has a dead letter queue."""

    limits = replace(LIMITS, dead_letters=True)

    @precondition(lambda self: self.partition.archiving)
    @rule(data=st.data())
    def write_letters(self, data: st.DataObject) -> None:
        waiting = [run for run in self.partition.runs if run.archiving]
        chosen = waiting[: data.draw(st.integers(1, len(waiting)))]
        ranges = [(run.first, data.draw(st.integers(run.first, run.last))) for run in chosen]
        assert self.adopt(transitions.archive(self.partition, 0, ranges, WAITER, self.now_ms)) is True
        for first, last in ranges:
            for number in range(first, last + 1):
                self.records[number].letters += 1
        self.keep()

    @invariant()
    def nothing_is_passed_over_before_the_queue_heard_of_it(self) -> None:
        for number, record in self.records.items():
            assert record.letters <= record.owed
            if number < self.partition.start_offset:
                assert record.letters == record.owed, f"{number} left without a letter"


TestSharePartition = SharePartitionMachine.TestCase
TestWithDeadLetters = WithDeadLetters.TestCase
TestSharePartition.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestWithDeadLetters.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
