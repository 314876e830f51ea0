"""The stored form of a share partition. Version 1, big-endian:

    partition  uint8 version, int64 next_offset, int32 count, runs
    run        int64 length, uint8 state, int16 deliveries, int64 first and int64 length of the batch it came in

Runs are contiguous from the start offset, which has a column of its own, as has the state epoch. Acquired records are
stored as available, with that delivery not counted: a lock does not outlive the process that granted it.

Releases without dead letter queues do not know states 3 and 5, and cannot read partitions that have them.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct, error

from penstock.base.errors import CorruptData
from penstock.share.model import ACQUIRED, AVAILABLE, NOBODY, RecordState, Run, SharePartition
from penstock.share.runs import joined

_VERSION = 1
_HEAD = Struct(">Bqi")
_RUN = Struct(">qBhqq")
_RANGE = Struct(">qq")


def encode(partition: SharePartition) -> bytes:
    """The durable part of what is in flight."""
    runs = joined(map(_unlocked, partition.runs))
    parts = [_HEAD.pack(_VERSION, partition.next_offset, len(runs))]
    parts += (
        _RUN.pack(run.last - run.first + 1, run.state, run.deliveries, run.batch[0], run.batch[1] - run.batch[0] + 1)
        for run in runs
    )
    return b"".join(parts)


def decode(stored: bytes, *, start_offset: int, state_epoch: int, dead_lettered: bytes = b"") -> SharePartition:
    """The partition as stored. Raises `CorruptData`."""
    try:
        version, next_offset, count = _HEAD.unpack_from(stored, 0)
        if version != _VERSION:
            raise ValueError(f"version {version} is unknown")
        if len(stored) != _HEAD.size + count * _RUN.size:
            raise ValueError(f"{count} runs do not fit {len(stored)} bytes")
        runs, first = [], start_offset
        for length, state, deliveries, batch_first, batch_length in _RUN.iter_unpack(stored[_HEAD.size :]):
            batch = (batch_first, batch_first + batch_length - 1)
            runs.append(Run(first, first + length - 1, RecordState(state), deliveries, NOBODY, 0, batch))
            first += length
        if first != next_offset:
            raise ValueError(f"the runs end at {first}, not {next_offset}")
    except (error, ValueError) as problem:
        raise CorruptData(f"a stored share partition cannot be read: {problem}") from problem
    return SharePartition(
        start_offset=start_offset, next_offset=next_offset, runs=tuple(runs), state_epoch=state_epoch,
        dead_lettered=decode_ranges(dead_lettered),
    )  # fmt: skip


def encode_ranges(ranges: Iterable[tuple[int, int]]) -> bytes:
    """Ranges of offsets: int64 first and last of each."""
    return b"".join(_RANGE.pack(*offset_range) for offset_range in ranges)


def decode_ranges(stored: bytes) -> tuple[tuple[int, int], ...]:
    """Decode ranges. Raises `CorruptData`."""
    try:
        return tuple((first, last) for first, last in _RANGE.iter_unpack(stored))
    except error as problem:
        raise CorruptData(f"stored stretches of offsets cannot be read: {problem}") from problem


def _unlocked(run: Run) -> Run:
    if run.state is not ACQUIRED:
        return run
    return run._replace(state=AVAILABLE, deliveries=run.deliveries - 1, member=NOBODY, expires_ms=0)
