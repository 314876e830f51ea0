"""Service accounts and API keys of a cluster: APIs that only Penstock has."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.base.dataclasses import dataclass, field
from penstock.cli.kafka.client import Client
from penstock.cli.kafka.failures import check
from penstock.wire.api_keys import ApiKey as Api
from penstock.wire.messages.alter_service_accounts import (
    AlterServiceAccountsRequest,
    AlterServiceAccountsResponse,
    ServiceAccountCreation,
)
from penstock.wire.messages.create_api_key import CreateApiKeyRequest, CreateApiKeyResponse
from penstock.wire.messages.delete_api_keys import DeleteApiKeysRequest, DeleteApiKeysResponse
from penstock.wire.messages.describe_service_accounts import (
    DescribeServiceAccountsRequest,
    DescribeServiceAccountsResponse,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key, without its secret."""

    key_id: str
    owner: str
    description: str
    created_ms: int
    expires_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAccount:
    """A service account and its keys."""

    name: str
    description: str
    created_ms: int
    keys: tuple[ApiKey, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedKey:
    """A new key, with its secret."""

    key_id: str
    expires_ms: int | None
    secret: str = field(repr=False)


def describe_accounts(client: Client, names: Sequence[str] | None = None) -> list[ServiceAccount]:
    """All service accounts, or those of these names that there are."""
    request = DescribeServiceAccountsRequest(names=None if names is None else list(names))

    def ask() -> list[ServiceAccount]:
        response = client.call_controller(Api.DESCRIBE_SERVICE_ACCOUNTS, request, DescribeServiceAccountsResponse)
        check(response.error_code, "service accounts", response.error_message)
        return [
            ServiceAccount(
                name=account.name, description=account.description, created_ms=account.created_ms,
                keys=tuple(
                    ApiKey(
                        key_id=key.key_id, owner=account.name, description=key.description, created_ms=key.created_ms,
                        expires_ms=None if key.expires_ms < 0 else key.expires_ms,
                    )
                    for key in account.keys
                ),
            )
            for account in response.accounts
        ]  # fmt: skip

    return client.retry(ask)


def create_account(client: Client, name: str, description: str) -> None:
    """Make a service account."""
    creation = ServiceAccountCreation(name=name, description=description)
    _alter(client, AlterServiceAccountsRequest(creations=[creation]))


def delete_accounts(client: Client, names: Sequence[str]) -> None:
    """Remove service accounts and their keys."""
    _alter(client, AlterServiceAccountsRequest(deletions=list(names)))


def _alter(client: Client, request: AlterServiceAccountsRequest) -> None:
    def ask() -> None:
        response = client.call_controller(Api.ALTER_SERVICE_ACCOUNTS, request, AlterServiceAccountsResponse)
        for result in response.results:
            check(result.error_code, "", result.error_message)

    client.retry(ask)


def create_key(client: Client, owner: str, description: str, lifetime_ms: int | None) -> CreatedKey:
    """Make a key for a service account."""
    request = CreateApiKeyRequest(
        owner=owner, description=description, lifetime_ms=-1 if lifetime_ms is None else lifetime_ms
    )

    def ask() -> CreatedKey:
        response = client.call_controller(Api.CREATE_API_KEY, request, CreateApiKeyResponse)
        check(response.error_code, "", response.error_message)
        expires_ms = None if response.expires_ms < 0 else response.expires_ms
        return CreatedKey(key_id=response.key_id, expires_ms=expires_ms, secret=response.secret)

    return client.retry(ask)


def delete_keys(client: Client, key_ids: Sequence[str]) -> None:
    """Remove keys: nobody can connect with them any more."""

    def ask() -> None:
        request = DeleteApiKeysRequest(key_ids=list(key_ids))
        response = client.call_controller(Api.DELETE_API_KEYS, request, DeleteApiKeysResponse)
        for result in response.results:
            check(result.error_code, f"API key {result.key_id!r}", result.error_message)

    client.retry(ask)
