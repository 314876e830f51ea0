"""The SQL of quotas. Every script leaves the same behind when it is run again at once."""

from __future__ import annotations

import json
from collections.abc import Iterable

from penstock.metadata.database import Script
from penstock.quotas.model import Entity, Limits, QuotaChanged


def load() -> Script[dict[int, dict[Entity, Limits]]]:
    """All limits, by virtual cluster."""
    rows = yield "SELECT cluster_id, entity, key, value FROM quota", ()
    found: dict[int, dict[Entity, dict[str, float]]] = {}
    for cluster_id, text, key, value in rows:
        limits = found.setdefault(int(cluster_id), {}).setdefault(_unpack(str(text)), {})
        limits[str(key)] = float(value)
    return {cluster_id: dict(table) for cluster_id, table in found.items()}


def write(cluster_id: int, records: Iterable[QuotaChanged]) -> Script[None]:
    """Make changes durable."""
    for record in records:
        key = (cluster_id, _pack(record.entity), record.key)
        if record.value is None:
            yield "DELETE FROM quota WHERE cluster_id = $1 AND entity = $2 AND key = $3", key
        else:
            yield (
                "INSERT INTO quota (cluster_id, entity, key, value) VALUES ($1, $2, $3, $4)"
                " ON CONFLICT (cluster_id, entity, key) DO UPDATE SET value = excluded.value",
                (*key, record.value),
            )


def _pack(entity: Entity) -> str:
    """The `entity` column: a JSON array of pairs, in ASCII, because PostgreSQL takes no NUL in text."""
    return json.dumps(entity, separators=(",", ":"))


def _unpack(text: str) -> Entity:
    return tuple((kind, name) for kind, name in json.loads(text))
