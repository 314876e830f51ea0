"""Names that clients choose, as parts of keys.

A string of the Kafka protocol has up to 32,767 bytes, of any characters, but a row of a PostgreSQL index is limited to
about 2,700 bytes. So the key contains the digest of a long name, and another column, `long_name`, the name itself.
NUL, which PostgreSQL does not allow in text, is escaped by the port (`postgres.py`).
"""

from __future__ import annotations

from hashlib import sha256

LONGEST_IN_KEY_BYTES = 512
"""Leaves room for two names in a key, even if escaping doubles their size, and for other columns."""
_DIGEST = "sha256:"


def name_key(name: str) -> str:
    """The representation of a name in keys; different for different names."""
    return name if _fits(name) else _DIGEST + sha256(name.encode()).hexdigest()


def row_key(key: tuple[int, str]) -> tuple[int, str]:
    """A virtual cluster's id and a name in it, as stored in a row."""
    return key[0], name_key(key[1])


def long_name(name: str) -> str | None:
    """The value of the column `long_name`: the name if the key does not contain it, else None."""
    return None if _fits(name) else name


def name_of(key: str, long: str | None) -> str:
    """The name from a row's key and `long_name`."""
    return key if long is None else long


def _fits(name: str) -> bool:
    if name.startswith(_DIGEST):
        return False
    return len(name) * 4 <= LONGEST_IN_KEY_BYTES or len(name.encode()) <= LONGEST_IN_KEY_BYTES
