"""Durations of the stages of a flush: waiting, laying out, writing, answering. It adds one clock reading per flush."""

from __future__ import annotations

from collections.abc import Mapping

from penstock.base.durations import Durations


class Stages:
    """Durations of the stages of flushes that became durable, one flush at a time."""

    __slots__ = ("_answer", "_prepare", "_wait", "_write", "arrived_s", "began_s", "ended_s", "staged_s", "waited_s")

    def __init__(self) -> None:
        self._wait, self._prepare, self._write, self._answer = Durations(), Durations(), Durations(), Durations()
        self.arrived_s = 0.0
        """When the first batch of the next flush arrived; 0 if none has."""
        self.waited_s = self.staged_s = 0.0
        """How long the first batch had waited when this flush was put together, and when that began."""
        self.began_s = self.ended_s = 0.0
        """When its write began and ended."""

    def staged(self, now_s: float) -> None:
        """A flush is put together from what has arrived."""
        arrived_s = self.arrived_s
        self.staged_s, self.arrived_s = now_s, 0.0
        self.waited_s = now_s - arrived_s if arrived_s else 0.0

    def note(self, now_s: float) -> None:
        """All answers of the flush are sent."""
        self._wait.add(self.waited_s)
        self._prepare.add(self.began_s - self.staged_s)
        self._write.add(self.ended_s - self.began_s)
        self._answer.add(now_s - self.ended_s)

    def by_name(self) -> Mapping[str, Durations]:
        """All of them, in the order of the stages."""
        return {"wait": self._wait, "prepare": self._prepare, "write": self._write, "answer": self._answer}

    def summary(self) -> str:
        """The stages of the last flush, as text for the log."""
        stages_s = self.waited_s, self.began_s - self.staged_s, self.ended_s - self.began_s
        return "waited {:.0f} ms, prepared {:.0f} ms, written {:.0f} ms".format(*(1000 * part for part in stages_s))
