"""Key compaction: the latest value of each key stays, offsets never change, and what it was for is done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from simulation.history import Append, Fetched, Outcome
from simulation.logs import StoredLog, batches_of

from penstock.wire.error_codes import ErrorCode
from penstock.wire.records import Record

Content = tuple[bytes | None, bytes | None]
"""Key and value."""


def check_keys(appends: Sequence[Append], log: StoredLog, *, tombstones_kept_since_ms: int) -> None:
    """Compare a compacted log with everything that was appended to it. Tombstones from that time on must be there."""
    found = {record.offset: record for batch in log.batches for record in batch.records}
    truth = _acknowledged(appends, log)
    for offset, record in found.items():
        if offset in truth:
            assert (record.key, record.value) == truth[offset], f"the record at {offset} is not the one appended there"
    _check_latest(found, truth)
    _check_tombstones(appends, found, truth, tombstones_kept_since_ms)
    _check_order(log)


def _acknowledged(appends: Sequence[Append], log: StoredLog) -> dict[int, Content]:
    return {
        append.base_offset + number: (key, value)
        for append in appends
        if append.partition == log.partition and append.outcome is Outcome.ACKNOWLEDGED
        for number, (key, value) in enumerate(zip(append.keys, append.values, strict=True))
    }


def _check_latest(found: Mapping[int, Record], truth: Mapping[int, Content]) -> None:
    known = {**truth, **{offset: (record.key, record.value) for offset, record in found.items()}}
    latest: dict[bytes | None, int] = {}
    for offset in sorted(known):
        latest[known[offset][0]] = offset
    for key, offset in latest.items():
        # A tombstone may go once everybody had the time to read it; then nothing of its key may be left.
        gone = offset not in found
        assert not gone or known[offset][1] is None, f"the latest value of {key!r}, at {offset}, is gone"
        if gone:
            left = [other for other, record in found.items() if record.key == key]
            assert not left, f"{key!r} was deleted at {offset} and is back at {left}"


def _check_tombstones(
    appends: Sequence[Append], found: Mapping[int, Record], truth: Mapping[int, Content], since_ms: int
) -> None:
    latest = {key: offset for offset, (key, _) in sorted(truth.items())}
    known_end = {record.key: record.offset for record in found.values()}
    for append in appends:
        for number, (key, value) in enumerate(zip(append.keys, append.values, strict=True)):
            offset = append.base_offset + number
            if value is None and append.timestamp >= since_ms and latest.get(key) == offset:
                superseded = known_end.get(key, -1) > offset
                assert superseded or offset in found, f"the tombstone at {offset} went before its time"


def _check_order(log: StoredLog) -> None:
    following = 0
    for batch in log.batches:
        header = batch.header
        assert header.base_offset >= following, f"offset {header.base_offset} comes after {following - 1}"
        assert all(header.base_offset <= record.offset <= header.last_offset for record in batch.records)
        following = header.last_offset + 1


def check_cleaned(log: StoredLog, cleaned_to: int) -> None:
    """Below the point that key compaction has reached, each key is there once at most."""
    seen: dict[bytes | None, int] = {}
    for batch in log.batches:
        for record in batch.records:
            if record.offset < cleaned_to:
                assert record.key not in seen, f"{record.key!r} is at {seen[record.key]} and at {record.offset}"
                seen[record.key] = record.offset


def check_reads(fetches: Iterable[Fetched]) -> None:
    """All consumers of a partition saw the same record at an offset, before compaction and after."""
    seen: dict[tuple[object, int], Content] = {}
    for fetched in fetches:
        if fetched.error is ErrorCode.NONE:
            for batch in batches_of(fetched.records):
                for record in batch.records:
                    content = (record.key, record.value)
                    assert seen.setdefault((fetched.partition, record.offset), content) == content, (
                        f"two different records at offset {record.offset}"
                    )
