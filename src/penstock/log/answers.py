"""What producers are told about their batches, and who is told."""

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
"""The answer while nothing is known: the batch may be appended yet."""


class Settles(Protocol):
    """Someone who waits for the answers of one request's partitions."""

    @property
    def timeout_ms(self) -> int | None:
        """How long is waited for them; None for as long as it takes."""

    def settle(self, position: int, result: Appended) -> None:
        """The answer for the partition that was submitted under this position."""

    def time_out(self) -> None:
        """Time is up: answer `TIMED_OUT` where there is no answer, and tell nobody what comes later."""


class Ticket:
    """A produce request on its way: the answers that are there, and what to do when all are."""

    __slots__ = ("finish", "remaining", "results", "timeout_ms")

    def __init__(
        self, results: list[Appended | None], finish: Callable[[list[Appended]], None], timeout_ms: int | None = None
    ) -> None:
        self.results = results
        self.remaining = sum(result is None for result in results)
        self.finish = finish
        self.timeout_ms = timeout_ms

    def settle(self, position: int, result: Appended) -> None:
        """Note the answer for one partition; the last one finishes the request."""
        self.results[position] = result
        self.remaining -= 1
        if not self.remaining:
            self.finish(self.results)  # type: ignore[arg-type]  # None is left nowhere

    def time_out(self) -> None:
        """Answer now. What is settled from here on never makes the count come to nothing."""
        self.timeout_ms, self.remaining = None, -1
        self.finish([TIMED_OUT if result is None else result for result in self.results])


CROWDED_OUT = Appended(
    ErrorCode.POLICY_VIOLATION, message="This cluster may not have another producer id; it has as many as it may have."
)
"""The answer to the first batch of a producer in a virtual cluster that may not have another one."""
USED_UP = Appended(ErrorCode.POLICY_VIOLATION, message="This partition has no offsets left.")
"""The answer to a batch for which there are none."""


def refused(refusal: Refusal, partition: Partition) -> Appended:
    """The answer to a batch that does not fit its producer's earlier ones."""
    return Appended(_ERRORS[refusal], log_start=partition.log_start)


def repeated(known: SequenceBatch, partition: Partition, moved: int = 0) -> Appended:
    """The answer to a batch that was appended before: where it is (KIP-98)."""
    return Appended(ErrorCode.NONE, known.base_offset + moved, known.timestamp, partition.log_start)


def unappended(verdict: Unappended, partition: Partition) -> Appended:
    """The answer to a batch that a commit left out."""
    if verdict is None:
        return Appended(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
    if isinstance(verdict, ErrorCode):
        return Appended(verdict)
    if isinstance(verdict, Refusal):
        return refused(verdict, partition)
    return repeated(verdict, partition)
