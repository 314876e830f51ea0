"""The words of the runner: keys, slots, decisions, and the ports it needs.

A rule is a pure function from a state and a request to a `Decision`: the state as it will be, the records that make it
durable, the answers that may leave once it is, and the timers to set. Nothing of a decision is visible before its
records are durable. States are immutable, so undoing a failed write is keeping the old value.

A request that cannot be answered yet is *parked*: the rule puts the request's `Waiter` into the state, and a later
decision answers it. So an answer is either in the decision of its own request or in somebody else's, and a rule that
drops a waiter without answering it is a bug that tests look for.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from penstock.base.dataclasses import dataclass
from penstock.base.errors import Unavailable

Key = tuple[int, str]
"""(cluster id, group id or transactional id): what one state belongs to."""

Waiter = int
"""A request that is owed exactly one answer."""

SLOT_COUNT = 64
"""Shares of coordinator work in a deployment. Stored rows carry their slot: changing the number needs a migration."""

S = TypeVar("S")
R = TypeVar("R")
R_contra = TypeVar("R_contra", contravariant=True)
S_co = TypeVar("S_co", covariant=True)


class Loading(Unavailable):
    """The coordinator is still reading its state: ask again shortly."""


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
    """Set the timer of that name to fire after a delay, in place of where it was set to; None cancels it."""

    name: str
    delay_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision(Generic[S, R]):
    """What a rule wants to happen, all of it or none."""

    state: S | None
    """The state from now on; None: there is nothing under this key."""
    records: tuple[R, ...] = ()
    replies: tuple[Reply, ...] = ()
    timers: tuple[Timer, ...] = ()


class Rules(Protocol[S, R]):
    """What happens to a state without a request. Both are pure."""

    def expired(self, key: Key, state: S | None, timer: str, now_ms: int) -> Decision[S, R]:
        """A timer fired."""

    def restored(self, key: Key, state: S, now_ms: int) -> Decision[S, R]:
        """A state was read back from the store: set its timers. The decision has no records."""


class Journal(Protocol[S_co, R_contra]):
    """Where states are made durable."""

    async def open(self) -> Sequence[tuple[Key, S_co]]:
        """Take over the slots; return the states that must be in memory because they have timers."""

    async def load(self, key: Key) -> S_co | None:
        """Read one state. Raises `Unavailable`, or `Fenced` when its slot is not ours."""

    async def write(self, records: Iterable[tuple[Key, R_contra]]) -> Collection[int]:
        """Make records durable, all or nothing, in order; the numbers of those that the store refused.

        Only a record that leaves the state as it is may be refused, because of what the store knows and the rules do
        not. Whoever waits for its decision is told to ask again, and everything else of the decision holds.

        Raises `Unavailable` when nothing was written, `Fenced` when somebody else holds a slot (and nothing was
        written). Whether a write with a lost answer happened is the journal's to find out before it returns.
        """
