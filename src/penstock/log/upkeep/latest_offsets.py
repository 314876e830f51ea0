"""The inner loops of key compaction: noting the keys of a batch, and finding the records that later ones supersede.

They look at every record twice. Compiled, they run without the interpreter's lock, so that nobody else waits for them,
and a key takes a fixed 24 bytes instead of a Python object.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import ClassVar, NamedTuple

from penstock.base.twins import twinned
from penstock.wire.primitives import Buffer, Malformed
from penstock.wire.records import NO_TIMESTAMP, BatchHeader, RecordSpan, scan_records

KEY_HASH_BYTES = 16
"""Two of 2^32 keys share a hash of this size with a probability of 2^-65."""
_HIGHEST_OFFSET = 2**63 - 1
FURTHEST_MS = 2**62
"""The latest timestamp for which records are compacted, and until which tombstones are kept. A batch can hold twice
as much, but no larger difference between two timestamps."""


@twinned
class LatestOffsets:
    """The latest offset of each of about `capacity` keys. More fit, if there is memory for them."""

    __slots__ = ("_offsets",)
    key_bytes: ClassVar[int] = 200
    """How much memory a key takes at most."""

    def __init__(self, capacity: int) -> None:
        self._offsets: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._offsets)

    def put(self, key: bytes, offset: int) -> None:
        """A later record of a key, with an offset of 0 or more."""
        self._offsets[key if len(key) < KEY_HASH_BYTES else fingerprint(key)] = offset

    def get(self, key: bytes, default: int) -> int:
        """The offset of a key's latest record."""
        return self._offsets.get(key if len(key) < KEY_HASH_BYTES else fingerprint(key), default)


def fingerprint(key: bytes) -> bytes:
    """The key itself if it is short, else its hash; these have different lengths, so they cannot collide."""
    return key if len(key) < KEY_HASH_BYTES else blake2b(key, digest_size=KEY_HASH_BYTES).digest()


class KeptRecords(NamedTuple):
    """What is left of a records section."""

    record_count: int
    has_tombstones: bool
    max_timestamp: int
    data: Buffer
    """Their bytes, as they were: the given object where none is missing."""


@twinned
def note_keys(latest: LatestOffsets, header: BatchHeader, data: Buffer) -> bool:
    """Note the offsets of a decompressed records section; False, and none of them, where it is not in order."""
    spans = records_in_order(header, bytes(data))
    if spans is None:
        return False
    put = latest.put
    for span in spans:
        if span.key is not None:
            put(span.key, span.offset)
    return True


@twinned
def kept_records(
    latest: LatestOffsets, header: BatchHeader, data: Buffer, end_offset: int, tombstones_expired: bool
) -> KeptRecords | None:
    """The records of a decompressed section that no later one supersedes; None where it is not in order.

    Records from `end_offset` on stay in any case. Others go if they have no key, or are expired tombstones.
    """
    whole, get = bytes(data), latest.get
    spans = records_in_order(header, whole)
    if spans is None:
        return None
    kept = [
        span
        for span in spans
        if span.offset >= end_offset
        or (
            span.key is not None and not (tombstones_expired and span.is_tombstone) and get(span.key, -1) <= span.offset
        )
    ]
    return KeptRecords(
        record_count=len(kept),
        has_tombstones=any(span.is_tombstone for span in kept),
        max_timestamp=max((span.timestamp for span in kept), default=NO_TIMESTAMP),
        data=data if len(kept) == len(spans) else b"".join([whole[span.start : span.end] for span in kept]),
    )


def records_in_order(header: BatchHeader, data: bytes) -> Sequence[RecordSpan] | None:
    """The records of a section, or None if it cannot be decoded: what cannot be decoded is not dropped.

    The same goes for records with offsets outside their batch, which must not supersede later ones; for batches with
    offsets that no log has; and for records with timestamps that would not fit into a batch with others.
    """
    if header.last_offset > _HIGHEST_OFFSET:
        return None
    try:
        spans = scan_records(header, data)
    except Malformed:
        return None
    previous = header.base_offset - 1
    for span in spans:
        if span.offset <= previous or not -FURTHEST_MS <= span.timestamp < FURTHEST_MS:
            return None
        previous = span.offset
    return spans if previous <= header.last_offset else None
