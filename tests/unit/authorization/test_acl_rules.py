"""The rules against an oracle that reads Kafka's documentation word by word, on random ACLs and requests."""

from __future__ import annotations

import itertools
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.authorization import rules
from penstock.authorization.rules import DEFAULT_ALLOW, DEFAULT_DENY, AclIndex, canonical_host, decide, decide_for_any
from penstock.base.acls import Acl, AclFilter, Operation, PatternType, Permission, ResourceType

T = TypeVar("T")
ALICE, BOB, ANYONE = "User:alice", "User:bob", "User:*"
HERE, THERE = "10.0.0.1", "10.0.0.2"
NAMES = ("", "*", "a", "ab", "abc", "abd", "b", "hardcode")
TYPES = (ResourceType.TOPIC, ResourceType.GROUP)
OPERATIONS = (
    Operation.ALL, Operation.READ, Operation.WRITE, Operation.DELETE, Operation.ALTER, Operation.DESCRIBE,
    Operation.DESCRIBE_CONFIGS, Operation.ALTER_CONFIGS, Operation.CREATE,
)  # fmt: skip

acls = st.builds(
    Acl,
    resource_type=st.sampled_from(TYPES),
    resource_name=st.sampled_from(NAMES[1:]),
    pattern_type=st.sampled_from((PatternType.LITERAL, PatternType.PREFIXED)),
    principal=st.sampled_from((ALICE, BOB, ANYONE)),
    host=st.sampled_from(("*", HERE, THERE)),
    operation=st.sampled_from(OPERATIONS),
    permission=st.sampled_from((Permission.ALLOW, Permission.DENY)),
)


def covers(acl: Acl, resource_type: ResourceType, name: str) -> bool:
    """Whether an ACL's pattern covers a resource."""
    if acl.resource_type is not resource_type:
        return False
    if acl.pattern_type is PatternType.PREFIXED:
        return name.startswith(acl.resource_name)
    return acl.resource_name in ("*", name)


def says(acl: Acl, principal: str, host: str, operation: Operation) -> bool | None:
    """What an ACL that covers the resource says of the request."""
    if acl.principal not in (principal, ANYONE) or acl.host not in (host, "*"):
        return None
    if acl.permission is Permission.DENY:
        return False if acl.operation in (operation, Operation.ALL) else None
    granted = {acl.operation}
    if acl.operation in (Operation.READ, Operation.WRITE, Operation.DELETE, Operation.ALTER):
        granted.add(Operation.DESCRIBE)
    if acl.operation is Operation.ALTER_CONFIGS:
        granted.add(Operation.DESCRIBE_CONFIGS)
    return True if operation in granted or acl.operation is Operation.ALL else None


def oracle(
    given_acls: list[Acl], principal: str, host: str, operation: Operation, kind: ResourceType, name: str, default: bool
) -> bool:
    """Kafka's rules, without any index."""
    covering = [acl for acl in given_acls if covers(acl, kind, name)]
    opinions = [says(acl, principal, host, operation) for acl in covering]
    if False in opinions:
        return False
    return True in opinions or (default and not covering)


def index_of(given_acls: list[Acl], few: int) -> AclIndex:
    """An index that looks at so many ACLs one by one."""
    before, rules.MAX_LINEAR = rules.MAX_LINEAR, few
    try:
        return AclIndex(given_acls)
    finally:
        rules.MAX_LINEAR = before


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """What comes of work that has too little to do to let others have their turn."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")


@settings(max_examples=400, deadline=None)
@given(st.lists(acls, max_size=8), st.booleans(), st.sampled_from((0, rules.MAX_LINEAR)))
def test_decisions_are_those_of_the_oracle(given_acls, allow_everyone, few):
    index = index_of(given_acls, few)
    default = DEFAULT_ALLOW if allow_everyone else DEFAULT_DENY
    requests = itertools.product((ALICE, "User:carol", ANYONE), (HERE, "1.1.1.1"), OPERATIONS[1:], TYPES, NAMES)
    for principal, host, operation, kind, name in requests:
        verdict = decide(index, principal, host, operation, kind, name, default=default)
        expected = oracle(given_acls, principal, host, operation, kind, name, allow_everyone)
        assert verdict.allowed is expected, (principal, host, operation, kind, name, verdict)
        if verdict.acl is not None:
            assert covers(verdict.acl, kind, name)
            assert says(verdict.acl, principal, host, operation) is verdict.allowed


def any_oracle(given_acls: list[Acl], principal: str, host: str, operation: Operation, kind: ResourceType) -> bool:
    """Whether some name there could be is allowed, by ACLs that name the operation itself; a `*` counts as is."""
    named = [
        acl
        for acl in given_acls
        if acl.resource_type is kind
        and acl.operation in (operation, Operation.ALL)
        and acl.principal in (principal, ANYONE)
        and acl.host in (host, "*")
    ]
    allowed = [acl for acl in named if acl.permission is Permission.ALLOW]
    denied = [acl for acl in named if acl.permission is Permission.DENY]
    if any(acl.pattern_type is PatternType.LITERAL and acl.resource_name == "*" for acl in denied):
        return False
    for acl in allowed:
        if acl.pattern_type is PatternType.LITERAL and acl.resource_name == "*":
            return True
        # Of all names a prefix covers, one that goes on with something unheard of escapes every other pattern.
        name = acl.resource_name + ("\U0010ffff" if acl.pattern_type is PatternType.PREFIXED else "")
        if not any(covers(deny, kind, name) for deny in denied):
            return True
    return False


@settings(max_examples=400, deadline=None)
@given(st.lists(acls, max_size=8), st.sampled_from((0, rules.MAX_LINEAR)))
def test_any_resource_is_found_as_the_oracle_finds_one(given_acls, few):
    index = index_of(given_acls, few)
    for principal, host, operation, kind in itertools.product((ALICE, BOB), (HERE, THERE), (Operation.WRITE,), TYPES):
        verdict = at_once(decide_for_any(index, principal, host, operation, kind))
        by_name = oracle(given_acls, principal, host, operation, kind, "hardcode", False)
        expected = by_name or any_oracle(given_acls, principal, host, operation, kind)
        assert verdict.allowed is expected, (principal, host, kind)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.booleans(), acls), max_size=30))
def test_an_index_that_was_changed_is_one_that_was_built(changes):
    index, present = AclIndex(), dict[Acl, None]()
    for adds, acl in changes:
        if adds:
            index.add(acl)
            present[acl] = None
        else:
            index.remove(acl)
            present.pop(acl, None)
    assert list(index) == list(present)
    assert all(index.cost(named(acl)) == 1 + len(index.matching(named(acl))) for acl in present)
    fresh = AclIndex(present)
    for kind, name in itertools.product(TYPES, NAMES):
        patterns = [
            {who: set(found) for who, found in pattern.items()} for pattern in index.covering(kind, name)
        ]  # fmt: skip
        expected = [{who: set(found) for who, found in pattern.items()} for pattern in fresh.covering(kind, name)]
        assert sorted(map(repr, map(sorted_items, patterns))) == sorted(map(repr, map(sorted_items, expected)))


def named(acl: Acl) -> AclFilter:
    """What picks all ACLs on the same pattern."""
    return AclFilter(resource_type=acl.resource_type, resource_name=acl.resource_name, pattern_type=acl.pattern_type)


def sorted_items(pattern: dict[str, set[tuple[str, int, Acl]]]) -> list[tuple[str, list[tuple[str, int, Acl]]]]:
    return [(who, sorted(found)) for who, found in sorted(pattern.items())]


filters = st.builds(
    AclFilter,
    resource_type=st.sampled_from((ResourceType.ANY, *TYPES)),
    resource_name=st.sampled_from((None, *NAMES)),
    pattern_type=st.sampled_from((PatternType.ANY, PatternType.MATCH, PatternType.LITERAL, PatternType.PREFIXED)),
    principal=st.sampled_from((None, ALICE, ANYONE)),
    host=st.sampled_from((None, "*", HERE)),
    operation=st.sampled_from((Operation.ANY, *OPERATIONS)),
    permission=st.sampled_from((Permission.ANY, Permission.ALLOW, Permission.DENY)),
)


@settings(max_examples=500, deadline=None)
@given(acls, filters)
def test_filters_pick_what_each_field_picks(acl, asked):
    fields = (
        asked.resource_type in (ResourceType.ANY, acl.resource_type)
        and asked.principal in (None, acl.principal)
        and asked.host in (None, acl.host)
        and asked.operation in (Operation.ANY, acl.operation)
        and asked.permission in (Permission.ANY, acl.permission)
    )
    name = asked.resource_name
    match asked.pattern_type:
        case PatternType.ANY:
            named = name in (None, acl.resource_name)
        case PatternType.MATCH:
            named = name is None or covers(acl, acl.resource_type, name)
        case kind:
            named = kind is acl.pattern_type and name in (None, acl.resource_name)
    assert asked.matches(acl) is (fields and named)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("0.0.0.0", "0.0.0.0"),
        ("255.249.199.99", "255.249.199.99"),
        ("256.0.0.1", "256.0.0.1"),
        ("10.0.0.01", "10.0.0.01"),
        ("10.0.0.1.", "10.0.0.1."),
        ("10.0.0", "10.0.0"),
        ("10.0.0.1\n", "10.0.0.1\n"),
        ("::1", "::1"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:DB8::A", "2001:db8::a"),
        ("host.example", "host.example"),
        ("*", "*"),
    ],
)
def test_addresses_are_compared_in_one_spelling(text, canonical):
    assert canonical_host(text) == canonical


def test_a_host_of_an_acl_may_be_spelt_as_java_does():
    acl = Acl(
        resource_type=ResourceType.TOPIC, resource_name="t", principal=ALICE, host="0:0:0:0:0:0:0:1",
        operation=Operation.READ,
    )  # fmt: skip
    assert decide(AclIndex([acl]), ALICE, "::1", Operation.READ, ResourceType.TOPIC, "t").allowed


READ = Acl(resource_type=ResourceType.TOPIC, resource_name="t", principal=ALICE, operation=Operation.READ)


def test_the_cost_of_a_decision_does_not_grow_with_the_acls_of_a_tenant() -> None:
    """A tenant may create as many ACLs as it likes, and denials are decided anew each time."""
    spellings = ["".join(letters) for letters in itertools.product(*(("2001:db8::", "2001:DB8::"), *["aA"] * 4))]
    hosts = [f"10.1.{number // 250}.{number % 250}" for number in range(1000)] + spellings
    both = (Permission.ALLOW, Permission.DENY)
    index = AclIndex([replace(READ, host=host, permission=permission) for host in hosts for permission in both])
    (pattern,), mask = index.covering(ResourceType.TOPIC, "t"), rules._MASKS[Operation.READ]
    for host in ("10.1.0.1", "2001:db8::aaaa"):
        assert len(list(rules._of(pattern, ALICE, host, mask))) == 2
        verdict = decide(index, ALICE, host, Operation.READ, ResourceType.TOPIC, "t")
        assert verdict.acl is not None
        assert (verdict.allowed, verdict.acl.permission) == (False, Permission.DENY)
    assert not list(rules._of(pattern, ALICE, HERE, mask))
    assert not list(rules._of(pattern, BOB, "10.1.0.1", mask))


@given(st.lists(st.text("ab", min_size=1, max_size=4)), st.text("ab", max_size=6))
def test_whether_a_name_begins_with_one_of_many(prefixes: list[str], name: str) -> None:
    shortest = at_once(rules._shortest(prefixes))
    assert rules._begins(name, shortest) is name.startswith(tuple(prefixes))


def test_the_cost_of_a_removal_does_not_grow_either(monkeypatch: pytest.MonkeyPatch) -> None:
    present = [replace(READ, host=f"10.1.{number // 250}.{number % 250}") for number in range(1000)]
    index, compared = AclIndex(present), 0
    assert index.matching(named(READ)) == present
    same = Acl.__eq__

    def compare(self: Acl, other: object) -> bool:
        nonlocal compared
        compared += 1
        return same(self, other)

    monkeypatch.setattr(Acl, "__eq__", compare)
    for acl in reversed([replace(one) for one in present]):
        index.remove(acl)
    assert len(index) == 0
    assert compared < 20 * len(present)
    assert not index._literal


filters = st.builds(
    AclFilter,
    resource_type=st.sampled_from((*TYPES, ResourceType.ANY)),
    resource_name=st.sampled_from((None, *NAMES)),
    pattern_type=st.sampled_from((PatternType.LITERAL, PatternType.PREFIXED, PatternType.ANY, PatternType.MATCH)),
    principal=st.sampled_from((None, ALICE)),
    operation=st.sampled_from((Operation.ANY, Operation.READ)),
)


@given(st.lists(acls, max_size=20), filters)
def test_filters_pick_what_they_match_by_whichever_way(present: list[Acl], asked: AclFilter) -> None:
    index = AclIndex(present)
    found = index.matching(asked)
    assert sorted(found) == sorted(acl for acl in index if asked.matches(acl))
    assert len(found) < index.cost(asked) <= len(index) + 1
