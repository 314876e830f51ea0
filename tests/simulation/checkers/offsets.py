"""Invariant 2: offsets are dense and never used twice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from simulation.history import Fetched, PartitionKey
from simulation.logs import StoredLog, batches_of
from simulation.witness import WitnessedCommit

from penstock.wire.error_codes import ErrorCode


def check_dense(logs: Iterable[StoredLog]) -> None:
    """Batches follow each other without a gap, from the log's start to its end."""
    for log in logs:
        expected = log.batches[0].header.base_offset if log.batches else log.log_start
        assert expected <= log.log_start, f"the log starts at {log.log_start}, its first batch at {expected}"
        for batch in log.batches:
            assert batch.header.base_offset == expected, f"offset {expected} is missing"
            expected = batch.header.last_offset + 1
        assert expected == log.high_watermark, f"the log ends at {expected}, its high watermark is {log.high_watermark}"


def check_commits_dense(commits: Iterable[WitnessedCommit]) -> None:
    """Durable commits are numbered without gaps and give each partition's offsets away once."""
    heads: dict[int, int] = {}
    for number, commit in enumerate(commits, 1):
        assert commit.seq == number, f"commit {number} is numbered {commit.seq}"
        for entry, base in zip(commit.entries, commit.bases, strict=True):
            head = heads.get(entry.partition_id, 0)
            assert base == head, f"commit {commit.seq} starts at {base} of partition {entry.partition_id}, not {head}"
            heads[entry.partition_id] = base + entry.offset_count


def check_never_reused(fetches: Iterable[Fetched], logs: Iterable[StoredLog]) -> None:
    """What a consumer once saw at an offset is what is there in the end, and what everybody else saw."""
    seen: dict[PartitionKey, dict[int, bytes]] = {}
    for log in logs:
        seen[log.partition] = {batch.header.base_offset: batch.data for batch in log.batches}
    starts: Mapping[PartitionKey, int] = {log.partition: log.log_start for log in logs}
    for fetched in fetches:
        if fetched.error is not ErrorCode.NONE:
            continue
        known = seen.setdefault(fetched.partition, {})
        for batch in batches_of(fetched.records):
            offset = batch.header.base_offset
            before = known.setdefault(offset, batch.data)
            assert before == batch.data, f"two different batches at offset {offset}"
            late = batch.header.last_offset >= starts.get(fetched.partition, 0)
            assert not late or offset in known, f"what was read at {offset} is gone"
