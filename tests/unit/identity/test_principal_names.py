"""From a certificate's subject to a principal: Java's text of it, and Kafka's mapping rules."""

from __future__ import annotations

import pytest

from penstock.base.errors import InvalidRequest
from penstock.identity.distinguished_name import distinguished_name, unmistakable_name
from penstock.identity.failures import Denied
from penstock.identity.principal_mapping import mapped, parse_rules

DUKE = "CN=Duke,OU=ServiceUsers,O=Org,C=US"


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        ((), ""),
        (((("countryName", "US"),), (("organizationName", "Org"),), (("commonName", "Duke"),)), "CN=Duke,O=Org,C=US"),
        (((("organizationName", "Penstock, Inc."),),), r"O=Penstock\, Inc."),
        (((("commonName", '#a+b"c\\d<e>f;g'),),), r'CN=\#a\+b\"c\\d\<e\>f\;g'),
        (((("commonName", " x "),),), r"CN=\ x\ "),
        (((("commonName", " "),),), r"CN=\ "),
        (((("commonName", "a"), ("userId", "b")),), "CN=a+UID=b"),
        (((("emailAddress", "a@b"),), (("commonName", "c"),)), "CN=c,1.2.840.113549.1.9.1=#1603614062"),
        (((("emailAddress", "a" * 130),),), "1.2.840.113549.1.9.1=#168182" + "61" * 130),
        (((("1.2.3.4", "é"),),), "1.2.3.4=#0c02c3a9"),
    ],
)  # fmt: skip
def test_distinguished_names(subject: object, text: str) -> None:
    assert distinguished_name(subject) == text


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        ((), ""),
        (((("organizationName", "acme"),), (("commonName", "app"),)), "CN=app,O=acme"),
        (((("commonName", "x,O=acme"),),), r"CN=x\2CO\3Dacme"),
        (((("commonName", 'a+b"c\\d<e>f;g#h\ni\0'),),), r"CN=a\2Bb\22c\5Cd\3Ce\3Ef\3Bg\23h\0Ai\00"),
        (((("commonName", "é x"),),), "CN=é x"),
        (((("emailAddress", "a@b"),),), "1.2.840.113549.1.9.1=#1603614062"),
    ],
)
def test_no_value_passes_for_an_attribute(subject: object, text: str) -> None:
    assert unmistakable_name(subject) == text


@pytest.mark.parametrize(
    ("rules", "name", "principal"),
    [
        ("DEFAULT", DUKE, DUKE),
        ("", DUKE, DUKE),
        ("RULE:^CN=(.*?),OU=ServiceUsers.*$/$1/", DUKE, "Duke"),
        ("RULE:^CN=(.*?),OU=ServiceUsers.*$/$1/L", DUKE, "duke"),
        ("RULE:^CN=(.*?),OU=(.*?),O=(.*?),C=(.*?)$/$1@$2/U", DUKE, "DUKE@SERVICEUSERS"),
        ("RULE:^CN=none$/x/, RULE:^CN=(.*?),.*$/$1/ , DEFAULT", DUKE, "Duke"),
        ("RULE:^CN=none$/x/,DEFAULT", DUKE, DUKE),
        ("RULE:^CN=(\\w+),(.*)$/$1\\/$9/", DUKE, "Duke/$9"),
        ("RULE:^CN=(\\w+).*$/$12/", DUKE, "Duke2"),
        ("RULE:^.*$/all/", DUKE, "all"),
        ("RULE:.*/all/", DUKE, "allall"),  # As in Kafka: at the end there is nothing, which matches too.
        ("RULE:CN=(.*?)(,OU=.*)?/$1/", DUKE, "Duke,OU=ServiceUsers,O=Org,C=US"),
        ("RULE:CN=Duke/no/,DEFAULT", DUKE, DUKE),  # The whole name has to match.
        ("RULE:^CN=([^,]+),(.*)$/\\$1/", DUKE, "$1"),
    ],
)
def test_rules(rules: str, name: str, principal: str) -> None:
    assert mapped(parse_rules(rules), name) == principal


def test_no_rule() -> None:
    with pytest.raises(Denied, match="no principal mapping rule"):
        mapped(parse_rules("RULE:^CN=none$/x/"), DUKE)
    with pytest.raises(Denied, match="too long"):
        mapped(parse_rules("DEFAULT"), "x" * 5000)


@pytest.mark.parametrize(
    "rules", ["default", "DEFAULT/L", "RULE:CN", "RULE:CN/", "RULE:CN/$1", "RULE:(/$1/", "RULE:a/b/X"]
)
def test_rules_that_cannot_be_read(rules: str) -> None:
    with pytest.raises(InvalidRequest, match="principal mapping rules"):
        parse_rules(rules)


def test_a_part_of_a_name_that_is_no_text() -> None:
    subject = ((("commonName", "x"),), (("x500UniqueIdentifier", b"\x01"),))
    for named in (distinguished_name, unmistakable_name):
        with pytest.raises(Denied, match="x500UniqueIdentifier"):
            named(subject)
