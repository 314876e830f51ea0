"""What key compaction keeps of a log (KAFKA.md B13, KIP-58, KIP-534). Pure: no await, no clock, no I/O.

Compaction goes twice over a partition. First over its dirty part, the batches it has not seen yet: a `KeyMap` notes
the latest offset of every key, as many keys as fit. Then over everything below the map's end, oldest first:
`clean_batch` keeps a record only if no later one has its key.

A tombstone, a record without value, must be seen by everyone who read the value it deletes. So it stays when it is
first met, and its batch gets a *delete horizon*: the time from which on compaction may drop the batch's tombstones.
That is safe because the map covered the tombstone when the horizon was set: older values of its key went in the same
pass, and before it.

Offsets never change. A batch keeps its base and last offset, whatever records it loses, and disappears when it has
none left, unless its header is still wanted. Control batches and transactional batches are kept as they are, and
their keys supersede nothing: whether they count is decided by markers that are not looked at here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

from penstock.log.model import TopicConfig
from penstock.storage.wal import Buffer
from penstock.wire.primitives import Malformed
from penstock.wire.records import BatchHeader, RecordSpan, filter_batch, scan_batch

KEY_HASH_BYTES = 16
"""Two of 2^32 keys share a hash of this size with a probability of 2^-65."""
MAX_DECOMPRESSED_BYTES = 256 * 1024 * 1024


class KeyMap:
    """The latest offset of each key of a stretch of the log."""

    __slots__ = ("_latest", "capacity", "end_offset")

    def __init__(self, capacity: int) -> None:
        self._latest: dict[bytes, int] = {}
        self.capacity = capacity
        self.end_offset = 0
        """Everything below it, from where the stretch begins, is in the map."""

    def __len__(self) -> int:
        return len(self._latest)

    @property
    def is_full(self) -> bool:
        """Whether the stretch must end here. The last batch may have gone beyond the capacity."""
        return len(self._latest) >= self.capacity

    def note(self, header: BatchHeader, batch: Buffer) -> None:
        """Take in the next batch."""
        if not _is_opaque(header):
            latest = self._latest
            for _, _, key, _, _, _, _, offset in _keyed(_spans(batch)):
                latest[key] = offset
        self.end_offset = header.last_offset + 1

    def supersedes(self, key: bytes, offset: int) -> bool:
        """Whether the map has a later record of the key."""
        return self._latest.get(fingerprint(key), -1) > offset


def fingerprint(key: bytes) -> bytes:
    """The key itself if it is short, else its hash; they differ in length, so they never meet."""
    return key if len(key) < KEY_HASH_BYTES else blake2b(key, digest_size=KEY_HASH_BYTES).digest()
