"""APIs for service accounts and API keys. They are Penstock's own: Kafka has none for this.

They use the same connections as everything else, so an administrator of a cluster needs no other credentials and no
other TLS. ApiVersions lists them for our own command line only.
"""

from __future__ import annotations

from penstock.base.context import RequestContext
from penstock.base.cooperative import map_each, yield_if_due
from penstock.base.errors import InvalidRequest, PlatformError
from penstock.identity.accounts import ApiKey, ServiceAccount
from penstock.identity.model import PLATFORM_ADMINS_ONLY, MayChange, user
from penstock.identity.service import Identities
from penstock.wire.error_codes import ErrorCode
from penstock.wire.failures import NO_ERROR, ApiError, change_failure
from penstock.wire.messages.alter_service_accounts import (
    AlterServiceAccountsRequest,
    AlterServiceAccountsResponse,
    AlterServiceAccountsResult,
)
from penstock.wire.messages.create_api_key import CreateApiKeyRequest, CreateApiKeyResponse
from penstock.wire.messages.delete_api_keys import DeleteApiKeysRequest, DeleteApiKeysResponse, DeleteApiKeysResult
from penstock.wire.messages.describe_service_accounts import (
    DescribedApiKey,
    DescribedServiceAccount,
    DescribeServiceAccountsRequest,
    DescribeServiceAccountsResponse,
)

MAX_DELETED = 10_000
FORBIDDEN: ApiError = ErrorCode.CLUSTER_AUTHORIZATION_FAILED, PLATFORM_ADMINS_ONLY


class AccountHandlers:
    """Our account APIs over `Identities`."""

    def __init__(self, identities: Identities, *, may_change: MayChange) -> None:
        self._identities, self._may_change = identities, may_change

    async def describe_accounts(
        self, context: RequestContext, request: DescribeServiceAccountsRequest
    ) -> DescribeServiceAccountsResponse:
        """DescribeServiceAccounts, key 10000, v0: all accounts, or those named, with their keys; no secrets."""
        names = None if request.names is None else set(request.names)
        found = await self._identities.service_accounts(context.cluster_id, names)
        response = DescribeServiceAccountsResponse(error_message=None)
        for number, (account, keys) in enumerate(found):
            await yield_if_due(number)
            if names is None or account.name in names:
                response.accounts.append(_described(account, keys))
        return response

    async def alter_accounts(
        self, context: RequestContext, request: AlterServiceAccountsRequest
    ) -> AlterServiceAccountsResponse:
        """AlterServiceAccounts, key 10001, v0: creates and deletes accounts one by one. Keys go with their account."""
        response = AlterServiceAccountsResponse()
        for number, creation in enumerate(request.creations):
            await yield_if_due(number)
            error = await self._create(context, creation.name, creation.description)
            response.results.append(_result(creation.name, error))
        for number, name in enumerate(request.deletions):
            await yield_if_due(number)
            response.results.append(_result(name, await self._delete(context, name)))
        return response

    async def _create(self, context: RequestContext, name: str, description: str) -> ApiError:
        if not self._may_change(context, user(name)):
            return FORBIDDEN
        try:
            if await self._identities.create_account(context.cluster_id, name, description):
                return NO_ERROR
        except PlatformError as error:
            return change_failure(error)
        return ErrorCode.DUPLICATE_RESOURCE, f"service account {name} exists already"

    async def _delete(self, context: RequestContext, name: str) -> ApiError:
        if not self._may_change(context, user(name)):
            return FORBIDDEN
        try:
            if await self._identities.delete_account(context.cluster_id, name, asked_by=context.connection_id):
                return NO_ERROR
        except PlatformError as error:
            return change_failure(error)
        return ErrorCode.RESOURCE_NOT_FOUND, f"there is no service account {name}"

    async def create_key(self, context: RequestContext, request: CreateApiKeyRequest) -> CreateApiKeyResponse:
        """CreateApiKey, key 10002, v0: a key for a service account. Only the response contains its secret."""
        if not self._may_change(context, user(request.owner)):
            code, message = FORBIDDEN
            return CreateApiKeyResponse(error_code=code, error_message=message)
        try:
            made = await self._identities.create_key(
                context.cluster_id, request.owner, request.description, request.lifetime_ms
            )
        except PlatformError as error:
            # Not retried after a lost answer: a key that nobody received is useless but visible in the list.
            code, message = change_failure(error, unknown=ErrorCode.UNKNOWN_SERVER_ERROR)
            return CreateApiKeyResponse(error_code=code, error_message=message)
        if made is None:
            return CreateApiKeyResponse(
                error_code=ErrorCode.RESOURCE_NOT_FOUND, error_message=f"there is no service account {request.owner}"
            )
        expires_ms = made.key.expires_ms
        return CreateApiKeyResponse(
            error_message=None, key_id=made.key.key_id, secret=made.secret,
            expires_ms=-1 if expires_ms is None else expires_ms,
        )  # fmt: skip

    async def delete_keys(self, context: RequestContext, request: DeleteApiKeysRequest) -> DeleteApiKeysResponse:
        """DeleteApiKeys, key 10003, v0: the keys become invalid, and connections that used them are closed."""
        response = DeleteApiKeysResponse()
        forbidden: set[str] = set()
        try:
            if len(request.key_ids) > MAX_DELETED:
                raise InvalidRequest(f"{MAX_DELETED} keys may be deleted at once")
            owners = await self._identities.key_owners(context.cluster_id, request.key_ids)
            forbidden = {key_id for key_id, owner in owners.items() if not self._may_change(context, user(owner))}
            allowed = [key_id for key_id in request.key_ids if key_id not in forbidden]
            gone = await self._identities.delete_keys(context.cluster_id, allowed, asked_by=context.connection_id)
        except PlatformError as error:
            code, message = change_failure(error)
            response.results = await map_each(
                request.key_ids,
                lambda key_id: DeleteApiKeysResult(key_id=key_id, error_code=code, error_message=message),
            )
            return response
        for number, key_id in enumerate(request.key_ids):
            await yield_if_due(number)
            result = DeleteApiKeysResult(key_id=key_id, error_message=None)
            if key_id in forbidden:
                result.error_code, result.error_message = FORBIDDEN
            elif key_id not in gone:
                result.error_code, result.error_message = ErrorCode.RESOURCE_NOT_FOUND, f"there is no API key {key_id}"
            response.results.append(result)
        return response


def _described(account: ServiceAccount, keys: list[ApiKey]) -> DescribedServiceAccount:
    return DescribedServiceAccount(
        name=account.name,
        description=account.description,
        created_ms=account.created_ms,
        keys=[
            DescribedApiKey(
                key_id=key.key_id, description=key.description, created_ms=key.created_ms,
                expires_ms=-1 if key.expires_ms is None else key.expires_ms,
            )
            for key in keys
        ],
    )  # fmt: skip


def _result(name: str, error: ApiError) -> AlterServiceAccountsResult:
    return AlterServiceAccountsResult(name=name, error_code=error[0], error_message=error[1])
