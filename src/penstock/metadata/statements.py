"""Parts of SQL statements with a variable number of values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")
_ROWS_PER_STATEMENT = (32, 8, 1)


def parameters(count: int, first: int = 1) -> str:
    """`$1, $2, …`: placeholders, starting with a number."""
    return ", ".join(f"${number}" for number in range(first, first + count))


def parameter_rows(rows: int, columns: int) -> str:
    """`($1, $2), ($3, $4), …`: the rows after VALUES."""
    return ", ".join(f"({parameters(columns, 1 + row * columns)})" for row in range(rows))


def chunks(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """Split rows for multi-row statements. Only a few sizes occur, so that prepared statements are reused."""
    start = 0
    while start < len(rows):
        size = next(size for size in _ROWS_PER_STATEMENT if size <= len(rows) - start)
        yield rows[start : start + size]
        start += size
