"""The SQL of ACLs. Every script is idempotent when it is run again at once.

Each change increments the counter `acl`, whose value `load` returns as well: agents that cache ACLs poll it to know
when to load them again.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from penstock.base.acls import Acl, Operation, PatternType, Permission, ResourceType, enum_or_unknown
from penstock.metadata.database import Script
from penstock.metadata.statements import parameter_rows, parameters

AT_ONCE = 100
"""ACLs per statement: ten thousand take a hundred round trips, and statements stay short."""
_INSERT = (
    "INSERT INTO acl (cluster_id, acl_key, resource_type, pattern_type, resource_name, principal, host, operation,"
    " permission)"
)
_CHANGED = "UPDATE counter SET value = value + 1 WHERE name = 'acl' RETURNING value"


def load() -> Script[tuple[int, list[tuple[int, Acl]]]]:
    """The counter, and all ACLs with their virtual clusters."""
    version = yield "SELECT value FROM counter WHERE name = 'acl'", ()
    rows = yield (
        "SELECT cluster_id, resource_type, pattern_type, resource_name, principal, host, operation, permission FROM acl"
        " ORDER BY cluster_id, resource_type, resource_name, principal, operation",
        (),
    )
    return int(version[0][0]), [
        (
            cluster_id,
            Acl(
                resource_type=enum_or_unknown(ResourceType, resource_type),
                pattern_type=enum_or_unknown(PatternType, pattern_type),
                resource_name=str(name, "utf-8"),
                principal=str(principal, "utf-8"),
                host=str(host, "utf-8"),
                operation=enum_or_unknown(Operation, operation),
                permission=enum_or_unknown(Permission, permission),
            ),
        )
        for cluster_id, resource_type, pattern_type, name, principal, host, operation, permission in rows
    ]


def version() -> Script[int]:
    """The counter."""
    rows = yield "SELECT value FROM counter WHERE name = 'acl'", ()
    return int(rows[0][0])


def create(cluster_id: int, acls: Sequence[Acl]) -> Script[int]:
    """Store ACLs, except those that exist; returns the new counter."""
    # The counter first: its row serializes concurrent changes.
    rows = yield _CHANGED, ()
    for start in range(0, len(acls), AT_ONCE):
        some = acls[start : start + AT_ONCE]
        args = [arg for acl in some for arg in _row(cluster_id, acl)]
        yield f"{_INSERT} VALUES {parameter_rows(len(some), len(args) // len(some))} ON CONFLICT DO NOTHING", args
    return int(rows[0][0])


def delete(cluster_id: int, acls: Sequence[Acl]) -> Script[int]:
    """Delete ACLs; returns the new counter."""
    rows = yield _CHANGED, ()
    for start in range(0, len(acls), AT_ONCE):
        keys = [key_of(acl) for acl in acls[start : start + AT_ONCE]]
        yield f"DELETE FROM acl WHERE cluster_id = $1 AND acl_key IN ({parameters(len(keys), 2)})", (cluster_id, *keys)
    return int(rows[0][0])


def _row(cluster_id: int, acl: Acl) -> tuple[int | bytes, ...]:
    return (
        cluster_id, key_of(acl), int(acl.resource_type), int(acl.pattern_type), acl.resource_name.encode(),
        acl.principal.encode(), acl.host.encode(), int(acl.operation), int(acl.permission),
    )  # fmt: skip


def key_of(acl: Acl) -> bytes:
    """The key of an ACL in its virtual cluster: a hash of all its fields, which may be long."""
    digest = sha256()
    for number in (acl.resource_type, acl.pattern_type, acl.operation, acl.permission):
        digest.update(bytes((number,)))
    for text in (acl.resource_name, acl.principal, acl.host):
        encoded = text.encode()
        digest.update(len(encoded).to_bytes(4))
        digest.update(encoded)
    return digest.digest()[:16]
