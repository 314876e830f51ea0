"""Delegation tokens (KIP-48): credentials that a principal has made for itself, to hand to its workers. Pure.

A token is an id and a secret, the HMAC of the id under a key that only the broker's operator has; with both a client
authenticates by SCRAM as the token's owner. It ends after a while unless it is renewed, and for good at its maximum.
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
        """Whether its time is over."""
        return self.expires_ms < now_ms or self.max_ms < now_ms

    def may_renew(self, principal: str) -> bool:
        """Whether this principal may renew and end it."""
        return principal == self.owner or principal in self.renewers

    @property
    def parties(self) -> tuple[str, ...]:
        """All principals that have to do with it."""
        return (self.owner, self.requester, *self.renewers)

    def concerns(self, principal: str) -> bool:
        """Whether this principal is shown it without being an administrator."""
        return principal in self.parties


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRules:
    """How long tokens live, and the key that their secrets are made with."""

    key: bytes = field(repr=False)
    max_lifetime_ms: int
    expiry_time_ms: int

    def secret(self, token_id: str) -> bytes:
        """The HMAC of a token, which is its secret."""
        return hmac.digest(self.key, token_id.encode("utf-8"), "sha512")

    def issued(
        self, cluster_id: int, token_id: str, *, owner: str, requester: str, renewers: tuple[str, ...],
        lifetime_ms: int, now_ms: int,
    ) -> Token:  # fmt: skip
        """A new token; a lifetime that is not positive is the longest there is."""
        longest = min(self.max_lifetime_ms, lifetime_ms) if lifetime_ms > 0 else self.max_lifetime_ms
        max_ms = _sum(now_ms, longest)
        return Token(
            cluster_id=cluster_id, token_id=token_id, owner=owner, requester=requester, renewers=renewers,
            issued_ms=now_ms, expires_ms=min(max_ms, _sum(now_ms, self.expiry_time_ms)), max_ms=max_ms,
        )  # fmt: skip

    def renewed(self, token: Token, period_ms: int, now_ms: int) -> Token:
        """A token that lives on; a period that is not positive is the longest there is."""
        period_ms = min(self.expiry_time_ms, period_ms) if period_ms > 0 else self.expiry_time_ms
        return replace(token, expires_ms=min(token.max_ms, _sum(now_ms, period_ms)))

    def ending(self, token: Token, period_ms: int, now_ms: int) -> Token:
        """A token that ends after this time."""
        return replace(token, expires_ms=min(token.max_ms, _sum(now_ms, period_ms)))

    def credential(self, token_id: str, mechanism: Mechanism) -> Credential:
        """What somebody is checked with who says that they have this token. Milliseconds of computing."""
        password = base64.b64encode(self.secret(token_id))
        salt = hmac.digest(self.key, b"salt of " + token_id.encode("utf-8"), "sha256")[:16]
        salted = salted_password(mechanism, password, salt, MIN_ITERATIONS)
        return credential_of(mechanism, salted, salt, MIN_ITERATIONS)


def hash_of(secret: bytes) -> bytes:
    """What a token is found by when its secret is shown."""
    return hashlib.sha256(secret).digest()


def _sum(now_ms: int, duration_ms: int) -> int:
    return min(now_ms + duration_ms, _FOREVER_MS)
