"""Rules of quotas: which limit counts for whom, compared with a naive reading of KIP-55, and what may be changed."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.log.refusals import Refused
from penstock.quotas.model import (
    CLIENT_ID,
    IP,
    USER,
    AppliedLimit,
    QuotaChanged,
    QuotaKey,
    QuotaTable,
    applied_limit,
    connection_rate_of,
    entity,
    evolve,
)
from penstock.quotas.transitions import (
    MAX_NAME_LENGTH,
    AlterationBatch,
    AlterationDecision,
    QuotaAlteration,
    checked_filter,
)
from penstock.wire.error_codes import ErrorCode

PRODUCE = QuotaKey.PRODUCER_BYTE_RATE
USERS, CLIENTS = ("alice", "bob"), ("app", "batch")
NONE = "-"
"""No name of that type in an entity, here."""
ENTITIES = [
    tuple((kind, name) for kind, name in ((CLIENT_ID, client), (USER, user)) if name != NONE)
    for user in (*USERS, None, NONE)
    for client in (*CLIENTS, None, NONE)
][:-1]


def alter(table: QuotaTable, changes: list[QuotaAlteration]) -> AlterationDecision:
    altering = AlterationBatch(table)
    for change in changes:
        altering.add(change)
    return altering.decision()


def oracle(table: QuotaTable, user: str, client_id: str) -> float | None:
    """Score every entity that matches, and take the best: a user's name weighs most, then that there is a user at
    all, then a client's name, then that there is a client at all."""

    def weight(who: dict[str, str | None]) -> tuple[int, ...]:
        return (
            who.get(USER) == user, USER in who, who.get(CLIENT_ID) == client_id and CLIENT_ID in who, CLIENT_ID in who,
        )  # fmt: skip

    def matches(who: dict[str, str | None]) -> bool:
        return all(name in (None, user if kind == USER else client_id) for kind, name in who.items())

    found = [(weight(dict(who)), limits[PRODUCE]) for who, limits in table.items() if matches(dict(who))]
    return max(found)[1] if found else None


TABLES = st.lists(st.sampled_from(ENTITIES), unique=True).map(
    lambda chosen: {who: {PRODUCE: float(number + 1)} for number, who in enumerate(chosen)}
)


@given(table=TABLES)
def test_the_most_specific_limit_counts(table: QuotaTable) -> None:
    for user, client_id in itertools.product((*USERS, "carol"), (*CLIENTS, "else")):
        found = applied_limit(table, PRODUCE, user, client_id)
        assert (found.value if found else None) == oracle(table, user, client_id)
        assert applied_limit(table, QuotaKey.CONSUMER_BYTE_RATE, user, client_id) is None


def test_kafkas_order() -> None:
    order = [
        entity(user="alice", client_id="app"), entity(user="alice", client_id=None), entity(user="alice"),
        entity(user=None, client_id="app"), entity(user=None, client_id=None), entity(user=None),
        entity(client_id="app"), entity(client_id=None),
    ]  # fmt: skip
    table = {who: {PRODUCE: float(number)} for number, who in enumerate(order)}
    for number in range(len(order)):
        assert applied_limit(table, PRODUCE, "alice", "app").value == number
        del table[order[number]]
    assert applied_limit(table, PRODUCE, "alice", "app") is None


@pytest.mark.parametrize(
    ("who", "shared_by"),
    [
        (entity(user="alice", client_id="app"), ("alice", "app")),
        (entity(user="alice", client_id=None), ("alice", "app")),
        (entity(user="alice"), ("alice", "")),
        (entity(user=None, client_id="app"), ("alice", "app")),
        (entity(user=None, client_id=None), ("alice", "app")),
        (entity(user=None), ("alice", "")),
        (entity(client_id="app"), ("", "app")),
        (entity(client_id=None), ("", "app")),
    ],
)
def test_what_counts_decides_who_shares(who, shared_by) -> None:
    assert applied_limit({who: {PRODUCE: 5.0}}, PRODUCE, "alice", "app") == AppliedLimit(5.0, *shared_by)


@pytest.mark.parametrize("client_id", [None, ""])
def test_a_client_without_an_id_is_a_default_client(client_id: str | None) -> None:
    table = {entity(user="alice", client_id=None): {PRODUCE: 1.0}, entity(client_id=None): {PRODUCE: 2.0}}
    assert applied_limit(table, PRODUCE, "alice", client_id).value == 1
    assert applied_limit(table, PRODUCE, "bob", client_id).value == 2


def test_addresses_have_their_own_or_the_default_limit() -> None:
    rate = QuotaKey.CONNECTION_CREATION_RATE
    table = {entity(ip="10.0.0.1"): {rate: 1.0}, entity(ip=None): {rate: 9.0}}
    assert [connection_rate_of(table, address) for address in ("10.0.0.1", "10.0.0.2")] == [1.0, 9.0]
    assert connection_rate_of({}, "10.0.0.1") is None


# ---- changes --------------------------------------------------------------------------------------------------------

U, C, A = [(USER, "alice")], [(CLIENT_ID, "app")], [(IP, "10.0.0.1")]


@pytest.mark.parametrize(
    ("who", "limits", "complaint"),
    [
        (U, [(PRODUCE, 1024.0)], None),
        (U, [(PRODUCE, None)], None),
        (U + C, [("request_percentage", 12.5), ("controller_mutation_rate", 0.1)], None),
        ([(USER, None), (CLIENT_ID, None)], [("consumer_byte_rate", 1.0)], None),
        (A, [("connection_creation_rate", 5.0)], None),
        ([(IP, None)], [("connection_creation_rate", 5.0)], None),
        ([(IP, "::1")], [("connection_creation_rate", 5.0)], None),
        ([], [(PRODUCE, 1.0)], "empty client quota entity"),
        ([(USER, "")], [(PRODUCE, 1.0)], "Empty user not supported"),
        ([("host", "a")], [(PRODUCE, 1.0)], "Unhandled client quota entity type: host"),
        (U + U, [(PRODUCE, 1.0)], "duplicate entity entry user"),
        (U + A, [(PRODUCE, 1.0)], "should not be combined"),
        ([(IP, "example.com")], [("connection_creation_rate", 5.0)], "not a valid IP"),
        ([(USER, "x" * (MAX_NAME_LENGTH + 1))], [(PRODUCE, 1.0)], "characters long"),
        (A, [(PRODUCE, 1.0)], "Invalid configuration key"),
        (U, [("connection_creation_rate", 1.0)], "Invalid configuration key"),
        (U, [("retention.ms", 1.0)], "Invalid configuration key retention.ms"),
        (U, [(PRODUCE, 0.0)], "must be greater than 0"),
        (U, [(PRODUCE, -1.0)], "must be greater than 0"),
        (U, [("request_percentage", float("nan"))], "must be greater than 0"),
        (U, [(PRODUCE, 1.5)], "cannot be a fractional value"),
        (U, [(PRODUCE, float("inf"))], "too large"),
        (A, [("connection_creation_rate", 2.0**31)], "too large"),
        (U, [(PRODUCE, 1.0), (PRODUCE, 2.0)], "Duplicate quota key"),
    ],
)
def test_what_can_be_set(who, limits, complaint) -> None:
    decision = alter({}, [QuotaAlteration(entity=who, limits=limits)])
    (refusal,) = decision.refusals
    if complaint is None:
        assert refusal is None
        assert len(decision.records) == sum(value is not None for _, value in limits)
    else:
        assert refusal.code is ErrorCode.INVALID_REQUEST
        assert complaint in refusal.message
        assert decision.records == ()


def test_one_entity_that_is_refused_stops_no_other() -> None:
    wanted = [
        QuotaAlteration(entity=U, limits=[(PRODUCE, -1.0)]),
        QuotaAlteration(entity=C, limits=[(PRODUCE, 5.0)]),
        QuotaAlteration(entity=C, limits=[(PRODUCE, 6.0)]),
    ]
    decision = alter({}, wanted)
    assert [refusal and refusal.message for refusal in decision.refusals] == [
        "Quota producer_byte_rate must be greater than 0", None, "Ignoring duplicate entity",
    ]  # fmt: skip
    assert decision.records == (QuotaChanged(entity=entity(client_id="app"), key=PRODUCE, value=5.0),)


def test_what_is_so_already_is_not_written_again() -> None:
    table = {entity(user="alice"): {PRODUCE: 5.0}}
    assert (
        alter(table, [QuotaAlteration(entity=U, limits=[(PRODUCE, 5.0), ("consumer_byte_rate", None)])]).records == ()
    )


def test_an_entity_goes_with_its_last_limit() -> None:
    table: QuotaTable = {}
    for value in (5.0, 6.0, None):
        table = evolve(table, alter(table, [QuotaAlteration(entity=U, limits=[(PRODUCE, value)])]).records)
        assert table == ({entity(user="alice"): {PRODUCE: value}} if value else {})


def test_addresses_are_kept_in_the_form_that_connections_show() -> None:
    for text, kept in (("::ffff:10.0.0.1", "10.0.0.1"), ("0:0::1", "::1")):
        decision = alter({}, [QuotaAlteration(entity=[(IP, text)], limits=[("connection_creation_rate", 1.0)])])
        assert decision.records[0].entity == entity(ip=kept)


# ---- filters --------------------------------------------------------------------------------------------------------

EVERY = {*ENTITIES, entity(ip="10.0.0.1"), entity(ip=None)}


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    "components",
    [
        [], [(USER, 0, "alice")], [(USER, 1, None)], [(USER, 2, None)], [(IP, 2, None)],
        [(USER, 0, "alice"), (CLIENT_ID, 2, None)], [(CLIENT_ID, 1, None), (USER, 1, None)],
    ],
)  # fmt: skip
def test_filters(components, strict: bool) -> None:
    wanted = checked_filter(components, strict=strict)

    def naive(who) -> bool:
        names = dict(who)
        fits = {0: lambda name, asked: name == asked, 1: lambda name, _: name is None, 2: lambda *_: True}
        return all(kind in names and fits[match](names[kind], asked) for kind, match, asked in components) and (
            not strict or len(names) == len(components)
        )

    assert {who for who in EVERY if wanted.matches(who)} == {who for who in EVERY if naive(who)}


@pytest.mark.parametrize(
    ("components", "code"),
    [
        ([("", 0, "a")], ErrorCode.INVALID_REQUEST),
        ([("host", 0, "a")], ErrorCode.UNSUPPORTED_VERSION),
        ([(USER, 0, "a"), (USER, 2, None)], ErrorCode.INVALID_REQUEST),
        ([(USER, 0, None)], ErrorCode.INVALID_REQUEST),
        ([(USER, 1, "a")], ErrorCode.INVALID_REQUEST),
        ([(USER, 2, "a")], ErrorCode.INVALID_REQUEST),
        ([(USER, 3, None)], ErrorCode.INVALID_REQUEST),
        ([(USER, 2, None), (IP, 2, None)], ErrorCode.INVALID_REQUEST),
    ],
)
def test_filters_that_make_no_sense(components, code: ErrorCode) -> None:
    with pytest.raises(Refused) as refusal:
        checked_filter(components, strict=False)
    assert refusal.value.code is code
