"""The answers to produce requests: one `Appended` per partition, collected by a `Ticket` until the request is
complete."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from penstock.base.errors import Fenced, PlatformError
from penstock.log.commits import ExclusionReason
from penstock.log.model import NO_TIMESTAMP, Partition, SequenceBatch
from penstock.log.producers import ProducerRefusal
from penstock.wire.error_codes import ErrorCode

_ERRORS = {
    ProducerRefusal.OUT_OF_ORDER: ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
    ProducerRefusal.FENCED: ErrorCode.INVALID_PRODUCER_EPOCH,
    ProducerRefusal.OUTSIDE: ErrorCode.INVALID_TXN_STATE,
    ProducerRefusal.TOO_EARLY: ErrorCode.KAFKA_STORAGE_ERROR,
}


class Appended(NamedTuple):
    """The answer for one partition of a produce request."""

    error: ErrorCode
    base_offset: int = -1
    append_time_ms: int = NO_TIMESTAMP
    log_start: int = -1
    message: str | None = None
    record_errors: tuple[tuple[int, str], ...] = ()


TIMED_OUT = Appended(ErrorCode.REQUEST_TIMED_OUT)
"""The answer when the outcome is not known yet: the batch may still be appended."""


class PendingAppend(Protocol):
    """Waits for the results of the batches of one request, one batch per partition."""

    @property
    def timeout_ms(self) -> int | None:
        """The request's time-out; None: no limit."""

    def settle(self, position: int, result: Appended) -> None:
        """The answer for the partition that was submitted as number `position`."""

    def time_out(self) -> None:
        """The time-out has passed: answer `TIMED_OUT` for what has no answer yet, and ignore later ones."""


class Ticket:
    """A produce request in flight: the answers so far, and the callback for when it has all of them."""

    __slots__ = ("finish", "remaining", "results", "timeout_ms")

    def __init__(
        self, results: list[Appended | None], finish: Callable[[list[Appended]], None], timeout_ms: int | None = None
    ) -> None:
        self.results = results
        self.remaining = sum(result is None for result in results)
        self.finish = finish
        self.timeout_ms = timeout_ms

    def settle(self, position: int, result: Appended) -> None:
        """Record the answer for one partition; the last one completes the request."""
        self.results[position] = result
        self.remaining -= 1
        if not self.remaining:
            self.finish(self.results)  # type: ignore[arg-type]  # all of them are set

    def time_out(self) -> None:
        """Answer now. With `remaining` below zero, no later answer can complete the request a second time."""
        self.timeout_ms, self.remaining = None, -1
        self.finish([TIMED_OUT if result is None else result for result in self.results])


TOO_MANY_PRODUCERS = Appended(
    ErrorCode.POLICY_VIOLATION, message="The virtual cluster has reached its limit of producer ids."
)
"""The answer to a new producer's first batch where the virtual cluster is at its limit of producer ids."""
OFFSETS_EXHAUSTED = Appended(ErrorCode.POLICY_VIOLATION, message="The partition has no offsets left.")
"""The answer to a batch when the partition's offsets are exhausted."""


def refused(refusal: ProducerRefusal, partition: Partition) -> Appended:
    """The answer to a batch that idempotence or a transaction refuses."""
    return Appended(_ERRORS[refusal], log_start=partition.log_start)


def unwritten(problem: PlatformError) -> Appended:
    """The answer to a batch of a flush that failed. Producers try again: where they are if the store fails, and with
    whoever is the leader by then if another process has taken over the log."""
    fenced = isinstance(problem, Fenced)
    return Appended(ErrorCode.NOT_LEADER_OR_FOLLOWER if fenced else ErrorCode.KAFKA_STORAGE_ERROR, message=str(problem))


def repeated(known: SequenceBatch, partition: Partition, moved: int = 0) -> Appended:
    """The answer to a duplicate: the offsets of the batch that it repeats (KIP-98)."""
    return Appended(ErrorCode.NONE, known.base_offset + moved, known.timestamp, partition.log_start)


def excluded(verdict: ExclusionReason, partition: Partition) -> Appended:
    """The answer to a batch that a partial commit left out."""
    if verdict is None:
        return Appended(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
    if isinstance(verdict, ErrorCode):
        return Appended(verdict)
    if isinstance(verdict, ProducerRefusal):
        return refused(verdict, partition)
    return repeated(verdict, partition)
