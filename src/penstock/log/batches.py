"""What a producer may append: Kafka's rules for one partition's data in a produce request.

Most batches are validated by their 61-byte header and their CRC alone. Records are decoded only where the topic
requires it (compacted: every record needs a key; LogAppendTime; a compression of its own) or where the header says that
a timestamp is out of bounds and the answer must name the record.

Pure: bytes, settings and the time go in; an `Accepted` or a `Rejected` comes out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from penstock.base.checksums import crc32c
from penstock.base.errors import PlatformError
from penstock.base.twins import twinned
from penstock.log.commits import TRANSACTIONAL
from penstock.log.model import TopicConfig
from penstock.wire.compression import Compression
from penstock.wire.error_codes import ErrorCode
from penstock.wire.primitives import Malformed
from penstock.wire.records import (
    ATTRIBUTES_POSITION,
    HEADER,
    HEADER_BYTES,
    LENGTH_OVERHEAD,
    MAGIC,
    NO_TIMESTAMP,
    BatchHeader,
    build_batch,
    iter_records,
    parse_header,
    scan_batch,
    with_append_time,
)

MAX_DECOMPRESSED_BYTES = 64 * 1024 * 1024
MAX_RECORDS = 250_000
"""The limit on decompressed records, where records are decoded: two kilobytes of zstd can expand to as much."""
_CODEC_BITS = 0x07
_APPEND_TIME_BIT = 0x08
_TRANSACTIONAL_BIT = 0x10
_CONTROL_BIT = 0x20
_VERY_UNCOMMON_BITS = _APPEND_TIME_BIT | _CONTROL_BIT
_UNCOMMON_BITS = _VERY_UNCOMMON_BITS | _TRANSACTIONAL_BIT
_HIGHEST_CODEC = 4
_LATEST_MS = 2**63 - 1
"""The latest timestamp that a batch can have."""
_ZSTD = 4
_FAST_CODECS = (0, 2, 3)
ZSTD_SINCE_VERSION = 7
"""Produce versions below this one may not send zstd, which consumers of that age cannot decompress (KIP-110)."""


P = TypeVar("P")


class Accepted(NamedTuple):
    """A batch to append. It takes `offset_count` offsets."""

    data: bytes | memoryview
    offset_count: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    max_timestamp: int
    append_time_ms: int
    """LogAppendTime for the answer; -1 where producers set the timestamps."""
    flags: int = 0
    """Flags of a transactional batch: those of commits.py, and `IMPLICIT` and `ABORTABLE`, which only matter here."""


IMPLICIT, ABORTABLE = 8, 16
"""Flags of a transactional batch: the partition joins the transaction implicitly (KIP-890, transaction version 2); the
client understands TRANSACTION_ABORTABLE."""
IMPLICIT_SINCE_VERSION, ABORTABLE_SINCE_VERSION = 12, 11


class Rejected(NamedTuple):
    """Why a batch is not appended."""

    error: ErrorCode
    message: str | None = None
    records: tuple[tuple[int, str], ...] = ()
    """For invalid records: index within the batch, and what is wrong."""
    by_request: bool = False
    """Whether the request itself is invalid, whatever the log's state: then the answer contains no log start offset."""


class Undecoded(NamedTuple):
    """A batch whose records must be decoded before it can be accepted."""

    batch: Accepted
    record_count: int


class InlineDecodeBudget:
    """How many batches, and records in them, are decoded on the event loop for one request; the others are decoded on a
    thread."""

    __slots__ = ("_batches", "_records")

    def __init__(self) -> None:
        self._batches, self._records = 32, 1000

    def take(self, records: int) -> bool:
        """Take a batch with that many records; False if it exceeds the budget."""
        if not self._batches or records > self._records:
            return False
        self._batches -= 1
        self._records -= records
        return True


@twinned
def accept(
    frame: bytes | memoryview, start: int, end: int, max_bytes: int, latest_ms: int, flags: int = 0
) -> Accepted | None:
    """The fast path for the common valid batch; None: the rules that apply are in `inspect`.

    For topics that store batches as sent, and for requests from version 9 on. `flags` are those of a transactional
    batch, 0 where the request has no transactional id. What it accepts, `inspect` accepts with the same result.
    """
    size = end - start
    if not HEADER_BYTES <= size <= max_bytes:
        return None
    (
        base_offset, length, _, magic, crc, attributes, last_offset_delta, _, max_timestamp, producer_id, epoch,
        sequence, count,
    ) = HEADER.unpack_from(frame, start)  # fmt: skip
    if length + LENGTH_OVERHEAD != size or magic != MAGIC or base_offset or count < 1 or count != last_offset_delta + 1:
        return None
    if attributes & _CODEC_BITS > _HIGHEST_CODEC or max_timestamp > latest_ms:
        return None
    if attributes & (_VERY_UNCOMMON_BITS if flags else _UNCOMMON_BITS):
        return None
    if producer_id >= 0 and (sequence < 0 or epoch < 0):
        return None
    if not attributes & _TRANSACTIONAL_BIT:
        flags = 0
    elif producer_id < 0:
        return None
    data = memoryview(frame)[start:end]
    if crc32c(data[ATTRIBUTES_POSITION:]) != crc:
        return None
    return Accepted(data, count, producer_id, epoch, sequence, max_timestamp, NO_TIMESTAMP, flags)


@twinned
def accept_shares(
    frame: bytes | memoryview, shares: Sequence[tuple[str, bytes, int, int, int]], partitions: Sequence[P],
    max_bytes: int, latest_ms: int, flags: int = 0,
) -> list[tuple[P, Accepted]] | None:  # fmt: skip
    """The batches of a request with their partitions, if all are of one topic, of one producer and accepted; None: look
    at them one by one.

    A share is a topic's name and id, the partition's index, and where its batch begins and ends; `partitions` are those
    of the first one's topic, by index.
    """
    accepted: list[tuple[P, Accepted]] = []
    topic = shares[0][:2]
    for name, topic_id, index, start, end in shares:
        if (name, topic_id) != topic or not 0 <= index < len(partitions):
            return None
        batch = accept(frame, start, end, max_bytes, latest_ms, flags)
        if batch is None:
            return None
        if accepted:
            first = accepted[0][1]
            if batch.producer_id != first.producer_id or batch.flags != first.flags:
                return None
        accepted.append((partitions[index], batch))
    return accepted


def limits_of_plain(config: TopicConfig, now_ms: int) -> tuple[int, int]:
    """What `accept` needs of a topic: the largest batch in bytes, 0 to disable it, and the latest timestamp allowed."""
    if not config.plain or config.timestamp_before_max_ms <= now_ms:
        return 0, 0
    latest_ms = now_ms + config.timestamp_after_max_ms
    return config.largest_batch_bytes, latest_ms if latest_ms < _LATEST_MS else _LATEST_MS


def inspect(
    data: memoryview | bytes | None, config: TopicConfig, now_ms: int, *, version: int, transactional: bool
) -> Accepted | Rejected:
    """Validate the data of one partition, decoding records where the rules need it, which may take long."""
    found = inspect_header(data, config, now_ms, version=version, transactional=transactional)
    return inspect_records(found.batch, config, now_ms) if isinstance(found, Undecoded) else found


def inspect_header(
    data: memoryview | bytes | None, config: TopicConfig, now_ms: int, *, version: int, transactional: bool
) -> Accepted | Rejected | Undecoded:
    """Validate the data of one partition by its header and its CRC."""
    if data is None or len(data) < HEADER_BYTES:
        return Rejected(ErrorCode.INVALID_RECORD, "there is no record batch", by_request=True)
    (
        base_offset, length, _, magic, crc, attributes, last_offset_delta, _, max_timestamp, producer_id, epoch,
        sequence, count,
    ) = HEADER.unpack_from(data)  # fmt: skip
    size = length + LENGTH_OVERHEAD
    if size != len(data):
        if size > len(data) or size < HEADER_BYTES:
            return Rejected(ErrorCode.INVALID_RECORD, "the record batch is cut short", by_request=True)
        if _has_another_batch(data, size):
            return Rejected(
                ErrorCode.INVALID_RECORD, "a partition gets exactly one record batch in a request", by_request=True
            )
        data = data[:size]
    if magic != MAGIC:
        known = magic in (0, 1)
        error = ErrorCode.INVALID_RECORD if known else ErrorCode.CORRUPT_MESSAGE
        return Rejected(error, f"record format {magic} cannot be produced, only {MAGIC}", by_request=True)
    if size > config.max_message_bytes:
        return Rejected(
            ErrorCode.MESSAGE_TOO_LARGE, f"the batch has {size} bytes, the topic takes {config.max_message_bytes}"
        )
    if crc32c(data[ATTRIBUTES_POSITION:]) != crc:
        return Rejected(ErrorCode.CORRUPT_MESSAGE, "the CRC of the record batch is wrong")
    if base_offset != 0 or count < 1 or count != last_offset_delta + 1 or attributes & _CONTROL_BIT:
        return Rejected(ErrorCode.INVALID_RECORD, "the record batch contradicts itself, or is a control batch")
    if producer_id >= 0 and (sequence < 0 or epoch < 0):
        return Rejected(ErrorCode.INVALID_RECORD, "an idempotent batch needs an epoch and a sequence")
    codec = attributes & _CODEC_BITS
    if codec > _HIGHEST_CODEC or (codec == _ZSTD and version < ZSTD_SINCE_VERSION):
        text = f"compression {codec} cannot be used here"
        return Rejected(ErrorCode.UNSUPPORTED_COMPRESSION_TYPE, text, by_request=codec == _ZSTD)
    if attributes & _TRANSACTIONAL_BIT and not transactional:
        text = "a transactional batch without an id"
        return Rejected(ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, text, by_request=True)
    flags = 0
    if attributes & _TRANSACTIONAL_BIT:
        if producer_id < 0:
            return Rejected(ErrorCode.INVALID_RECORD, "a transactional batch needs a producer id")
        flags = flags_of_transactional(version)
    accepted = Accepted(data, count, producer_id, epoch, sequence, max_timestamp, NO_TIMESTAMP, flags)
    timely = (
        config.timestamp_before_max_ms > now_ms and max_timestamp <= now_ms + config.timestamp_after_max_ms
    ) or config.log_append_time
    if timely and config.plain and not attributes & _APPEND_TIME_BIT:
        return _check_segment_size(size, config) or accepted
    return Undecoded(accepted, parse_header(accepted.data).record_count)


def is_transactional(data: memoryview | bytes | None) -> bool:
    """Whether the data of one partition claims to belong to a transaction."""
    return data is not None and len(data) >= HEADER_BYTES and bool(HEADER.unpack_from(data)[5] & _TRANSACTIONAL_BIT)


def flags_of_transactional(version: int) -> int:
    """The flags of a transactional batch in a produce request of this version."""
    if version >= IMPLICIT_SINCE_VERSION:
        return TRANSACTIONAL | IMPLICIT | ABORTABLE
    return TRANSACTIONAL | (ABORTABLE if version >= ABORTABLE_SINCE_VERSION else 0)


def _has_another_batch(data: memoryview | bytes, position: int) -> bool:
    """Whether a second batch follows. A truncated one does not count, as in Kafka."""
    try:
        following = parse_header(data, position)
    except Malformed:
        return False
    return position + following.size_bytes <= len(data)


def inspect_records_inline(
    undecoded: Undecoded, config: TopicConfig, now_ms: int, budget: InlineDecodeBudget
) -> Accepted | Rejected | None:
    """`inspect_records` for small batches; None where decoding takes long or may, since a few bytes can expand to
    many."""
    plain_bytes = _inline_bytes(config)
    if len(undecoded.batch.data) > plain_bytes or not budget.take(undecoded.record_count):
        return None
    try:
        return _inspect_records(undecoded.batch, config, now_ms, plain_bytes)
    except PlatformError:
        return None


def _inline_bytes(config: TopicConfig) -> int:
    """How many bytes of records can be decoded, and recompressed as the topic requires, in half a millisecond."""
    if config.compression < 0:
        return 64 * 1024
    is_fast = config.compression in _FAST_CODECS or (
        config.compression == _ZSTD and (config.compression_level or 0) <= 3
    )
    return 32 * 1024 if is_fast else 4 * 1024


def inspect_records(batch: Accepted, config: TopicConfig, now_ms: int) -> Accepted | Rejected:
    """The rules that need decoded records: up to some seconds of CPU time."""
    try:
        return _inspect_records(batch, config, now_ms, MAX_DECOMPRESSED_BYTES)
    except PlatformError as problem:
        return Rejected(ErrorCode.INVALID_RECORD, str(problem))


def _inspect_records(batch: Accepted, config: TopicConfig, now_ms: int, max_bytes: int) -> Accepted | Rejected:
    header = parse_header(batch.data)
    if header.record_count > MAX_RECORDS:
        return Rejected(
            ErrorCode.RECORD_LIST_TOO_LARGE, f"the batch has {header.record_count} records, {MAX_RECORDS} are taken"
        )
    wrong = _check_records(batch.data, config, now_ms, max_bytes)
    if wrong is not None:
        return wrong
    data = _reshape(batch.data, header, config, now_ms, max_bytes)
    size = len(data)
    if size > config.max_message_bytes:
        text = f"the batch would be stored with {size} bytes, the topic takes {config.max_message_bytes}"
        return Rejected(ErrorCode.MESSAGE_TOO_LARGE, text)
    too_long = _check_segment_size(size, config)
    if too_long is not None:
        return too_long
    append_time_ms = now_ms if config.log_append_time else NO_TIMESTAMP
    return batch._replace(data=data, max_timestamp=parse_header(data).max_timestamp, append_time_ms=append_time_ms)


def _check_segment_size(size: int, config: TopicConfig) -> Rejected | None:
    """Why a batch does not fit into any segment. Kafka checks this last."""
    if size <= config.segment_bytes:
        return None
    text = f"the batch has {size} bytes, segments of the topic have {config.segment_bytes}"
    return Rejected(ErrorCode.RECORD_LIST_TOO_LARGE, text)


def _check_records(data: memoryview | bytes, config: TopicConfig, now_ms: int, max_bytes: int) -> Rejected | None:
    _, spans = scan_batch(data, max_bytes=max_bytes)
    if config.compact:
        keyless = tuple((index, "a compacted topic needs keys") for index, span in enumerate(spans) if span.key is None)
        if keyless:
            return Rejected(ErrorCode.INVALID_RECORD, "One or more records have been rejected: no key", keyless)
    if config.log_append_time:
        return None
    oldest, newest = now_ms - config.timestamp_before_max_ms, now_ms + config.timestamp_after_max_ms
    untimely = tuple(
        (index, f"timestamp {span.timestamp} is not within [{max(oldest, 0)}, {newest}]")
        for index, span in enumerate(spans)
        if span.timestamp != NO_TIMESTAMP and not oldest <= span.timestamp <= newest
    )
    if untimely:
        return Rejected(ErrorCode.INVALID_TIMESTAMP, "One or more records have a timestamp out of bounds", untimely)
    return None


def _reshape(
    data: memoryview | bytes, header: BatchHeader, config: TopicConfig, now_ms: int, max_bytes: int
) -> memoryview | bytes:
    """The batch as the topic stores it: with the topic's compression and timestamp type."""
    wants_codec = config.compression >= 0 and config.compression != header.attributes & _CODEC_BITS
    claims_append_time = bool(header.attributes & _APPEND_TIME_BIT)
    if wants_codec or (claims_append_time and not config.log_append_time):
        plain = header._replace(attributes=header.attributes & ~_APPEND_TIME_BIT)
        codec = Compression(config.compression) if wants_codec else plain.compression
        original = bytearray(data)
        HEADER.pack_into(original, 0, *plain)
        data = build_batch(
            iter_records(original, max_bytes=max_bytes, check_offsets=False),
            compression=codec,
            level=config.compression_level,
            producer_id=header.producer_id,
            producer_epoch=header.producer_epoch,
            base_sequence=header.base_sequence,
            base_offset=0,
            last_offset=header.last_offset_delta,
            is_transactional=header.is_transactional,
        )
    return with_append_time(data, now_ms) if config.log_append_time else data
