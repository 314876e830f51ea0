"""Tokens of an OpenID Connect issuer: checked with the issuer's keys, read for whom they name.

The keys are fetched when the first token comes, again after an hour of use, and when a token names a key that is not
known, but never more often than every ten seconds: a stranger's tokens cannot make us ask all the time. If the issuer
cannot be reached, the keys that are known are good for another day. How large a document and how many keys are taken
is bounded. Signatures by a shared secret, and none at all, are not accepted, whatever a token says of itself.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

from penstock.base.clock import Clock
from penstock.base.errors import Unavailable
from penstock.base.options import OAuthOptions
from penstock.identity.failures import InvalidCredentials
from penstock.identity.model import Identity, user
from penstock.identity.placing import ClusterNamed, chosen, opened_by_token

ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"}
)
KEY_TYPES = frozenset({"RSA", "EC", "OKP"})
MAX_TOKEN_CHARS = 16 * 1024
MAX_KEYS = 100
MAX_NAME_CHARS = 255
REFRESH_S, RETRY_S, GIVE_UP_S = 3600.0, 10.0, 24 * 3600.0
SKEW_S = 30
"""How far the issuer's clock may be from ours."""
_DISCOVERY = "/.well-known/openid-configuration"
_log = logging.getLogger(__name__)

Fetch = Callable[[str], Awaitable[bytes]]
"""Gets a document from the web. Raises `Unavailable`."""


class Issuer:
    """Knows which tokens are good."""

    def __init__(
        self, options: OAuthOptions, *, fetch: Fetch, clock: Clock,
        cluster_named: ClusterNamed = lambda name: None,
    ) -> None:  # fmt: skip
        self._options, self._clock, self._cluster_named = options, clock, cluster_named
        self._keys = IssuerKeys(options, fetch=fetch, clock=clock)

    @property
    def decides_clusters(self) -> bool:
        """Whether tokens say in which virtual cluster their holders are. Else what is asked for is not looked at."""
        return self._options.decides_clusters

    async def identity_of(self, token: str, cluster_id: int, asked: Collection[int] = ()) -> Identity:
        """Whom a token names, in the cluster that it opens and that is asked for; in this one, if it says nothing of
        clusters. Raises `InvalidCredentials`, or `Unavailable` if that cannot be known now."""
        if len(token) > MAX_TOKEN_CHARS:
            raise InvalidCredentials("the token is too long")
        header = _header(token)
        algorithm, key_id = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
            raise InvalidCredentials("the token is not signed by a key pair")
        if key_id is not None and not isinstance(key_id, str):
            raise InvalidCredentials("the token names no key")
        claims = _verified(token, await self._keys.find(key_id), algorithm)
        name, expires_s = self._checked(claims)
        if self.decides_clusters:
            opened = opened_by_token(self._options, claims, self._cluster_named)
            found = chosen(opened, asked)
            if found is None:
                raise InvalidCredentials("the token does not open the cluster that is asked for, or no single one")
            cluster_id = found
        return Identity(principal=user(name), cluster_id=cluster_id, expires_ms=int(expires_s * 1000))

    def _checked(self, claims: Mapping[str, Any]) -> tuple[str, float]:
        """The principal's name, and when the token ends."""
        now_s = self._clock.now_ms() / 1000
        audience = claims.get("aud")
        if claims.get("iss") != self._options.issuer:
            raise InvalidCredentials("the token is of another issuer")
        if self._options.audience not in (audience if isinstance(audience, list) else [audience]):
            raise InvalidCredentials("the token is for another audience")
        expires_s = _time(claims, "exp")
        if expires_s is None:
            raise InvalidCredentials("the token has no end")
        if expires_s <= now_s - SKEW_S:
            raise InvalidCredentials("the token has expired")
        for begins in ("nbf", "iat"):
            if (_time(claims, begins) or 0) > now_s + SKEW_S:
                raise InvalidCredentials("the token is not valid yet")
        name = claims.get(self._options.principal_claim)
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_CHARS or not name.isprintable():
            raise InvalidCredentials(f"the token has no {self._options.principal_claim} that could name a principal")
        return name, expires_s


class IssuerKeys:
    """The keys that an issuer signs with."""

    def __init__(self, options: OAuthOptions, *, fetch: Fetch, clock: Clock) -> None:
        self._options, self._fetch, self._clock = options, fetch, clock
        self._keys: dict[str | None, Any] = {}
        self._loaded_s: float | None = None
        self._asked_s: float | None = None
        self._asking = asyncio.Lock()

    async def find(self, key_id: str | None) -> Any:
        """The key of that id; without one, the only key. Raises `InvalidCredentials` if there is none."""
        if self._is_stale() or self._key(key_id) is None:
            async with self._asking:
                if self._is_stale() or self._key(key_id) is None:
                    await self._refresh()
        if self._loaded_s is None or self._clock.monotonic() - self._loaded_s > GIVE_UP_S:
            raise Unavailable(f"the keys of {self._options.issuer} are not known")
        key = self._key(key_id)
        if key is None:
            raise InvalidCredentials("the token is signed by a key that its issuer does not have")
        return key

    def _key(self, key_id: str | None) -> Any:
        if key_id is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(key_id)

    def _is_stale(self) -> bool:
        return self._loaded_s is None or self._clock.monotonic() - self._loaded_s > REFRESH_S

    async def _refresh(self) -> None:
        now = self._clock.monotonic()
        if self._asked_s is not None and now - self._asked_s < RETRY_S:
            return
        self._asked_s = now
        try:
            url = self._options.jwks_url or await self._discovered()
            self._keys = read_keys(await self._fetch(url))
        except Unavailable as problem:
            _log.warning("the keys of %s could not be read: %s", self._options.issuer, problem)
        else:
            self._loaded_s = now

    async def _discovered(self) -> str:
        issuer = self._options.issuer
        document = _object(await self._fetch(issuer.rstrip("/") + _DISCOVERY))
        url = document.get("jwks_uri")
        if document.get("issuer") != issuer or not isinstance(url, str):
            raise Unavailable("its OpenID configuration is of another issuer, or names no keys")
        if issuer.startswith("https:") and not url.startswith("https:"):
            raise Unavailable("its OpenID configuration wants the keys to be read without TLS")
        return url


def read_keys(document: bytes) -> dict[str | None, Any]:
    """The keys of a JWK set that sign something, by id. Raises `Unavailable` if there are none."""
    from joserfc.errors import JoseError
    from joserfc.jwk import import_key

    entries = _object(document).get("keys")
    if not isinstance(entries, list):
        raise Unavailable("it is no set of keys")
    keys: dict[str | None, Any] = {}
    for entry in entries[:MAX_KEYS]:
        if not isinstance(entry, dict) or entry.get("kty") not in KEY_TYPES or entry.get("use", "sig") != "sig":
            continue
        try:
            keys[entry.get("kid")] = import_key(entry)
        except (JoseError, ValueError, TypeError, KeyError):
            continue  # A kind of key that is too new for us; others may do.
    if not keys:
        raise Unavailable("it has no key that we could use")
    return keys


def _verified(token: str, key: Any, algorithm: str) -> Mapping[str, Any]:
    """The claims of a token whose signature is right."""
    from joserfc import jwt
    from joserfc.errors import JoseError

    try:
        return jwt.decode(token, key, algorithms=[algorithm]).claims
    except (JoseError, ValueError, TypeError) as error:
        raise InvalidCredentials("the signature of the token is wrong") from error


def _header(token: str) -> Mapping[str, Any]:
    """What a token says of itself, which is not to be believed."""
    encoded = token.split(".", 1)[0]
    try:
        found = json.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    except (binascii.Error, ValueError, RecursionError) as error:
        raise InvalidCredentials("the token is none") from error
    if not isinstance(found, dict):
        raise InvalidCredentials("the token is none")
    return found


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**40:
        raise InvalidCredentials(f"{name} of the token is no time")
    return float(value)


def _object(document: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise Unavailable("it is not JSON") from error
    if not isinstance(found, dict):
        raise Unavailable("it is no JSON object")
    return found
