"""Whoever reads in a fetch session knows what it would know without: of each partition, all and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from simulation.history import PartitionKey
from simulation.session_readers import Known

from penstock.wire.error_codes import ErrorCode

GONE = (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.UNKNOWN_TOPIC_ID, ErrorCode.UNKNOWN_TOPIC_ID)
"""What is said of a topic that is gone in a session that knew it, and without, as in Kafka."""


def check_session(
    known: Mapping[PartitionKey, Known], before: Mapping[PartitionKey, Known], after: Mapping[PartitionKey, Known]
) -> None:
    """What a session's client knows now lies between what it was told without a session just before, and just after."""
    assert known.keys() == before.keys(), f"it knows of {sorted(known)} and wants {sorted(before)}"
    for key, mine in known.items():
        first, last = before[key], after[key]
        if ErrorCode.KAFKA_STORAGE_ERROR in (mine.error, first.error, last.error):
            continue  # One of three reads failed.
        if (
            mine.error == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            and first.error == ErrorCode.UNKNOWN_TOPIC_ID == last.error
        ):
            continue  # As in Kafka: a session that knew a topic says that it is gone, anybody else that they never did.
        if first == last and not _ends_early(mine, first):
            assert mine == first, f"{key}: {mine} in the session, {first} without"
        if first.error == last.error == mine.error == 0:
            assert first.high_watermark <= mine.high_watermark <= last.high_watermark, f"{key}: {first}, {mine}, {last}"
            assert first.log_start <= mine.log_start <= last.log_start, f"{key}: {first}, {mine}, {last}"


def _ends_early(mine: Known, whole: Known) -> bool:
    """Whether one of two reads brought less of the same, as something behind it could not be read just then."""
    shorter, longer = sorted((mine.records, whole.records), key=len)
    return bool(shorter) and longer.startswith(shorter) and replace(mine, records=b"") == replace(whole, records=b"")
