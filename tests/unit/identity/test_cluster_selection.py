"""Which cluster a token or a certificate opens, and which of those that are asked for."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.base.options import OAuthOptions
from penstock.identity.cluster_selection import MAX_CLAIMED, cluster_of_certificate, clusters_of_token, select_cluster
from penstock.identity.failures import Denied
from penstock.identity.model import NO_CLUSTER_ID
from penstock.identity.principal_mapping import parse_rules

PLATFORM, DEFAULT, ACME, BETA = 0, 1, 7, 8
CLUSTERS = {"platform": PLATFORM, "default": DEFAULT, "acme": ACME, "beta": BETA}


def opened(claim: Any, *clusters: str, name: str | None = "cluster") -> frozenset[int]:
    options = OAuthOptions(issuer="i", audience="a", cluster_claim=name, clusters=clusters)
    return clusters_of_token(options, {"cluster": claim, "sub": "beta"}, CLUSTERS.get)


@pytest.mark.parametrize(
    ("claim", "clusters", "expected"),
    [
        ("acme", (), {ACME}),
        (["acme", "beta"], (), {ACME, BETA}),
        (["acme", "acme", "nobody", 5, None, ["beta"], {"beta": 1}], (), {ACME}),
        ("nobody", (), set()),
        ("acme beta", (), set()),
        ("*", (), set()),
        (None, (), set()),
        ({"acme": "acme"}, (), set()),
        (7, (), set()),
        ("", (), set()),
        (["default", "platform", "acme"], (), {ACME}),  # Only where the configuration itself names them.
        (["default", "platform", "acme"], ("*", "default"), {DEFAULT, ACME}),
        (["default", "platform", "acme"], ("platform",), {PLATFORM}),
        (["acme", "beta"], ("beta", "nobody"), {BETA}),
        (None, ("acme",), set()),
    ],
)
def test_what_a_claim_opens(claim: Any, clusters: tuple[str, ...], expected: set[int]) -> None:
    assert opened(claim, *clusters) == expected


def test_without_a_claim_all_tokens_open_what_is_configured() -> None:
    assert opened("beta", "acme", "nobody", name=None) == {ACME}
    assert opened(None, "default", "acme", name=None) == {DEFAULT, ACME}
    assert opened("acme", name=None) == set()


def test_a_claim_of_many_is_not_read_to_its_end() -> None:
    assert opened(["nobody"] * MAX_CLAIMED + ["acme"]) == set()


@pytest.mark.parametrize(
    ("opens", "asked", "expected"),
    [
        ({ACME}, (), ACME),
        ({ACME}, {ACME}, ACME),
        ({ACME, BETA}, {BETA}, BETA),
        ({ACME, BETA}, (), None),
        ({ACME, BETA}, {ACME, BETA}, None),
        ({ACME}, {BETA}, None),
        ({ACME}, {NO_CLUSTER_ID}, None),
        ({ACME}, {ACME, NO_CLUSTER_ID}, None),
        ((), (), None),
        ((), {ACME}, None),
    ],
)
def test_what_is_asked_for_chooses_and_opens_nothing(opens: Any, asked: Any, expected: int | None) -> None:
    assert select_cluster(opens, asked) == expected


@pytest.mark.parametrize(
    ("rules", "name", "expected"),
    [
        ("RULE:^.*,O=([a-z]+)$/$1/", "CN=app,O=acme", ACME),
        ("RULE:^.*,O=(.+)$/$1/L", "CN=app,O=BETA", BETA),
        ("RULE:^.*,O=none$/beta/,RULE:.*/acme/", "CN=app", ACME),
        ("RULE:^.*,O=none$/beta/,DEFAULT", "CN=app,O=acme", DEFAULT),
        ("RULE:^CN=root$/platform/,RULE:^CN=(.*)$/$1/", "CN=root", PLATFORM),
        ("RULE:^CN=root$/platform/,RULE:^CN=(.*)$/$1/", "CN=platform", None),
        ("RULE:^CN=(.*)$/$1/", "CN=default", None),
        ("RULE:^CN=(.*)$/$1/", "CN=nobody", None),
        ("RULE:^CN=(.*)$/$1/,DEFAULT", "CN=nobody", None),  # The first rule that applies counts, whatever it says.
        ("RULE:^CN=x$/acme/", "CN=y", None),
        ("RULE:^CN=()$/$1/", "CN=", None),
    ],
)
def test_what_a_certificate_opens(rules: str, name: str, expected: int | None) -> None:
    parsed = parse_rules(rules)
    if expected is None:
        with pytest.raises(Denied):
            cluster_of_certificate(parsed, name, CLUSTERS.get)
    else:
        assert cluster_of_certificate(parsed, name, CLUSTERS.get) == expected
