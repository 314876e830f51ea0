"""SASL OAUTHBEARER (RFC 7628): the format of its messages, as Kafka parses them. Pure."""

from __future__ import annotations

import re

from penstock.base.dataclasses import dataclass, field
from penstock.identity.failures import InvalidCredentials

CLUSTER_EXTENSION = "logicalCluster"
"""The extension by which Confluent's clients request a cluster."""
ACKNOWLEDGED = b"\x01"
"""The client's answer to an error description, after which the exchange ends."""
INVALID_TOKEN = '{"status":"invalid_token"}'

_SASL_NAME = r"(?:[\x01-\x2B\x2D-\x3C\x3E-\x7F]|=2C|=3D)+"
_PAIR = r"[A-Za-z]+=[\x21-\x7E \t\r\n]+\x01"
_INITIAL = re.compile(rf"n,(?:a=(?P<authzid>{_SASL_NAME}))?,\x01(?P<pairs>(?:{_PAIR})*)\x01")
_AUTH = re.compile(r"(?P<scheme>\w+) +(?P<token>[-_~+/.a-zA-Z0-9]+=*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class BearerLogin:
    """The content of a client's message."""

    token: str = field(repr=False)
    authorization_id: str
    cluster: str | None = None
    """The requested cluster, if there is one."""


def read_login(message: bytes) -> BearerLogin:
    """Parse the first message of the mechanism. Extensions are allowed, and all but one are ignored."""
    try:
        match = _INITIAL.fullmatch(message.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidCredentials("not UTF-8") from error
    if match is None:
        raise InvalidCredentials("the message is not one of OAUTHBEARER")
    pairs = dict(pair.split("=", 1) for pair in match["pairs"].split("\x01") if pair)
    auth = _AUTH.fullmatch(pairs.get("auth", ""))
    if auth is None or auth["scheme"].lower() != "bearer":
        raise InvalidCredentials("there is no bearer token")
    name = (match["authzid"] or "").replace("=2C", ",").replace("=3D", "=")
    return BearerLogin(token=auth["token"], authorization_id=name, cluster=pairs.get(CLUSTER_EXTENSION))
