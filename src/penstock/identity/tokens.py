"""Delegation tokens (KIP-48): credentials that a principal creates to hand to its workers. Pure.

A token is an id and a secret, the HMAC of the id under a key that only the operator has; with both a client
authenticates by SCRAM as the token's owner. It expires unless it is renewed, and finally at its maximum lifetime.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

from penstock.base.dataclasses import dataclass, field, replace
from penstock.identity.scram import MIN_ITERATIONS, Credential, Mechanism, credential_of, salted_password

MAX_TOKENS_PER_OWNER = 1000
MAX_TOKENS_PER_CLUSTER = 10_000
MAX_RENEWERS = 100
MIN_KEY_BYTES = 16
_FOREVER_MS = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One token. Principals with their types, as in `User:alice`."""

    cluster_id: int
    token_id: str
    owner: str
    requester: str
    renewers: tuple[str, ...]
    issued_ms: int
    expires_ms: int
    max_ms: int

    def has_expired(self, now_ms: int) -> bool:
        """Whether it has expired."""
        return self.expires_ms < now_ms or self.max_ms < now_ms

    def may_renew(self, principal: str) -> bool:
        """Whether this principal may renew and expire it."""
        return principal == self.owner or principal in self.renewers

    @property
    def parties(self) -> tuple[str, ...]:
        """All principals that it concerns."""
        return (self.owner, self.requester, *self.renewers)

    def concerns(self, principal: str) -> bool:
        """Whether this principal may see it without permission from ACLs."""
        return principal in self.parties


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRules:
    """The lifetimes of tokens, and the key of their HMACs."""

    key: bytes = field(repr=False)
    max_lifetime_ms: int
    expiry_time_ms: int

    def secret(self, token_id: str) -> bytes:
        """The HMAC of a token id, which is the token's secret."""
        return hmac.digest(self.key, token_id.encode("utf-8"), "sha512")

    def issued(
        self, cluster_id: int, token_id: str, *, owner: str, requester: str, renewers: tuple[str, ...],
        lifetime_ms: int, now_ms: int,
    ) -> Token:  # fmt: skip
        """A new token; a lifetime that is not positive means the longest possible."""
        longest = min(self.max_lifetime_ms, lifetime_ms) if lifetime_ms > 0 else self.max_lifetime_ms
        max_ms = _sum(now_ms, longest)
        return Token(
            cluster_id=cluster_id, token_id=token_id, owner=owner, requester=requester, renewers=renewers,
            issued_ms=now_ms, expires_ms=min(max_ms, _sum(now_ms, self.expiry_time_ms)), max_ms=max_ms,
        )  # fmt: skip

    def renewed(self, token: Token, period_ms: int, now_ms: int) -> Token:
        """A token with a later expiry; a period that is not positive means the longest possible."""
        period_ms = min(self.expiry_time_ms, period_ms) if period_ms > 0 else self.expiry_time_ms
        return replace(token, expires_ms=min(token.max_ms, _sum(now_ms, period_ms)))

    def ending(self, token: Token, period_ms: int, now_ms: int) -> Token:
        """A token with this expiry."""
        return replace(token, expires_ms=min(token.max_ms, _sum(now_ms, period_ms)))

    def credential(self, token_id: str, mechanism: Mechanism) -> Credential:
        """The SCRAM credential of a token. Milliseconds of CPU time."""
        password = base64.b64encode(self.secret(token_id))
        salt = hmac.digest(self.key, b"salt of " + token_id.encode("utf-8"), "sha256")[:16]
        salted = salted_password(mechanism, password, salt, MIN_ITERATIONS)
        return credential_of(mechanism, salted, salt, MIN_ITERATIONS)


def hash_of(secret: bytes) -> bytes:
    """The hash by which a token is found from its secret."""
    return hashlib.sha256(secret).digest()


def _sum(now_ms: int, duration_ms: int) -> int:
    return min(now_ms + duration_ms, _FOREVER_MS)
