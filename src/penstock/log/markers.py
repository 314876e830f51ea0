"""Control batches: the markers that end transactions in a partition (KIP-98). Pure."""

from __future__ import annotations

from struct import Struct

from penstock.base.checksums import crc32c
from penstock.base.twins import twinned
from penstock.log.batches import Accepted
from penstock.log.commits import ABORT, CONTROL, TRANSACTIONAL
from penstock.log.model import LEADER_EPOCH, NO_TIMESTAMP
from penstock.wire.records import ATTRIBUTES_POSITION, HEADER, HEADER_BYTES, LENGTH_OVERHEAD, MAGIC, NO_SEQUENCE

_ATTRIBUTES = 0x30
"""Attribute bits of a control batch: transactional, control."""
_RECORD = Struct(">BbbbBhhBhiB")
_RECORD_BYTES = _RECORD.size - 1
_KEY_VERSION = _VALUE_VERSION = 0
_ABORTED, _COMMITTED = 0, 1


@twinned
def marker(*, producer_id: int, epoch: int, commit: bool, coordinator_epoch: int, now_ms: int) -> Accepted:
    """The marker that ends a producer's transaction in a partition. It takes one offset."""
    # Lengths inside a record are zigzag varints: twice the number, where it is small.
    record = _RECORD.pack(
        2 * _RECORD_BYTES, 0, 0, 0, 2 * 4, _KEY_VERSION, _COMMITTED if commit else _ABORTED, 2 * 6, _VALUE_VERSION,
        coordinator_epoch, 0,
    )  # fmt: skip
    size = HEADER_BYTES + len(record)
    batch = bytearray(size)
    fields = (_ATTRIBUTES, 0, now_ms, now_ms, producer_id, epoch, NO_SEQUENCE, 1)
    HEADER.pack_into(batch, 0, 0, size - LENGTH_OVERHEAD, LEADER_EPOCH, MAGIC, 0, *fields)
    batch[HEADER_BYTES:] = record
    crc = crc32c(memoryview(batch)[ATTRIBUTES_POSITION:])
    HEADER.pack_into(batch, 0, 0, size - LENGTH_OVERHEAD, LEADER_EPOCH, MAGIC, crc, *fields)
    flags = TRANSACTIONAL | CONTROL | (0 if commit else ABORT)
    return Accepted(bytes(batch), 1, producer_id, epoch, NO_SEQUENCE, now_ms, NO_TIMESTAMP, flags)
