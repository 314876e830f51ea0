"""SASL authentication: one exchange of messages per mechanism.

Credentials are looked up in the database each time, so one that was revoked is invalid from that moment on, on every
agent. Computations of milliseconds run on threads, a few at a time: a flood of guesses queues up there and does not
delay established connections. Results for correct passwords and for tokens are cached: guesses are rate limited, logins
with valid credentials are not, and would otherwise delay everybody else's.

A user's password is stored as SCRAM keys only; PLAIN is checked against these. An API key is an id that PLAIN takes as
a name. PLAIN accepts both, and a key determines the virtual cluster of its connection.
"""

from __future__ import annotations

import asyncio
import hmac
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Mapping
from typing import Protocol, TypeVar

from penstock.base.clock import Clock
from penstock.base.dataclasses import dataclass
from penstock.base.errors import Unavailable
from penstock.base.randomness import Randomness, uuid_text
from penstock.base.shielded import ShieldedTasks
from penstock.base.threads import OnThread
from penstock.identity import oauthbearer, plain, scram, store, token_store
from penstock.identity.accounts import looks_like_key
from penstock.identity.failures import Denied, InvalidCredentials
from penstock.identity.guess_limits import Guess
from penstock.identity.model import ANONYMOUS_IDENTITY, NO_CLUSTER_ID, Identity, user
from penstock.identity.scram import Credential, Mechanism
from penstock.identity.tokens import TokenRules
from penstock.metadata.database import Database

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

CHECKS_AT_ONCE = 2
"""How many passwords are computed concurrently; others queue."""
MAX_WAITING_CHECKS = 1000
MAX_REMEMBERED = 10_000
"""Size of the caches of correct passwords, and of tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SaslStep:
    """The next message to send, and the identity once it is authenticated."""

    token: bytes
    identity: Identity | None = None


class SaslExchange(Protocol):
    """One authentication exchange."""

    claimed: str | None
    """The claimed name, once it is known to exist, or that it may have been an API key."""
    credential_id: str | None
    """The id of the API key or delegation token that the client authenticates with, if it is one."""
    is_unknown: bool
    """Whether the claimed name does not exist."""
    failure: str | None
    """Why it has already failed, although the client is to send one more message."""

    def guess(self, token: bytes) -> Guess | None:
        """What the client's next message will try to prove; None if it proves nothing yet, or cannot be guessed."""

    async def step(self, token: bytes) -> SaslStep | None:
        """Process the client's next message. Raises `Denied`, which ends the exchange. None: the message claims another
        identity than `guess` assumed, so it counts as another guess; call `guess` and `step` once more."""


class BearerTokens(Protocol):
    """Validates bearer tokens."""

    @property
    def decides_clusters(self) -> bool:
        """Whether tokens determine the virtual cluster of their holders."""

    async def identity_of(self, token: str, cluster_id: int, asked: Collection[int] = ()) -> Identity:
        """The identity of a token, in the cluster that it opens and that was requested; in `cluster_id`, if tokens do
        not determine clusters. Raises `InvalidCredentials`."""


class Authenticator:
    """The SASL mechanisms of an agent."""

    def __init__(
        self, *, database: Database, clock: Clock, randomness: Randomness, on_thread: OnThread,
        bearer_tokens: Mapping[str, BearerTokens] | None = None, token_rules: TokenRules | None = None,
        cluster_named: Callable[[str], int | None] = lambda name: None,
    ) -> None:  # fmt: skip
        self._database, self._clock, self._randomness = database, clock, randomness
        self._on_thread, self._token_rules = on_thread, token_rules
        self._bearer_tokens = bearer_tokens or {}
        """Enabled mechanisms by listener."""
        self._cluster_named = cluster_named
        self._decoy_secret = randomness.token(32)
        self._checks = asyncio.Semaphore(CHECKS_AT_ONCE)
        self._waiting, self._working = 0, ShieldedTasks()
        self._right_passwords: OrderedDict[bytes, bool] = OrderedDict()
        """Caches keyed by HMACs of the credential and of what is stored of it, under a key that only this process
        has."""
        self._token_credentials: OrderedDict[tuple[str, Mechanism], Credential] = OrderedDict()

    def begin(self, mechanism: str, cluster_id: int, *, is_bound: bool = False, listener: str = "") -> SaslExchange:
        """A new exchange. `cluster_id` is where unqualified names are looked up; `is_bound`: all names are."""
        if mechanism == "PLAIN":
            return _PlainExchange(self, cluster_id, is_bound)
        if mechanism == "OAUTHBEARER":
            return _BearerExchange(self, self._bearer_tokens[listener], cluster_id, is_bound)
        return _ScramExchange(self, scram.BY_SASL_NAME[mechanism], cluster_id, is_bound)

    def _elsewhere(self, name: str) -> tuple[str, int] | None:
        """The parts of `name@cluster`. An unknown cluster is searched in vain, which takes as long."""
        inside, _, cluster = name.rpartition("@")
        return (inside, self.requested_cluster_id(cluster)) if inside else None

    def requested_cluster_id(self, name: str) -> int:
        """The cluster in a name that a client sends; a nonexistent one, if there is none of that name."""
        cluster_id = self._cluster_named(name)
        return NO_CLUSTER_ID if cluster_id is None else cluster_id

    async def _credentials(
        self, cluster_id: int, name: str, claim: ClaimedIdentity
    ) -> tuple[list[Credential], Identity]:
        """The credentials of a name, in the cluster that it names or in `cluster_id`, and the identity they prove.

        A user of the cluster in `name@cluster` takes precedence, so that a user created elsewhere cannot shadow it.
        Otherwise the text may be a whole user name, an e-mail address for example. Both are looked up in any case, so
        that the time taken does not depend on which exists.
        """
        found = await self._database.read(lambda: store.credentials_of(cluster_id, name))
        elsewhere = None if claim.is_bound else self._elsewhere(name)
        if elsewhere is not None:
            inside, there = elsewhere
            theirs = await self._database.read(lambda: store.credentials_of(there, inside))
            if theirs:
                return theirs, Identity(principal=user(inside), cluster_id=there)
        return found, Identity(principal=user(name), cluster_id=cluster_id)

    def guess_at(self, cluster_id: int, name: str, claim: ClaimedIdentity) -> Guess:
        """A guess at the password of a name, counted against every user that the name may mean."""
        claims = [_claim_of(cluster_id, name)]
        elsewhere = None if claim.is_bound else self._elsewhere(name)
        if elsewhere is not None and elsewhere[1] != NO_CLUSTER_ID:
            inside, there = elsewhere
            claims.insert(0, _claim_of(there, inside))
        return Guess.of(*claims, is_of_password=True)

    async def key_identity(self, key_id: str, secret: str, cluster_id: int, claim: ClaimedIdentity) -> Identity | None:
        """The identity of an API key and its secret; None if there is no such key. Raises `Denied`."""
        claim.claimed = claim.credential_id = key_id
        key = await self._database.read(lambda: store.key_by_id(key_id))
        if key is None:
            return None
        is_there = key.cluster_id == cluster_id or not claim.is_bound
        if not key.has_secret(secret) or key.has_expired(self._clock.now_ms()) or not is_there:
            raise plain.wrong_password()
        return Identity(
            principal=user(key.owner), cluster_id=key.cluster_id, expires_ms=key.expires_ms, credential_id=key_id
        )

    async def password_identity(self, name: str, password: str, cluster_id: int, claim: ClaimedIdentity) -> Identity:
        """The identity of a name and a password. Raises `Denied`."""
        found, identity = await self._credentials(cluster_id, name, claim)
        claim.found(name, there_is=bool(found))
        credential = found[-1] if found else scram.decoy(Mechanism.SCRAM_SHA_512, name, self._decoy_secret)
        tried = password.encode("utf-8")
        is_right = await self._computed(
            lambda: scram.has_password(credential, tried), self._right_passwords, self._mark_of(credential, tried),
            keeps=lambda right: right,
        )  # fmt: skip
        if not is_right or not found:
            raise plain.wrong_password()
        return identity

    def _mark_of(self, credential: Credential, password: bytes) -> bytes:
        """The cache key of a correct password; it changes when the user's password does."""
        text = b"%d %b%b%b" % (len(credential.salt), credential.salt, credential.stored_key, password)
        return hmac.digest(self._decoy_secret, text, "sha256")

    async def _computed(
        self, work: Callable[[], T], known: OrderedDict[K, T], key: K, *, keeps: Callable[[T], bool] = lambda _: True
    ) -> T:
        """The result of work, cached or computed."""
        if key in known:
            known.move_to_end(key)
            return known[key]
        if self._waiting >= MAX_WAITING_CHECKS:
            raise Unavailable("too many are being authenticated")
        self._waiting += 1
        try:
            async with self._checks:
                # Another attempt may have computed the same meanwhile.
                return known[key] if key in known else await self._working.run(self._learn(work, known, key, keeps))
        finally:
            self._waiting -= 1

    async def _learn(
        self, work: Callable[[], T], known: OrderedDict[K, T], key: K, keeps: Callable[[T], bool]
    ) -> T:  # fmt: skip
        """Compute and cache a result, even if the client that wanted it disconnects."""
        found = await self._on_thread(work)
        if keeps(found):
            known[key] = found
            if len(known) > MAX_REMEMBERED:
                known.popitem(last=False)
        return found

    async def close(self) -> None:
        """Wait for running computations."""
        await self._working.close()

    async def scram_check(
        self, mechanism: Mechanism, first: scram.ClientFirst, cluster_id: int, claim: ClaimedIdentity
    ) -> tuple[Credential, Identity]:
        """The credential of a name, and the identity it proves. For an unknown name, one that nobody can satisfy."""
        if first.is_token:
            return await self._token_check(mechanism, first.name, cluster_id, claim)
        found, identity = await self._credentials(cluster_id, first.name, claim)
        claim.found(first.name, there_is=bool(found))
        for credential in found:
            if credential.mechanism is mechanism:
                return credential, identity
        return scram.decoy(mechanism, first.name, self._decoy_secret), identity

    async def _token_check(
        self, mechanism: Mechanism, token_id: str, cluster_id: int, claim: ClaimedIdentity
    ) -> tuple[Credential, Identity]:
        rules = self._token_rules
        if rules is not None:
            claim.credential_id = token_id
            token = await self._database.read(lambda: token_store.by_id(cluster_id, token_id))
            elsewhere = None if token is not None or claim.is_bound else self._elsewhere(token_id)
            if elsewhere is not None:
                token_id, cluster_id = elsewhere
                claim.credential_id = token_id
                token = await self._database.read(lambda: token_store.by_id(cluster_id, token_id))
            claim.found(token_id, there_is=token is not None)
            if token is not None and not token.has_expired(self._clock.now_ms()):
                credential = await self._computed(
                    lambda: rules.credential(token_id, mechanism), self._token_credentials, (token_id, mechanism)
                )
                return credential, Identity(
                    principal=token.owner, cluster_id=cluster_id, expires_ms=token.expires_ms,
                    token_authenticated=True, credential_id=token_id,
                )  # fmt: skip
        return scram.decoy(mechanism, token_id, self._decoy_secret), ANONYMOUS_IDENTITY

    def nonce(self) -> str:
        """A nonce that was never used before."""
        return uuid_text(self._randomness.token(24))


class ClaimedIdentity:
    """The identity that a client claims."""

    def __init__(self, is_bound: bool) -> None:
        self.is_bound = is_bound
        """Whether only credentials of the requested cluster count."""
        self.claimed: str | None = None
        self.credential_id: str | None = None
        self.is_unknown = False
        self.failure: str | None = None

    def found(self, name: str, *, there_is: bool) -> None:
        """A name was looked up."""
        if there_is:
            self.claimed = name
        else:
            self.is_unknown = True


class _PlainExchange(ClaimedIdentity):
    def __init__(self, authenticator: Authenticator, cluster_id: int, is_bound: bool) -> None:
        super().__init__(is_bound)
        self._authenticator, self._cluster_id = authenticator, cluster_id
        self._is_no_key = False
        """Whether it is a user's name, although it looks like a key's id."""

    def guess(self, token: bytes) -> Guess:
        try:
            name = plain.read_login(token).name
        except Denied:
            return Guess.of(b"", is_of_password=False)
        if self._may_be_key(name):
            return _guess_at_secret(name)
        return self._authenticator.guess_at(self._cluster_id, name, self)

    def _may_be_key(self, name: str) -> bool:
        return looks_like_key(name) and not self._is_no_key

    async def step(self, token: bytes) -> SaslStep | None:
        login, authenticator = plain.read_login(token), self._authenticator
        if self._may_be_key(login.name):
            found = await authenticator.key_identity(login.name, login.password, self._cluster_id, self)
            self._is_no_key = found is None
            return None if found is None else SaslStep(token=b"", identity=found)
        identity = await authenticator.password_identity(login.name, login.password, self._cluster_id, self)
        return SaslStep(token=b"", identity=identity)


class _ScramExchange(ClaimedIdentity):
    def __init__(self, authenticator: Authenticator, mechanism: Mechanism, cluster_id: int, is_bound: bool) -> None:
        super().__init__(is_bound)
        self._authenticator, self._mechanism, self._cluster_id = authenticator, mechanism, cluster_id
        self._exchange: scram.ServerExchange | None = None
        self._identity: Identity | None = None
        self._guess: Guess | None = None

    def guess(self, token: bytes) -> Guess | None:
        return self._guess

    async def step(self, token: bytes) -> SaslStep:
        if self._exchange is not None:
            return SaslStep(token=self._exchange.finish(token), identity=self._identity)
        first = scram.read_client_first(token)
        credential, self._identity = await self._authenticator.scram_check(
            self._mechanism, first, self._cluster_id, self
        )
        self._exchange = scram.ServerExchange(first, credential, self._authenticator.nonce())
        if first.is_token:
            self._guess = _guess_at_secret(first.name)
        else:
            self._guess = self._authenticator.guess_at(self._cluster_id, first.name, self)
        return SaslStep(token=self._exchange.challenge)


class _BearerExchange(ClaimedIdentity):
    def __init__(
        self, authenticator: Authenticator, tokens: BearerTokens, cluster_id: int, is_bound: bool
    ) -> None:  # fmt: skip
        super().__init__(is_bound)
        self._authenticator, self._tokens, self._cluster_id = authenticator, tokens, cluster_id

    def guess(self, token: bytes) -> Guess | None:
        """None: signed tokens cannot be guessed. And each token is different, so clients that renew theirs would always
        queue with the ones that never authenticated."""
        return None

    async def step(self, token: bytes) -> SaslStep:
        if self.failure is not None:
            # RFC 7628: the client acknowledges the error description; whatever it sends, the exchange is over.
            raise Denied(oauthbearer.INVALID_TOKEN)
        login = oauthbearer.read_login(token)
        asked = {self._cluster_id} if self.is_bound else set[int]()
        if self.is_bound and not self._tokens.decides_clusters:
            # Such tokens do not determine clusters: their holder could enter any.
            raise Denied("Authentication failed: tokens of an issuer are not for clusters that are asked for by name")
        if login.cluster is not None:
            asked.add(self._authenticator.requested_cluster_id(login.cluster))
        try:
            identity = await self._tokens.identity_of(login.token, self._cluster_id, asked)
        except InvalidCredentials as problem:
            self.failure = str(problem)
            return SaslStep(token=oauthbearer.INVALID_TOKEN.encode("ascii"))
        if login.authorization_id and user(login.authorization_id) != identity.principal:
            raise Denied(
                "Authentication failed: Client requested an authorization id that is not the token's principal"
            )
        return SaslStep(token=b"", identity=identity)


def _claim_of(cluster_id: int, name: str) -> bytes:
    return f"{cluster_id} {name}".encode("utf-8", "surrogatepass")


def _guess_at_secret(name: str) -> Guess:
    """Secrets of keys and tokens cannot be guessed: a failure must not delay attempts from other networks."""
    return Guess.of(f"secret of {name}".encode("utf-8", "surrogatepass"), is_of_password=False)
