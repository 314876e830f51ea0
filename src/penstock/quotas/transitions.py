"""The rules of changing and finding quotas, in the order and with the error codes of Kafka's controller. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum

from penstock.base.dataclasses import dataclass, field
from penstock.log.refusals import Refused
from penstock.quotas.model import (
    ADDRESS_KEYS,
    CLIENT_ID,
    CLIENT_KEYS,
    IP,
    USER,
    Entity,
    EntityLimits,
    QuotaChanged,
    QuotaKeyRule,
    QuotaTable,
)
from penstock.wire.error_codes import ErrorCode

MAX_RECORDS = 10_000
"""The most changes of one request, as in Kafka's controller."""
MAX_ENTITIES = 100_000
"""How many entities of a virtual cluster may have limits: all of them are held in memory."""
MAX_NAME_LENGTH = 512
_WHOLE_ENOUGH = 1e-6


EntityParts = Sequence[tuple[str, str | None]]


class MatchType(IntEnum):
    """How a component of a filter matches, by Kafka's numbers."""

    EXACT = 0
    DEFAULT_ONLY = 1
    ANY = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaAlteration:
    """A requested change of one entity: pairs of type and name as sent, and (key, value or None) each."""

    entity: EntityParts
    limits: Sequence[tuple[str, float | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class AlterationDecision:
    """The records to make durable, and the answer for each change once they are."""

    records: tuple[QuotaChanged, ...] = ()
    refusals: Sequence[Refused | None] = ()


class AlterationBatch:
    """Decides the changes of a request one by one. An entity that is refused does not affect others."""

    def __init__(self, table: QuotaTable) -> None:
        self._table, self._seen = table, set[Entity]()
        self._records: list[QuotaChanged] = []
        self._refusals: list[Refused | None] = []

    def add(self, change: QuotaAlteration) -> None:
        """Decide one change."""
        try:
            found = _records_of(self._table, change, self._seen)
            if len(self._records) + len(found) > MAX_RECORDS:
                raise Refused(ErrorCode.POLICY_VIOLATION, f"One request may change {MAX_RECORDS} limits at most.")
        except Refused as refusal:
            self._refusals.append(refusal)
        else:
            self._refusals.append(None)
            self._records += found

    def decision(self) -> AlterationDecision:
        """The decision on all of them."""
        named = {record.entity for record in self._records if record.value is not None}
        added = [who for who in named if who not in self._table]
        if len(self._table) + len(added) > MAX_ENTITIES:
            full = Refused(ErrorCode.POLICY_VIOLATION, f"{MAX_ENTITIES} entities have limits already.")
            return AlterationDecision(refusals=[refusal or full for refusal in self._refusals])
        return AlterationDecision(records=tuple(self._records), refusals=self._refusals)


def _records_of(table: QuotaTable, change: QuotaAlteration, seen: set[Entity]) -> list[QuotaChanged]:
    wanted: dict[str, float | None] = {}
    for key, value in change.limits:
        if key in wanted:
            raise _invalid(f"Duplicate quota key {key}")
        wanted[key] = value
    who, rules = checked_entity(change.entity)
    if who in seen:
        raise _invalid("Ignoring duplicate entity")
    seen.add(who)
    before: EntityLimits = table.get(who, {})
    records = []
    for key, value in wanted.items():
        if value is not None:
            _check_value(rules, key, value)
        if before.get(key) != value:
            records.append(QuotaChanged(entity=who, key=key, value=value))
    return records


def checked_entity(pairs: EntityParts) -> tuple[Entity, Mapping[str, QuotaKeyRule]]:
    """An entity as stored, and the keys it may have; raise `Refused` if it is invalid."""
    if not pairs:
        raise _invalid("Invalid empty client quota entity")
    names: dict[str, str | None] = {}
    for kind, name in pairs:
        if kind in names:
            raise _invalid(f"Invalid client quota entity, duplicate entity entry {kind}")
        if kind not in (USER, CLIENT_ID, IP):
            raise _invalid(f"Unhandled client quota entity type: {kind}")
        if name == "":
            raise _invalid(f"Empty {kind} not supported")
        if name is not None and len(name) > MAX_NAME_LENGTH:
            raise _invalid(f"The name of a {kind} may be {MAX_NAME_LENGTH} characters long at most")
        names[kind] = name
    if IP not in names:
        return tuple(sorted(names.items())), CLIENT_KEYS
    if len(names) > 1:
        raise _invalid("Invalid quota entity combination, IP entity should not be combined with User or ClientId")
    address = names[IP]
    return ((IP, None if address is None else canonical_address(address)),), ADDRESS_KEYS


def canonical_address(text: str) -> str:
    """An address in the form in which connections show it. Host names are not resolved."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise _invalid(f"{text} is not a valid IP address.") from error
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def _check_value(rules: Mapping[str, QuotaKeyRule], key: str, value: float) -> None:
    rule = rules.get(key)
    if rule is None:
        raise _invalid(f"Invalid configuration key {key}")
    if not value > 0:  # This refuses NaN as well.
        raise _invalid(f"Quota {key} must be greater than 0")
    if value > rule.maximum:
        raise _invalid(f"Proposed value for {key} is too large.")
    if rule.whole and value % 1.0 > _WHOLE_ENOUGH:
        raise _invalid(f"{key} cannot be a fractional value.")


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityFilter:
    """Which entities a request asks for."""

    exactly: Mapping[str, str | None] = field(default_factory=dict)
    any_of: frozenset[str] = frozenset()
    strict: bool = False

    def matches(self, who: Entity) -> bool:
        """Whether an entity is one of them."""
        names = dict(who)
        if self.strict and len(names) != len(self.exactly) + len(self.any_of):
            return False
        return all(kind in names and names[kind] == name for kind, name in self.exactly.items()) and all(
            kind in names for kind in self.any_of
        )


def checked_filter(components: Iterable[tuple[str, int, str | None]], *, strict: bool) -> EntityFilter:
    """A filter of (type, match type, name) components; raise `Refused` if it is invalid."""
    exactly: dict[str, str | None] = {}
    any_of: set[str] = set()
    for kind, match_type, name in components:
        if not kind:
            raise _invalid("Invalid empty entity type.")
        if kind in exactly or kind in any_of:
            raise _invalid(f"Entity type {kind} cannot appear more than once in the filter.")
        if kind not in (USER, CLIENT_ID, IP):
            raise Refused(ErrorCode.UNSUPPORTED_VERSION, f"Unsupported entity type {kind}")
        match match_type:
            case MatchType.EXACT:
                if name is None:
                    raise _invalid("Request specified MATCH_TYPE_EXACT, but set match string to null.")
                exactly[kind] = name
            case MatchType.DEFAULT_ONLY:
                if name is not None:
                    raise _invalid("Request specified MATCH_TYPE_DEFAULT, but also specified a match string.")
                exactly[kind] = None
            case MatchType.ANY:
                if name is not None:
                    raise _invalid("Request specified MATCH_TYPE_SPECIFIED, but also specified a match string.")
                any_of.add(kind)
            case _:
                raise _invalid(f"Unknown match type {match_type}")
    asked = exactly.keys() | any_of
    if IP in asked and len(asked) > 1:
        raise _invalid(
            "Invalid entity filter component combination. IP filter component should not be used with user or clientId"
            " filter component."
        )
    return EntityFilter(exactly=exactly, any_of=frozenset(any_of), strict=strict)


def _invalid(message: str) -> Refused:
    return Refused(ErrorCode.INVALID_REQUEST, message)
