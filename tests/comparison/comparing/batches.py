"""Record batches from a few words, flaws included, and what is told of those that come back.

A batch: `values: [a, b]` (or `records:` with key, value, headers and timestamp of each), and what it should be beside
that: `producer_id`, `producer_epoch`, `base_sequence`, `transactional`, `control`, `codec`, `append_time`. `patch` then
overwrites fields of the finished header and mends the checksum; `crc: wrong` spoils it; `cut` leaves off so many bytes
at the end; `tail` appends hexadecimal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from struct import pack_into
from typing import Any

from crc32c import crc32c

from penstock.wire.compression import Compression
from penstock.wire.primitives import Malformed
from penstock.wire.records import HEADER_BYTES, Record, TimestampType, build_batch, iter_records, parse_header

CRC_AT, CHECKED_FROM = 17, 21
LAYOUT = {
    "base_offset": (0, ">q"), "length": (8, ">i"), "partition_leader_epoch": (12, ">i"), "magic": (16, ">b"),
    "attributes": (21, ">h"), "last_offset_delta": (23, ">i"), "base_timestamp": (27, ">q"),
    "max_timestamp": (35, ">q"), "producer_id": (43, ">q"), "producer_epoch": (51, ">h"),
    "base_sequence": (53, ">i"), "record_count": (57, ">i"),
}  # fmt: skip
PASSED_ON = ("producer_id", "producer_epoch", "base_sequence", "base_offset", "last_offset")


def build_batches(batches: Any) -> bytes | None:
    """The records field of a produce request."""
    if batches is None or isinstance(batches, bytes):
        return batches
    if isinstance(batches, str):
        return bytes.fromhex(batches.removeprefix("0x"))
    return b"".join(_batch(batch) for batch in batches)


def _batch(words: Mapping[str, Any]) -> bytes:
    given = words["records"] if "records" in words else [{"value": value} for value in words.get("values", ("a",))]
    timestamp = words["timestamp"]
    records = [_record(number, record, timestamp) for number, record in enumerate(given)]
    options = {name: words[name] for name in PASSED_ON if name in words}
    built = bytearray(
        build_batch(
            records,
            compression=Compression[words.get("codec", "none").upper()],
            timestamp_type=TimestampType(bool(words.get("append_time"))),
            is_transactional=bool(words.get("transactional")),
            is_control=bool(words.get("control")),
            **options,
        )
    )
    for name, value in words.get("patch", {}).items():
        position, layout = LAYOUT[name]
        pack_into(layout, built, position, value)
    if "payload" in words:  # In place of the records, whatever they were.
        built[HEADER_BYTES:] = bytes.fromhex(words["payload"])
        pack_into(">i", built, 8, len(built) - 12)
    if words.get("patch") or "payload" in words:
        pack_into(">I", built, CRC_AT, crc32c(bytes(built[CHECKED_FROM:])))
    if words.get("crc") == "wrong":
        built[CRC_AT] ^= 0xFF
    if "cut" in words:
        del built[len(built) - words["cut"] :]
    return bytes(built) + bytes.fromhex(words.get("tail", ""))


def _record(number: int, words: Mapping[str, Any], timestamp: int) -> Record:
    headers = tuple((name, _encoded(value)) for name, value in words.get("headers", {}).items())
    return Record(
        offset=words.get("offset", number), timestamp=words.get("timestamp", timestamp), key=_encoded(words.get("key")),
        value=_encoded(words.get("value")), headers=headers,
    )  # fmt: skip


def _encoded(text: Any) -> bytes | None:
    """A key or value; `100 KiB` of something where a size is given as a number."""
    if text is None:
        return None
    return b"x" * text if isinstance(text, int) else str(text).encode()


def batches_to_plain(data: bytes) -> list[dict[str, Any]]:
    """What is in fetched data: each batch's header without length and checksum, and its records."""
    found: list[dict[str, Any]] = []
    position = 0
    while position < len(data):
        try:
            header = parse_header(data, position)
        except Malformed:
            return [*found, {"cut": True}]
        end = position + header.size_bytes
        if end > len(data):
            return [*found, {"cut": True}]
        fields = header._asdict()
        for name in ("length", "crc"):
            del fields[name]
        fields["records"] = _records(data[position:end])
        fields["crc_is_right"] = crc32c(data[position + CHECKED_FROM : end]) == header.crc
        found.append(fields)
        position = end
    return found


def _records(batch: bytes) -> Any:
    try:
        return [_plain(record) for record in iter_records(batch)]
    except Malformed:
        return "cannot be read"


def _plain(record: Record) -> dict[str, Any]:
    headers: Sequence[Any] = [[name, value] for name, value in record.headers]
    return {**record._asdict(), "headers": headers}
