"""Tokens of an OpenID Connect issuer: verified with the issuer's keys (JWKS), and mapped to a principal.

The keys are fetched with the first token, again after an hour of use, and when a token names an unknown key, but at
most every ten seconds: a stranger's tokens cannot cause requests all the time. A fetch is completed even if the client
whose token caused it disconnects; otherwise clients that do so all the time would prevent it. If the issuer cannot be
reached, known keys are valid for another day, and tokens signed by them are not delayed for long by an issuer that does
not answer. The size of documents and the number of keys are bounded. Tokens signed with a shared secret, or not signed,
are not accepted, whatever their header says.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any

from penstock.base.clock import Clock
from penstock.base.errors import Unavailable
from penstock.base.lazy import expect_imports
from penstock.base.options import OAuthOptions
from penstock.identity.cluster_selection import ClusterNamed, clusters_of_token, select_cluster
from penstock.identity.failures import InvalidCredentials
from penstock.identity.model import Identity, user

ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"}
)
KEY_TYPES: Mapping[str, str] = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
"""Key types, by the prefix of the algorithm's name."""
MAX_TOKEN_CHARS = 16 * 1024
MAX_KEYS = 100
MAX_TRIED = 10
"""How many keys are tried for a token that does not name its key."""
MAX_NAME_CHARS = 255
REFRESH_S, RETRY_S, GIVE_UP_S = 3600.0, 10.0, 24 * 3600.0
PATIENCE_S = 1.0
"""How long newer keys are waited for when a known one may do."""
SKEW_S = 30
"""Allowed clock skew between the issuer and this agent."""
_DISCOVERY = "/.well-known/openid-configuration"
_log = logging.getLogger(__name__)

Fetch = Callable[[str], Awaitable[bytes]]
"""Fetches a document over HTTP. Raises `Unavailable`."""


class Issuer:
    """Validates tokens of the configured issuer."""

    def __init__(
        self, options: OAuthOptions, *, fetch: Fetch, clock: Clock,
        cluster_named: ClusterNamed = lambda name: None,
    ) -> None:  # fmt: skip
        self._options, self._clock, self._cluster_named = options, clock, cluster_named
        self._keys = IssuerKeys(options, fetch=fetch, clock=clock)
        # Not with this module: an agent without an issuer needs none of it.
        expect_imports("joserfc.errors", "joserfc.jwk", "joserfc.jwt")

    @property
    def decides_clusters(self) -> bool:
        """Whether tokens determine the virtual cluster of their holders. Otherwise a requested cluster is ignored."""
        return self._options.decides_clusters

    async def identity_of(self, token: str, cluster_id: int, asked: Collection[int] = ()) -> Identity:
        """The identity of a token, in the cluster that it opens and that was requested; in `cluster_id`, if it does not
        determine clusters. Raises `InvalidCredentials`, or `Unavailable` if the keys are unknown."""
        if len(token) > MAX_TOKEN_CHARS:
            raise InvalidCredentials("the token is too long")
        header = _header(token)
        algorithm, key_id = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
            raise InvalidCredentials("the token is not signed by a key pair")
        if key_id is not None and not isinstance(key_id, str):
            raise InvalidCredentials("the key id of the token is not a string")
        claims = await self._verified(token, key_id, algorithm)
        name, expires_s = self._checked(claims)
        if self.decides_clusters:
            opened = clusters_of_token(self._options, claims, self._cluster_named)
            found = select_cluster(opened, asked)
            if found is None:
                raise InvalidCredentials(
                    "the token does not open the requested cluster, or opens several and none was requested"
                )
            cluster_id = found
        return Identity(principal=user(name), cluster_id=cluster_id, expires_ms=int(expires_s * 1000))

    async def _verified(self, token: str, key_id: str | None, algorithm: str) -> Mapping[str, Any]:
        """The claims of a token with a valid signature."""
        keys = await self._keys.find(key_id)
        try:
            return _verified(token, keys, algorithm)
        except InvalidCredentials:
            # A token without key id may be signed by a newer key.
            if key_id is not None or (newer := await self._keys.newer(keys)) is None:
                raise
        return _verified(token, newer, algorithm)

    async def close(self) -> None:
        """Stop fetching."""
        await self._keys.close()

    def _checked(self, claims: Mapping[str, Any]) -> tuple[str, float]:
        """The principal's name, and when the token expires."""
        now_s = self._clock.now_ms() / 1000
        audience = claims.get("aud")
        if claims.get("iss") != self._options.issuer:
            raise InvalidCredentials("the token was issued by another issuer")
        if self._options.audience not in (audience if isinstance(audience, list) else [audience]):
            raise InvalidCredentials("the token is for another audience")
        expires_s = _time(claims, "exp")
        if expires_s is None:
            raise InvalidCredentials("the token has no expiry time (exp)")
        if expires_s <= now_s - SKEW_S:
            raise InvalidCredentials("the token has expired")
        for begins in ("nbf", "iat"):
            if (_time(claims, begins) or 0) > now_s + SKEW_S:
                raise InvalidCredentials("the token is not valid yet")
        name = claims.get(self._options.principal_claim)
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_CHARS or not name.isprintable():
            raise InvalidCredentials(f"the token has no {self._options.principal_claim} that is a valid principal name")
        return name, expires_s


class IssuerKeys:
    """The issuer's signing keys."""

    def __init__(self, options: OAuthOptions, *, fetch: Fetch, clock: Clock) -> None:
        self._options, self._fetch, self._clock = options, fetch, clock
        self._keys: Sequence[Any] = ()
        self._loaded_s: float | None = None
        self._asked_s: float | None = None
        self._asking: asyncio.Task[None] | None = None

    async def find(self, key_id: str | None) -> Sequence[Any]:
        """The keys of that id; without one, all of them. Raises `InvalidCredentials` if there is none."""
        if not self._are_good() or not self._of(key_id):
            await self._refresh()
        elif self._is_stale():
            await self._refresh(PATIENCE_S)
        if not self._are_good():
            raise Unavailable(f"the keys of {self._options.issuer} are not known")
        keys = self._of(key_id)
        if not keys:
            raise InvalidCredentials("the token is signed with a key that is not among the keys of its issuer")
        return keys

    async def newer(self, keys: Sequence[Any]) -> Sequence[Any] | None:
        """All keys, if they have changed since; else None."""
        await self._refresh()
        found = self._of(None)
        return None if found is keys else found

    def _of(self, key_id: str | None) -> Sequence[Any]:
        # Several keys may have the same id, if they are of different types (RFC 7517, section 4.5).
        return self._keys if key_id is None else [key for key in self._keys if key.kid == key_id]

    def _are_good(self) -> bool:
        """Whether the cached keys are still valid."""
        return self._loaded_s is not None and self._clock.monotonic() - self._loaded_s <= GIVE_UP_S

    def _is_stale(self) -> bool:
        return self._loaded_s is None or self._clock.monotonic() - self._loaded_s > REFRESH_S

    async def _refresh(self, patience_s: float | None = None) -> None:
        """Fetch the keys, unless they were fetched lately. The waiting client may disconnect."""
        if self._asking is None:
            now = self._clock.monotonic()
            if self._asked_s is not None and now - self._asked_s < RETRY_S:
                return
            self._asked_s = now
            self._asking = asyncio.get_running_loop().create_task(self._load(now))
        await asyncio.wait((self._asking,), timeout=patience_s)

    async def _load(self, now: float) -> None:
        try:
            url = self._options.jwks_url or await self._discovered()
            self._keys, self._loaded_s = read_keys(await self._fetch(url)), now
        except Unavailable as problem:
            _log.warning("the keys of %s could not be read: %s", self._options.issuer, problem)
        except Exception:  # noqa: BLE001  # a bug here must not stop later fetches
            _log.exception("the keys of %s could not be read", self._options.issuer)
        finally:
            self._asking = None

    async def close(self) -> None:
        """Stop fetching."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def _discovered(self) -> str:
        issuer = self._options.issuer
        document = _object(await self._fetch(issuer.rstrip("/") + _DISCOVERY))
        url = document.get("jwks_uri")
        if document.get("issuer") != issuer or not isinstance(url, str):
            raise Unavailable("its OpenID configuration names another issuer, or has no jwks_uri")
        if issuer.startswith("https:") and not url.startswith("https:"):
            raise Unavailable("the jwks_uri of its OpenID configuration is not an https URL")
        return url


def read_keys(document: bytes) -> Sequence[Any]:
    """The signing keys of a JWK set. Raises `Unavailable` if there are none."""
    from joserfc.errors import JoseError
    from joserfc.jwk import import_key

    entries = _object(document).get("keys")
    if not isinstance(entries, list):
        raise Unavailable("it is not a JWK set")
    keys, kinds = [], tuple(KEY_TYPES.values())
    for entry in entries[:MAX_KEYS]:
        if not isinstance(entry, dict) or entry.get("kty") not in kinds or entry.get("use", "sig") != "sig":
            continue
        try:
            keys.append(import_key(entry))
        except (JoseError, ValueError, TypeError, KeyError):
            continue  # An unsupported key type; others may do.
    if not keys:
        raise Unavailable("it has no signing key of a supported type")
    return keys


def _verified(token: str, keys: Sequence[Any], algorithm: str) -> Mapping[str, Any]:
    """The claims of a token that is signed by one of the keys."""
    from joserfc import jwt
    from joserfc.errors import JoseError

    fitting = [key for key in keys if key.key_type == KEY_TYPES[algorithm[:2]]]
    problem: Exception | None = None
    for key in fitting[:MAX_TRIED]:
        try:
            return jwt.decode(token, key, algorithms=[algorithm]).claims
        except (JoseError, ValueError, TypeError) as error:
            problem = error
    raise InvalidCredentials("the signature of the token is invalid") from problem


def _header(token: str) -> Mapping[str, Any]:
    """A token's header, which is not authenticated yet."""
    encoded = token.split(".", 1)[0]
    try:
        found = json.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    except (binascii.Error, ValueError, RecursionError) as error:
        raise InvalidCredentials("the token is malformed") from error
    if not isinstance(found, dict):
        raise InvalidCredentials("the token is malformed")
    return found


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**40:
        raise InvalidCredentials(f"{name} of the token is not a valid time")
    return float(value)


def _object(document: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise Unavailable("it is not JSON") from error
    if not isinstance(found, dict):
        raise Unavailable("it is not a JSON object")
    return found
