"""What of an answer is compared: the rules by which a broker's own ids, times, places and words become equal.

Everything not named here is compared as it is.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from .names import Names

Flat = dict[str, Any]

RULES = {
    "order": "Elements of a list that have a name, an id or a number of their own are compared by it, not by where"
    " they stand.",
    "pieces": "A topic that is answered in several pieces counts as one.",
    "names": "Names of topics, groups and transactional ids carry a tag of the sequence; what belongs to another"
    " sequence, and Kafka's internal topics, are left out of lists.",
    "ids": "Topic ids, producer ids, fetch sessions, delegation tokens, their secrets and the random part of member ids"
    " count by which of them are the same: the first of its kind in a sequence is 1. That there is none (zero, -1,"
    " empty) is compared.",
    "times": "A time within ten minutes of the base of the record timestamps is compared to the millisecond, relative"
    " to it; one within ten minutes of the clock is \"now\".",
    "group epochs": "Epochs of consumer and share groups count by which of them are the same: the first in a sequence"
    " is 1, whatever its number. -2, -1 and 0 are compared.",
    "places": "Host, port, rack, directory and cluster id are there or not.",
    "epochs": "Epochs of coordinators and of finalized features are there or not. Leader epochs are compared.",
    "messages": "Sentences for people are there or not.",
    "sizes": "Bytes on and of a disk are there or not.",
    "waiting": "Where a coordinator is loading or still writes markers (14, 51), it is asked again, as clients do.",
    "lives": "How long tokens and sessions last is compared to the minute.",
    "throttling": "How long a client is told to wait is compared to the nearest hundred seconds.",
    "proofs": "What proves a broker to its client is there or not.",
    "addresses": "The client's address is compared.",
}  # fmt: skip

_KEYS = (
    "name", "topic", "topic_name", "group_id", "transactional_id", "member_id", "resource_name", "group", "key",
    "entity_type", "topic_id", "partition_index", "partition", "index", "api_key", "broker_id", "node_id",
    "error_partition", "user", "state_filters", "feature", "coordinator_key", "subtopology_id", "status_code",
    "token_id", "principal_name",
)  # fmt: skip
_PIECES = ("partition_responses", "partitions")
_TEXTS = {
    "error_message", "acknowledge_error_message", "batch_index_error_message", "documentation", "message",
    "status_detail",
}  # fmt: skip
_PLACES = {"host", "port", "log_dir", "cluster_id", "rack"}
_EPOCHS = {"coordinator_epoch", "finalized_features_epoch"}
_SIZES = {"total_bytes", "usable_bytes"}
_LIVES = {
    "issue_timestamp_ms", "expiry_timestamp_ms", "max_timestamp_ms", "token.issue_timestamp", "token.expiry_timestamp",
    "token.max_timestamp",
}  # fmt: skip
_MINUTE_MS, _THROTTLE_MS = 60_000, 100_000
_SETS = {"partitions", "partition_indexes"}
_INTERNED = {
    "producer_id": ("producer", 0), "session_id": ("session", 1), "member_epoch": ("group epoch", 1),
    "group_epoch": ("group epoch", 1), "assignment_epoch": ("group epoch", 1),
}  # fmt: skip
"""What its number is of, and the first that is one."""
_ACL = ("principal", "host", "operation", "permission_type")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_SHORT_UUID = re.compile(r"[A-Za-z0-9_-]{22}")
_FOREIGN = re.compile(r"[0-9a-f]{8}-\w|__(consumer_offsets|transaction_state|share_group_state)$")
_NEAR_MS = 600_000


class Normaliser:
    """The rules, for the answers of one sequence at one broker."""

    def __init__(self, tag: str, now_ms: int, names: Names) -> None:
        self._tag, self._now_ms, self._names = tag, now_ms, names
        self._seen: dict[str, dict[Any, int]] = {}
        self._before = self._seen

    def forget_last(self) -> None:
        """An answer that was asked for again: what was first seen in it was not seen."""
        self._seen = self._before

    def flat(self, answer: Any) -> Flat:
        """An answer as a mapping of paths to values."""
        self._before = {kind: dict(known) for kind, known in self._seen.items()}
        found: Flat = {}
        self._walk("", "", answer, found)
        return found

    def _walk(self, path: str, name: str, value: Any, found: Flat) -> None:
        if isinstance(value, Mapping):
            # Batches have a field of the same name.
            owner = "token." if "token_id" in value else ""
            for field, inner in value.items():
                name = f"{owner}{field}" if field.endswith("_timestamp") else field
                self._walk(f"{path}.{field}" if path else field, name, inner, found)
        elif isinstance(value, list):
            self._walk_list(path, name, value, found)
        else:
            found[path] = self._value(name, value)

    def _walk_list(self, path: str, name: str, elements: list[Any], found: Flat) -> None:
        if name in _SETS and all(isinstance(element, int) for element in elements):
            elements = sorted(elements)
        keyed = [(self._key(number, element), element) for number, element in enumerate(elements)]
        ours = [(key, element) for key, element in keyed if key is not None]
        ours = _joined(ours)
        counts: dict[str, int] = {}
        found[f"{path}.count"] = len(ours)
        for key, element in sorted(ours, key=lambda pair: pair[0]):
            counts[key] = counts.get(key, 0) + 1
            again = f"#{counts[key]}" if counts[key] > 1 else ""
            self._walk(f"{path}[{key}{again}]", name, element, found)

    def _key(self, number: int, element: Any) -> str | None:
        """What an element is compared by; None if it is not of this sequence."""
        if isinstance(element, str) and self._is_foreign(element):
            return None
        if not isinstance(element, Mapping):
            return str(number)
        if "base_offset" in element and "magic" in element:
            return str(number)
        if "entity" in element:  # Of a quota.
            return ", ".join(sorted(str(self._value("", one["entity_name"])) for one in element["entity"]))
        if all(field in element for field in _ACL):
            return "/".join(str(self._value(field, element[field])) for field in _ACL)
        extra = f"/{element['resource_type']}" if "resource_type" in element else ""
        named = [field for field in _KEYS if field in element]
        for field in named:
            value = element[field]
            if value not in (None, "", bytes(16)):
                if isinstance(value, str) and self._is_foreign(value):
                    return None
                return f"{self._value(field, value)}{extra}"
        return f'""{extra}' if named else str(number)

    def _is_foreign(self, text: str) -> bool:
        return _FOREIGN.match(text) is not None and not text.startswith(f"{self._tag}-")

    def _value(self, name: str, value: Any) -> Any:
        if isinstance(value, bool) or value is None:
            return value
        if isinstance(value, int):
            return self._number(name, value)
        if isinstance(value, bytes | bytearray | memoryview):
            return self._bytes(name, bytes(value))
        if isinstance(value, str):
            return self._text(name, value)
        return value

    def _number(self, name: str, value: int) -> Any:
        if name in _PLACES:
            return f"<{name}>"
        if name in _EPOCHS | _SIZES and value >= 0:
            return f"<{name}>"
        if name in _LIVES and value > 0:
            return f"in {round((value - time.time() * 1000) / _MINUTE_MS)} min"
        if name == "session_lifetime_ms" and value > 0:
            return f"{round(value / _MINUTE_MS)} min"
        if name == "throttle_time_ms" and value > 0:
            return f"about {round(value / _THROTTLE_MS) * _THROTTLE_MS // 1000} s"
        kind, first = next((known for field, known in _INTERNED.items() if name.endswith(field)), ("", 0))
        if kind and value >= first:
            return self._interned(kind, value)
        if abs(value - self._now_ms) < _NEAR_MS:
            return f"now{value - self._now_ms:+d}"
        if abs(value - time.time() * 1000) < _NEAR_MS:
            return "<clock>"
        return value

    def _bytes(self, name: str, value: bytes) -> Any:
        if name.endswith("_id") and len(value) == 16:
            if value == bytes(16):
                return "zero"
            return self._names.ids.get(value) or self._interned("id", value)
        if name == "hmac" and value:
            return self._interned("secret", value)
        if name == "auth_bytes" and value:
            return "<proof>"
        try:
            return self._text(name, value.decode("ascii"))
        except UnicodeDecodeError:
            return f"0x{value.hex()}"

    def _text(self, name: str, value: str) -> Any:
        if value and (name in _TEXTS or name in _PLACES):
            return f"<{name}>"
        value = value.replace(f"{self._tag}-", "$")
        value = _UUID.sub(lambda found: self._interned("uuid", found[0]), value)
        if name in ("member_id", "leader", "token_id") and _SHORT_UUID.fullmatch(value):
            return self._interned("uuid", value)
        return value

    def _interned(self, kind: str, value: Any) -> str:
        known = self._seen.setdefault(kind, {})
        return f"<{kind} {known.setdefault(value, len(known) + 1)}>"


def _joined(keyed: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Pieces of one topic put together."""
    whole: list[tuple[str, Any]] = []
    first: dict[str, Mapping[str, Any]] = {}
    for key, element in keyed:
        inner = next(
            (name for name in _PIECES if isinstance(element, Mapping) and isinstance(element.get(name), list)), None
        )  # fmt: skip
        if inner is None:
            whole.append((key, element))
        elif key in first:
            first[key][inner].extend(element[inner])
        else:
            first[key] = {**element, inner: [*element[inner]]}
            whole.append((key, first[key]))
    return whole
