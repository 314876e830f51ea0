"""The SQL of delegation tokens."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from penstock.identity.tokens import MAX_TOKENS_PER_CLUSTER, MAX_TOKENS_PER_OWNER, Token
from penstock.metadata.database import Script
from penstock.metadata.statements import parameters

KEPT_MS = 3_600_000
"""How long an expired token is remembered as expired: as long as Kafka may take to sweep it."""
_COLUMNS = "cluster_id, token_id, owner, requester, renewers, issued_ms, expires_ms, max_ms"


def _token(row: Sequence[Any]) -> Token:
    return Token(
        cluster_id=int(row[0]), token_id=str(row[1]), owner=str(row[2]), requester=str(row[3]),
        renewers=tuple(json.loads(row[4])), issued_ms=int(row[5]), expires_ms=int(row[6]), max_ms=int(row[7]),
    )  # fmt: skip


def put(token: Token, hmac_hash: bytes) -> Script[None]:
    """Store a new token. Tokens that expired long ago are deleted on this occasion."""
    yield "DELETE FROM delegation_token WHERE expires_ms < $1", (token.issued_ms - KEPT_MS,)
    yield "DELETE FROM revoked_token WHERE max_ms < $1", (token.issued_ms - KEPT_MS,)
    yield (
        f"INSERT INTO delegation_token ({_COLUMNS}, hmac_hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"
        " ON CONFLICT DO NOTHING",
        (
            token.cluster_id, token.token_id, token.owner, token.requester, json.dumps(token.renewers),
            token.issued_ms, token.expires_ms, token.max_ms, hmac_hash,
        ),
    )  # fmt: skip


def has_room(cluster_id: int, owner: str, now_ms: int) -> Script[bool]:
    """Whether an owner may have one more. Remembered expired tokens count, and are deleted when room is needed."""
    if (yield from _has_room(cluster_id, owner)):
        return True
    yield "DELETE FROM delegation_token WHERE cluster_id = $1 AND expires_ms < $2", (cluster_id, now_ms)
    return (yield from _has_room(cluster_id, owner))


def _has_room(cluster_id: int, owner: str) -> Script[bool]:
    rows = yield (
        "SELECT COUNT(*), COUNT(CASE WHEN owner = $2 THEN 1 END) FROM delegation_token WHERE cluster_id = $1",
        (cluster_id, owner),
    )
    return int(rows[0][0]) < MAX_TOKENS_PER_CLUSTER and int(rows[0][1]) < MAX_TOKENS_PER_OWNER


def by_id(cluster_id: int, token_id: str) -> Script[Token | None]:
    """A token by its id."""
    rows = yield (
        f"SELECT {_COLUMNS} FROM delegation_token WHERE cluster_id = $1 AND token_id = $2", (cluster_id, token_id)
    )  # fmt: skip
    return _token(rows[0]) if rows else None


def by_hash(cluster_id: int, hmac_hash: bytes) -> Script[Token | None]:
    """A token by the hash of its secret."""
    rows = yield (
        f"SELECT {_COLUMNS} FROM delegation_token WHERE cluster_id = $1 AND hmac_hash = $2", (cluster_id, hmac_hash)
    )  # fmt: skip
    return _token(rows[0]) if rows else None


def all_of(cluster_id: int, now_ms: int) -> Script[list[Token]]:
    """Every token of a cluster that has not expired."""
    rows = yield (
        f"SELECT {_COLUMNS} FROM delegation_token WHERE cluster_id = $1 AND expires_ms >= $2 ORDER BY token_id",
        (cluster_id, now_ms),
    )
    return [_token(row) for row in rows]


def hashes_of(cluster_id: int) -> Script[dict[str, bytes]]:
    """The stored hashes of a cluster's tokens, by token id."""
    rows = yield "SELECT token_id, hmac_hash FROM delegation_token WHERE cluster_id = $1", (cluster_id,)
    return {str(token_id): bytes(found) for token_id, found in rows}


def set_hashes(cluster_id: int, hashes: Mapping[str, bytes]) -> Script[None]:
    """Store other hashes for tokens."""
    for token_id, hmac_hash in hashes.items():
        yield (
            "UPDATE delegation_token SET hmac_hash = $3 WHERE cluster_id = $1 AND token_id = $2",
            (cluster_id, token_id, hmac_hash),
        )


def set_expiry(token: Token) -> Script[None]:
    """Store a token's new expiry."""
    yield (
        "UPDATE delegation_token SET expires_ms = $3 WHERE cluster_id = $1 AND token_id = $2",
        (token.cluster_id, token.token_id, token.expires_ms),
    )


def delete(cluster_id: int, token_id: str) -> Script[None]:
    """Delete a token."""
    yield "DELETE FROM delegation_token WHERE cluster_id = $1 AND token_id = $2", (cluster_id, token_id)


def delete_of(cluster_id: int, principal: str) -> Script[set[str]]:
    """Delete the tokens that a principal owns, or has requested for others, whose secrets it knows. Returns their ids,
    which are kept for other agents as long as a session of theirs could last."""
    yield (
        "INSERT INTO revoked_token (token_id, cluster_id, max_ms) SELECT token_id, cluster_id, max_ms"
        " FROM delegation_token WHERE cluster_id = $1 AND (owner = $2 OR requester = $2) ON CONFLICT DO NOTHING",
        (cluster_id, principal),
    )
    rows = yield (
        "DELETE FROM delegation_token WHERE cluster_id = $1 AND (owner = $2 OR requester = $2) RETURNING token_id",
        (cluster_id, principal),
    )
    return {str(token_id) for (token_id,) in rows}


def revoked_among(token_ids: Collection[str]) -> Script[set[str]]:
    """Those of these tokens that were deleted with a service account."""
    rows = yield (
        f"SELECT token_id FROM revoked_token WHERE token_id IN ({parameters(len(token_ids))})", tuple(token_ids),
    )  # fmt: skip
    return {str(token_id) for (token_id,) in rows}
