"""Which decisions that allow something are logged."""

from __future__ import annotations

import pytest

from penstock.agent.settings import SETTINGS
from penstock.audit.policy import ALL, CHOICES, CLASSES, SAMPLED, EventClass, Policy
from penstock.audit.settings import AuditSettings
from penstock.audit.switch import is_audited
from penstock.base.errors import InvalidRequest
from penstock.base.randomness import SeededRandomness
from penstock.wire.api_keys import ApiKey

K = ApiKey


def wanted(policy: Policy, key: ApiKey, of: int = 1) -> int:
    randomness = SeededRandomness("policy")
    return sum(policy.wants(key, randomness) for _ in range(of))


@pytest.mark.parametrize(
    ("words", "logged", "not_logged"),
    [
        ("none", (), (K.PRODUCE, K.CREATE_TOPICS, K.METADATA)),
        ("all", (K.PRODUCE, K.CREATE_TOPICS, K.METADATA, K.HEARTBEAT, K.WRITE_TXN_MARKERS), ()),
        ("management", (K.CREATE_TOPICS, K.ELECT_LEADERS), (K.PRODUCE, K.FETCH, K.OFFSET_COMMIT, K.METADATA)),
        ("produce", (K.PRODUCE, K.END_TXN), (K.ADD_OFFSETS_TO_TXN, K.TXN_OFFSET_COMMIT)),
        ("consume", (K.OFFSET_FETCH, K.LIST_OFFSETS, K.TXN_OFFSET_COMMIT, K.ADD_OFFSETS_TO_TXN), (K.PRODUCE,)),
        ("produce,consume", (K.PRODUCE, K.END_TXN, K.FETCH, K.OFFSET_COMMIT), (K.CREATE_TOPICS, K.HEARTBEAT)),
    ],
)
def test_classes(words: str, logged: tuple[ApiKey, ...], not_logged: tuple[ApiKey, ...]) -> None:
    policy = Policy.of(tuple(words.split(",")), 0.1)
    assert [wanted(policy, key) for key in logged] == [1] * len(logged)
    assert [wanted(policy, key) for key in not_logged] == [0] * len(not_logged)


def test_samples_are_a_part_and_the_same_for_the_same_seed() -> None:
    some = Policy.of((SAMPLED,), 0.1)
    assert 70 < wanted(some, K.METADATA, 1000) < 130
    assert wanted(some, K.METADATA, 1000) == wanted(some, K.METADATA, 1000)
    only = Policy.of((SAMPLED, "produce"), 0.1)
    assert wanted(only, K.METADATA, 1000) == 0
    assert 70 < wanted(only, K.PRODUCE, 1000) < 130
    assert wanted(Policy.of((ALL,), 0.1), K.METADATA, 1000) == 1000
    assert wanted(Policy.of((SAMPLED,), 0.0), K.METADATA, 1000) == 0


def test_every_api_has_a_class() -> None:
    assert set(CLASSES) == set(map(int, ApiKey))
    assert set(CLASSES.values()) == set(EventClass)


def test_the_setting_knows_the_same_words() -> None:
    assert SETTINGS.keys["audit.allowed"].choices == CHOICES


@pytest.mark.parametrize("text", ["", "none,produce", "all,sampled", "some"])
def test_words_that_make_no_sense(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"audit\.allowed"):
        SETTINGS.started_with({"audit.allowed": text})


@pytest.mark.parametrize(
    ("text", "asks", "is_on"),
    [("", False, False), ("", True, True), ("true", False, True), ("false", True, False)],
)
def test_on_where_credentials_are_asked_for(text: str, asks: bool, is_on: bool) -> None:
    settings = SETTINGS.started_with({"audit.enable": text, "audit.allowed": "sampled,produce"})
    assert is_audited(settings, asks_for_credentials=asks) == is_on
    found = AuditSettings.of(settings)
    assert found.policy == Policy(classes=frozenset({EventClass.PRODUCE}), ratio=0.01)
    assert found.retention_ms == 7 * 24 * 3600 * 1000
