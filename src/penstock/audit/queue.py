"""Facts that wait to be told, in order: bounded in number and in bytes, for clients choose how long their texts are."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from penstock.audit.model import Heard, size_of


class Waiting:
    """A queue of facts."""

    def __init__(self, *, facts_max: int, bytes_max: int) -> None:
        self._facts_max, self._bytes_max = facts_max, bytes_max
        self._facts: deque[tuple[Heard, int]] = deque()
        self.size_bytes = 0
        """About how much memory they take."""

    def __len__(self) -> int:
        return len(self._facts)

    def add(self, fact: Heard) -> bool:
        """Have a fact wait; False if there is no room."""
        if len(self._facts) >= self._facts_max:
            return False
        size = size_of(fact)
        if self.size_bytes + size > self._bytes_max:
            return False
        self._facts.append((fact, size))
        self.size_bytes += size
        return True

    def take(self, count: int) -> list[Heard]:
        """The first ones, which wait no more."""
        taken = [self._facts.popleft() for _ in range(min(count, len(self._facts)))]
        self.size_bytes -= sum(size for _, size in taken)
        return [fact for fact, _ in taken]

    def put_back(self, facts: Sequence[Heard]) -> None:
        """Have facts wait again, before the others. They have room: it was theirs."""
        for fact in reversed(facts):
            size = size_of(fact)
            self._facts.appendleft((fact, size))
            self.size_bytes += size
