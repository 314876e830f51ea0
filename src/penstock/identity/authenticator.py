"""Proving who somebody is: one exchange of messages per SASL mechanism.

Credentials are looked up in the database each time, so one that was revoked proves nothing from that moment on, on
every agent. What computes for milliseconds runs on a thread, few at a time: a flood of guesses is queued there and
holds up nobody who is already connected. What it came to for a password that is right, or for a token, is remembered:
guesses are bounded, logins with what one has are not, and they would hold up everybody else's.

A user's password is kept as SCRAM keys only; PLAIN is checked against these. An API key is an id that PLAIN takes as
a name. Both may be sent by PLAIN, and a key decides which virtual cluster its connection is in.
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
from penstock.base.threads import OnThread
from penstock.base.undivided import Undivided
from penstock.identity import oauthbearer, plain, scram, store, token_store
from penstock.identity.accounts import looks_like_key
from penstock.identity.failures import Denied, InvalidCredentials
from penstock.identity.guesses import Guess
from penstock.identity.model import NOBODY, NOWHERE, Identity, user
from penstock.identity.scram import Credential, Mechanism
from penstock.identity.tokens import TokenRules
from penstock.metadata.database import Database

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

CHECKS_AT_ONCE = 2
"""How many passwords are computed at the same time; the others wait."""
MAX_WAITING_CHECKS = 1000
MAX_REMEMBERED = 10_000
"""Passwords that were right, and as many tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What to answer, and who it is if that is settled."""

    token: bytes
    identity: Identity | None = None


class Exchange(Protocol):
    """One attempt to prove something."""

    claimed: str | None
    """Who the client says it is, once it is known that there is somebody, or may have been a key, of that name."""
    is_unknown: bool
    """Whether there is nobody of the name that was claimed."""
    failure: str | None
    """Why it has failed already, although the client is to send one more message."""

    def guess(self, token: bytes) -> Guess | None:
        """What the client's next message is about to prove; None if it proves nothing yet, or nothing that can be
        guessed."""

    async def step(self, token: bytes) -> Step | None:
        """Take the client's next message. Raises `Denied`, after which the exchange is over. None: it claims somebody
        else than it was taken for, which is another guess; ask what it proves, and have it taken, once more."""


class BearerTokens(Protocol):
    """Who knows which tokens are good."""

    @property
    def decides_clusters(self) -> bool:
        """Whether tokens say in which virtual cluster their holders are."""

    async def identity_of(self, token: str, cluster_id: int, asked: Collection[int] = ()) -> Identity:
        """Whom a token names, in the cluster that it opens and that is asked for; in this one, if tokens say nothing of
        clusters. Raises `InvalidCredentials`."""


class Authenticator:
    """Knows the mechanisms."""

    def __init__(
        self, *, database: Database, clock: Clock, randomness: Randomness, on_thread: OnThread,
        bearer_tokens: Mapping[str, BearerTokens] | None = None, token_rules: TokenRules | None = None,
        cluster_named: Callable[[str], int | None] = lambda name: None,
    ) -> None:  # fmt: skip
        self._database, self._clock, self._randomness = database, clock, randomness
        self._on_thread, self._token_rules = on_thread, token_rules
        self._bearer_tokens = bearer_tokens or {}
        """By listener."""
        self._cluster_named = cluster_named
        self._decoy_secret = randomness.token(32)
        self._checks = asyncio.Semaphore(CHECKS_AT_ONCE)
        self._waiting, self._working = 0, Undivided()
        self._right_passwords: OrderedDict[bytes, bool] = OrderedDict()
        """By hashes of them and of what is kept of them, under a key that nobody else has."""
        self._token_credentials: OrderedDict[tuple[str, Mechanism], Credential] = OrderedDict()

    def begin(self, mechanism: str, cluster_id: int, *, is_bound: bool = False, listener: str = "") -> Exchange:
        """A new exchange. `cluster_id` is where names are looked up that do not say so themselves; bound, all are."""
        if mechanism == "PLAIN":
            return _Plain(self, cluster_id, is_bound)
        if mechanism == "OAUTHBEARER":
            return _Bearer(self, self._bearer_tokens[listener], cluster_id, is_bound)
        return _Scram(self, scram.BY_SASL_NAME[mechanism], cluster_id, is_bound)

    def _elsewhere(self, name: str) -> tuple[str, int] | None:
        """Of `name@cluster`, both. Where there is no such cluster it is looked in vain all the same, for as long."""
        inside, _, cluster = name.rpartition("@")
        return (inside, self.cluster_asked_for(cluster)) if inside else None

    def cluster_asked_for(self, name: str) -> int:
        """The cluster of a name that a client gives; nowhere, if there is none."""
        cluster_id = self._cluster_named(name)
        return NOWHERE if cluster_id is None else cluster_id

    async def _credentials(self, cluster_id: int, name: str, claim: Claim) -> tuple[list[Credential], Identity]:
        """What a name is checked with, in the cluster it says itself or there, and whom that proves.

        Who is in the cluster of that name counts first, so that no user made elsewhere keeps them out. Else it may be
        the whole name of somebody, an address for example. Both are looked up in any case: it takes as long.
        """
        found = await self._database.read(lambda: store.credentials_of(cluster_id, name))
        elsewhere = None if claim.is_bound else self._elsewhere(name)
        if elsewhere is not None:
            inside, there = elsewhere
            theirs = await self._database.read(lambda: store.credentials_of(there, inside))
            if theirs:
                return theirs, Identity(principal=user(inside), cluster_id=there)
        return found, Identity(principal=user(name), cluster_id=cluster_id)

    def guess_at(self, cluster_id: int, name: str, claim: Claim) -> Guess:
        """A guess at the password of a name: whoever that may be is guessed at, by whichever of their names."""
        claims = [_claim_of(cluster_id, name)]
        elsewhere = None if claim.is_bound else self._elsewhere(name)
        if elsewhere is not None and elsewhere[1] != NOWHERE:
            inside, there = elsewhere
            claims.insert(0, _claim_of(there, inside))
        return Guess.of(*claims, is_of_password=True)

    async def key_identity(self, key_id: str, secret: str, cluster_id: int, claim: Claim) -> Identity | None:
        """Whom an API key and its secret prove; None if there is no such key. Raises `Denied`."""
        claim.claimed = key_id
        key = await self._database.read(lambda: store.key_by_id(key_id))
        if key is None:
            return None
        is_there = key.cluster_id == cluster_id or not claim.is_bound
        if not key.has_secret(secret) or key.has_expired(self._clock.now_ms()) or not is_there:
            raise plain.wrong_password()
        return Identity(
            principal=user(key.owner), cluster_id=key.cluster_id, expires_ms=key.expires_ms, credential_id=key_id
        )

    async def password_identity(self, name: str, password: str, cluster_id: int, claim: Claim) -> Identity:
        """Whom a name and a password prove. Raises `Denied`."""
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
        """What a password that was right is known by; another one as soon as the user has another password."""
        text = b"%d %b%b%b" % (len(credential.salt), credential.salt, credential.stored_key, password)
        return hmac.digest(self._decoy_secret, text, "sha256")

    async def _computed(
        self, work: Callable[[], T], known: OrderedDict[K, T], key: K, *, keeps: Callable[[T], bool] = lambda _: True
    ) -> T:
        """What work comes to, or has come to before."""
        if key in known:
            known.move_to_end(key)
            return known[key]
        if self._waiting >= MAX_WAITING_CHECKS:
            raise Unavailable("too many are being authenticated")
        self._waiting += 1
        try:
            async with self._checks:
                # Somebody else may have wanted to know the same.
                return known[key] if key in known else await self._working.run(self._learn(work, known, key, keeps))
        finally:
            self._waiting -= 1

    async def _learn(
        self, work: Callable[[], T], known: OrderedDict[K, T], key: K, keeps: Callable[[T], bool]
    ) -> T:  # fmt: skip
        """Have it computed and remember it, also if whoever wanted to know has hung up."""
        found = await self._on_thread(work)
        if keeps(found):
            known[key] = found
            if len(known) > MAX_REMEMBERED:
                known.popitem(last=False)
        return found

    async def close(self) -> None:
        """Wait for what is being computed."""
        await self._working.close()

    async def scram_check(
        self, mechanism: Mechanism, first: scram.ClientFirst, cluster_id: int, claim: Claim
    ) -> tuple[Credential, Identity]:
        """What a name is checked with, and whom that proves. Nobody fulfils it if there is no such name."""
        if first.is_token:
            return await self._token_check(mechanism, first.name, cluster_id, claim)
        found, identity = await self._credentials(cluster_id, first.name, claim)
        claim.found(first.name, there_is=bool(found))
        for credential in found:
            if credential.mechanism is mechanism:
                return credential, identity
        return scram.decoy(mechanism, first.name, self._decoy_secret), identity

    async def _token_check(
        self, mechanism: Mechanism, token_id: str, cluster_id: int, claim: Claim
    ) -> tuple[Credential, Identity]:
        rules = self._token_rules
        if rules is not None:
            token = await self._database.read(lambda: token_store.by_id(cluster_id, token_id))
            elsewhere = None if token is not None or claim.is_bound else self._elsewhere(token_id)
            if elsewhere is not None:
                token_id, cluster_id = elsewhere
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
        return scram.decoy(mechanism, token_id, self._decoy_secret), NOBODY

    def nonce(self) -> str:
        """Something that was never used before."""
        return uuid_text(self._randomness.token(24))


class Claim:
    """Who somebody says they are."""

    def __init__(self, is_bound: bool) -> None:
        self.is_bound = is_bound
        """Whether only a credential of the cluster counts that was asked for."""
        self.claimed: str | None = None
        self.is_unknown = False
        self.failure: str | None = None

    def found(self, name: str, *, there_is: bool) -> None:
        """A name was looked up."""
        if there_is:
            self.claimed = name
        else:
            self.is_unknown = True


class _Plain(Claim):
    def __init__(self, authenticator: Authenticator, cluster_id: int, is_bound: bool) -> None:
        super().__init__(is_bound)
        self._authenticator, self._cluster_id = authenticator, cluster_id
        self._is_no_key = False
        """Whether it is a user's name, although it looks like a key's."""

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

    async def step(self, token: bytes) -> Step | None:
        login, authenticator = plain.read_login(token), self._authenticator
        if self._may_be_key(login.name):
            found = await authenticator.key_identity(login.name, login.password, self._cluster_id, self)
            self._is_no_key = found is None
            return None if found is None else Step(token=b"", identity=found)
        identity = await authenticator.password_identity(login.name, login.password, self._cluster_id, self)
        return Step(token=b"", identity=identity)


class _Scram(Claim):
    def __init__(self, authenticator: Authenticator, mechanism: Mechanism, cluster_id: int, is_bound: bool) -> None:
        super().__init__(is_bound)
        self._authenticator, self._mechanism, self._cluster_id = authenticator, mechanism, cluster_id
        self._exchange: scram.Exchange | None = None
        self._identity: Identity | None = None
        self._guess: Guess | None = None

    def guess(self, token: bytes) -> Guess | None:
        return self._guess

    async def step(self, token: bytes) -> Step:
        if self._exchange is not None:
            return Step(token=self._exchange.finish(token), identity=self._identity)
        first = scram.read_client_first(token)
        credential, self._identity = await self._authenticator.scram_check(
            self._mechanism, first, self._cluster_id, self
        )
        self._exchange = scram.Exchange(first, credential, self._authenticator.nonce())
        if first.is_token:
            self._guess = _guess_at_secret(first.name)
        else:
            self._guess = self._authenticator.guess_at(self._cluster_id, first.name, self)
        return Step(token=self._exchange.challenge)


class _Bearer(Claim):
    def __init__(
        self, authenticator: Authenticator, tokens: BearerTokens, cluster_id: int, is_bound: bool
    ) -> None:  # fmt: skip
        super().__init__(is_bound)
        self._authenticator, self._tokens, self._cluster_id = authenticator, tokens, cluster_id

    def guess(self, token: bytes) -> Guess | None:
        """What is signed is not guessed. And each token is another one, so whoever renews theirs would always be among
        those who have never come in."""
        return None

    async def step(self, token: bytes) -> Step:
        if self.failure is not None:
            # RFC 7628: the client acknowledges the description of its failure; whatever it sends, it is over.
            raise Denied(oauthbearer.INVALID_TOKEN)
        login = oauthbearer.read_login(token)
        asked = {self._cluster_id} if self.is_bound else set[int]()
        if self.is_bound and not self._tokens.decides_clusters:
            # Its tokens say nothing of clusters: whoever has one would be in any.
            raise Denied("Authentication failed: tokens of an issuer are not for clusters that are asked for by name")
        if login.cluster is not None:
            asked.add(self._authenticator.cluster_asked_for(login.cluster))
        try:
            identity = await self._tokens.identity_of(login.token, self._cluster_id, asked)
        except InvalidCredentials as problem:
            self.failure = str(problem)
            return Step(token=oauthbearer.INVALID_TOKEN.encode("ascii"))
        if login.authorization_id and user(login.authorization_id) != identity.principal:
            raise Denied(
                "Authentication failed: Client requested an authorization id that is not the token's principal"
            )
        return Step(token=b"", identity=identity)


def _claim_of(cluster_id: int, name: str) -> bytes:
    return f"{cluster_id} {name}".encode("utf-8", "surrogatepass")


def _guess_at_secret(name: str) -> Guess:
    """Keys and tokens cannot be guessed: who fails at one holds up nobody elsewhere."""
    return Guess.of(f"secret of {name}".encode("utf-8", "surrogatepass"), is_of_password=False)
