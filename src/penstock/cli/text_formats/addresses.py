"""HOST:PORT, with IPv6 addresses in square brackets."""

from __future__ import annotations

from typing import NamedTuple

from penstock.base.errors import InvalidRequest

KAFKA_PORT = 9092


class Address(NamedTuple):
    """A place to connect to or to listen on."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_address(text: str, *, default_port: int | None = None) -> Address:
    """Read `HOST:PORT`, `[V6]:PORT`, and `HOST` where a default port exists."""
    host, port_text = _split(text.strip())
    if not host:
        raise InvalidRequest(f"{text!r} names no host; write HOST:PORT, such as 127.0.0.1:9092")
    if port_text is None:
        if default_port is None:
            raise InvalidRequest(f"{text!r} has no port; write HOST:PORT, such as {host}:9092")
        return Address(host, default_port)
    if not port_text.isascii() or not port_text.isdigit() or not 0 <= int(port_text) <= 65535:
        raise InvalidRequest(f"{text!r} has no valid port; write HOST:PORT with a port from 0 to 65535")
    return Address(host, int(port_text))


def parse_addresses(text: str) -> tuple[Address, ...]:
    """Read a comma-separated list of Kafka addresses."""
    parts = [part for part in (piece.strip() for piece in text.split(",")) if part]
    if not parts:
        raise InvalidRequest("the list of addresses is empty; write HOST:PORT[,HOST:PORT…]")
    return tuple(parse_address(part, default_port=KAFKA_PORT) for part in parts)


def _split(text: str) -> tuple[str, str | None]:
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return host, rest[1:] if rest.startswith(":") else None
    if text.count(":") > 1:  # A bare IPv6 address: the port cannot be told from the rest.
        return text, None
    host, colon, port = text.partition(":")
    return host, port if colon else None
