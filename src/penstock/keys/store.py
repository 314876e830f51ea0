"""The SQL of keys. Every script leaves the same behind when it is run again at once.

Each change of what there is of a cluster moves the counter `cluster keys`: whoever keeps them in memory knows by it.
"""

from __future__ import annotations

from collections.abc import Sequence

from penstock.base.errors import Conflict
from penstock.keys.model import ClusterKeys, KeyState, WrappedKey
from penstock.metadata.database import Script

_CHANGED = (
    "INSERT INTO counter (name, value) VALUES ('cluster keys', 1)"
    " ON CONFLICT (name) DO UPDATE SET value = counter.value + 1"
)
_KEYS = "cluster_id, state, master_key_id, current_key_id, retired_master_key_id"
_KEY = "key_id, cluster_id, master_key_id, wrapped, created_ms"


def everything() -> Script[tuple[list[ClusterKeys], list[WrappedKey]]]:
    """The keys of all clusters."""
    clusters = yield f"SELECT {_KEYS} FROM cluster_keys ORDER BY cluster_id", ()
    keys = yield f"SELECT {_KEY} FROM data_key ORDER BY created_ms, key_id", ()
    return (
        [ClusterKeys(int(row[0]), KeyState(row[1]), str(row[2]), int(row[3]), str(row[4])) for row in clusters],
        [WrappedKey(int(row[0]), int(row[1]), str(row[2]), bytes(row[3]), int(row[4])) for row in keys],
    )


def begin(keys: ClusterKeys, first: WrappedKey) -> Script[None]:
    """A cluster gets its first keys; raise `Conflict` if it has some."""
    yield _CHANGED, ()
    rows = yield "SELECT current_key_id FROM cluster_keys WHERE cluster_id = $1", (keys.cluster_id,)
    if rows and rows[0][0] != first.key_id:
        raise Conflict("the cluster has keys already")
    yield (
        f"INSERT INTO cluster_keys ({_KEYS}) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (cluster_id) DO NOTHING",
        (keys.cluster_id, int(keys.state), keys.master_key_id, keys.current_key_id, keys.retired_master_key_id),
    )
    yield from _put(first)


def change(before: ClusterKeys, after: ClusterKeys, put: Sequence[WrappedKey] = ()) -> Script[None]:
    """Another state of a cluster's keys, with the data keys that are new or wrapped anew; raise `Conflict` if the
    keys are not any more what the change was decided on."""
    yield _CHANGED, ()
    rows = yield f"SELECT {_KEYS} FROM cluster_keys WHERE cluster_id = $1", (before.cluster_id,)
    if tuple(rows[0] if rows else ()) not in (_row(before), _row(after)):
        raise Conflict("the keys of the cluster have changed meanwhile")
    yield (
        "UPDATE cluster_keys SET state = $2, master_key_id = $3, current_key_id = $4, retired_master_key_id = $5"
        " WHERE cluster_id = $1",
        _row(after),
    )
    for key in put:
        yield from _put(key)
    if after.state is not KeyState.ON:
        yield "DELETE FROM data_key WHERE cluster_id = $1", (after.cluster_id,)


def remove(cluster_id: int) -> Script[None]:
    """Of a cluster whose keys were erased: nothing is left to tell."""
    yield _CHANGED, ()
    yield "DELETE FROM cluster_keys WHERE cluster_id = $1 AND state = $2", (cluster_id, int(KeyState.ERASED))


def forget(key_ids: Sequence[int]) -> Script[None]:
    """These data keys are not needed any more."""
    for key_id in key_ids:
        yield (
            "DELETE FROM data_key WHERE key_id = $1"
            " AND NOT EXISTS (SELECT 1 FROM cluster_keys WHERE current_key_id = $1)",
            (key_id,),
        )


def _put(key: WrappedKey) -> Script[None]:
    yield (
        f"INSERT INTO data_key ({_KEY}) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (key_id) DO UPDATE SET"
        " master_key_id = excluded.master_key_id, wrapped = excluded.wrapped",
        (key.key_id, key.cluster_id, key.master_key_id, key.wrapped, key.created_ms),
    )


def _row(keys: ClusterKeys) -> tuple[int | str, ...]:
    return (
        keys.cluster_id, int(keys.state), keys.master_key_id, keys.current_key_id, keys.retired_master_key_id
    )  # fmt: skip
