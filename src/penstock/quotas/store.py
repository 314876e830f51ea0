"""The SQL of quotas. Every script is idempotent when it is run again at once.

Each change increments the counter `quota`, whose value `load` returns as well: agents that cache limits poll it to know
when to load them again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from penstock.metadata.database import Script
from penstock.metadata.names import long_name, name_key, name_of
from penstock.quotas.model import Entity, EntityLimits, QuotaChanged


def version() -> Script[int]:
    """The counter."""
    rows = yield "SELECT value FROM counter WHERE name = 'quota'", ()
    return int(rows[0][0]) if rows else 0


def load() -> Script[tuple[int, dict[int, dict[Entity, EntityLimits]]]]:
    """The counter, and all limits, by virtual cluster."""
    now = yield from version()
    rows = yield "SELECT cluster_id, entity, long_name, key, value FROM quota", ()
    found: dict[int, dict[Entity, dict[str, float]]] = {}
    for cluster_id, text, long, key, value in rows:
        limits = found.setdefault(int(cluster_id), {}).setdefault(_unpack(name_of(text, long)), {})
        limits[str(key)] = float(value)
    return now, {cluster_id: dict(table) for cluster_id, table in found.items()}


def write(cluster_id: int, records: Iterable[QuotaChanged]) -> Script[int]:
    """Make changes durable; returns the new counter."""
    # The counter first: its row serializes concurrent changes.
    rows = yield (
        "INSERT INTO counter (name, value) VALUES ('quota', 1)"
        " ON CONFLICT (name) DO UPDATE SET value = counter.value + 1 RETURNING value",
        (),
    )
    for record in records:
        name = _pack(record.entity)
        key = (cluster_id, name_key(name), record.key)
        if record.value is None:
            yield "DELETE FROM quota WHERE cluster_id = $1 AND entity = $2 AND key = $3", key
        else:
            yield (
                "INSERT INTO quota (cluster_id, entity, key, value, long_name) VALUES ($1, $2, $3, $4, $5)"
                " ON CONFLICT (cluster_id, entity, key) DO UPDATE SET value = excluded.value",
                (*key, record.value, long_name(name)),
            )
    return int(rows[0][0])


def _pack(entity: Entity) -> str:
    """The `entity` column: a JSON array of pairs."""
    return json.dumps(entity, separators=(",", ":"))


def _unpack(text: str) -> Entity:
    return tuple((kind, name) for kind, name in json.loads(text))
