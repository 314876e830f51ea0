"""Parts of SQL statements whose length depends on how many values there are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")
_ROWS_PER_STATEMENT = (32, 8, 1)


def parameters(count: int, first: int = 1) -> str:
    """`$1, $2, …`: so many, from that number on."""
    return ", ".join(f"${number}" for number in range(first, first + count))


def parameter_rows(rows: int, columns: int) -> str:
    """`($1, $2), ($3, $4), …`: what follows VALUES."""
    return ", ".join(f"({parameters(columns, 1 + row * columns)})" for row in range(rows))


def chunks(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """The rows, as many at a time as one statement is to write. Few different sizes make few different statements, so
    that prepared ones are reused."""
    start = 0
    while start < len(rows):
        size = next(size for size in _ROWS_PER_STATEMENT if size <= len(rows) - start)
        yield rows[start : start + size]
        start += size
