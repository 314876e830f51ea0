"""The distinguished name of a certificate in Java's form, which Kafka's ACLs and mapping rules use. Pure.

RFC 2253: from the most specific part to the least, known attributes by their short names, others by object identifier
and encoded value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from penstock.identity.failures import Denied

_SHORT = {
    "commonName": "CN", "countryName": "C", "localityName": "L", "stateOrProvinceName": "ST", "organizationName": "O",
    "organizationalUnitName": "OU", "streetAddress": "STREET", "domainComponent": "DC", "userId": "UID",
}  # fmt: skip
_IA5, _PRINTABLE, _UTF8 = 0x16, 0x13, 0x0C
_ENCODED = {
    "emailAddress": ("1.2.840.113549.1.9.1", _IA5),
    "serialNumber": ("2.5.4.5", _PRINTABLE),
    "dnQualifier": ("2.5.4.46", _PRINTABLE),
    "surname": ("2.5.4.4", _UTF8),
    "givenName": ("2.5.4.42", _UTF8),
    "title": ("2.5.4.12", _UTF8),
    "initials": ("2.5.4.43", _UTF8),
    "pseudonym": ("2.5.4.65", _UTF8),
    "generationQualifier": ("2.5.4.44", _UTF8),
    "organizationIdentifier": ("2.5.4.97", _UTF8),
}
_SPECIAL = ',+"\\<>;'


def distinguished_name(subject: Any) -> str:
    """The text of a subject in the form of `SSLSocket.getpeercert`: parts of pairs of attribute and value.

    Raises `Denied` for a binary value, such as an x500UniqueIdentifier.
    """
    return _joined(subject, _escaped)


def unmistakable_name(subject: Any) -> str:
    """The same with separator characters inside values in hexadecimal, which RFC 2253 allows: a common name `x,O=acme`
    cannot be mistaken for an attribute O, whatever pattern looks for one."""
    return _joined(subject, _in_hexadecimal)


def _joined(subject: Any, escaped: Callable[[str], str]) -> str:
    return ",".join(
        "+".join(_part(name, value, escaped) for name, value in pairs) for pairs in reversed(_pairs(subject))
    )


def _pairs(subject: Iterable[Iterable[tuple[str, str | bytes]]]) -> list[list[tuple[str, str | bytes]]]:
    return [list(part) for part in subject]


def _part(name: str, value: str | bytes, escaped: Callable[[str], str]) -> str:
    if isinstance(value, bytes):
        raise Denied(f"the part {name} of its certificate's name is not text")
    if name in _SHORT:
        return f"{_SHORT[name]}={escaped(value)}"
    identifier, tag = _ENCODED.get(name, (name, _UTF8))
    encoded = value.encode("utf-8")
    return f"{identifier}=#{bytes([tag]).hex()}{_length(len(encoded)).hex()}{encoded.hex()}"


def _escaped(value: str) -> str:
    text = "".join("\\" + char if char in _SPECIAL else char for char in value)
    if text.startswith(("#", " ")):
        text = "\\" + text
    if text.endswith(" ") and len(value) > 1:
        text = text[:-1] + "\\ "
    return text


def _in_hexadecimal(value: str) -> str:
    return "".join(f"\\{ord(char):02X}" if char in _SPECIAL or char in "=#\n\r\0" else char for char in value)


def _length(size: int) -> bytes:
    """A length in DER."""
    if size < 0x80:
        return bytes([size])
    digits = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes([0x80 | len(digits)]) + digits
