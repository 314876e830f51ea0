"""The vocabulary of the coordinator runtime: keys, slots, decisions, and the ports that it needs.

A rule is a pure function from a state and a request to a `Decision`: the next state, the records that make it durable,
the replies to send once it is, and the timers to set. Nothing of a decision is visible before its records are durable.
States are immutable, so undoing a failed write is keeping the old value.

A request that cannot be answered yet is *parked*: the rule puts the request's `Waiter` into the state, and a later
decision replies to it. So a reply is either in the decision of its own request or in another one's, and a rule that
drops a waiter without replying is a bug that tests look for.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from penstock.base.dataclasses import dataclass
from penstock.base.errors import Unavailable

Key = tuple[int, str]
"""(cluster id, group id or transactional id): identifies a state."""

Waiter = int
"""Identifies a request that must get exactly one reply."""

SLOT_COUNT = 64
"""The number of slots of a deployment. Stored rows contain their slot: changing the number needs a migration."""

S = TypeVar("S")
R = TypeVar("R")
R_contra = TypeVar("R_contra", contravariant=True)
S_co = TypeVar("S_co", covariant=True)


class CoordinatorLoading(Unavailable):
    """The coordinator is still loading its state; retriable."""


def slot_of(key: Key) -> int:
    """The slot a key belongs to; the same in every process and version."""
    return zlib.crc32(f"{key[0]}/{key[1]}".encode()) % SLOT_COUNT


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer a waiter gets."""

    waiter: Waiter
    answer: object


@dataclass(frozen=True, slots=True)
class Timer:
    """Set (or move) the timer of this name to fire after a delay; None cancels it."""

    name: str
    delay_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision(Generic[S, R]):
    """What a rule wants to happen, all of it or none."""

    state: S | None
    """The next state; None: there is nothing under this key."""
    records: tuple[R, ...] = ()
    replies: tuple[Reply, ...] = ()
    timers: tuple[Timer, ...] = ()


class Rules(Protocol[S, R]):
    """Changes of a state that no request asks for. Both are pure."""

    def expired(self, key: Key, state: S | None, timer: str, now_ms: int) -> Decision[S, R]:
        """A timer fired."""

    def restored(self, key: Key, state: S, now_ms: int) -> Decision[S, R]:
        """A state was loaded from the store: set its timers. The decision has no records."""


class Journal(Protocol[S_co, R_contra]):
    """Makes states durable."""

    async def open(self) -> Sequence[tuple[Key, S_co]]:
        """Take the slots; returns the states that must be in memory because they have timers."""

    async def load(self, key: Key) -> S_co | None:
        """Load one state. Raises `Unavailable`, or `Fenced` when its slot is not ours."""

    async def write(self, records: Iterable[tuple[Key, R_contra]]) -> Collection[int]:
        """Make records durable, all or nothing, in order; the indexes of those that the store refused.

        Only a record that leaves the state unchanged may be refused, because of something that the store knows and the
        rules do not. Waiters of its decision get a retriable error, and the rest of the decision stands.

        Raises `Unavailable` when nothing was written, and `Fenced` when another agent holds a slot: then nothing was
        written either, unless the answer was lost before the slot was, which the new holder's row does not tell. Any
        other write with a lost answer is resolved by the journal before it returns; where it cannot be, the journal
        raises `OutcomeUnknown`, and loads and writes nothing until it is.
        """
