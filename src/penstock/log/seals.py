"""Sealed ranges: the encryption format of a partition's bytes in a WAL object or a segment.

A range is sealed by a key of its own, derived from the cluster's data key and a random salt (HMAC-SHA-256), so that no
nonce is ever reused, however many ranges a data key seals. It is sealed in chunks of `CHUNK_BYTES` plain bytes, each
with AES-256-GCM, its number as the nonce and its tag appended, so that a read in the middle opens only the chunks that
it needs. Key id, salt and length are in the row that names the range, not in the range itself: one that was moved,
truncated, or belongs elsewhere does not open. The partition is authenticated with every chunk, as associated data.

Positions refer to plain bytes; `stored_bytes` and `covering` map them to stored ones.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from struct import Struct
from typing import TYPE_CHECKING

from penstock.base.errors import CorruptData
from penstock.base.lazy import lazy_import
from penstock.keys.model import DataKey
from penstock.log.model import Partition
from penstock.storage.wal import Buffer

if TYPE_CHECKING:
    from cryptography import exceptions
    from cryptography.hazmat.primitives.ciphers import aead
else:
    exceptions = lazy_import("cryptography.exceptions")
    aead = lazy_import("cryptography.hazmat.primitives.ciphers.aead")

CHUNK_BYTES = 64 * 1024
TAG_BYTES = 16
SALT_BYTES = 16
_STORED_CHUNK_BYTES = CHUNK_BYTES + TAG_BYTES
_PURPOSE = b"penstock range 1"
_NONCE = Struct(">Iq")
_PLACE = Struct(">i16si")


class BrokenSeal(CorruptData):
    """A sealed range is damaged, truncated, or not the one that belongs here."""


def stored_bytes(length: int) -> int:
    """The stored size of a range of so many plain bytes."""
    return length + -(-length // CHUNK_BYTES) * TAG_BYTES


def covering(start: int, end: int, length: int) -> tuple[int, int]:
    """Start and end, in the sealed range, of the chunks with plain bytes [start, end); `length` is the plain length."""
    if not 0 <= start <= end <= length:
        raise BrokenSeal(f"bytes {start} to {end} are not in a sealed range of {length}")
    return start // CHUNK_BYTES * _STORED_CHUNK_BYTES, min(
        -(-end // CHUNK_BYTES) * _STORED_CHUNK_BYTES, stored_bytes(length)
    )


class RangeCipher:
    """Seals or opens the chunks of one range."""

    __slots__ = ("_aead", "_place")

    def __init__(self, key: DataKey, salt: bytes, partition: Partition) -> None:
        topic = partition.topic
        self._aead = aead.AESGCM(hmac.digest(key.secret, _PURPOSE + salt, "sha256"))
        self._place = _PLACE.pack(topic.cluster_id, topic.topic_id, partition.index)

    def seal(self, number: int, chunk: Buffer) -> bytes:
        """One sealed chunk."""
        return self._aead.encrypt(_NONCE.pack(0, number), chunk, self._place)

    def seal_into(self, data: memoryview, target: memoryview) -> None:
        """Seal a whole range into memory of `stored_bytes`."""
        for number, start in enumerate(range(0, len(data), CHUNK_BYTES)):
            chunk = data[start : start + CHUNK_BYTES]
            at = number * _STORED_CHUNK_BYTES
            self._aead.encrypt_into(
                _NONCE.pack(0, number), chunk, self._place, target[at : at + len(chunk) + TAG_BYTES]
            )

    def open_into(self, sealed: memoryview, start: int, target: memoryview) -> None:
        """Fill the target with plain bytes from `start` on, out of the chunks that cover them."""
        number = start // CHUNK_BYTES
        skipped = start - number * CHUNK_BYTES
        position = at = 0
        while position < len(target):
            chunk = sealed[at : at + _STORED_CHUNK_BYTES]
            size = len(chunk) - TAG_BYTES
            if size <= skipped:
                raise BrokenSeal("a sealed range ends before its last byte")
            nonce, wanted = _NONCE.pack(0, number), min(size - skipped, len(target) - position)
            try:
                if wanted == size:
                    self._aead.decrypt_into(nonce, chunk, self._place, target[position : position + size])
                else:
                    opened = memoryview(self._aead.decrypt(nonce, chunk, self._place))
                    target[position : position + wanted] = opened[skipped : skipped + wanted]
            except exceptions.InvalidTag:
                raise BrokenSeal("a sealed range is damaged, or belongs elsewhere") from None
            position, at, number, skipped = position + wanted, at + len(chunk), number + 1, 0


class SealedWriting:
    """A range that is sealed as its bytes arrive. Used by one thread at a time."""

    def __init__(self, cipher: RangeCipher, write: Callable[[Buffer], None]) -> None:
        self._cipher, self._write = cipher, write
        self._chunk = bytearray()
        self._number = 0

    def add(self, data: Buffer) -> None:
        """Write the next bytes, as far as they fill chunks."""
        with memoryview(data) as given, given.cast("B") as view:
            position = 0
            if self._chunk:
                position = min(len(view), CHUNK_BYTES - len(self._chunk))
                self._chunk += view[:position]
                if len(self._chunk) == CHUNK_BYTES:
                    self._seal(self._chunk)
                    self._chunk = bytearray()
            while len(view) - position >= CHUNK_BYTES:
                self._seal(view[position : position + CHUNK_BYTES])
                position += CHUNK_BYTES
            if position < len(view):
                self._chunk += view[position:]

    def end(self) -> None:
        """Write the rest."""
        if self._chunk:
            self._seal(self._chunk)
            self._chunk = bytearray()

    def _seal(self, chunk: Buffer) -> None:
        self._write(self._cipher.seal(self._number, chunk))
        self._number += 1
