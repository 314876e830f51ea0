"""SASL PLAIN (RFC 4616): name and password as they are. Pure."""

from __future__ import annotations

from penstock.base.dataclasses import dataclass, field
from penstock.identity.failures import Denied


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainLogin:
    """What a client sent."""

    name: str
    password: str = field(repr=False)


def read_login(token: bytes) -> PlainLogin:
    """Read the only message of the mechanism. Kafka's sentences are those that clients show."""
    try:
        parts = token.decode("utf-8").split("\0")
    except UnicodeDecodeError as error:
        raise Denied("Invalid SASL/PLAIN response: not UTF-8") from error
    if len(parts) != 3:
        raise Denied(f"Invalid SASL/PLAIN response: expected 3 tokens, got {min(len(parts), 4)}")
    authorization_id, name, password = parts
    if not name:
        raise Denied("Authentication failed: username not specified")
    if not password:
        raise Denied("Authentication failed: password not specified")
    if authorization_id not in ("", name):
        raise Denied("Authentication failed: Client requested an authorization id that is different from username")
    return PlainLogin(name=name, password=password)


def wrong_password() -> Denied:
    """The one answer to a wrong name and to a wrong password."""
    return Denied("Authentication failed: Invalid username or password")
