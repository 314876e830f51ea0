"""Times as people write them and as we print them: ISO 8601, always UTC when printed."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from penstock.base.errors import InvalidRequest

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
LONGEST_MS = 1_000 * 366 * 86_400_000
_MOST_DIGITS = 18
"""More are no time, and do not fit into what the protocol has for one."""
_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


def iso(timestamp_ms: int | None) -> str | None:
    """`2026-01-31T12:00:00.000Z`, or None for a time that is not there."""
    if timestamp_ms is None or timestamp_ms < 0:
        return None
    try:
        moment = EPOCH + timedelta(milliseconds=timestamp_ms)
    except OverflowError:
        return None
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{timestamp_ms % 1000:03d}Z"


def to_the_second(text: str | None) -> str:
    """The same for people, for whom seconds will do."""
    return "-" if text is None else re.sub(r"\.\d+Z$", "Z", text)


def parse_time_ms(text: str, *, now_ms: int) -> int:
    """Read milliseconds since 1970, an ISO 8601 time (UTC unless it says otherwise), or an age such as `1h30m`."""
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS:
        return int(text)
    if _DURATION.sub("", text) == "" and text:
        return now_ms - parse_duration_ms(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidRequest(
            f"{text!r} is not a time; write 2026-01-31T12:00:00Z, milliseconds since 1970, or an age such as 1h30m"
        ) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - EPOCH) // timedelta(milliseconds=1)


def parse_duration_ms(text: str) -> int:
    """Read `500ms`, `10s`, `1h30m`; a bare number is seconds."""
    text = text.strip()
    if text.isascii() and text.replace(".", "", 1).isdigit():
        return _bounded(float(text) * 1_000, text)
    if not text or _DURATION.sub("", text):
        raise InvalidRequest(f"{text!r} is not a duration; write 500ms, 10s, 5m or 1h30m")
    return _bounded(sum(float(number) * _UNIT_MS[unit] for number, unit in _DURATION.findall(text)), text)


def duration_text(duration_ms: int | None) -> str:
    """`350 ms`, `12 s`, `3 m 20 s`, `2 h 5 m`, `9 d`: the two largest units are enough."""
    if duration_ms is None:
        return "-"
    if duration_ms < 1_000:
        return f"{duration_ms} ms"
    parts: list[str] = []
    left = duration_ms // 1_000
    for unit, unit_s in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, left = divmod(left, unit_s)
        if count or parts:
            parts.append(f"{count} {unit}" if count else "")
    return " ".join(part for part in parts[:2] if part)


def _bounded(duration_ms: float, text: str) -> int:
    if duration_ms > LONGEST_MS:
        raise InvalidRequest(f"{text!r} is longer than a thousand years")
    return round(duration_ms)
