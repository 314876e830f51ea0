"""The commit record: the front of a WAL object, which says what the object commits.

An agent that owns its data directory needs no database to make a flush durable: the object itself says which batches it
adds to which partitions, and one write makes both durable. The row of `wal_commit` follows later, many at a time (see
trailing_rows.py), and a start stores the rows that had not followed yet (see roll_forward.py).

A record of kind `COMMITS` counts as soon as it is on the disk. One of kind `REFERRED` is a placeholder: its object
counts if, and only if, the database has a row for it.

No checksum over the object is needed to detect a torn write: the record has a checksum, each batch has its producer's
CRC, and sealed entries have theirs in the record. Only the last object is checked: one with a successor was complete
when the successor was written. `life` identifies the incarnation of the agent that wrote the record: it changes with
every start, and after a write that failed, so that leftovers of earlier lives in recycled space are never taken for
successors. Part of it is secret, so that bytes sent by a producer cannot be either.

A commit may also change something else, such as the states of transactional ids whose markers it contains. That part of
the record is opaque here; it is applied together with the row.

Layout, big-endian: magic, format u8, kind u8, change bytes u16, object bytes u32, entries bytes u32, bases bytes u32,
life i64, sequence i64, committed ms i64, object id, agent i32, shard i32, CRC-32C u32 of everything else in the record;
then the two columns of the row as they are (see commits.py), and the change.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from penstock.base.checksums import crc32c
from penstock.base.errors import CorruptData
from penstock.log.commits import CommitEntry, packed_bytes_max, unpack_bases, unpack_entries
from penstock.log.model import LEADER_EPOCH
from penstock.log.seals import stored_bytes
from penstock.storage.wal import Buffer
from penstock.wire.primitives import Malformed
from penstock.wire.records import MAGIC, iter_batches, verify_crc

COMMITS, REFERRED = 1, 2
_MAGIC, _FORMAT = b"PWAL", 1
_HEAD = Struct(">4sBBHIIIqqq16sii")
_CRC = Struct(">I")
HEAD_BYTES = _HEAD.size + _CRC.size
CHANGE_BYTES_MAX = 0xFFFF


class RecordHead(NamedTuple):
    """The front of a commit record. Only magic and plausibility have been checked, not the checksum."""

    kind: int
    object_bytes: int
    entries_bytes: int
    bases_bytes: int
    life: int
    seq: int
    committed_ms: int
    object_id: bytes
    agent_id: int
    shard_id: int
    change_bytes: int = 0

    @property
    def record_bytes(self) -> int:
        """Size of the whole record."""
        return HEAD_BYTES + self.entries_bytes + self.bases_bytes + self.change_bytes


class CommitRecord(NamedTuple):
    """A commit record: what its row must contain."""

    head: RecordHead
    entries: bytes
    bases: bytes
    change: bytes


def record_bytes_max(entries: int, batches: int) -> int:
    """The most room that a record needs for so many entries with so many batches."""
    return HEAD_BYTES + packed_bytes_max(entries, batches)


def write_record(body: memoryview, head: RecordHead, entries: bytes, bases: bytes, change: bytes = b"") -> None:
    """Write a record to the front of an object."""
    front = _HEAD.pack(
        _MAGIC, _FORMAT, head.kind, len(change), head.object_bytes, len(entries), len(bases), head.life, head.seq,
        head.committed_ms, head.object_id, head.agent_id, head.shard_id,
    )  # fmt: skip
    crc = crc32c(change, crc32c(bases, crc32c(entries, crc32c(front))))
    record = b"".join((front, _CRC.pack(crc), entries, bases, change))
    body[: len(record)] = record


def read_head(data: Buffer) -> RecordHead | None:
    """The front of a record; None if there is none."""
    if len(data) < HEAD_BYTES:
        return None
    magic, version, kind, change_bytes, *rest = _HEAD.unpack_from(data)
    if magic != _MAGIC or version != _FORMAT:
        return None
    head = RecordHead(kind, *rest)._replace(change_bytes=change_bytes)
    return head if head.object_bytes >= head.record_bytes else None


def read_record(body: memoryview) -> CommitRecord | None:
    """The record of kind `COMMITS` at the front of an object; None if there is none, or it is torn or damaged."""
    head = read_head(body)
    if head is None or head.kind != COMMITS or len(body) < head.record_bytes:
        return None
    at = HEAD_BYTES + head.entries_bytes
    end = at + head.bases_bytes
    entries, bases, change = bytes(body[HEAD_BYTES:at]), bytes(body[at:end]), bytes(body[end : head.record_bytes])
    (expected,) = _CRC.unpack_from(body, _HEAD.size)
    if crc32c(change, crc32c(bases, crc32c(entries, crc32c(body[: _HEAD.size])))) != expected:
        return None
    return CommitRecord(head, entries, bases, change)


def is_whole(record: CommitRecord, body: memoryview) -> bool:
    """Whether an object contains every batch that its record names."""
    if len(body) < record.head.object_bytes:
        return False
    try:
        named = zip(unpack_entries(record.entries), unpack_bases(record.bases), strict=True)
        return all(_has_entry(body, entry, base) for entry, base in named)
    except (CorruptData, Malformed, ValueError):
        return False


def _has_entry(body: memoryview, entry: CommitEntry, base: int) -> bool:
    """Whether exactly the entry's batches are where it says."""
    if entry.seal is not None:
        sealed = body[entry.seal.start : entry.seal.start + stored_bytes(entry.seal.length)]
        return crc32c(sealed) == entry.seal.crc
    view = body[entry.byte_start : entry.byte_start + entry.byte_length]
    offset, count = base, 0
    for position, header in iter_batches(view):
        if (header.base_offset, header.partition_leader_epoch, header.magic) != (offset, LEADER_EPOCH, MAGIC):
            return False
        verify_crc(view, position, header)
        offset, count = header.last_offset + 1, count + 1
    return len(view) == entry.byte_length and count == entry.batch_count and offset == base + entry.offset_count
