"""Which authorization decisions are logged: always denials; of what was allowed, what the settings say. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from penstock.audit.changes import CHANGES, WITHOUT_EFFECT
from penstock.base.dataclasses import dataclass
from penstock.base.randomness import Randomness
from penstock.wire.api_keys import ApiKey

NONE, SAMPLED, ALL = "none", "sampled", "all"


class EventClass(StrEnum):
    """The purpose of a request, by Confluent's event categories."""

    MANAGEMENT = "management"
    PRODUCE = "produce"
    CONSUME = "consume"
    HEARTBEAT = "heartbeat"
    INTERBROKER = "interbroker"
    DESCRIBE = "describe"


CHOICES = (NONE, SAMPLED, ALL, *EventClass)

_K = ApiKey
_MEMBERS: Mapping[EventClass, tuple[ApiKey, ...]] = {
    EventClass.PRODUCE: (_K.PRODUCE, _K.INIT_PRODUCER_ID, _K.ADD_PARTITIONS_TO_TXN, _K.END_TXN),
    EventClass.CONSUME: (
        _K.FETCH, _K.JOIN_GROUP, _K.SYNC_GROUP, _K.LEAVE_GROUP, _K.OFFSET_COMMIT, _K.OFFSET_FETCH, _K.LIST_OFFSETS,
        _K.ADD_OFFSETS_TO_TXN, _K.TXN_OFFSET_COMMIT, _K.SHARE_FETCH, _K.SHARE_ACKNOWLEDGE,
    ),
    EventClass.HEARTBEAT: (
        _K.HEARTBEAT, _K.CONSUMER_GROUP_HEARTBEAT, _K.SHARE_GROUP_HEARTBEAT, _K.STREAMS_GROUP_HEARTBEAT,
    ),
    EventClass.INTERBROKER: (_K.WRITE_TXN_MARKERS,),
}  # fmt: skip


def _classes() -> dict[int, EventClass]:
    classes = {int(key): EventClass.DESCRIBE for key in ApiKey}
    classes |= dict.fromkeys([*CHANGES, *map(int, WITHOUT_EFFECT)], EventClass.MANAGEMENT)
    for event_class, keys in _MEMBERS.items():
        classes |= dict.fromkeys(map(int, keys), event_class)
    return classes


CLASSES: Mapping[int, EventClass] = _classes()


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Which allowed requests are logged."""

    classes: frozenset[EventClass] = frozenset()
    ratio: float = 1.0

    @classmethod
    def of(cls, words: tuple[str, ...], ratio: float) -> Policy:
        """The policy of `audit.allowed`."""
        named = frozenset(EventClass(word) for word in words if word not in (NONE, SAMPLED, ALL))
        if not named and (ALL in words or SAMPLED in words):
            named = frozenset(EventClass)
        return cls(classes=named, ratio=ratio if SAMPLED in words else 1.0)

    def wants(self, api_key: int, randomness: Randomness) -> bool:
        """Whether this allowed request is logged."""
        return CLASSES.get(api_key) in self.classes and (self.ratio >= 1 or randomness.uniform(0, 1) < self.ratio)
