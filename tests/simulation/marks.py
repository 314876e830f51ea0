"""Reach marks: proof that the rare branches were really taken, somewhere in the seeds of a scenario.

A simulation that never loses an answer tests nothing about lost answers, and nobody would notice. So what rarely
happens leaves a mark, and the test says which marks there must be when all its seeds have run.
"""

from __future__ import annotations

from collections import Counter


class Marks:
    """How often each rare thing happened."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def reach(self, name: str) -> None:
        """It happened."""
        self.counts[name] += 1

    def add(self, other: Marks) -> None:
        """Count what happened in another run as well."""
        self.counts.update(other.counts)

    def expect(self, *names: str) -> None:
        """Fail unless all of these happened."""
        never = [name for name in names if not self.counts[name]]
        assert not never, f"never happened: {', '.join(never)}; what did: {dict(sorted(self.counts.items()))}"
