"""Identities: users' credentials, service accounts, API keys. All changes go through here.

Nothing is cached: the database is queried each time. Connections of deleted API keys and tokens are closed: by this
agent at once, by others as soon as they notice (`agent/change_poller.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence

from penstock.base.clock import Clock
from penstock.base.cooperative import yield_if_due
from penstock.base.dataclasses import dataclass
from penstock.base.errors import InvalidRequest
from penstock.base.randomness import Randomness
from penstock.base.shielded import ShieldedTasks
from penstock.identity import accounts, scram, store, token_store
from penstock.identity.accounts import ApiKey, NewApiKey, ServiceAccount
from penstock.identity.scram import Credential, Mechanism
from penstock.metadata.database import Database, Script

Revoked = Callable[[Collection[str], int], None]
"""Called with revoked API keys and tokens, and the id of the connection that requested it (0: none)."""
FEW_NAMES = 100
"""Up to so many users are looked up one by one."""
LOOKED_UP_AT_ONCE = 200
"""API keys or tokens in one statement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialChange:
    """Set a user's credential for one mechanism; without a credential, remove it."""

    user: str
    mechanism: Mechanism
    credential: Credential | None


class Identities:
    """The identities of all virtual clusters."""

    def __init__(
        self, *, database: Database, clock: Clock, randomness: Randomness,
        revoked: Revoked = lambda credential_ids, asked_by: None, changes: ShieldedTasks | None = None,
    ) -> None:  # fmt: skip
        self._database, self._clock, self._randomness = database, clock, randomness
        self._revoked, self._changes = revoked, changes or ShieldedTasks()
        self._revoking = asyncio.Lock()

    # ---- users ---------------------------------------------------------------------------------------------------

    async def mechanisms(
        self, cluster_id: int, names: Collection[str] | None = None
    ) -> Mapping[str, Sequence[tuple[Mechanism, int]]]:
        """Users with their mechanisms and iterations: all of them, or at least those named that exist. A short list of
        names does not read the whole table."""
        few = names if names is not None and len(names) <= FEW_NAMES else None

        def script() -> Script[list[tuple[str, Mechanism, int]]]:
            if few is None:
                return (yield from store.all_mechanisms(cluster_id))
            found = list[tuple[str, Mechanism, int]]()
            for name in few:
                credentials = yield from store.credentials_of(cluster_id, name)
                found += ((name, one.mechanism, one.iterations) for one in credentials)
            return found

        users: dict[str, list[tuple[Mechanism, int]]] = {}
        for number, (name, mechanism, iterations) in enumerate(await self._database.read(script)):
            await yield_if_due(number)
            users.setdefault(name, []).append((mechanism, iterations))
        return users

    async def change_credentials(self, cluster_id: int, changes: Sequence[CredentialChange]) -> None:
        """Make all of these changes or none. Raises `InvalidRequest` if there would be too many users."""
        now_ms = self._clock.now_ms()
        adds = any(change.credential is not None for change in changes)

        def script() -> Script[None]:
            before = (yield from store.count_credentials(cluster_id)) if adds else 0
            for change in changes:
                if change.credential is None:
                    yield from store.delete_credential(cluster_id, change.user, change.mechanism)
                else:
                    yield from store.put_credential(cluster_id, change.user, change.credential, now_ms)
            after = (yield from store.count_credentials(cluster_id)) if adds else 0
            if after > max(before, accounts.MAX_CREDENTIALS):
                raise InvalidRequest(f"the users of a cluster may have {accounts.MAX_CREDENTIALS} credentials")

        if changes:
            await self._database.transaction(script)

    async def set_password(self, cluster_id: int, user: str, password: str) -> None:
        """Set a user's password, for every mechanism."""
        if not user or "\0" in user or not password or "\0" in password:
            raise InvalidRequest("a user has a name and a password, without NUL characters")
        changes = []
        for mechanism in Mechanism:
            salt = self._randomness.token(16)
            salted = scram.salted_password(mechanism, password.encode("utf-8"), salt, scram.DEFAULT_ITERATIONS)
            credential = scram.credential_of(mechanism, salted, salt, scram.DEFAULT_ITERATIONS)
            changes.append(CredentialChange(user=user, mechanism=mechanism, credential=credential))
        await self.change_credentials(cluster_id, changes)

    async def has_credentials(self) -> bool:
        """Whether any credentials are stored."""
        return await self._database.read(store.has_credentials)

    # ---- service accounts ----------------------------------------------------------------------------------------

    async def service_accounts(
        self, cluster_id: int, names: Collection[str] | None = None
    ) -> list[tuple[ServiceAccount, list[ApiKey]]]:
        """Service accounts with their keys, in order: all of them, or at least those named that exist."""
        few: Sequence[str | None] = (None,)
        if names is not None and len(names) <= FEW_NAMES:
            few = sorted(set(names))

        def script() -> Script[tuple[list[ServiceAccount], list[ApiKey]]]:
            found, keys = list[ServiceAccount](), list[ApiKey]()
            for name in few:
                found += yield from store.accounts(cluster_id, name)
                keys += yield from store.keys(cluster_id, name)
            return found, keys

        found, keys = await self._database.read(script)
        owned: dict[str, list[ApiKey]] = {}
        for number, key in enumerate(keys):
            await yield_if_due(number)
            owned.setdefault(key.owner, []).append(key)
        return [(account, owned.get(account.name, [])) for account in found]

    async def create_account(self, cluster_id: int, name: str, description: str) -> bool:
        """Create a service account; False if the name is taken. Raises `InvalidRequest`."""
        accounts.check_name(name)
        accounts.check_description(description)
        account = ServiceAccount(
            cluster_id=cluster_id, name=name, description=description, created_ms=self._clock.now_ms()
        )

        def script() -> Script[bool]:
            if (yield from store.count_accounts(cluster_id)) >= accounts.MAX_ACCOUNTS:
                raise InvalidRequest(f"there are {accounts.MAX_ACCOUNTS} service accounts already")
            return (yield from store.put_account(account))

        return await self._database.transaction(script)

    async def delete_account(self, cluster_id: int, name: str, *, asked_by: int = 0) -> bool:
        """Delete a service account with its keys and tokens; False if it does not exist. Connections that used them are
        reported to `revoked`. Raises `InvalidRequest`."""
        accounts.check_name(name)
        gone = await self._revoke(lambda: store.delete_account(cluster_id, name), asked_by)
        return gone is not None

    async def _revoke(self, script: Callable[[], Script[set[str] | None]], asked_by: int) -> set[str] | None:
        """Delete keys or tokens; returns them. It completes even if the caller disconnects."""

        async def change() -> set[str] | None:
            # The lock: `drop_revoked` must not close the requesting connection before it is known as such.
            async with self._revoking:
                gone = await self._database.transaction(script)
                if gone:
                    # Logins that read the credential before its deletion are finished once this is done.
                    await self._database.read(store.has_credentials)
                    self._revoked(gone, asked_by)
                return gone

        return await self._changes.run(change())

    async def drop_revoked(self, in_use: Callable[[], Collection[str]]) -> None:
        """Report the API keys and tokens in use here that another agent has deleted."""
        async with self._revoking:
            gone = await self._revoked_among(in_use())
            if gone:
                self._revoked(gone, 0)

    async def _revoked_among(self, credential_ids: Collection[str]) -> set[str]:
        keys = [one for one in credential_ids if accounts.looks_like_key(one)]
        tokens = [one for one in credential_ids if not accounts.looks_like_key(one)]

        def script() -> Script[set[str]]:
            gone = set[str]()
            for start in range(0, len(keys), LOOKED_UP_AT_ONCE):
                gone |= yield from store.missing_among(keys[start : start + LOOKED_UP_AT_ONCE])
            for start in range(0, len(tokens), LOOKED_UP_AT_ONCE):
                gone |= yield from token_store.revoked_among(tokens[start : start + LOOKED_UP_AT_ONCE])
            return gone

        return await self._database.read(script) if credential_ids else set()

    async def create_key(self, cluster_id: int, owner: str, description: str, lifetime_ms: int) -> NewApiKey | None:
        """Create a key for a service account; None if there is no such account. A lifetime of -1 means no expiry.
        Raises `InvalidRequest`."""
        accounts.check_name(owner)
        accounts.check_description(description)
        if lifetime_ms == 0 or lifetime_ms < -1:
            raise InvalidRequest("the lifetime of an API key is at least 1 ms, or -1 for no expiry")
        now_ms = self._clock.now_ms()
        made = accounts.make_key(
            cluster_id, owner, description, now_ms=now_ms, expires_ms=None if lifetime_ms < 0 else now_ms + lifetime_ms,
            randomness=self._randomness,
        )  # fmt: skip

        def script() -> Script[bool]:
            if not (yield from store.has_account(cluster_id, owner)):
                return False
            if (yield from store.count_keys(cluster_id, owner)) >= accounts.MAX_KEYS_PER_ACCOUNT:
                raise InvalidRequest(f"{owner} has {accounts.MAX_KEYS_PER_ACCOUNT} keys already: delete one first")
            if (yield from store.count_keys(cluster_id)) >= accounts.MAX_KEYS:
                raise InvalidRequest(f"there are {accounts.MAX_KEYS} API keys already: delete one first")
            yield from store.put_key(made.key)
            return True

        return made if await self._database.transaction(script) else None

    async def key_owners(self, cluster_id: int, key_ids: Sequence[str]) -> dict[str, str]:
        """The owners of those keys that exist in the cluster."""
        known = [key_id for key_id in key_ids if accounts.looks_like_key(key_id)]

        def script() -> Script[dict[str, str]]:
            owners = {}
            for key_id in known:
                key = yield from store.key_by_id(key_id)
                if key is not None and key.cluster_id == cluster_id:
                    owners[key_id] = key.owner
            return owners

        return await self._database.read(script)

    async def delete_keys(self, cluster_id: int, key_ids: Sequence[str], *, asked_by: int = 0) -> set[str]:
        """Delete keys; returns those that existed. Connections that used them are reported to `revoked`."""
        known = [key_id for key_id in key_ids if accounts.looks_like_key(key_id)]
        return await self._revoke(lambda: store.delete_keys(cluster_id, known), asked_by) or set()
