"""Sizes, counts and rates for people."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from penstock.base.errors import InvalidRequest

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?i?b?)", re.IGNORECASE)
LARGEST_BYTES = 2.0**62
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def parse_size(text: str) -> int:
    """Read `100`, `16KiB`, `1M`, in bytes. Letters mean powers of 1024, as in Kafka's own settings."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InvalidRequest(f"{text!r} is not a size; write bytes, or 16KiB, 1MiB, 2GiB")
    unit = match[2].lower().removesuffix("b").removesuffix("i")
    size_bytes = float(match[1]) * float(1024 ** _POWERS[unit])
    if size_bytes > LARGEST_BYTES:
        raise InvalidRequest(f"{text!r} is larger than anything")
    return round(size_bytes)


def parse_amount(text: str, *, in_bytes: bool) -> float:
    """Read the value of a limit: a size where it counts bytes, else any finite number."""
    if in_bytes:
        return float(parse_size(text))
    try:
        amount = float(text)
    except ValueError:
        raise InvalidRequest(f"{text!r} is not a number") from None
    if not math.isfinite(amount):
        raise InvalidRequest(f"{text!r} limits nothing")
    return amount


def size_text(size_bytes: int | float | None) -> str:
    """`1.5 MiB`."""
    if size_bytes is None or size_bytes < 0:
        return "-"
    if size_bytes < 1024:
        return f"{size_bytes:.0f} B"
    value, unit = float(size_bytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if value < 1023.95:
            break
        value, unit = value / 1024, larger
    return f"{value:.1f} {unit}"


def count_text(number: int | float | None) -> str:
    """`12,345`; a dash for what is not known."""
    return "-" if number is None else f"{number:,.0f}"


def amount_text(number: int | float | None) -> str:
    """`10,485,760`, `12.5`: exactly, as somebody has set it."""
    if number is None:
        return "-"
    return f"{number:,.0f}" if number == int(number) else f"{number:,}"


def plural(number: int, noun: str) -> str:
    """`1 record`, `12,345 records`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def milliseconds_text(value_ms: float | None) -> str:
    """`0.42 ms`, `12.3 ms`, `1.50 s`."""
    if value_ms is None:
        return "-"
    if value_ms >= 1_000:
        return f"{value_ms / 1_000:.2f} s"
    return f"{value_ms:.2f} ms" if value_ms < 10 else f"{value_ms:.1f} ms"


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest-rank percentile."""
    ordered = sorted(values)
    rank = max(1, -(-len(ordered) * percent // 100))
    return ordered[int(rank) - 1]
