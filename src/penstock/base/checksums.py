"""CRC-32C. Importing the library drags in a command line and an e-mail parser, a twentieth of a start, so the first
record pays for that instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.base.later import later

if TYPE_CHECKING:
    import crc32c as library
else:
    library = later("crc32c")


def crc32c(data: bytes | bytearray | memoryview, before: int = 0) -> int:
    """The checksum of bytes, continued from `before`, the checksum of the bytes before them."""
    return library.crc32c(data, before)
