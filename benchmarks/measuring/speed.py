"""How fast the processors are while a load runs.

A virtual processor computes at little more than half its speed while somebody else's machine keeps the other thread
of the same core busy. No counter of the guest shows it: neither steal time nor a clock. What shows it is a fixed piece
of work, done again and again, and the CPU time it takes.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

EVERY_S = 0.1
WARM_UP, WORK = 2_000, 8_000
"""Steps of the interpreter: some half a millisecond on a fast core, a hundredth of its time."""
LOWEST_PRIORITY = 19


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The CPU time the fixed work took on one processor."""

    at_s: float
    processor: int
    cpu_s: float


def mean_speed(looks: Sequence[Look], begin_s: float, end_s: float) -> float:
    """The mean speed from one moment to another; 1 is that of the fastest looks of all time. 1 too if nobody looked."""
    within = [look.cpu_s for look in looks if begin_s <= look.at_s <= end_s]
    if not within:
        return 1.0
    fastest = sorted(look.cpu_s for look in looks)
    reference = fastest[len(fastest) // 100]  # Of very many the very fastest is one that was measured wrongly.
    return sum(min(1.0, reference / cpu_s) for cpu_s in within) / len(within)


class Speedometer:
    """Looks at each processor in turn while the block runs."""

    def __init__(self) -> None:
        self.looks: list[Look] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look_on, name="speedometer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def speed(self, begin_s: float, end_s: float) -> float:
        """The mean between two times of `time.monotonic`, over all processors."""
        return mean_speed(tuple(self.looks), begin_s, end_s)

    def _look_on(self) -> None:
        processors = sorted(os.sched_getaffinity(0))
        # Both are of this thread alone.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST_PRIORITY)
        while True:
            for processor in processors:
                os.sched_setaffinity(0, {processor})
                self.looks.append(_look(processor))
                if self._ended.wait(EVERY_S / len(processors)):
                    return


def _look(processor: int) -> Look:
    for number in range(WARM_UP):
        _ = number * number
    begun = time.thread_time()
    for number in range(WORK):
        _ = number * number
    return Look(at_s=time.monotonic(), processor=processor, cpu_s=time.thread_time() - begun)
