"""The details of a change in an event, shortened: memory is bounded, however much a request asks for. Pure.

The shortest values come first, so that a long list does not displace the numbers beside it. Elements of lists and
mappings that do not fit are left out; a text that does not fit is cut. A field says whether anything is missing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from penstock.audit.model import Json

DETAILS_MAX = 2048
"""The most characters that the details of one change have in total, as JSON."""
LISTED_MAX = 50
"""The most names or numbers in one list."""
SHORTENED = "shortened"
"""The field that says that something is missing."""
ELLIPSIS = "…"
"""The end of a text that was cut."""


def shortened(details: Mapping[str, Json]) -> Mapping[str, Json]:
    """The details, shortened to the limit."""
    shortener = _Shortener(DETAILS_MAX)
    fitted = {
        name: shortener.fitted(value) for name, value in sorted(details.items(), key=lambda item: _length(item[1]))
    }
    kept = {name: fitted[name] for name in details}
    return {**kept, SHORTENED: True} if shortener.is_exceeded else kept


class _Shortener:
    """The shortener that is left."""

    __slots__ = ("_left", "is_exceeded")

    def __init__(self, left: int) -> None:
        self._left = left
        self.is_exceeded = False

    def fitted(self, value: Json) -> Json:
        """As much of a value as fits."""
        match value:
            case str():
                return self._text(value)
            case Mapping():
                kept: dict[str, Json] = {}
                for name, item in value.items():
                    if not self._has_room(len(kept), [name, item]):
                        break
                    kept[self._text(name)] = self.fitted(item)
                return kept
            case Sequence():
                items: list[Json] = []
                for item in value:
                    if not self._has_room(len(items), item):
                        break
                    items.append(self.fitted(item))
                return items
            case _:
                self._left -= _length(value) + 1
                return value

    def _has_room(self, count: int, item: Json) -> bool:
        """Whether one more element fits. The first one is cut rather than left out."""
        fits = count < LISTED_MAX and self._left > 0 and (not count or _length(item) <= self._left)
        self.is_exceeded |= not fits
        return fits

    def _text(self, text: str) -> str:
        length = _length(text)
        if length > self._left:
            self.is_exceeded = True
            while text and length > self._left:
                text = text[: min(len(text) - 1, len(text) * max(self._left, 0) // length)]
                length = _length(text)
            text += ELLIPSIS
        self._left -= length + 1
        return text


def _length(value: Json) -> int:
    return len(json.dumps(value, separators=(",", ":")))
