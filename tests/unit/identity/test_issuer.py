"""Tokens: which are good, whom they name, and how often their issuer is asked for its keys."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
from fixtures.clocks import START_MS, ManualClock
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

from penstock.base.errors import Unavailable
from penstock.base.options import OAuthOptions
from penstock.identity import issuer
from penstock.identity.failures import InvalidCredentials
from penstock.identity.issuer import GIVE_UP_S, MAX_KEYS, REFRESH_S, RETRY_S, Issuer, read_keys

ISSUER, AUDIENCE = "https://login.example.com/realm", "kafka"
NOW_S = START_MS // 1000
RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
EC = ECKey.generate_key("P-256", {"kid": "ec"})
OTHER = RSAKey.generate_key(2048, {"kid": "rsa"})


HEADS_THAT_ARE_NONE = (b'{"alg":[]}', b'{"alg":{}}', b'{"alg":1,"kid":"rsa"}', b'{"alg":"RS256","kid":[]}', b"[[]]")


def claims(**changed: Any) -> dict[str, Any]:
    base = {"iss": ISSUER, "aud": AUDIENCE, "sub": "billing", "exp": NOW_S + 600, "iat": NOW_S}
    return {name: value for name, value in {**base, **changed}.items() if value is not None}


def signed(key: Any = RSA, algorithm: str = "RS256", header: Any = None, **changed: Any) -> str:
    head = {"alg": algorithm, "kid": key.kid} | (header or {})
    algorithms = [algorithm]
    return jwt.encode({k: v for k, v in head.items() if v is not None}, claims(**changed), key, algorithms=algorithms)


class World:
    """An issuer's web site."""

    def __init__(self, *keys: Any, jwks_url: str | None = None, **more: Any) -> None:
        self.clock = ManualClock()
        self.keys = list(keys or (RSA, EC))
        self.asked: list[str] = []
        self.is_down = False
        self.answers = asyncio.Event()
        self.answers.set()
        self.configuration: dict[str, Any] = {"issuer": ISSUER, "jwks_uri": "https://login.example.com/keys"}
        options = OAuthOptions(issuer=ISSUER, audience=AUDIENCE, jwks_url=jwks_url, **more)
        self.clusters = {"default": 1, "acme": 7, "beta": 8}
        self.issuer = Issuer(options, fetch=self._fetch, clock=self.clock, cluster_named=self.clusters.get)

    async def _fetch(self, url: str) -> bytes:
        self.asked.append(url)
        await asyncio.sleep(0)
        await self.answers.wait()
        if self.is_down:
            raise Unavailable("down")
        if url.endswith("/.well-known/openid-configuration"):
            return json.dumps(self.configuration).encode()
        return json.dumps({"keys": [key.as_dict(private=False) for key in self.keys]}).encode()

    async def principal(self, token: str) -> str:
        return (await self.issuer.identity_of(token, 7)).principal

    def pass_s(self, seconds: float) -> None:
        self.clock.time_ms += int(seconds * 1000)


async def test_a_good_token() -> None:
    world = World()
    identity = await world.issuer.identity_of(signed(), 7)
    assert (identity.principal, identity.cluster_id) == ("User:billing", 7)
    assert identity.expires_ms == (NOW_S + 600) * 1000
    assert await world.principal(signed(EC, "ES256", aud=["other", AUDIENCE])) == "User:billing"
    assert await world.principal(signed(RSA, "PS512")) == "User:billing"
    assert world.asked == [ISSUER + "/.well-known/openid-configuration", "https://login.example.com/keys"]


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": None}, {"iss": ISSUER + "/"}, {"aud": None}, {"aud": "other"}, {"aud": ["other"]}, {"exp": None},
        {"exp": NOW_S - 31}, {"exp": "soon"}, {"exp": True}, {"exp": -1}, {"nbf": NOW_S + 31}, {"iat": NOW_S + 31},
        {"sub": None}, {"sub": ""}, {"sub": 5}, {"sub": "a\nb"}, {"sub": "x" * 256},
    ],
)  # fmt: skip
async def test_claims_that_do_not_do(changed: dict[str, Any]) -> None:
    with pytest.raises(InvalidCredentials):
        await World().principal(signed(**changed))


async def test_clocks_may_differ_a_little() -> None:
    world = World()
    for changed in ({"exp": NOW_S - 29}, {"nbf": NOW_S + 29}):
        assert await world.principal(signed(**changed)) == "User:billing"


async def test_signatures_that_do_not_do() -> None:
    world = World()
    good = signed()
    head, body, signature = good.split(".")
    secret = OctKey.import_key("x" * 64, {"kid": "rsa"})
    forged = [
        signed(OTHER),
        f"{head}.{body}.",
        f"{head}.{body}",
        f"{head}.{body[:-2]}AA.{signature}",
        signed(secret, "HS256"),
        signed(EC, "ES256", {"kid": "rsa"}),
        "eyJhbGciOiJub25lIn0." + body + ".",
        "eyJhbGciOiJub25lIiwia2lkIjoicnNhIn0." + body + ".",
        *(f"{base64.urlsafe_b64encode(head).decode().rstrip('=')}.{body}.{signature}" for head in HEADS_THAT_ARE_NONE),
        "", ".", "..", "a.b.c", "é", "x" * 20_000, "W10.e30.x", head,
    ]  # fmt: skip
    for token in forged:
        with pytest.raises(InvalidCredentials):
            await world.principal(token)
    assert await world.principal(good) == "User:billing"


async def test_a_key_that_is_not_known_is_asked_for_but_not_all_the_time() -> None:
    world = World(RSA, jwks_url="https://login.example.com/direct")
    assert await world.principal(signed()) == "User:billing"
    for _ in range(20):
        with pytest.raises(InvalidCredentials):
            await world.principal(signed(EC, "ES256"))
    assert len(world.asked) == 1
    world.keys = [EC]  # The issuer has another key now.
    world.pass_s(RETRY_S + 1)
    assert await world.principal(signed(EC, "ES256")) == "User:billing"
    assert len(world.asked) == 2
    with pytest.raises(InvalidCredentials):
        await world.principal(signed())
    assert len(world.asked) == 2


async def test_many_at_once_ask_once() -> None:
    world = World()
    await asyncio.gather(*(world.principal(signed()) for _ in range(50)))
    assert len(world.asked) == 2


async def test_an_issuer_that_is_down() -> None:
    world = World()
    world.is_down = True
    with pytest.raises(Unavailable):
        await world.principal(signed())
    world.is_down = False
    with pytest.raises(Unavailable):
        await world.principal(signed())
    world.pass_s(RETRY_S + 1)
    assert await world.principal(signed()) == "User:billing"
    world.is_down = True
    world.pass_s(REFRESH_S + 1)
    later = {"exp": NOW_S + 10**6}
    assert await world.principal(signed(**later)) == "User:billing"
    world.pass_s(GIVE_UP_S)
    with pytest.raises(Unavailable):
        await world.principal(signed(**later))


async def test_who_hangs_up_does_not_keep_others_from_the_keys() -> None:
    """A stranger's token has the keys asked for, and its connection, when it closes, takes along what it waits for."""
    world = World()
    world.answers.clear()
    stranger = asyncio.create_task(world.principal(signed(OTHER)))
    while not world.asked:
        await asyncio.sleep(0)
    stranger.cancel()
    await asyncio.gather(stranger, return_exceptions=True)
    owner = asyncio.create_task(world.principal(signed()))
    await asyncio.sleep(0)
    world.answers.set()
    assert await owner == "User:billing"
    assert len(world.asked) == 2


async def test_an_issuer_that_does_not_answer_holds_up_nobody_whose_key_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(issuer, "PATIENCE_S", 0.01)
    world = World()
    later = signed(exp=NOW_S + 10**6)
    assert await world.principal(later) == "User:billing"
    world.pass_s(REFRESH_S + 1)
    world.answers.clear()
    assert await world.principal(later) == "User:billing"
    assert len(world.asked) == 3
    world.keys = [EC]
    world.answers.set()
    monkeypatch.setattr(issuer, "PATIENCE_S", 10.0)
    with pytest.raises(InvalidCredentials):
        await world.principal(later)


async def test_keys_that_have_the_same_id_or_none() -> None:
    twin = ECKey.generate_key("P-256", {"kid": "rsa"})
    world = World(RSA, twin)
    later = {"exp": NOW_S + 10**6}
    for _ in range(2):
        assert await world.principal(signed(**later)) == "User:billing"
        assert await world.principal(signed(twin, "ES256", **later)) == "User:billing"
        world.keys.reverse()
        world.pass_s(REFRESH_S + 1)
    nameless = [ECKey.generate_key("P-256") for _ in range(3)]
    world = World(*nameless[:2])
    for key in nameless[:2]:
        assert await world.principal(signed(key, "ES256")) == "User:billing"
    world.keys = nameless[1:]  # One has taken the place of another.
    world.pass_s(RETRY_S + 1)
    assert await world.principal(signed(nameless[2], "ES256")) == "User:billing"
    with pytest.raises(InvalidCredentials):
        await world.principal(signed(nameless[0], "ES256"))


@pytest.mark.parametrize(
    "changed",
    [{"issuer": "https://evil.example.com"}, {"jwks_uri": None}, {"jwks_uri": "http://login.example.com/keys"}],
)
async def test_a_configuration_that_is_not_believed(changed: dict[str, Any]) -> None:
    world = World()
    world.configuration |= changed
    with pytest.raises(Unavailable):
        await world.principal(signed())


async def test_a_token_without_a_key_id() -> None:
    bare = signed(header={"kid": None})
    assert await World(RSA).principal(bare) == "User:billing"
    assert await World(EC, RSA).principal(bare) == "User:billing"
    with pytest.raises(InvalidCredentials):
        await World(EC, OTHER).principal(bare)


async def test_what_is_asked_for_is_not_looked_at_where_tokens_say_nothing_of_clusters() -> None:
    world = World()
    assert not world.issuer.decides_clusters
    assert (await world.issuer.identity_of(signed(cluster="acme"), 1, {8})).cluster_id == 1


async def test_a_token_opens_what_its_claim_names() -> None:
    world = World(cluster_claim="cluster")
    assert world.issuer.decides_clusters
    assert (await world.issuer.identity_of(signed(cluster="acme"), 1)).cluster_id == 7
    both = signed(cluster=["acme", "beta"])
    assert (await world.issuer.identity_of(both, 1, {8})).cluster_id == 8
    refusals = set()
    for token, asked in (
        (signed(), ()), (signed(cluster="acme"), {8}), (signed(cluster="acme"), {-1}), (both, ()), (both, {7, 8}),
        (signed(cluster="default"), ()), (signed(cluster="nobody"), ()), (signed(cluster="nobody"), {-1}),
    ):  # fmt: skip
        with pytest.raises(InvalidCredentials) as refused:
            await world.issuer.identity_of(token, 1, asked)
        refusals.add(str(refused.value))
    assert len(refusals) == 1, "it is not told which of these it was"
    del world.clusters["acme"]
    with pytest.raises(InvalidCredentials):
        await world.principal(signed(cluster="acme"))


async def test_all_tokens_of_an_issuer_are_for_one_cluster() -> None:
    world = World(clusters=("acme",))
    assert (await world.issuer.identity_of(signed(cluster="beta"), 1)).cluster_id == 7
    with pytest.raises(InvalidCredentials):
        await world.issuer.identity_of(signed(), 1, {8})


def test_sets_of_keys() -> None:
    public = RSA.as_dict(private=False)
    noise = [
        None,
        5,
        {},
        {"kty": "oct", "k": "AAAA", "kid": "oct"},
        {"kty": "RSA"},
        {**public, "use": "enc", "kid": "e"},
    ]
    assert [key.kid for key in read_keys(json.dumps({"keys": [*noise, public]}).encode())] == ["rsa"]
    many = [{**public, "kid": str(number)} for number in range(MAX_KEYS + 50)]
    assert len(read_keys(json.dumps({"keys": many}).encode())) == MAX_KEYS
    for document in (b"", b"[]", b"{}", b'{"keys": 5}', b'{"keys": []}', b"[" * 100_000):
        with pytest.raises(Unavailable):
            read_keys(document)
