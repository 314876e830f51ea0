"""The rules of a share partition. Pure: no await, no clock, no I/O.

    available ──acquire──► acquired ──accept──────────────► acknowledged
        ▲                     │ ├────reject, gap──────────► archived
        │                     │ └────renew──► acquired, with a new lock
        └──release, time-out──┘ ... or archived, after the last delivery that is allowed

Where the group has a dead letter queue, a record that is rejected or was delivered too often is first *archiving*,
until its dead letter is in the queue, or cannot be written.

The start offset moves past acknowledged and archived records as soon as everything before it is finished.

An acquisition is not made durable: if the process crashes, the records are available again and that delivery was not
counted. Whatever ends an acquisition is durable before its response is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from penstock.coordination.model import Key, Reply, Timer, Waiter
from penstock.share.acquisition import acquired_of
from penstock.share.model import (
    ACKNOWLEDGED,
    ACQUIRED,
    ARCHIVED,
    AVAILABLE,
    NOBODY,
    REJECTED,
    Acknowledged,
    Acknowledgement,
    AcknowledgeType,
    Acquire,
    Acquired,
    Decision,
    Fetched,
    Limits,
    Run,
    SharePartition,
    StateDeleted,
    StateStored,
)
from penstock.share.runs import archived, changed, given_up, joined, released
from penstock.wire.error_codes import ErrorCode

LOCKS = "locks"
"""The timer of the lock that expires first."""
DEAD_LETTERS = "letters"
"""The timer that fires at once when dead letters have to be written."""

_ACCEPT, _RELEASE, _RENEW = AcknowledgeType.ACCEPT, AcknowledgeType.RELEASE, AcknowledgeType.RENEW
_REJECT = AcknowledgeType.REJECT


def next_fetch_offset(partition: SharePartition) -> int:
    """Where the next acquisition begins: records that are available again come before new ones."""
    return next((run.first for run in partition.runs if run.state is AVAILABLE), partition.next_offset)


def has_room(partition: SharePartition, limits: Limits) -> bool:
    """Whether anything can be acquired at all."""
    return partition.in_flight < limits.max_locks or any(run.state is AVAILABLE for run in partition.runs)


class _NotAcquired(Exception):
    """A member acknowledges records that it has not acquired."""


# --- Decisions -----------------------------------------------------------------------------------------------------


def initialise(
    partition: SharePartition | None, start_offset: int, waiter: Waiter, *, state_epoch: int = 0
) -> Decision:  # fmt: skip
    """Initialise a partition, unless it is initialised already. Replies with the partition.

    That is durable from the beginning, so that a group that starts at the end of the log starts there once. The epoch
    is one that no earlier partition of this name had: results of dead letters about an earlier one must not affect this
    one.
    """
    if partition is not None:
        return Decision(state=partition, replies=(Reply(waiter, partition),))
    new = SharePartition(start_offset=start_offset, next_offset=start_offset, state_epoch=state_epoch)
    return Decision(state=new, records=(StateStored(new),), replies=(Reply(waiter, new),))


def acquire(
    partition: SharePartition, asked: Acquire, fetched: Fetched, limits: Limits, waiter: Waiter, now_ms: int
) -> Decision:
    """Lock records for a member, as many as it requests and the log has."""
    partition = trimmed(partition, fetched.log_start)
    runs, next_offset, ranges = acquired_of(partition, asked, fetched, limits, now_ms + limits.lock_ms)
    after = _with_runs(partition, runs, next_offset)
    return Decision(state=after, replies=(Reply(waiter, Acquired(tuple(ranges))),), timers=_timers(after, now_ms))


def acknowledge(
    partition: SharePartition | None, member: str, given: Sequence[Acknowledgement], limits: Limits, waiter: Waiter,
    now_ms: int,
) -> Decision:  # fmt: skip
    """Acknowledgements of a member, all or nothing. Offsets before the start offset are ignored."""
    if partition is None:
        return _refused(partition, waiter, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, None)
    typed_ranges = [
        offset_range for one in given if one.last >= partition.start_offset for offset_range in _typed_ranges(one)
    ]
    renewed_ms = now_ms + limits.lock_ms

    def change(run: Run, offset_range: TypedRange) -> Run:
        if run.state is not ACQUIRED:
            raise _NotAcquired("The offset cannot be acknowledged. The offset is not acquired.")
        if run.member != member:
            raise _NotAcquired("Member is not the owner of offset")
        kind = offset_range[2]
        if kind == _ACCEPT:
            return run._replace(state=ACKNOWLEDGED, member=NOBODY, expires_ms=0)
        if kind == _RELEASE:
            return released(run, limits)
        if kind == _RENEW:
            return run._replace(expires_ms=renewed_ms)
        return given_up(run, REJECTED, limits) if kind == _REJECT else archived(run)

    if not limits.renewable and any(kind == _RENEW for _, _, kind in typed_ranges):
        message = "Renewing acquisition locks is not enabled for the group."
        return _refused(partition, waiter, ErrorCode.INVALID_RECORD_STATE, message)
    wrong = _invalid_ranges(partition, typed_ranges)
    if wrong is not None:
        return _refused(partition, waiter, *wrong)
    try:
        runs = changed(partition.runs, typed_ranges, change)
    except _NotAcquired as refusal:
        return _refused(partition, waiter, ErrorCode.INVALID_RECORD_STATE, str(refusal))
    return _decide(partition, runs, now_ms, Reply(waiter, Acknowledged()))


def release(partition: SharePartition | None, member: str, limits: Limits, waiter: Waiter, now_ms: int) -> Decision:
    """A member's session ended: what it has acquired becomes available."""
    reply = Reply(waiter, Acknowledged())
    if partition is None or not any(run.member == member for run in partition.runs):
        return Decision(state=partition, replies=(reply,))
    runs = [released(run, limits) if run.member == member else run for run in partition.runs]
    return _decide(partition, runs, now_ms, reply)


def expired(partition: SharePartition | None, limits: Limits, now_ms: int) -> Decision:
    """The timer of locks fired."""
    if partition is None:
        return Decision(state=None)
    runs = [
        released(run, limits) if run.state is ACQUIRED and run.expires_ms <= now_ms else run for run in partition.runs
    ]
    return _decide(partition, runs, now_ms)


def archive(
    partition: SharePartition | None, state_epoch: int, ranges: Sequence[tuple[int, int]], waiter: Waiter,
    now_ms: int,
) -> Decision:  # fmt: skip
    """Dead letters about ranges are written, or cannot be: archive what is archiving in them. Replies whether that was
    done, or the partition was reset meanwhile."""
    if partition is None or partition.state_epoch != state_epoch:
        return Decision(state=partition, replies=(Reply(waiter, False),))
    runs = changed(partition.runs, ranges, lambda run, _: archived(run) if run.archiving else run)
    after = replace(_with_runs(partition, runs, partition.next_offset), dead_lettered=())
    record = StateStored(after, is_settled=True)
    return Decision(state=after, records=(record,), replies=(Reply(waiter, True),), timers=_timers(after, now_ms))


def reset(
    partition: SharePartition | None, start_offset: int, waiter: Waiter, *, state_epoch: int = 0
) -> Decision:  # fmt: skip
    """An administrator sets the start offset of a group without members, in this epoch or a higher one."""
    epoch = state_epoch if partition is None else max(partition.state_epoch + 1, state_epoch)
    new = SharePartition(start_offset=start_offset, next_offset=start_offset, state_epoch=epoch)
    reply = Reply(waiter, Acknowledged())
    record = StateStored(new, is_settled=True)
    return Decision(state=new, records=(record,), replies=(reply,), timers=(Timer(LOCKS, None),))


def forget(partition: SharePartition | None, waiter: Waiter) -> Decision:
    """Delete the group's state for the partition."""
    reply = Reply(waiter, Acknowledged())
    if partition is None:
        return Decision(state=None, replies=(reply,))
    return Decision(state=None, records=(StateDeleted(),), replies=(reply,), timers=(Timer(LOCKS, None),))


class ShareRules:
    """Changes of share partitions that no request asks for."""

    def __init__(self, limits_of: Callable[[Key], Limits]) -> None:
        self._limits_of = limits_of

    def expired(self, key: Key, state: SharePartition | None, timer: str, now_ms: int) -> Decision:
        """A lock expired; or there are dead letters to write, which a subclass handles."""
        return Decision(state=state) if timer == DEAD_LETTERS else expired(state, self._limits_of(key), now_ms)

    def restored(self, key: Key, state: SharePartition, now_ms: int) -> Decision:
        """A partition was loaded, with no locks; or its write failed."""
        return Decision(state=state, timers=_timers(state, now_ms))


# --- What decisions are made of -------------------------------------------------------------------------------------


def trimmed(partition: SharePartition, log_start: int) -> SharePartition:
    """The partition of a log that starts at an offset: earlier records are archived. From the first record on that
    still needs a dead letter, states are kept, except that nothing is available."""
    if log_start <= partition.start_offset:
        return partition
    waiting = next((run.first for run in partition.runs if run.archiving), log_start)

    def archive_earlier(run: Run, _: tuple[int, int]) -> Run:
        return archived(run) if run.first < waiting or run.state is AVAILABLE else run

    runs = changed(partition.runs, [(partition.start_offset, log_start - 1)], archive_earlier)
    next_offset = max(partition.next_offset, log_start)
    if next_offset > partition.next_offset:
        never = (partition.next_offset, next_offset - 1)
        runs.append(Run(*never, ARCHIVED, 0, NOBODY, 0, never))
    return _with_runs(partition, runs, next_offset)


def _with_runs(partition: SharePartition, runs: Sequence[Run], next_offset: int) -> SharePartition:
    """The partition with other runs; its start offset moves past finished ones."""
    done = 0
    while done < len(runs) and runs[done].terminal:
        done += 1
    start_offset = runs[done].first if done < len(runs) else next_offset
    return replace(partition, start_offset=start_offset, next_offset=next_offset, runs=joined(runs[done:]))


def _decide(partition: SharePartition, runs: Sequence[Run], now_ms: int, *replies: Reply) -> Decision:
    """A decision with changed runs, durable unless only locks were renewed."""
    after = _with_runs(partition, runs, partition.next_offset)
    durable = after.start_offset != partition.start_offset or _durable_states(after) != _durable_states(partition)
    records = (StateStored(after),) if durable else ()
    return Decision(state=after, records=records, replies=replies, timers=_timers(after, now_ms))


def _durable_states(partition: SharePartition) -> list[tuple[object, ...]]:
    return [run[:4] for run in partition.runs]


def _timers(partition: SharePartition, now_ms: int) -> tuple[Timer, ...]:
    first_ms = min((run.expires_ms for run in partition.runs if run.state is ACQUIRED), default=None)
    locks = Timer(LOCKS, None if first_ms is None else first_ms - now_ms)
    return (locks, Timer(DEAD_LETTERS, 0)) if any(run.archiving for run in partition.runs) else (locks,)


def _refused(partition: SharePartition | None, waiter: Waiter, error: ErrorCode, message: str | None) -> Decision:
    return Decision(state=partition, replies=(Reply(waiter, Acknowledged(error, message)),))


TypedRange = tuple[int, int, int]
"""First offset, last offset, acknowledge type."""


def _typed_ranges(given: Acknowledgement) -> Iterator[TypedRange]:
    """One range for each series of the same type."""
    if len(given.types) == 1:
        yield given.first, given.last, given.types[0]
        return
    first, kind = given.first, given.types[0]
    for offset, other in enumerate(given.types, given.first):
        if other != kind:
            yield first, offset - 1, kind
            first, kind = offset, other
    yield first, given.last, kind


def _invalid_ranges(partition: SharePartition, typed_ranges: Sequence[TypedRange]) -> tuple[ErrorCode, str] | None:
    """Why these offsets cannot be acknowledged at all."""
    before = -1
    for first, last, _ in typed_ranges:
        if not partition.runs:
            return ErrorCode.INVALID_RECORD_STATE, "Batch record not found. No record is in flight."
        if last >= partition.next_offset:
            return ErrorCode.INVALID_REQUEST, "Batch record not found. The request is past the records in flight."
        if first <= before:
            return ErrorCode.INVALID_RECORD_STATE, "The offset cannot be acknowledged twice."
        before = last
    return None
