"""CRC-32C. The library is imported with the first record: its import loads a command line and an e-mail parser, which
would be a twentieth of the start-up time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.base.lazy import lazy_import

if TYPE_CHECKING:
    import crc32c as library
else:
    library = lazy_import("crc32c")


def crc32c(data: bytes | bytearray | memoryview, before: int = 0) -> int:
    """The checksum of bytes, continued from `before`, the checksum of the bytes before them."""
    return library.crc32c(data, before)
