"""Record batches, format 2: what producers send, what is stored, what consumers get.

A batch is a header of 61 bytes and a records section, which may be compressed. The CRC covers everything from
the attributes on, so the first 21 bytes (base offset, length, leader epoch, magic, CRC) can be rewritten without
it: giving a batch its offsets is a patch of its first 16 bytes (`PREFIX`), and the rest is never copied.

The hot paths look at headers only (`iter_batches`, `parse_header`, `verify_crc`). `iter_records` decodes records;
`scan_batch` and `keep_records` serve key compaction, which copies the surviving records as they are.

Bytes that are not a batch raise `Malformed`; a batch whose checksum is wrong raises `CorruptData`.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from penstock.base.checksums import crc32c
from penstock.base.errors import CorruptData
from penstock.base.twins import twinned
from penstock.wire.compression import MAX_DECOMPRESSED_BYTES, Compression, compress, decompress
from penstock.wire.primitives import Malformed
from penstock.wire.varints import encode_varint, read_varint, read_varlong

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from penstock.wire.primitives import Buffer

# Base offset, length, partition leader epoch, magic, CRC, attributes, last offset delta, base timestamp, max
# timestamp, producer id, producer epoch, base sequence, record count.
HEADER = Struct(">qiibIhiqqqhii")
HEADER_BYTES = 61
MAGIC = 2

# The length field counts from the byte after itself.
LENGTH_OVERHEAD = 12
CRC_POSITION = 17
# The CRC covers everything from here on.
ATTRIBUTES_POSITION = 21
# Attributes, timestamp delta, offset delta, key length, value length, header count: a byte each.
MIN_RECORD_BYTES = 6

NO_TIMESTAMP = -1
NO_PRODUCER_ID = -1
NO_PRODUCER_EPOCH = -1
NO_SEQUENCE = -1
NO_LEADER_EPOCH = -1

_COMPRESSION_BITS = 0x07
_TIMESTAMP_TYPE_BIT = 0x08
_TRANSACTIONAL_BIT = 0x10
_CONTROL_BIT = 0x20
_DELETE_HORIZON_BIT = 0x40

PREFIX = Struct(">qii")
"""Base offset, length and leader epoch: what a log may rewrite without touching the CRC."""
"""What every batch begins with: base offset, length, leader epoch. The first and the last are the log's to write."""
_CHECKED_HEADER = Struct(">hiqqqhii")
_UNCHECKED_HEADER = Struct(">qiibI")


class TimestampType(IntEnum):
    """Who set the timestamps: the producer, or the log when it appended the batch."""

    CREATE_TIME = 0
    LOG_APPEND_TIME = 1


class BatchHeader(NamedTuple):
    """The 61 bytes in front of a batch's records."""

    base_offset: int
    length: int
    partition_leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    record_count: int

    @property
    def size_bytes(self) -> int:
        """The whole batch, header included."""
        return self.length + LENGTH_OVERHEAD

    @property
    def last_offset(self) -> int:
        return self.base_offset + self.last_offset_delta

    @property
    def last_sequence(self) -> int:
        """Sequence of the last record; sequences wrap from 2^31 - 1 to 0."""
        if self.base_sequence < 0:
            return NO_SEQUENCE
        return (self.base_sequence + self.last_offset_delta) & 0x7FFFFFFF

    @property
    def compression(self) -> Compression:
        return Compression.parse(self.attributes & _COMPRESSION_BITS)

    @property
    def timestamp_type(self) -> TimestampType:
        return TimestampType.LOG_APPEND_TIME if self.attributes & _TIMESTAMP_TYPE_BIT else TimestampType.CREATE_TIME

    @property
    def is_transactional(self) -> bool:
        return bool(self.attributes & _TRANSACTIONAL_BIT)

    @property
    def is_control(self) -> bool:
        return bool(self.attributes & _CONTROL_BIT)

    @property
    def delete_horizon_ms(self) -> int | None:
        """When compaction may drop the batch's tombstones, once it has set that. Kept in the base timestamp."""
        return self.base_timestamp if self.attributes & _DELETE_HORIZON_BIT else None


class Record(NamedTuple):
    """One record. Offset and timestamp are absolute."""

    offset: int = 0
    timestamp: int = NO_TIMESTAMP
    key: bytes | None = None
    value: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()


class RecordSpan(NamedTuple):
    """What compaction needs of a record, and where its bytes are in the decompressed records section."""

    offset: int
    timestamp: int
    key: bytes | None
    is_tombstone: bool
    start: int  # At the record's length.
    rest: int  # After its timestamp delta.
    end: int


# ---- headers -------------------------------------------------------------------------------------------------


def parse_header(buffer: Buffer, position: int = 0) -> BatchHeader:
    """Read the header at `position`. Neither magic nor CRC are checked: the caller has an answer for each."""
    if len(buffer) - position < HEADER_BYTES:
        raise Malformed("a record batch is shorter than its header")
    header = BatchHeader._make(HEADER.unpack_from(buffer, position))
    if header.length < HEADER_BYTES - LENGTH_OVERHEAD:
        raise Malformed(f"a record batch announces a length of {header.length} bytes")
    return header


def iter_batches(buffer: Buffer, position: int = 0) -> Iterator[tuple[int, BatchHeader]]:
    """Position and header of every whole batch. A tail that is cut short ends the iteration, as it does in Kafka."""
    end = len(buffer)
    while end - position >= HEADER_BYTES:
        header = parse_header(buffer, position)
        following = position + header.length + LENGTH_OVERHEAD
        if following > end:
            return
        yield position, header
        position = following


def crc_of(batch: Buffer) -> int:
    """CRC-32C of one batch, as its header should have it."""
    return crc32c(memoryview(batch)[ATTRIBUTES_POSITION:])


def verify_crc(buffer: Buffer, position: int, header: BatchHeader) -> None:
    """Raise `CorruptData` unless the batch at `position` has the CRC its header says."""
    end = position + header.length + LENGTH_OVERHEAD
    found = crc32c(memoryview(buffer)[position + ATTRIBUTES_POSITION : end])
    if found != header.crc:
        raise CorruptData(f"a record batch has CRC {found:#010x}, its header says {header.crc:#010x}")


def with_append_time(batch: Buffer, timestamp_ms: int) -> bytes:
    """A copy of one batch that carries the log's append time, its CRC made good."""
    header = parse_header(batch)
    attributes = header.attributes | _TIMESTAMP_TYPE_BIT
    changed = header._replace(attributes=attributes, max_timestamp=timestamp_ms)
    return _assemble(changed, memoryview(batch)[HEADER_BYTES : header.size_bytes])


def _assemble(header: BatchHeader, payload: Buffer) -> bytes:
    """Header and records section as one batch; length and CRC are worked out."""
    checked = _CHECKED_HEADER.pack(*header[5:])
    crc = crc32c(payload, crc32c(checked))
    length = HEADER_BYTES - LENGTH_OVERHEAD + len(payload)
    front = _UNCHECKED_HEADER.pack(header.base_offset, length, header.partition_leader_epoch, MAGIC, crc)
    return b"".join((front, checked, payload))


def _compressed(header: BatchHeader, payload: bytes, *, level: int | None = None) -> bytes:
    if not payload:
        # Nothing is not compressed: as in Kafka, a bare header names no compression.
        return _assemble(header._replace(attributes=header.attributes & ~_COMPRESSION_BITS), payload)
    return _assemble(header, compress(payload, header.compression, level=level))


# ---- decoding ------------------------------------------------------------------------------------------------


def records_section(batch: Buffer, header: BatchHeader, *, max_bytes: int = MAX_DECOMPRESSED_BYTES) -> bytes:
    """The decompressed records of one batch."""
    return bytes(records_view(batch, header, max_bytes=max_bytes))


def records_view(batch: Buffer, header: BatchHeader, *, max_bytes: int = MAX_DECOMPRESSED_BYTES) -> Buffer:
    """The same without a copy: the batch's own memory where it is not compressed."""
    if header.magic != MAGIC:
        raise Malformed(f"record format {header.magic} is not supported")
    if header.size_bytes > len(batch):
        raise Malformed("a record batch is cut short")
    payload = memoryview(batch)[HEADER_BYTES : header.size_bytes]
    if not header.attributes & _COMPRESSION_BITS:
        return payload
    return decompress(payload, header.compression, max_bytes=max_bytes)


def iter_records(
    batch: Buffer, *, max_bytes: int = MAX_DECOMPRESSED_BYTES, check_offsets: bool = True
) -> Iterator[Record]:
    """Decode one batch, which starts at the buffer's beginning.

    Lengths, counts and, unless told otherwise, offset deltas are checked: they must rise, and stay within the
    header's last offset. Kafka lets uncompressed batches with other deltas pass, so readers of foreign logs may
    have to live with them. The CRC is not checked here.
    """
    header = parse_header(batch)
    data = records_section(batch, header, max_bytes=max_bytes)
    appended = header.timestamp_type is TimestampType.LOG_APPEND_TIME
    base_offset, base_timestamp = header.base_offset, header.base_timestamp
    previous, highest = -1, header.last_offset_delta
    position, size = 0, len(data)
    try:
        for _ in range(header.record_count):
            length, position = read_varint(data, position)
            end = position + length
            if length < MIN_RECORD_BYTES or end > size:
                raise Malformed("a record's length does not fit its batch")
            byte = data[position + 1]
            if byte < 128:
                delta, position = (byte >> 1) ^ -(byte & 1), position + 2
            else:
                delta, position = read_varlong(data, position + 1)
            timestamp = header.max_timestamp if appended else base_timestamp + delta
            delta, position = read_varint(data, position)
            if check_offsets and not previous < delta <= highest:
                raise Malformed(f"offset delta {delta} follows {previous} in a batch that ends at {highest}")
            previous = delta
            key, position = _read_bytes(data, position)
            value, position = _read_bytes(data, position)
            headers: tuple[tuple[str, bytes | None], ...] = ()
            if data[position]:
                headers, position = _read_headers(data, position)
            else:
                position += 1
            if position != end:
                raise Malformed("a record does not fill its length")
            yield Record(base_offset + delta, timestamp, key, value, headers)
    except IndexError as problem:
        raise Malformed(f"a record cannot be decoded: {problem}") from problem
    if position != size:
        raise Malformed("a batch has more bytes than its records")


def _read_bytes(data: bytes, position: int) -> tuple[bytes | None, int]:
    byte = data[position]
    if byte < 128:
        length = (byte >> 1) ^ -(byte & 1)
        position += 1
    else:
        length, position = read_varint(data, position)
    if length < 0:
        return None, position
    end = position + length
    return data[position:end], end


def _read_headers(data: bytes, position: int) -> tuple[tuple[tuple[str, bytes | None], ...], int]:
    count, position = read_varint(data, position)
    # A header takes at least two bytes.
    if count < 0 or count * 2 > len(data) - position:
        raise Malformed("a record announces more headers than it has bytes for")
    headers = []
    for _ in range(count):
        key, position = _read_bytes(data, position)
        if key is None:
            raise Malformed("a record header has no key")
        value, position = _read_bytes(data, position)
        headers.append((str(key, "utf-8", "surrogateescape"), value))
    return tuple(headers), position


# ---- encoding ------------------------------------------------------------------------------------------------


def build_batch(
    records: Iterable[Record],
    *,
    compression: Compression = Compression.NONE,
    level: int | None = None,
    producer_id: int = NO_PRODUCER_ID,
    producer_epoch: int = NO_PRODUCER_EPOCH,
    base_sequence: int = NO_SEQUENCE,
    base_offset: int | None = None,
    last_offset: int | None = None,
    timestamp_type: TimestampType = TimestampType.CREATE_TIME,
    is_transactional: bool = False,
    is_control: bool = False,
    partition_leader_epoch: int = NO_LEADER_EPOCH,
    delete_horizon_ms: int | None = None,
) -> bytes:
    """One batch of records, which must come in offset order.

    The batch spans `base_offset` to `last_offset`, by default the first to the last record's offset; compaction
    leaves gaps, so it may span more.
    """
    records = list(records)
    if not records and (base_offset is None or last_offset is None):
        raise ValueError("a batch without records needs both its offsets")
    base_offset = records[0].offset if base_offset is None else base_offset
    last_offset = records[-1].offset if last_offset is None else last_offset
    base_timestamp = records[0].timestamp if records else NO_TIMESTAMP
    if delete_horizon_ms is not None:
        base_timestamp = delete_horizon_ms
    attributes = compression | timestamp_type << 3 | is_transactional << 4 | is_control << 5
    header = BatchHeader(
        base_offset=base_offset,
        length=0,
        partition_leader_epoch=partition_leader_epoch,
        magic=MAGIC,
        crc=0,
        attributes=attributes | (0 if delete_horizon_ms is None else _DELETE_HORIZON_BIT),
        last_offset_delta=last_offset - base_offset,
        base_timestamp=base_timestamp,
        max_timestamp=max((record.timestamp for record in records), default=NO_TIMESTAMP),
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        base_sequence=base_sequence,
        record_count=len(records),
    )
    payload = _encode_records(records, base_offset, base_timestamp)
    return _compressed(header, payload, level=level)


def _encode_records(records: Iterable[Record], base_offset: int, base_timestamp: int) -> bytes:
    pieces: list[bytes] = []
    append = pieces.append
    join = b"".join
    varint = encode_varint
    for offset, timestamp, key, value, headers in records:
        body = join(
            (
                b"\0",
                varint(timestamp - base_timestamp),
                varint(offset - base_offset),
                b"\1" if key is None else varint(len(key)),
                key or b"",
                b"\1" if value is None else varint(len(value)),
                value or b"",
                _encode_headers(headers) if headers else b"\0",
            )
        )
        append(varint(len(body)))
        append(body)
    return join(pieces)


def _encode_headers(headers: Iterable[tuple[str, bytes | None]]) -> bytes:
    pieces: list[bytes] = []
    count = 0
    for key, value in headers:
        name = key.encode("utf-8", "surrogateescape")
        pieces += (encode_varint(len(name)), name)
        pieces += (b"\1",) if value is None else (encode_varint(len(value)), value)
        count += 1
    return encode_varint(count) + b"".join(pieces)


# ---- compaction ----------------------------------------------------------------------------------------------


def scan_batch(batch: Buffer, *, max_bytes: int = MAX_DECOMPRESSED_BYTES) -> tuple[bytes, list[RecordSpan]]:
    """The decompressed records section of one batch, and its records as spans of it."""
    header = parse_header(batch)
    data = records_section(batch, header, max_bytes=max_bytes)
    return data, scan_records(header, data)


@twinned
def scan_records(header: BatchHeader, data: bytes) -> list[RecordSpan]:
    """Find the records of a records section, without looking at their values and headers.

    Varints of one and two bytes, nearly all there are, are read in line: calls would be most of the cost here.
    """
    appended = header.timestamp_type is TimestampType.LOG_APPEND_TIME
    base_offset, base_timestamp, timestamp = header.base_offset, header.base_timestamp, header.max_timestamp
    spans: list[RecordSpan] = []
    add, new = spans.append, tuple.__new__
    position, size = 0, len(data)
    try:
        for _ in range(header.record_count):
            start = position
            byte = data[position]
            if byte < 128:
                length, position = (byte >> 1) ^ -(byte & 1), position + 1
            elif (second := data[position + 1]) < 128:
                length, position = (byte & 127 | second << 7) >> 1, position + 2
                length ^= -(byte & 1)
            else:
                length, position = read_varint(data, position)
            end = position + length
            if length < MIN_RECORD_BYTES or end > size:
                raise Malformed("a record's length does not fit its batch")
            byte = data[position + 1]
            if byte < 128:
                delta, rest = (byte >> 1) ^ -(byte & 1), position + 2
            else:
                delta, rest = read_varlong(data, position + 1)
            if not appended:
                timestamp = base_timestamp + delta
            byte = data[rest]
            if byte < 128:
                delta, position = (byte >> 1) ^ -(byte & 1), rest + 1
            else:
                delta, position = read_varint(data, rest)
            byte = data[position]
            if byte < 128:
                length, position = (byte >> 1) ^ -(byte & 1), position + 1
            else:
                length, position = read_varint(data, position)
            key = None
            if length >= 0:
                key, position = data[position : position + length], position + length
            byte = data[position]
            if byte < 128:
                length, position = (byte >> 1) ^ -(byte & 1), position + 1
            else:
                length, position = read_varint(data, position)
            if position + (length if length > 0 else 0) > end:
                raise Malformed("a record does not fit its length")
            add(new(RecordSpan, (base_offset + delta, timestamp, key, length < 0, start, rest, end)))
            position = end
    except IndexError as problem:
        raise Malformed(f"a record cannot be decoded: {problem}") from problem
    if position != size:
        raise Malformed("a batch has more bytes than its records")
    return spans


def contents_within(
    header: BatchHeader, data: bytes, stretches: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, bytes | None, bytes | None]]:
    """Offset, key and value of the records of a records section that lie within stretches of offsets, which ascend.

    Everything else is passed over: other records, and all headers. Raises `Malformed` where a record is none.
    """
    position, size, index = 0, len(data), 0
    try:
        for _ in range(header.record_count):
            length, position = read_varint(data, position)
            end = position + length
            if length < MIN_RECORD_BYTES or end > size:
                raise Malformed("a record's length does not fit its batch")
            _, position = read_varlong(data, position + 1)
            delta, position = read_varint(data, position)
            offset = header.base_offset + delta
            while stretches[index][1] < offset:
                index += 1
                if index == len(stretches):
                    return
            if offset >= stretches[index][0]:
                key, position = _read_bytes(data, position)
                value, position = _read_bytes(data, position)
                if position >= end:
                    raise Malformed("a record does not fit its length")
                yield offset, key, value
            position = end
    except IndexError as problem:
        raise Malformed(f"a record cannot be decoded: {problem}") from problem


def keep_records(
    header: BatchHeader,
    batch: Buffer,
    data: bytes,
    kept: Sequence[RecordSpan],
    *,
    delete_horizon_ms: int | None = None,
    keep_empty: bool = False,
) -> bytes | None:
    """A scanned batch with only the records to keep: same offsets, same producer fields, same compression.

    `data` and the spans to keep are from `scan_batch`. None if no record is left, unless `keep_empty` asks for the bare
    header, which remembers a producer's last sequence. A delete horizon is stored in the base timestamp, so the deltas
    of the records are rewritten against it.
    """
    if not kept and not keep_empty:
        return None
    horizon = header.delete_horizon_ms if delete_horizon_ms is None else delete_horizon_ms
    if len(kept) == header.record_count and horizon == header.delete_horizon_ms:
        return bytes(memoryview(batch)[: header.size_bytes])
    if horizon == header.delete_horizon_ms:
        payload = b"".join([data[span.start : span.end] for span in kept])
    else:
        payload = b"".join([_shifted(data, span, span.timestamp - (horizon or 0)) for span in kept])
        header = header._replace(attributes=header.attributes | _DELETE_HORIZON_BIT, base_timestamp=horizon or 0)
    return shorten(header, payload, len(kept), max((span.timestamp for span in kept), default=NO_TIMESTAMP))


def shorten(header: BatchHeader, data: Buffer, count: int, max_timestamp: int) -> bytes:
    """A batch with fewer records: `data` is what is left of its records section, decompressed, and `max_timestamp` the
    latest of their timestamps. Same offsets, same producer fields, same compression."""
    if header.timestamp_type is TimestampType.CREATE_TIME:
        header = header._replace(max_timestamp=max_timestamp)
    return _compressed(header._replace(record_count=count), bytes(data))


def _shifted(data: bytes, span: RecordSpan, timestamp_delta: int) -> bytes:
    """The bytes of one record with another timestamp delta."""
    body = b"".join((b"\0", encode_varint(timestamp_delta), data[span.rest : span.end]))
    return encode_varint(len(body)) + body
