"""Guards of delegation tokens. ACLs decide about tokens of other principals only."""

from __future__ import annotations

from penstock.authorization.guards.access import TOKEN_DENIED, Handler, RequestAccess
from penstock.base.acls import Operation, ResourceType
from penstock.base.cooperative import yield_if_due
from penstock.wire.messages import create_delegation_token as creating
from penstock.wire.messages import describe_delegation_token as describing


async def create_delegation_token(
    access: RequestAccess, request: creating.CreateDelegationTokenRequest, handle: Handler
) -> creating.CreateDelegationTokenResponse:
    """CREATE_TOKENS on the owner, if that is not the caller, else 65."""
    requester = access.context.principal
    owner = requester
    if request.owner_principal_name:
        owner = f"{request.owner_principal_type}:{request.owner_principal_name}"
    if owner != requester and not access.may(Operation.CREATE_TOKENS, ResourceType.USER, owner):
        owner_type, _, owner_name = owner.partition(":")
        requester_type, _, requester_name = requester.partition(":")
        return creating.CreateDelegationTokenResponse(
            error_code=TOKEN_DENIED.code, principal_type=owner_type, principal_name=owner_name,
            token_requester_principal_type=requester_type, token_requester_principal_name=requester_name,
            issue_timestamp_ms=-1, expiry_timestamp_ms=-1, max_timestamp_ms=-1,
        )  # fmt: skip
    response: creating.CreateDelegationTokenResponse = await handle(request)
    return response


async def describe_delegation_token(
    access: RequestAccess, request: describing.DescribeDelegationTokenRequest, handle: Handler
) -> describing.DescribeDelegationTokenResponse:
    """Shown: tokens that concern the caller, that it may DESCRIBE, or on whose owner it has DESCRIBE_TOKENS."""
    response: describing.DescribeDelegationTokenResponse = await handle(request)
    shown = []
    for number, token in enumerate(response.tokens):
        await yield_if_due(number)
        if _is_visible(access, token):
            shown.append(token)
    response.tokens = shown
    return response


def _is_visible(access: RequestAccess, token: describing.DescribedDelegationToken) -> bool:
    owner = f"{token.principal_type}:{token.principal_name}"
    requester = f"{token.token_requester_principal_type}:{token.token_requester_principal_name}"
    renewers = [f"{renewer.principal_type}:{renewer.principal_name}" for renewer in token.renewers]
    return (
        access.context.principal in (owner, requester, *renewers)
        or access.may_quietly(Operation.DESCRIBE, ResourceType.DELEGATION_TOKEN, token.token_id)
        or access.may_quietly(Operation.DESCRIBE_TOKENS, ResourceType.USER, owner)
    )
