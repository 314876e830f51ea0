"""Names that clients choose, as parts of keys.

A name has up to 32,767 bytes, as every string of the Kafka protocol has, and any characters. An index of PostgreSQL
takes no more than some 2,700 bytes of a row. So a long name is in a key by its digest, and in full in another column of
the row, `long_name`. What PostgreSQL's text does not take, NUL, is seen to by the port (`postgres.py`).
"""

from __future__ import annotations

from hashlib import sha256

LONGEST_IN_KEY_BYTES = 512
"""With two names in a key, each character of which may take twice its bytes, there is room left for the rest."""
_DIGEST = "sha256:"


def name_key(name: str) -> str:
    """What stands for a name in a key: the same for no two names."""
    return name if _fits(name) else _DIGEST + sha256(name.encode()).hexdigest()


def row_key(key: tuple[int, str]) -> tuple[int, str]:
    """A cluster's id and the name of something in it, as a row has them."""
    return key[0], name_key(key[1])


def long_name(name: str) -> str | None:
    """What a row says beside the key: the name, if the key does not."""
    return None if _fits(name) else name


def name_of(key: str, long: str | None) -> str:
    """The name that a row has."""
    return key if long is None else long


def _fits(name: str) -> bool:
    if name.startswith(_DIGEST):
        return False
    return len(name) * 4 <= LONGEST_IN_KEY_BYTES or len(name.encode()) <= LONGEST_IN_KEY_BYTES
