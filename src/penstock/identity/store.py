"""The SQL of identities. Every script is idempotent when it is run again at once.

Deleting API keys, or tokens with their service account, increments the counter `revoked credentials`, which tells other
agents that they may have connections to close.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from penstock.identity import token_store
from penstock.identity.accounts import ApiKey, ServiceAccount
from penstock.identity.model import user
from penstock.identity.scram import Credential, Mechanism
from penstock.metadata.database import Script
from penstock.metadata.names import long_name, name_key, name_of
from penstock.metadata.statements import parameters

_SCRAM = "mechanism, iterations, salt, stored_key, server_key"
_KEY = "cluster_id, key_id, owner, description, created_ms, expires_ms, salt, secret_hash"
_REVOKED = (
    "INSERT INTO counter (name, value) VALUES ('revoked credentials', 1)"
    " ON CONFLICT (name) DO UPDATE SET value = counter.value + 1"
)


def _credential(row: Sequence[Any]) -> Credential:
    return Credential(
        mechanism=Mechanism(row[0]), iterations=int(row[1]), salt=bytes(row[2]), stored_key=bytes(row[3]),
        server_key=bytes(row[4]),
    )  # fmt: skip


def _key(row: Sequence[Any]) -> ApiKey:
    return ApiKey(
        cluster_id=int(row[0]), key_id=str(row[1]), owner=str(row[2]), description=str(row[3]), created_ms=int(row[4]),
        expires_ms=None if row[5] is None else int(row[5]), salt=bytes(row[6]), secret_hash=bytes(row[7]),
    )  # fmt: skip


# ---- SCRAM -----------------------------------------------------------------------------------------------------


def credentials_of(cluster_id: int, user: str) -> Script[list[Credential]]:
    """A user's stored credentials, one for each mechanism."""
    rows = yield (
        f"SELECT {_SCRAM} FROM scram_credential WHERE cluster_id = $1 AND user_name = $2 ORDER BY mechanism",
        (cluster_id, name_key(user)),
    )
    return [_credential(row) for row in rows]


def all_mechanisms(cluster_id: int) -> Script[list[tuple[str, Mechanism, int]]]:
    """Every user with the mechanisms there are credentials for, and their iterations."""
    rows = yield (
        "SELECT user_name, long_name, mechanism, iterations FROM scram_credential WHERE cluster_id = $1"
        " ORDER BY user_name, mechanism",
        (cluster_id,),
    )
    return [(name_of(user, long), Mechanism(mechanism), int(iterations)) for user, long, mechanism, iterations in rows]


def put_credential(cluster_id: int, user: str, credential: Credential, now_ms: int) -> Script[None]:
    """Set a user's credential for one mechanism."""
    yield (
        f"INSERT INTO scram_credential (cluster_id, user_name, {_SCRAM}, updated_ms, long_name)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (cluster_id, user_name, mechanism) DO UPDATE SET"
        " iterations = excluded.iterations, salt = excluded.salt, stored_key = excluded.stored_key,"
        " server_key = excluded.server_key, updated_ms = excluded.updated_ms",
        (
            cluster_id, name_key(user), int(credential.mechanism), credential.iterations, credential.salt,
            credential.stored_key, credential.server_key, now_ms, long_name(user),
        ),
    )  # fmt: skip


def count_credentials(cluster_id: int) -> Script[int]:
    """How many credentials a cluster's users have."""
    rows = yield "SELECT COUNT(*) FROM scram_credential WHERE cluster_id = $1", (cluster_id,)
    return int(rows[0][0])


def delete_credential(cluster_id: int, user: str, mechanism: Mechanism) -> Script[None]:
    """Remove a user's credential for one mechanism."""
    yield (
        "DELETE FROM scram_credential WHERE cluster_id = $1 AND user_name = $2 AND mechanism = $3",
        (cluster_id, name_key(user), int(mechanism)),
    )


def has_credentials() -> Script[bool]:
    """Whether any credentials are stored."""
    rows = yield "SELECT 1 FROM scram_credential UNION ALL SELECT 1 FROM api_key LIMIT 1", ()
    return bool(rows)


# ---- service accounts and API keys -----------------------------------------------------------------------------


def accounts(cluster_id: int, name: str | None = None) -> Script[list[ServiceAccount]]:
    """Every service account of a cluster, or the one of that name."""
    rows = yield (
        "SELECT name, description, created_ms FROM service_account WHERE cluster_id = $1"
        f"{'' if name is None else ' AND name = $2'} ORDER BY name",
        (cluster_id,) if name is None else (cluster_id, name),
    )
    return [
        ServiceAccount(cluster_id=cluster_id, name=str(name), description=str(text), created_ms=int(created_ms))
        for name, text, created_ms in rows
    ]


def has_account(cluster_id: int, name: str) -> Script[bool]:
    """Whether there is a service account of that name."""
    rows = yield "SELECT 1 FROM service_account WHERE cluster_id = $1 AND name = $2", (cluster_id, name)
    return bool(rows)


def count_accounts(cluster_id: int) -> Script[int]:
    """How many service accounts a cluster has."""
    rows = yield "SELECT COUNT(*) FROM service_account WHERE cluster_id = $1", (cluster_id,)
    return int(rows[0][0])


def put_account(account: ServiceAccount) -> Script[bool]:
    """Store a new service account; False if the name is taken."""
    rows = yield (
        "INSERT INTO service_account (cluster_id, name, description, created_ms) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT DO NOTHING RETURNING name",
        (account.cluster_id, account.name, account.description, account.created_ms),
    )
    return bool(rows)


def delete_account(cluster_id: int, name: str) -> Script[set[str] | None]:
    """Delete a service account, its keys, and the delegation tokens it owns or requested; returns keys and tokens. None
    if there was no such account."""
    keys = yield "DELETE FROM api_key WHERE cluster_id = $1 AND owner = $2 RETURNING key_id", (cluster_id, name)
    rows = yield (
        "DELETE FROM service_account WHERE cluster_id = $1 AND name = $2 RETURNING name", (cluster_id, name)
    )  # fmt: skip
    if not rows:
        return None
    gone = {str(key_id) for (key_id,) in keys} | (yield from token_store.delete_of(cluster_id, user(name)))
    if gone:
        yield _REVOKED, ()
    return gone


def key_by_id(key_id: str) -> Script[ApiKey | None]:
    """An API key, whichever cluster it opens."""
    rows = yield f"SELECT {_KEY} FROM api_key WHERE key_id = $1", (key_id,)
    return _key(rows[0]) if rows else None


def keys(cluster_id: int, owner: str | None = None) -> Script[list[ApiKey]]:
    """Every API key of a cluster, or of one of its service accounts."""
    rows = yield (
        f"SELECT {_KEY} FROM api_key WHERE cluster_id = $1{'' if owner is None else ' AND owner = $2'}"
        " ORDER BY owner, created_ms, key_id",
        (cluster_id,) if owner is None else (cluster_id, owner),
    )
    return [_key(row) for row in rows]


def count_keys(cluster_id: int, owner: str | None = None) -> Script[int]:
    """How many keys a service account has, or all of a cluster have."""
    if owner is None:
        rows = yield "SELECT COUNT(*) FROM api_key WHERE cluster_id = $1", (cluster_id,)
    else:
        rows = yield "SELECT COUNT(*) FROM api_key WHERE cluster_id = $1 AND owner = $2", (cluster_id, owner)
    return int(rows[0][0])


def put_key(key: ApiKey) -> Script[None]:
    """Store a new key."""
    yield (
        f"INSERT INTO api_key ({_KEY}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
        (
            key.cluster_id, key.key_id, key.owner, key.description, key.created_ms, key.expires_ms, key.salt,
            key.secret_hash,
        ),
    )  # fmt: skip


def delete_keys(cluster_id: int, key_ids: Iterable[str]) -> Script[set[str]]:
    """Delete keys; returns those that existed."""
    gone = set()
    for key_id in key_ids:
        rows = yield (
            "DELETE FROM api_key WHERE cluster_id = $1 AND key_id = $2 RETURNING key_id", (cluster_id, key_id)
        )  # fmt: skip
        if rows:
            gone.add(key_id)
    if gone:
        yield _REVOKED, ()
    return gone


def missing_among(key_ids: Collection[str]) -> Script[set[str]]:
    """Those of these API keys that do not exist in any cluster."""
    rows = yield f"SELECT key_id FROM api_key WHERE key_id IN ({parameters(len(key_ids))})", tuple(key_ids)
    return set(key_ids) - {str(key_id) for (key_id,) in rows}
