"""Kafka's credential APIs. SASL exchanges themselves are handled by `agent/sasl.py`, before requests come here."""

from __future__ import annotations

from collections.abc import Collection

from penstock.base.context import RequestContext
from penstock.base.cooperative import count_keys, map_each, yield_if_due
from penstock.base.errors import PlatformError
from penstock.identity import scram
from penstock.identity.model import PLATFORM_ADMINS_ONLY, MayChange, user
from penstock.identity.scram import Credential, Mechanism
from penstock.identity.service import CredentialChange, Identities
from penstock.wire.error_codes import ErrorCode
from penstock.wire.failures import ApiError, change_failure
from penstock.wire.messages.alter_user_scram_credentials import (
    AlterUserScramCredentialsRequest,
    AlterUserScramCredentialsResponse,
    AlterUserScramCredentialsResult,
    ScramCredentialDeletion,
    ScramCredentialUpsertion,
)
from penstock.wire.messages.describe_user_scram_credentials import (
    CredentialInfo,
    DescribeUserScramCredentialsRequest,
    DescribeUserScramCredentialsResponse,
    DescribeUserScramCredentialsResult,
)
from penstock.wire.messages.sasl_authenticate import SaslAuthenticateRequest, SaslAuthenticateResponse
from penstock.wire.messages.sasl_handshake import SaslHandshakeRequest, SaslHandshakeResponse

MAX_USER_NAME_CHARS = 512
Alteration = ScramCredentialDeletion | ScramCredentialUpsertion


class IdentityHandlers:
    """Kafka's credential APIs over `Identities`."""

    def __init__(self, identities: Identities, *, may_change: MayChange) -> None:
        self._identities, self._may_change = identities, may_change

    async def sasl_handshake(self, context: RequestContext, request: SaslHandshakeRequest) -> SaslHandshakeResponse:
        """SaslHandshake, key 17, v0-1: v0: bare tokens follow. v1: SaslAuthenticate follows. Refused where
        authentication is not required, or already complete."""
        return SaslHandshakeResponse(error_code=ErrorCode.ILLEGAL_SASL_STATE)

    async def sasl_authenticate(
        self, context: RequestContext, request: SaslAuthenticateRequest
    ) -> SaslAuthenticateResponse:
        """SaslAuthenticate, key 36, v0-2: v1: session lifetime (KIP-368). v2: flexible. Refused where no exchange is in
        progress."""
        return SaslAuthenticateResponse(
            error_code=ErrorCode.ILLEGAL_SASL_STATE,
            error_message="SaslAuthenticate request received after successful authentication",
        )

    async def describe_scram(
        self, context: RequestContext, request: DescribeUserScramCredentialsRequest
    ) -> DescribeUserScramCredentialsResponse:
        """DescribeUserScramCredentials, key 50, v0: KIP-554. Mechanisms and iterations, never the keys."""
        asked = await count_keys(user.name for user in request.users or ())
        users = await self._identities.mechanisms(context.cluster_id, asked if request.users else None)
        if not request.users:
            asked = await count_keys(users)
        response = DescribeUserScramCredentialsResponse()
        for number, (name, times) in enumerate(asked.items()):
            await yield_if_due(number)
            result = DescribeUserScramCredentialsResult(user=name)
            if times > 1:
                result.error_code = ErrorCode.DUPLICATE_RESOURCE
                result.error_message = (
                    f"Cannot describe SCRAM credentials for the same user twice in a single request: {name}"
                )
            elif name not in users:
                result.error_code = ErrorCode.RESOURCE_NOT_FOUND
                result.error_message = f"Attempt to describe a user credential that does not exist: {name}"
            else:
                result.credential_infos = [
                    CredentialInfo(mechanism=int(mechanism), iterations=iterations)
                    for mechanism, iterations in users[name]
                ]
            response.results.append(result)
        return response

    async def alter_scram(
        self, context: RequestContext, request: AlterUserScramCredentialsRequest
    ) -> AlterUserScramCredentialsResponse:
        """AlterUserScramCredentials, key 51, v0: KIP-554. The password arrives salted and hashed, and only the keys
        derived from it are stored. All valid changes are made in one transaction."""
        alterations: list[ScramCredentialDeletion | ScramCredentialUpsertion] = [
            *request.deletions,
            *request.upsertions,
        ]
        counts = await count_keys(alteration.name for alteration in alterations)
        existing = await self._identities.mechanisms(context.cluster_id, counts)
        api_errors: dict[str, ApiError | None] = {}
        changes = []
        for number, alteration in enumerate(alterations):
            await yield_if_due(number)
            name = alteration.name
            api_error: ApiError | None = ErrorCode.CLUSTER_AUTHORIZATION_FAILED, PLATFORM_ADMINS_ONLY
            if self._may_change(context, user(name)):
                api_error = _validate(alteration, existing.get(name, ()))
            if api_error is None and counts[name] > 1:
                duplicate = "A user credential cannot be altered twice in the same request"
                api_error = ErrorCode.DUPLICATE_RESOURCE, duplicate
            api_errors[name] = api_errors.get(name) or api_error
            if api_error is None:
                changes.append(_change(alteration))
        try:
            await self._identities.change_credentials(
                context.cluster_id, [change for change in changes if api_errors[change.user] is None]
            )
        except PlatformError as error:
            failure = change_failure(error, invalid=ErrorCode.POLICY_VIOLATION)
            api_errors = {name: api_error or failure for name, api_error in api_errors.items()}
        return AlterUserScramCredentialsResponse(results=await map_each(list(api_errors.items()), _altered))


def _altered(one: tuple[str, ApiError | None]) -> AlterUserScramCredentialsResult:
    name, api_error = one
    code, message = api_error or (ErrorCode.NONE, None)
    return AlterUserScramCredentialsResult(user=name, error_code=code, error_message=message)


def _validate(
    alteration: Alteration, existing: Collection[tuple[Mechanism, int]]
) -> ApiError | None:  # fmt: skip
    name = alteration.name
    if not name:
        return ErrorCode.UNACCEPTABLE_CREDENTIAL, "Username must not be empty"
    if "\0" in name or len(name) > MAX_USER_NAME_CHARS:
        return ErrorCode.UNACCEPTABLE_CREDENTIAL, f"Username must have at most {MAX_USER_NAME_CHARS} characters"
    if alteration.mechanism not in Mechanism._value2member_map_:
        return ErrorCode.UNSUPPORTED_SASL_MECHANISM, "Unknown SCRAM mechanism"
    if isinstance(alteration, ScramCredentialDeletion):
        if alteration.mechanism not in {int(mechanism) for mechanism, _ in existing}:
            return ErrorCode.RESOURCE_NOT_FOUND, "Attempt to delete a user credential that does not exist"
        return None
    if alteration.iterations < scram.MIN_ITERATIONS:
        return ErrorCode.UNACCEPTABLE_CREDENTIAL, "Too few iterations"
    if alteration.iterations > scram.MAX_ITERATIONS:
        return ErrorCode.UNACCEPTABLE_CREDENTIAL, "Too many iterations"
    if not alteration.salted_password:
        return ErrorCode.UNACCEPTABLE_CREDENTIAL, "Password must not be empty"
    return None


def _change(alteration: Alteration) -> CredentialChange:
    mechanism = Mechanism(alteration.mechanism)
    credential: Credential | None = None
    if isinstance(alteration, ScramCredentialUpsertion):
        salted, salt = bytes(alteration.salted_password), bytes(alteration.salt)
        credential = scram.credential_of(mechanism, salted, salt, alteration.iterations)
    return CredentialChange(user=alteration.name, mechanism=mechanism, credential=credential)
