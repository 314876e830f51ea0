"""Delegation tokens (KIP-48): lifetimes, renewal, and who may use a token."""

from __future__ import annotations

import pytest

from penstock.identity.tokens import Token, TokenRules

RULES = TokenRules(key=b"k" * 16, max_lifetime_ms=10_000, expiry_time_ms=1_000)
NOW_MS = 1_000_000
FOREVER_MS = 2**63 - 1


def issued(lifetime_ms: int = -1, *, rules: TokenRules = RULES) -> Token:
    return rules.issued(
        1, "id", owner="User:owner", requester="User:requester", renewers=("User:renewer",), lifetime_ms=lifetime_ms,
        now_ms=NOW_MS,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("lifetime_ms", "expires_in_ms", "max_ms"),
    [(-1, 1_000, 10_000), (0, 1_000, 10_000), (5_000, 1_000, 5_000), (500, 500, 500), (20_000, 1_000, 10_000)],
)
def test_a_new_token_expires_soon_and_ends_at_its_maximum_lifetime(
    lifetime_ms: int, expires_in_ms: int, max_ms: int
) -> None:
    token = issued(lifetime_ms)
    assert (token.expires_ms - NOW_MS, token.max_ms - NOW_MS) == (expires_in_ms, max_ms)


def test_a_token_is_valid_until_its_expiry_inclusive() -> None:
    """As in Kafka, which compares `expiryTimestamp < now`."""
    token = issued()
    assert [token.has_expired(NOW_MS + ms) for ms in (0, 1_000, 1_001)] == [False, False, True]
    ended = RULES.ending(issued(500), 20_000, NOW_MS)
    assert [ended.has_expired(NOW_MS + ms) for ms in (500, 501)] == [False, True], (
        "the maximum lifetime ends it as well"
    )


@pytest.mark.parametrize(
    ("period_ms", "now_ms", "expires_ms"),
    [
        (-1, 500, 1_500),  # The longest possible: the configured expiry time.
        (0, 500, 1_500),
        (200, 500, 700),
        (5_000, 500, 1_500),  # Longer periods are cut.
        (-1, 9_500, 10_000),  # Never beyond the maximum lifetime.
    ],
)
def test_a_renewal_is_bounded_by_expiry_time_and_maximum_lifetime(period_ms: int, now_ms: int, expires_ms: int) -> None:
    assert RULES.renewed(issued(), period_ms, NOW_MS + now_ms).expires_ms == NOW_MS + expires_ms


def test_an_expiry_may_be_set_up_to_the_maximum_lifetime() -> None:
    assert RULES.ending(issued(), 7_000, NOW_MS).expires_ms == NOW_MS + 7_000
    assert RULES.ending(issued(), 70_000, NOW_MS).expires_ms == NOW_MS + 10_000


def test_lifetimes_do_not_overflow() -> None:
    endless = TokenRules(key=b"k" * 16, max_lifetime_ms=FOREVER_MS, expiry_time_ms=FOREVER_MS)
    token = issued(rules=endless)
    assert (token.expires_ms, token.max_ms) == (FOREVER_MS, FOREVER_MS)
    assert endless.renewed(token, FOREVER_MS, NOW_MS).expires_ms == FOREVER_MS


def test_owner_and_renewers_may_renew_and_the_requester_may_only_see_it() -> None:
    token = issued()
    principals = ("User:owner", "User:renewer", "User:requester", "User:other")
    assert [token.may_renew(principal) for principal in principals] == [True, True, False, False]
    assert [token.concerns(principal) for principal in principals] == [True, True, True, False]
