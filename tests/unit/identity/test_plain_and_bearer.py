"""The messages of PLAIN and OAUTHBEARER."""

from __future__ import annotations

import pytest

from penstock.identity import oauthbearer, plain
from penstock.identity.failures import Denied, InvalidCredentials


def test_plain() -> None:
    login = plain.read_login("\0älice\0pass\x01word".encode())
    assert (login.name, login.password) == ("älice", "pass\x01word")
    assert plain.read_login(b"alice\0alice\0x").name == "alice"
    assert "word" not in repr(login)


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (b"", "expected 3 tokens, got 1"),
        (b"\0alice", "expected 3 tokens, got 2"),
        (b"\0alice\0x\0y", "expected 3 tokens, got 4"),
        (b"\0alice\0x\0y\0z", "expected 3 tokens, got 4"),
        (b"\0\0x", "username not specified"),
        (b"\0alice\0", "password not specified"),
        (b"bob\0alice\0x", "authorization id that is different from username"),
        (b"\0\xff\0x", "not UTF-8"),
    ],
)
def test_plain_that_is_refused(message: bytes, sentence: str) -> None:
    with pytest.raises(Denied, match=sentence):
        plain.read_login(message)


def test_bearer() -> None:
    login = oauthbearer.read_login(b"n,,\x01auth=Bearer a.b-c_d~e+f/g==\x01\x01")
    assert (login.token, login.authorization_id) == ("a.b-c_d~e+f/g==", "")
    login = oauthbearer.read_login(b"n,a=al=2Cice,\x01traceId=1 2\x01auth=bearer   x\x01\x01")
    assert (login.token, login.authorization_id) == ("x", "al,ice")
    assert "token" not in repr(login)


def test_a_bearer_may_ask_for_a_cluster() -> None:
    login = oauthbearer.read_login(b"n,,\x01auth=Bearer x\x01logicalCluster=acme\x01identityPoolId=pool-1\x01\x01")
    assert (login.token, login.cluster) == ("x", "acme")
    assert oauthbearer.read_login(b"n,,\x01logicalcluster=acme\x01auth=Bearer x\x01\x01").cluster is None


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x01",
        b"n,,\x01\x01",
        b"n,,\x01auth=Bearer x\x01",
        b"n,,\x01auth=Basic x\x01\x01",
        b"y,,\x01auth=Bearer x\x01\x01",
        b"n,,\x01auth=Bearer \x01\x01",
        b"n,,\x01auth=Bearer x y\x01\x01",
        b"n,,\x01a1=x\x01auth=Bearer x\x01\x01",
        b"\xff",
    ],
)
def test_bearer_that_is_refused(message: bytes) -> None:
    with pytest.raises(InvalidCredentials):
        oauthbearer.read_login(message)
