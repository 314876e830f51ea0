"""How much memory clients can make an agent hold: one total, divided among kinds of memory.

Each kind has a bound of its own, so that freeing memory of one kind never needs more of the same kind
(docs/decisions/0023-memory-bounds.md). All bounds follow from the total, which is the setting `memory.max.bytes`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Self

from penstock.base.dataclasses import dataclass

MIB = 1024 * 1024
DEFAULT_BYTES = 608 * MIB
LEAST_BYTES = DEFAULT_BYTES // 4
"""Less would not do for a few flushes and a large request beside each other."""
_TAIL_CHUNK_BYTES = 16 * MIB, 8 * MIB
"""Several full flushes: with two or fewer to a chunk, half of it may stay empty. With little memory, two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryBounds:
    """The most there may be of each kind. They add up to the total."""

    tail_bytes: int = 96 * MIB
    """Recent batches; the oldest memory is reused first."""
    pending_bytes: int = 64 * MIB
    """Accepted batches that wait for a flush; beyond it, no more are read."""
    partial_bytes: int = 192 * MIB
    """Requests of which a part has arrived; beyond it, large ones are received one after the other."""
    queued_bytes: int = 32 * MIB
    """Requests read ahead, of all connections; beyond it, each connection has one at most."""
    cold_bytes: int = 32 * MIB
    """Batches read from files."""
    pinned_bytes: int = 64 * MIB
    """Batches beyond the bounds of `tail` and `cold` that are kept because clients have not taken them yet."""
    unread_bytes: int = 128 * MIB
    """Other responses that clients have not taken; beyond it, their connections are closed."""

    @classmethod
    def of(cls, total_bytes: int) -> Self:
        """The parts of a total."""
        default = cls()
        return cls(**{part.name: getattr(default, part.name) * total_bytes // DEFAULT_BYTES for part in fields(cls)})

    @property
    def total_bytes(self) -> int:
        """All of them."""
        return sum(size_bytes for _, size_bytes in self.kinds())

    @property
    def huge_partial_bytes(self) -> int:
        """The bound of partly arrived requests beyond which huge ones are received one after the other."""
        return self.partial_bytes * 2 // 3

    @property
    def receive_arena_bytes(self) -> int:
        """How much memory for requests is kept for reuse."""
        return self.partial_bytes // 8

    @property
    def tail_chunk_bytes(self) -> int:
        """The size of the chunks that hold recent batches."""
        full, least = _TAIL_CHUNK_BYTES
        return min(full, max(least, self.tail_bytes // 6))

    def kinds(self) -> Iterator[tuple[str, int]]:
        """Each kind and its bound."""
        for field in fields(self):
            yield field.name.removesuffix("_bytes"), getattr(self, field.name)


def machine_bytes(root: Path = Path("/")) -> int | None:
    """How much memory this machine has, or the container or service that this process runs in; None if unknown. `root`
    is where the system's files are."""
    found = [*_limits_of_groups(root)]
    with contextlib.suppress(ValueError, OSError):
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min(found, default=None)


def _limits_of_groups(root: Path) -> Iterator[int]:
    """The limits of the control groups that this process is in, of version 1 or 2."""
    mount = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top, name = (mount / "memory", "memory.limit_in_bytes") if controllers else (mount, "memory.max")
        place = top / path.lstrip("/")
        for group in (place, *place.parents):
            try:
                text = (group / name).read_text().strip()
            except OSError:
                text = ""
            if text.isdigit():
                yield int(text)
            if group == top:
                break
