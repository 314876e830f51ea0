"""Quotas: entities, their limits, and the precedence of entities. Pure.

An entity is a user, a client id, a pair of them, or an address; each may be the default of its kind, which applies to
everyone without a quota of their own. For a client the most specific entity with a limit applies (KIP-55):

    user and client id, user and default client, user,
    default user and client id, default user and default client, default user,
    client id, default client

The entity also determines who shares the limit: that of a user is shared by all of the user's clients, that of a client
id by all users with that id, and that of a pair belongs to the pair.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from penstock.base.dataclasses import dataclass

USER, CLIENT_ID, IP = "user", "client-id", "ip"
DEFAULT = None
"""The name of a default entity."""

Entity = tuple[tuple[str, str | None], ...]
"""An entity: pairs of type and name, sorted by type."""
EntityLimits = Mapping[str, float]
"""An entity's limits by quota key."""
QuotaTable = Mapping[Entity, EntityLimits]
"""All limits of a virtual cluster. Immutable."""


class QuotaKey(StrEnum):
    """Kafka's quota keys."""

    PRODUCER_BYTE_RATE = "producer_byte_rate"
    CONSUMER_BYTE_RATE = "consumer_byte_rate"
    REQUEST_PERCENTAGE = "request_percentage"
    CONTROLLER_MUTATION_RATE = "controller_mutation_rate"
    CONNECTION_CREATION_RATE = "connection_creation_rate"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaKeyRule:
    """Which values a key may have."""

    whole: bool
    maximum: float
    doc: str


CLIENT_KEYS: Mapping[str, QuotaKeyRule] = {
    QuotaKey.PRODUCER_BYTE_RATE: QuotaKeyRule(whole=True, maximum=2**63 - 1, doc="Bytes of produce requests a second."),
    QuotaKey.CONSUMER_BYTE_RATE: QuotaKeyRule(whole=True, maximum=2**63 - 1, doc="Bytes fetched a second."),
    QuotaKey.REQUEST_PERCENTAGE: QuotaKeyRule(
        whole=False, maximum=float("inf"), doc="Time of an agent spent on requests; 100 is all of it."
    ),
    QuotaKey.CONTROLLER_MUTATION_RATE: QuotaKeyRule(
        whole=False, maximum=float("inf"), doc="Partitions created and deleted a second."
    ),
}
"""Keys of users and clients."""
ADDRESS_KEYS: Mapping[str, QuotaKeyRule] = {
    QuotaKey.CONNECTION_CREATION_RATE: QuotaKeyRule(whole=True, maximum=2**31 - 1, doc="Connections made a second."),
}
"""Keys of addresses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaChanged:
    """Record: a limit's new value; None removes it."""

    entity: Entity
    key: str
    value: float | None


class AppliedLimit(NamedTuple):
    """The limit that applies to a client, and who shares it."""

    value: float
    user: str
    """Empty where all users share."""
    client_id: str
    """Empty where all clients share."""


def entity(*, user: str | None = "", client_id: str | None = "", ip: str | None = "") -> Entity:
    """The entity with these names; None is the default, an empty name means that the type is absent."""
    names = ((CLIENT_ID, client_id), (IP, ip), (USER, user))
    return tuple((kind, name) for kind, name in names if name != "")


def applied_limit(table: QuotaTable, key: str, user: str, client_id: str | None) -> AppliedLimit | None:
    """The limit that applies to a client, or None. A client without id gets that of the default client."""
    client = client_id or DEFAULT
    tag = client_id or ""
    for who, shared_by in (
        (entity(user=user, client_id=client), (user, tag)),
        (entity(user=user, client_id=DEFAULT), (user, tag)),
        (entity(user=user), (user, "")),
        (entity(user=DEFAULT, client_id=client), (user, tag)),
        (entity(user=DEFAULT, client_id=DEFAULT), (user, tag)),
        (entity(user=DEFAULT), (user, "")),
        (entity(client_id=client), ("", tag)),
        (entity(client_id=DEFAULT), ("", tag)),
    ):
        value = table.get(who, {}).get(key)
        if value is not None:
            return AppliedLimit(value, *shared_by)
    return None


def connection_rate_of(table: QuotaTable, address: str) -> float | None:
    """How many connections a second an address may open; None: no limit."""
    for who in (entity(ip=address), entity(ip=DEFAULT)):
        value = table.get(who, {}).get(QuotaKey.CONNECTION_CREATION_RATE)
        if value is not None:
            return value
    return None


def evolve(table: QuotaTable, records: tuple[QuotaChanged, ...]) -> QuotaTable:
    """Apply durable records. The only function that makes a new table."""
    after: dict[Entity, EntityLimits] = dict(table)
    for record in records:
        limits = dict(after.get(record.entity, {}))
        if record.value is None:
            limits.pop(record.key, None)
        else:
            limits[record.key] = record.value
        if limits:
            after[record.entity] = limits
        else:
            after.pop(record.entity, None)
    return after
