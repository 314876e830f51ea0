"""From where somebody comes, as far as their address says it. Pure."""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address, IPv6Address

_HOST_BITS = 64


def host_of(address: str) -> str:
    """An address as it's written everywhere: one of IPv4 looks alike on a socket that takes both kinds, as in Java."""
    mapped = None if ":" not in address else _mapped(address)
    return address if mapped is None else str(mapped)


def network_of(host: str) -> str:
    """Of whom failures count together: an address of IPv4, or a network of IPv6 (/64), of which one customer has all
    the addresses. Whatever is no address is itself."""
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
