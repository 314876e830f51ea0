"""SASL OAUTHBEARER (RFC 7628): the shape of its messages, as Kafka reads them. Pure."""

from __future__ import annotations

import re

from penstock.base.dataclasses import dataclass, field
from penstock.identity.failures import InvalidCredentials

CLUSTER_EXTENSION = "logicalCluster"
"""By which Confluent's clients say in which cluster they want to be."""
ACKNOWLEDGED = b"\x01"
"""What a client answers to the description of its failure, upon which the exchange ends."""
INVALID_TOKEN = '{"status":"invalid_token"}'

_SASL_NAME = r"(?:[\x01-\x2B\x2D-\x3C\x3E-\x7F]|=2C|=3D)+"
_PAIR = r"[A-Za-z]+=[\x21-\x7E \t\r\n]+\x01"
_INITIAL = re.compile(rf"n,(?:a=(?P<authzid>{_SASL_NAME}))?,\x01(?P<pairs>(?:{_PAIR})*)\x01")
_AUTH = re.compile(r"(?P<scheme>\w+) +(?P<token>[-_~+/.a-zA-Z0-9]+=*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class BearerLogin:
    """What a client sent."""

    token: str = field(repr=False)
    authorization_id: str
    cluster: str | None = None
    """The cluster it asks for, if it asks for one."""


def read_login(message: bytes) -> BearerLogin:
    """Read the first message of the mechanism. Extensions are allowed; but for one they mean nothing here."""
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
