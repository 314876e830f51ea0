"""Service accounts and their API keys: how a key is made and checked. Pure.

A key is an id, which is public, and a secret of 256 random bits, which is shown once. Because the secret is random, one
round of a salted hash protects it as well as a slow one would, and checking it costs nothing.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re

from penstock.base.dataclasses import dataclass, field
from penstock.base.errors import InvalidRequest
from penstock.base.randomness import Randomness

KEY_ID_PREFIX = "PK"
_KEY_ID = re.compile(rf"{KEY_ID_PREFIX}[A-Z2-7]{{16}}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
MAX_NAME_CHARS = 128
MAX_DESCRIPTION_CHARS = 512
MAX_KEYS_PER_ACCOUNT = 100
MAX_ACCOUNTS, MAX_KEYS, MAX_CREDENTIALS = 10_000, 20_000, 20_000
"""Limits of one virtual cluster: listing them takes memory of the agent. A password counts once for each mechanism."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAccount:
    """A non-human principal."""

    cluster_id: int
    name: str
    description: str
    created_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """An API key of a service account."""

    cluster_id: int
    key_id: str
    owner: str
    description: str
    created_ms: int
    expires_ms: int | None
    salt: bytes = field(repr=False)
    secret_hash: bytes = field(repr=False)

    def has_secret(self, secret: str) -> bool:
        """Whether this is the secret, compared in constant time."""
        return hmac.compare_digest(hash_of(secret, self.salt), self.secret_hash)

    def has_expired(self, now_ms: int) -> bool:
        """Whether it has expired."""
        return self.expires_ms is not None and now_ms >= self.expires_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class NewApiKey:
    """A key and its secret, which is stored nowhere else."""

    key: ApiKey
    secret: str = field(repr=False)


def looks_like_key(name: str) -> bool:
    """Whether a name could be the id of an API key."""
    return _KEY_ID.fullmatch(name) is not None


def hash_of(secret: str, salt: bytes) -> bytes:
    """What is stored of a secret."""
    return hashlib.sha256(salt + secret.encode("utf-8")).digest()


def make_key(
    cluster_id: int, owner: str, description: str, *, now_ms: int, expires_ms: int | None, randomness: Randomness
) -> NewApiKey:
    """A new key."""
    key_id = KEY_ID_PREFIX + base64.b32encode(randomness.token(10)).decode("ascii")
    secret = base64.urlsafe_b64encode(randomness.token(32)).rstrip(b"=").decode("ascii")
    salt = randomness.token(16)
    key = ApiKey(
        cluster_id=cluster_id, key_id=key_id, owner=owner, description=description, created_ms=now_ms,
        expires_ms=expires_ms, salt=salt, secret_hash=hash_of(secret, salt),
    )  # fmt: skip
    return NewApiKey(key=key, secret=secret)


def check_name(name: str) -> None:
    """Raise `InvalidRequest` unless this is a valid name for a service account."""
    if len(name) > MAX_NAME_CHARS or not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name!r} is not a valid name of a service account: use letters, digits, '.', '_' and '-', at most"
            f" {MAX_NAME_CHARS}, and begin with a letter or digit"
        )


def check_description(text: str) -> None:
    """Raise `InvalidRequest` if a description is too long."""
    if len(text) > MAX_DESCRIPTION_CHARS:
        raise InvalidRequest(f"a description has at most {MAX_DESCRIPTION_CHARS} characters")
