"""Kafka's delegation token APIs. Callers without permission on a token may only use tokens that concern them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hmac import compare_digest
from itertools import islice

from penstock.base.clock import Clock
from penstock.base.context import ANONYMOUS, RequestContext
from penstock.base.cooperative import distinct, yield_if_due
from penstock.base.errors import PlatformError
from penstock.base.randomness import Randomness, new_uuid, uuid_text
from penstock.identity import token_store
from penstock.identity.model import USER, MayChange
from penstock.identity.tokens import MAX_RENEWERS, Token, TokenRules, hash_of
from penstock.metadata.database import Database, Script
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.create_delegation_token import CreateDelegationTokenRequest, CreateDelegationTokenResponse
from penstock.wire.messages.describe_delegation_token import (
    DescribedDelegationToken,
    DescribedDelegationTokenRenewer,
    DescribeDelegationTokenRequest,
    DescribeDelegationTokenResponse,
)
from penstock.wire.messages.expire_delegation_token import ExpireDelegationTokenRequest, ExpireDelegationTokenResponse
from penstock.wire.messages.renew_delegation_token import RenewDelegationTokenRequest, RenewDelegationTokenResponse

MAX_NAMES_BYTES = 4_096
"""The most bytes of principals' names in a token: listing all tokens of a cluster takes memory of the agent. Kafka has
no such limit."""
NOT_ASKED, NONE_FOUND = -1, 0
"""The timestamps in refusals: for callers that may not use tokens at all, and for others; as in Kafka."""


class TokenHandlers:
    """Delegation tokens over the database. Without rules (a secret key) there are none."""

    def __init__(
        self, *, database: Database, rules: TokenRules | None, clock: Clock, randomness: Randomness,
        may_change: MayChange, is_guarded: bool = False,
    ) -> None:  # fmt: skip
        self._database, self._rules, self._clock, self._randomness = database, rules, clock, randomness
        self._may_change, self._is_guarded = may_change, is_guarded
        """Whether requests are authorized before they come here. If not, nobody may use tokens of others: otherwise
        anybody could create a token for any principal."""

    async def create(
        self, context: RequestContext, request: CreateDelegationTokenRequest
    ) -> CreateDelegationTokenResponse:
        """CreateDelegationToken, key 38, v1-3: v2: flexible. v3: for another owner (KIP-373)."""
        owner = context.principal
        if request.owner_principal_name:
            owner = f"{request.owner_principal_type}:{request.owner_principal_name}"
        response = CreateDelegationTokenResponse(issue_timestamp_ms=-1, expiry_timestamp_ms=-1, max_timestamp_ms=-1)
        response.principal_type, response.principal_name = _parts(owner)
        response.token_requester_principal_type, response.token_requester_principal_name = _parts(context.principal)
        # One more than the limit is too many, however many there are.
        some = islice(request.renewers, MAX_RENEWERS + 1)
        renewers = tuple(f"{one.principal_type}:{one.principal_name}" for one in some)
        rules = self._rules
        if not _is_allowed(context):
            response.error_code = ErrorCode.DELEGATION_TOKEN_REQUEST_NOT_ALLOWED
        elif owner != context.principal and not (self._is_guarded and self._may_change(context, owner)):
            response.error_code = ErrorCode.DELEGATION_TOKEN_AUTHORIZATION_FAILED
        elif any(one.principal_type != USER for one in request.renewers):
            response.error_code = ErrorCode.INVALID_PRINCIPAL_TYPE
        elif rules is None:
            response.error_code = ErrorCode.DELEGATION_TOKEN_AUTH_DISABLED
            response.issue_timestamp_ms = response.expiry_timestamp_ms = response.max_timestamp_ms = NONE_FOUND
        elif len(renewers) > MAX_RENEWERS or _bytes_of((owner, *renewers)) > MAX_NAMES_BYTES:
            response.error_code = ErrorCode.INVALID_REQUEST
        else:
            await self._issue(context, rules, owner, renewers, request.max_lifetime_ms, response)
        return response

    async def _issue(
        self, context: RequestContext, rules: TokenRules, owner: str, renewers: tuple[str, ...], lifetime_ms: int,
        response: CreateDelegationTokenResponse,
    ) -> None:  # fmt: skip
        token = rules.issued(
            context.cluster_id, uuid_text(new_uuid(self._randomness)), owner=owner, requester=context.principal,
            renewers=renewers, lifetime_ms=lifetime_ms, now_ms=self._clock.now_ms(),
        )  # fmt: skip
        secret = rules.secret(token.token_id)

        def script() -> Script[bool]:
            if not (yield from token_store.has_room(token.cluster_id, owner, token.issued_ms)):
                return False
            yield from token_store.put(token, hash_of(secret))
            return True

        try:
            kept = await self._database.transaction(script)
        except PlatformError:
            response.error_code = ErrorCode.REQUEST_TIMED_OUT
            return
        if not kept:
            response.error_code = ErrorCode.POLICY_VIOLATION
            return
        response.token_id, response.hmac = token.token_id, secret
        response.issue_timestamp_ms, response.max_timestamp_ms = token.issued_ms, token.max_ms
        response.expiry_timestamp_ms = token.expires_ms

    async def renew(
        self, context: RequestContext, request: RenewDelegationTokenRequest
    ) -> RenewDelegationTokenResponse:
        """RenewDelegationToken, key 39, v1-2: v2: flexible."""
        code, token = await self._find(context, bytes(request.hmac))
        if token is None or self._rules is None:
            return RenewDelegationTokenResponse(error_code=code, expiry_timestamp_ms=_of_refusal(code))
        now_ms = self._clock.now_ms()
        if token.has_expired(now_ms):
            code = ErrorCode.DELEGATION_TOKEN_EXPIRED
        elif not token.may_renew(context.principal):
            code = ErrorCode.DELEGATION_TOKEN_OWNER_MISMATCH
        else:
            renewed = self._rules.renewed(token, request.renew_period_ms, now_ms)
            code = await self._write(lambda: token_store.set_expiry(renewed))
            if not code:
                return RenewDelegationTokenResponse(expiry_timestamp_ms=renewed.expires_ms)
        return RenewDelegationTokenResponse(error_code=code, expiry_timestamp_ms=NONE_FOUND)

    async def expire(
        self, context: RequestContext, request: ExpireDelegationTokenRequest
    ) -> ExpireDelegationTokenResponse:
        """ExpireDelegationToken, key 40, v1-2: v2: flexible. A negative period ends it at once."""
        code, token = await self._find(context, bytes(request.hmac))
        if token is None or self._rules is None:
            return ExpireDelegationTokenResponse(error_code=code, expiry_timestamp_ms=_of_refusal(code))
        now_ms = self._clock.now_ms()
        ends_ms = NONE_FOUND
        if not token.may_renew(context.principal):
            code = ErrorCode.DELEGATION_TOKEN_OWNER_MISMATCH
        elif request.expiry_time_period_ms < 0:
            found = token
            code, ends_ms = await self._write(lambda: token_store.delete(found.cluster_id, found.token_id)), now_ms
        elif token.has_expired(now_ms):
            code = ErrorCode.DELEGATION_TOKEN_EXPIRED
        else:
            ending = self._rules.ending(token, request.expiry_time_period_ms, now_ms)
            code, ends_ms = await self._write(lambda: token_store.set_expiry(ending)), ending.expires_ms
        return ExpireDelegationTokenResponse(error_code=code, expiry_timestamp_ms=NONE_FOUND if code else ends_ms)

    async def describe(
        self, context: RequestContext, request: DescribeDelegationTokenRequest
    ) -> DescribeDelegationTokenResponse:
        """DescribeDelegationToken, key 41, v1-3: v2: flexible. v3: the requester. Null owners: all tokens; else those
        that concern one of the owners. A token made under an earlier secret key is shown with its HMAC under the
        current one, which can be used to expire it from then on."""
        rules = self._rules
        if not _is_allowed(context):
            return DescribeDelegationTokenResponse(error_code=ErrorCode.DELEGATION_TOKEN_REQUEST_NOT_ALLOWED)
        if rules is None:
            return DescribeDelegationTokenResponse(error_code=ErrorCode.DELEGATION_TOKEN_AUTH_DISABLED)
        owners = request.owners
        now_ms = self._clock.now_ms()
        wanted = None
        if owners is not None:
            wanted = await distinct(f"{one.principal_type}:{one.principal_name}" for one in owners)

        def script() -> Script[tuple[list[Token], dict[str, bytes]]]:
            found = yield from token_store.all_of(context.cluster_id, now_ms)
            return found, (yield from token_store.hashes_of(context.cluster_id))

        try:
            tokens, hashes = await self._database.read(script)
        except PlatformError:
            return DescribeDelegationTokenResponse(error_code=ErrorCode.REQUEST_TIMED_OUT)
        response, changed = DescribeDelegationTokenResponse(), dict[str, bytes]()
        for number, token in enumerate(tokens):
            await yield_if_due(number)
            if (wanted is None or not wanted.keys().isdisjoint(token.parties)) and self._is_shown(context, token):
                secret = rules.secret(token.token_id)
                response.tokens.append(_described(token, secret))
                if hashes.get(token.token_id) != hash_of(secret):
                    changed[token.token_id] = hash_of(secret)
        if changed and await self._write(lambda: token_store.set_hashes(context.cluster_id, changed)):
            return DescribeDelegationTokenResponse(error_code=ErrorCode.REQUEST_TIMED_OUT)
        return response

    def _is_shown(self, context: RequestContext, token: Token) -> bool:
        """Whether ACLs may let the caller see a token, which includes the secret that authenticates its owner."""
        return token.concerns(context.principal) or (self._is_guarded and self._may_change(context, token.owner))

    async def _find(self, context: RequestContext, secret: bytes) -> tuple[ErrorCode, Token | None]:
        if not _is_allowed(context):
            return ErrorCode.DELEGATION_TOKEN_REQUEST_NOT_ALLOWED, None
        if self._rules is None:
            return ErrorCode.DELEGATION_TOKEN_AUTH_DISABLED, None
        try:
            token = await self._database.read(lambda: token_store.by_hash(context.cluster_id, hash_of(secret)))
        except PlatformError:
            return ErrorCode.REQUEST_TIMED_OUT, None
        if token is not None and not compare_digest(self._rules.secret(token.token_id), secret):
            token = None  # Of an earlier secret key, replaced by the operator.
        return ErrorCode.DELEGATION_TOKEN_NOT_FOUND, token

    async def _write(self, script: Callable[[], Script[None]]) -> ErrorCode:
        try:
            await self._database.transaction(script)
        except PlatformError:
            return ErrorCode.REQUEST_TIMED_OUT
        return ErrorCode.NONE


def _is_allowed(context: RequestContext) -> bool:
    """Tokens are only for callers authenticated by something other than a token."""
    anonymous = context.security_protocol == "SSL" and context.principal == ANONYMOUS
    return not (context.token_authenticated or context.security_protocol == "PLAINTEXT" or anonymous)


def _parts(principal: str) -> tuple[str, str]:
    kind, _, name = principal.partition(":")
    return kind, name


def _of_refusal(code: ErrorCode) -> int:
    return NOT_ASKED if code == ErrorCode.DELEGATION_TOKEN_REQUEST_NOT_ALLOWED else NONE_FOUND


def _described(token: Token, secret: bytes) -> DescribedDelegationToken:
    owner_type, owner = _parts(token.owner)
    requester_type, requester = _parts(token.requester)
    renewers = [_parts(renewer) for renewer in token.renewers]
    return DescribedDelegationToken(
        principal_type=owner_type, principal_name=owner, token_requester_principal_type=requester_type,
        token_requester_principal_name=requester, issue_timestamp=token.issued_ms, expiry_timestamp=token.expires_ms,
        max_timestamp=token.max_ms, token_id=token.token_id, hmac=secret,
        renewers=[DescribedDelegationTokenRenewer(principal_type=kind, principal_name=name) for kind, name in renewers],
    )  # fmt: skip


def _bytes_of(names: Iterable[str]) -> int:
    return sum(len(name.encode("utf-8", "replace")) for name in names)
