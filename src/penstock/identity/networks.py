"""The network that an address belongs to. Pure."""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address, IPv6Address

_HOST_BITS = 64


def host_of(address: str) -> str:
    """An address in canonical form: IPv4 addresses look the same on a socket for both families, as in Java."""
    mapped = None if ":" not in address else _mapped(address)
    return address if mapped is None else str(mapped)


def network_of(host: str) -> str:
    """The unit in which failures are counted: an IPv4 address, or a /64 of IPv6, of which one customer has all
    addresses. Anything that is not an address is its own unit."""
    try:
        address = IPv6Address(host)
    except AddressValueError:
        return host
    mapped = address.ipv4_mapped
    return f"{IPv6Address(int(address) >> _HOST_BITS << _HOST_BITS)}/64" if mapped is None else str(mapped)


def _mapped(address: str) -> IPv4Address | None:
    try:
        return IPv6Address(address).ipv4_mapped
    except AddressValueError:
        return None
