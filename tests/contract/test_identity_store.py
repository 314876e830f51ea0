"""The SQL of identities, on every database."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

import pytest
from fixtures.clocks import START_MS, ManualClock
from fixtures.unusual_names import UNUSUAL_NAMES

from penstock.agent.change_poller import versions
from penstock.base.errors import InvalidRequest
from penstock.base.randomness import SeededRandomness
from penstock.identity import accounts, service, store, token_store
from penstock.identity.accounts import MAX_KEYS_PER_ACCOUNT, ServiceAccount, looks_like_key
from penstock.identity.scram import Credential, Mechanism
from penstock.identity.service import CredentialChange, Identities
from penstock.identity.tokens import Token
from penstock.metadata.database import Script

ONE = Credential(
    mechanism=Mechanism.SCRAM_SHA_256, iterations=4096, salt=b"s\0lt", stored_key=b"\0" * 32, server_key=b"\xff" * 32
)
OTHER = replace(ONE, mechanism=Mechanism.SCRAM_SHA_512, iterations=8192, salt=b"other")


@pytest.fixture
def identities(database: Any) -> Identities:
    return Identities(database=database, clock=ManualClock(), randomness=SeededRandomness("identities"))


async def put(database: Any, cluster_id: int, user: str, credential: Credential) -> None:
    await database.transaction(lambda: store.put_credential(cluster_id, user, credential, START_MS))


async def credentials(database: Any, cluster_id: int, user: str) -> list[Credential]:
    return await database.read(lambda: store.credentials_of(cluster_id, user))


async def test_credentials(database: Any) -> None:
    assert not await database.read(store.has_credentials)
    await put(database, 1, "älice", ONE)
    await put(database, 1, "älice", OTHER)
    await put(database, 2, "älice", ONE)
    assert await credentials(database, 1, "älice") == [ONE, OTHER]
    changed = replace(ONE, salt=b"new")
    await put(database, 1, "älice", changed)
    assert await credentials(database, 1, "älice") == [changed, OTHER]
    assert await database.read(lambda: store.all_mechanisms(1)) == [
        ("älice", Mechanism.SCRAM_SHA_256, 4096), ("älice", Mechanism.SCRAM_SHA_512, 8192),
    ]  # fmt: skip
    for _ in range(2):
        await database.transaction(lambda: store.delete_credential(1, "älice", Mechanism.SCRAM_SHA_512))
    assert await credentials(database, 1, "älice") == [changed]
    assert await credentials(database, 2, "älice") == [ONE]
    assert await credentials(database, 1, "bob") == []
    assert await database.read(store.has_credentials)


async def test_users_have_any_names(database: Any) -> None:
    names = set(UNUSUAL_NAMES.values())
    for name in names:
        await put(database, 1, name, ONE)
    assert {user for user, _, _ in await database.read(lambda: store.all_mechanisms(1))} == names
    for name in names:
        assert await credentials(database, 1, name) == [ONE]
        await database.transaction(partial(store.delete_credential, 1, name, Mechanism.SCRAM_SHA_256))
        assert await credentials(database, 1, name) == []


async def test_changes_of_credentials_are_one(identities: Identities, database: Any) -> None:
    await identities.set_password(1, "alice", "a password")
    assert set(await identities.mechanisms(1)) == {"alice"}
    await identities.change_credentials(
        1,
        [
            CredentialChange(user="alice", mechanism=Mechanism.SCRAM_SHA_256, credential=None),
            CredentialChange(user="bob", mechanism=Mechanism.SCRAM_SHA_256, credential=ONE),
        ],
    )
    assert await identities.mechanisms(1) == {
        "alice": [(Mechanism.SCRAM_SHA_512, 8192)], "bob": [(Mechanism.SCRAM_SHA_256, 4096)],
    }  # fmt: skip
    await identities.change_credentials(1, [])
    for name, password in (("", "x"), ("a\0", "x"), ("a", ""), ("a", "x\0")):
        with pytest.raises(InvalidRequest):
            await identities.set_password(1, name, password)


async def test_who_asks_for_few_users_does_not_have_all_of_them_read(
    identities: Identities, database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster may have twenty thousand, and others wait for what is read."""
    for name in ("älice", "bob", "carol"):
        await put(database, 1, name, ONE)
    await put(database, 1, "bob", OTHER)
    everybody = await identities.mechanisms(1)
    assert await identities.mechanisms(1, [*map(str, range(100)), "bob"]) == everybody
    monkeypatch.setattr(store, "all_mechanisms", lambda cluster_id: pytest.fail("all were read"))
    assert await identities.mechanisms(1, ["bob", "nobody", "älice"]) == {
        "bob": [(Mechanism.SCRAM_SHA_256, 4096), (Mechanism.SCRAM_SHA_512, 8192)],
        "älice": [(Mechanism.SCRAM_SHA_256, 4096)],
    }
    assert await identities.mechanisms(1, []) == {}


async def test_service_accounts(database: Any) -> None:
    account = ServiceAccount(cluster_id=1, name="billing", description="ünï", created_ms=5)
    assert await database.transaction(lambda: store.put_account(account))
    assert not await database.transaction(lambda: store.put_account(replace(account, description="other")))
    assert await database.read(lambda: store.accounts(1)) == [account]
    assert await database.read(lambda: store.accounts(2)) == []
    assert await database.read(lambda: store.has_account(1, "billing"))
    assert not await database.read(lambda: store.has_account(2, "billing"))
    assert await database.transaction(lambda: store.delete_account(1, "billing")) == set()
    assert await database.transaction(lambda: store.delete_account(1, "billing")) is None


async def test_api_keys(identities: Identities, database: Any) -> None:
    assert await identities.create_account(1, "billing", "")
    assert await identities.create_key(1, "nobody", "", -1) is None
    made = await identities.create_key(1, "billing", "first", 1000)
    assert made is not None
    assert looks_like_key(made.key.key_id)
    assert await database.read(lambda: store.key_by_id(made.key.key_id)) == made.key
    assert made.key.has_secret(made.secret)
    assert not made.key.has_secret(made.secret + "x")
    assert (made.key.has_expired(START_MS + 999), made.key.has_expired(START_MS + 1000)) == (False, True)
    assert made.secret not in repr(made)
    assert await database.read(lambda: store.key_by_id("PK" + "A" * 16)) is None
    [(account, keys)] = await identities.service_accounts(1)
    assert (account.name, keys) == ("billing", [made.key])
    assert await identities.delete_keys(2, [made.key.key_id]) == set(), "a key of another cluster"
    assert await identities.delete_keys(1, [made.key.key_id, "PK" + "A" * 16, "odd\0"]) == {made.key.key_id}
    other = await identities.create_key(1, "billing", "", -1)
    assert other is not None
    assert await identities.delete_account(1, "billing")
    assert await database.read(lambda: store.key_by_id(other.key.key_id)) is None


async def test_the_tokens_of_a_service_account_go_with_it(identities: Identities, database: Any) -> None:
    """Else it would go on coming in, or come in as one that is given its name anew."""
    parties = {"own": ("User:billing", "User:billing"), "for alice": ("User:alice", "User:billing"),
               "of alice": ("User:alice", "User:alice"), "alike": ("Group:billing", "User:alice")}  # fmt: skip
    for cluster_id in (1, 2):
        assert await identities.create_account(cluster_id, "billing", "")
        for token_id, (owner, requester) in parties.items():
            token = Token(
                cluster_id=cluster_id, token_id=token_id, owner=owner, requester=requester, renewers=("User:billing",),
                issued_ms=START_MS, expires_ms=START_MS + 1, max_ms=START_MS + 1,
            )  # fmt: skip
            await database.transaction(partial(token_store.put, token, token_id.encode()))

    async def left(cluster_id: int) -> set[str]:
        return {token.token_id for token in await database.read(lambda: token_store.all_of(cluster_id, START_MS))}

    assert not await identities.delete_account(1, "alice"), "a user who is no service account"
    assert await left(1) == set(parties)
    assert await identities.delete_account(1, "billing")
    assert await left(1) == {"of alice", "alike"}
    assert await left(2) == set(parties)


async def test_it_is_told_which_keys_and_tokens_are_no_good_any_more(database: Any) -> None:
    told: list[tuple[set[str], int]] = []
    identities = Identities(
        database=database, clock=ManualClock(), randomness=SeededRandomness("revoked"),
        revoked=lambda gone, asked_by: told.append((set(gone), asked_by)),
    )  # fmt: skip
    assert await identities.create_account(1, "billing", "")
    keys = [await identities.create_key(1, "billing", "", -1) for _ in range(3)]
    ids = [made.key.key_id for made in keys if made is not None]
    token = Token(
        cluster_id=1, token_id="t", owner="User:billing", requester="User:billing", renewers=(), issued_ms=START_MS,
        expires_ms=START_MS + 1, max_ms=START_MS + 1,
    )  # fmt: skip
    await database.transaction(lambda: token_store.put(token, b"t"))
    assert await identities.delete_keys(2, ids) == set()
    assert await identities.delete_keys(1, ["PK" + "A" * 16, ids[0]], asked_by=5) == {ids[0]}
    assert await identities.delete_account(1, "billing")
    assert not await identities.delete_account(1, "billing")
    assert told == [({ids[0]}, 5), ({*ids[1:], "t"}, 0)]


async def test_an_agent_is_told_which_credentials_in_use_another_one_has_removed(
    database: Any, identities: Identities, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "LOOKED_UP_AT_ONCE", 2)
    told: list[tuple[set[str], int]] = []
    here = Identities(
        database=database, clock=ManualClock(), randomness=SeededRandomness("here"),
        revoked=lambda gone, asked_by: told.append((set(gone), asked_by)),
    )  # fmt: skip
    for name in ("billing", "web"):
        assert await identities.create_account(1, name, "")
    made = [await identities.create_key(1, name, "", -1) for name in ("billing", "billing", "web")]
    first, second, other = (key.key.key_id for key in made if key is not None)

    async def counter() -> int:
        return (await database.read(lambda: versions(("revoked credentials",)))).get("revoked credentials", 0)

    def token(name: str, owner: str) -> Script[None]:
        ends_ms = START_MS + 1_000
        made = Token(
            cluster_id=1, token_id=name, owner=owner, requester=owner, renewers=(), issued_ms=START_MS,
            expires_ms=ends_ms, max_ms=ends_ms,
        )  # fmt: skip
        return token_store.put(made, name.encode())

    for name, owner in (("theirs", "User:billing"), ("ended", "User:alice"), ("alice's", "User:alice")):
        await database.transaction(partial(token, name, owner))
    in_use = {first, second, other, "theirs", "ended", "alice's", "made up"}

    async def look() -> list[tuple[set[str], int]]:
        told.clear()
        await here.drop_revoked(lambda: in_use)
        return list(told)

    assert (await look(), await counter()) == ([], 0)
    await identities.delete_keys(1, [first])
    assert (await look(), await counter()) == ([({first}, 0)], 1)
    await identities.delete_keys(1, [first])
    await database.transaction(lambda: token_store.delete(1, "ended"))
    assert await counter() == 1, "nothing has changed: a token that is ended by its holder ends no session, as in Kafka"
    await identities.delete_account(1, "billing")
    assert (await look(), await counter()) == ([({first, second, "theirs"}, 0)], 2)
    later_ms = START_MS + 1_000 + token_store.KEPT_MS + 1
    late = Token(
        cluster_id=1, token_id="late", owner="User:alice", requester="User:alice", renewers=(), issued_ms=later_ms,
        expires_ms=later_ms + 1, max_ms=later_ms + 1,
    )  # fmt: skip
    await database.transaction(lambda: token_store.put(late, b"late"))
    assert await look() == [({first, second}, 0)], "no session of the token is left"


async def test_who_asks_for_few_accounts_does_not_have_all_of_them_read(
    identities: Identities, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        await identities.create_account(1, name, "")
        await identities.create_key(1, name, "", -1)
    everything = await identities.service_accounts(1)
    assert await identities.service_accounts(1, [*map(str, range(100)), "a"]) == everything
    all_keys = store.keys

    def keys_of(cluster_id: int, owner: str | None = None) -> Any:
        assert owner is not None, "all were read"
        return all_keys(cluster_id, owner)

    monkeypatch.setattr(store, "keys", keys_of)
    assert await identities.service_accounts(1, ["c", "nobody", "a", "c"]) == [everything[0], everything[2]]
    assert await identities.service_accounts(1, []) == []


async def test_what_is_refused(identities: Identities) -> None:
    for name in ("", "-x", "a b", "x" * 129, "a\0"):
        with pytest.raises(InvalidRequest):
            await identities.create_account(1, name, "")
    with pytest.raises(InvalidRequest):
        await identities.create_account(1, "a", "x" * 513)
    await identities.create_account(1, "a", "")
    for lifetime_ms in (0, -2):
        with pytest.raises(InvalidRequest):
            await identities.create_key(1, "a", "", lifetime_ms)
    for _ in range(MAX_KEYS_PER_ACCOUNT):
        await identities.create_key(1, "a", "", -1)
    with pytest.raises(InvalidRequest, match="keys already"):
        await identities.create_key(1, "a", "", -1)


async def test_ended_tokens_make_room(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are remembered for an hour, and nobody can fill the database with them."""
    monkeypatch.setattr(token_store, "MAX_TOKENS_PER_OWNER", 3)
    monkeypatch.setattr(token_store, "MAX_TOKENS_PER_CLUSTER", 4)

    async def make(owner: str, ends_ms: int, now_ms: int = START_MS) -> bool:
        def script() -> Script[bool]:
            if not (yield from token_store.has_room(1, owner, now_ms)):
                return False
            token_id = f"{owner}-{next(numbers)}"
            token = Token(
                cluster_id=1, token_id=token_id, owner=owner, requester=owner, renewers=(), issued_ms=now_ms,
                expires_ms=ends_ms, max_ms=ends_ms,
            )  # fmt: skip
            yield from token_store.put(token, token_id.encode())
            return True

        made: bool = await database.transaction(script)
        return made

    async def shown(now_ms: int = START_MS) -> set[str]:
        return {token.token_id for token in await database.read(lambda: token_store.all_of(1, now_ms))}

    numbers = count()
    assert [await make("User:a", START_MS + 10) for _ in range(4)] == [True, True, True, False]
    assert [await make("User:b", START_MS + 1_000) for _ in range(2)] == [True, False], "the cluster's are too many"
    later_ms = START_MS + 100
    assert await shown() == {"User:a-0", "User:a-1", "User:a-2", "User:b-3"}
    assert await shown(later_ms) == {"User:b-3"}
    assert (await database.read(lambda: token_store.by_id(1, "User:a-0"))) is not None, "it is remembered"
    assert [await make("User:a", later_ms + 10, later_ms) for _ in range(4)] == [True, True, True, False]
    assert await shown(later_ms) == {"User:b-3", "User:a-4", "User:a-5", "User:a-6"}


async def test_a_cluster_has_only_so_many_accounts_keys_and_credentials(
    database: Any, identities: Identities, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks for them has all of them in memory."""
    for name in ("MAX_ACCOUNTS", "MAX_KEYS", "MAX_CREDENTIALS"):
        monkeypatch.setattr(accounts, name, 2)
    assert await identities.create_account(1, "a", "")
    assert await identities.create_account(1, "b", "")
    with pytest.raises(InvalidRequest, match="2 service accounts"):
        await identities.create_account(1, "c", "")
    assert await identities.create_account(2, "c", ""), "of another cluster"
    first = await identities.create_key(1, "a", "", -1)
    await identities.create_key(1, "b", "", -1)
    with pytest.raises(InvalidRequest, match="2 API keys"):
        await identities.create_key(1, "b", "", -1)
    found = {account.name: len(keys) for account, keys in await identities.service_accounts(1)}
    assert (found, first is not None) == ({"a": 1, "b": 1}, True)

    def change(user: str, credential: Credential | None) -> CredentialChange:
        return CredentialChange(user=user, mechanism=Mechanism.SCRAM_SHA_256, credential=credential)

    await identities.change_credentials(1, [change("a", ONE), change("b", ONE)])
    with pytest.raises(InvalidRequest, match="2 credentials"):
        await identities.change_credentials(1, [change("a", replace(ONE, salt=b"new")), change("c", ONE)])
    assert await credentials(database, 1, "a") == [ONE], "all of it or nothing"
    await identities.change_credentials(1, [change("a", replace(ONE, salt=b"new"))])
    await identities.change_credentials(1, [change("a", None), change("c", ONE)])
    monkeypatch.setattr(accounts, "MAX_CREDENTIALS", 1)
    await identities.change_credentials(1, [change("b", replace(ONE, salt=b"new"))])
