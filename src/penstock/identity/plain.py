"""SASL PLAIN (RFC 4616): name and password in clear. Pure."""

from __future__ import annotations

from penstock.base.dataclasses import dataclass, field
from penstock.identity.failures import Denied


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainLogin:
    """The content of a client's message."""

    name: str
    password: str = field(repr=False)


def read_login(token: bytes) -> PlainLogin:
    """Parse the only message of the mechanism. The error messages are Kafka's, which clients show."""
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
    """The same answer for an unknown name and for a wrong password."""
    return Denied("Authentication failed: Invalid username or password")
