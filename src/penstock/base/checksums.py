"""CRC-32C. The library's import brings a command line and a parser of e-mails, a twentieth of a start: the first record
waits for them instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.base.later import later

if TYPE_CHECKING:
    import crc32c as library
else:
    library = later("crc32c")


def crc32c(data: bytes | bytearray | memoryview, before: int = 0) -> int:
    """The checksum of bytes, which may go on from the one of what is before them."""
    return library.crc32c(data, before)
