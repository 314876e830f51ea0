"""The answers to produce requests: one `Appended` per partition, collected by a `Ticket` until the request is
complete."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from penstock.log.commits import Unappended
from penstock.log.model import NO_TIMESTAMP, Partition, SequenceBatch
from penstock.log.producers import Refusal
from penstock.wire.error_codes import ErrorCode

_ERRORS = {
    Refusal.OUT_OF_ORDER: ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
    Refusal.FENCED: ErrorCode.INVALID_PRODUCER_EPOCH,
    Refusal.OUTSIDE: ErrorCode.INVALID_TXN_STATE,
    Refusal.TOO_EARLY: ErrorCode.KAFKA_STORAGE_ERROR,
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


class Settles(Protocol):
    """Receives the answers for the partitions of one request."""

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


CROWDED_OUT = Appended(
    ErrorCode.POLICY_VIOLATION, message="This cluster may not have another producer id; it has as many as it may have."
)
"""The answer to a new producer's first batch where the virtual cluster is at its limit of producer ids."""
USED_UP = Appended(ErrorCode.POLICY_VIOLATION, message="This partition has no offsets left.")
"""The answer to a batch when the partition's offsets are exhausted."""


def refused(refusal: Refusal, partition: Partition) -> Appended:
    """The answer to a batch that idempotence or a transaction refuses."""
    return Appended(_ERRORS[refusal], log_start=partition.log_start)


def repeated(known: SequenceBatch, partition: Partition, moved: int = 0) -> Appended:
    """The answer to a duplicate: the offsets of the batch that it repeats (KIP-98)."""
    return Appended(ErrorCode.NONE, known.base_offset + moved, known.timestamp, partition.log_start)


def unappended(verdict: Unappended, partition: Partition) -> Appended:
    """The answer to a batch that a partial commit left out."""
    if verdict is None:
        return Appended(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
    if isinstance(verdict, ErrorCode):
        return Appended(verdict)
    if isinstance(verdict, Refusal):
        return refused(verdict, partition)
    return repeated(verdict, partition)
