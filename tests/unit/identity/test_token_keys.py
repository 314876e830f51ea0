"""Delegation tokens after their key was replaced: what was known is worth nothing, and what is shown can be ended."""

from __future__ import annotations

from fixtures.clocks import ManualClock
from fixtures.tables import have_tables

from penstock.base.context import RequestContext
from penstock.base.randomness import SeededRandomness
from penstock.identity.token_handlers import TokenHandlers
from penstock.identity.tokens import TokenRules
from penstock.metadata.inline import InlineDatabase
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.create_delegation_token import CreateDelegationTokenRequest
from penstock.wire.messages.describe_delegation_token import DescribeDelegationTokenRequest
from penstock.wire.messages.expire_delegation_token import ExpireDelegationTokenRequest
from penstock.wire.messages.renew_delegation_token import RenewDelegationTokenRequest

ALICE = RequestContext(principal="User:alice", security_protocol="SASL_SSL")


async def test_the_key_is_replaced() -> None:
    database, clock, randomness = InlineDatabase(), ManualClock(), SeededRandomness("token keys")
    await database.open()
    await have_tables(database, clock)

    def under(key: bytes) -> TokenHandlers:
        rules = TokenRules(key=key, max_lifetime_ms=10_000, expiry_time_ms=1_000)
        return TokenHandlers(
            database=database, rules=rules, clock=clock, randomness=randomness, may_change=lambda *_: False
        )

    made = await under(b"a key that is known to others").create(ALICE, CreateDelegationTokenRequest())
    assert made.error_code == 0
    after = under(b"another key, for that reason")
    renewal = RenewDelegationTokenRequest(hmac=made.hmac, renew_period_ms=-1)
    assert (await after.renew(ALICE, renewal)).error_code == ErrorCode.DELEGATION_TOKEN_NOT_FOUND
    (shown,) = (await after.describe(ALICE, DescribeDelegationTokenRequest(owners=None))).tokens
    assert (shown.token_id, shown.hmac == made.hmac) == (made.token_id, False)
    ending = ExpireDelegationTokenRequest(hmac=shown.hmac, expiry_time_period_ms=-1)
    assert (await after.expire(ALICE, ending)).error_code == 0
    assert (await after.describe(ALICE, DescribeDelegationTokenRequest(owners=None))).tokens == []
    await database.close()
