"""How much memory clients can make an agent hold: one number, which kinds of memory have their parts of.

Each kind is bounded by itself, so that what sets some of it free needs none of the same kind
(docs/decisions/0023-memory-kind-by-kind.md). How much each may have follows from the one number that is said.
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
    """Of each kind the most there may be. They add up to what was said."""

    tail_bytes: int = 96 * MIB
    """Recent batches. Used again, the oldest first."""
    pending_bytes: int = 64 * MIB
    """Accepted batches that wait for a flush; beyond it, no more are read."""
    partial_bytes: int = 192 * MIB
    """Requests of which a part has arrived; beyond it, large ones are received one after the other."""
    queued_bytes: int = 32 * MIB
    """Requests read ahead of all connections; beyond it, each has one piece at most."""
    cold_bytes: int = 32 * MIB
    """Batches read from files."""
    pinned_bytes: int = 64 * MIB
    """Recent batches and such from files, beyond their bounds, that clients have not taken yet."""
    unread_bytes: int = 128 * MIB
    """Other answers that clients do not take; beyond it, their connections are closed."""

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
        """Of requests of which a part has arrived; beyond it, huge ones are received one after the other."""
        return self.partial_bytes * 2 // 3

    @property
    def receive_arena_bytes(self) -> int:
        """How much of such memory is kept to be used again."""
        return self.partial_bytes // 8

    @property
    def tail_chunk_bytes(self) -> int:
        """In pieces of which size recent batches are held."""
        full, least = _TAIL_CHUNK_BYTES
        return min(full, max(least, self.tail_bytes // 6))

    def kinds(self) -> Iterator[tuple[str, int]]:
        """Each kind and its bound."""
        for field in fields(self):
            yield field.name.removesuffix("_bytes"), getattr(self, field.name)


def machine_bytes(root: Path = Path("/")) -> int | None:
    """How much memory this machine has, or the container or service that this process is in; None if that is not
    known. `root` is where the system's files are."""
    found = [*_limits_of_groups(root)]
    with contextlib.suppress(ValueError, OSError):
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min(found, default=None)


def _limits_of_groups(root: Path) -> Iterator[int]:
    """Of the control groups that the process is in, whichever version they are of."""
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
