"""Which ranges of a segment can be sent directly: only those whose ends the index knows."""

from __future__ import annotations

import pytest
from log_parts import ShelvedLog, batch, new_topic

BATCH = batch(b"v" * 40_000)
SIZE = len(BATCH)


@pytest.fixture
def log() -> ShelvedLog:
    """Eight batches of 40 KB, so that every second one begins at a point of the index; then four, then a small one."""
    log = ShelvedLog(new_topic(partitions=1).partitions[0])
    log.add_segment(*[BATCH] * 8)
    log.add_segment(*[BATCH] * 4)
    log.add_segment(batch(b"small"))
    return log


@pytest.mark.parametrize(
    ("offset", "max_bytes", "expected"),
    [
        (0, 1 << 30, (0, 13)),
        (0, 8 * SIZE, (0, 8)),
        (0, 8 * SIZE - 1, (0, 6)),
        (0, 3 * SIZE, (0, 2)),
        (2, 2 * SIZE, (2, 4)),
        (4, 8 * SIZE, (4, 12)),
        (0, 2 * SIZE - 1, None),
        (1, 1 << 30, None),
        (99, 1 << 30, None),
    ],
)
def test_whole_batches_between_points(
    log: ShelvedLog, offset: int, max_bytes: int, expected: tuple[int, int] | None
) -> None:
    found = log.reader.stored(log.partition, offset, max_bytes)
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert b"".join(map(bytes, found)) == b"".join(log.batches[slice(*expected)])


async def test_a_read_ends_where_the_next_one_can_be_sent_as_it_lies(log: ShelvedLog) -> None:
    (found,) = await log.reader.read_batches(log.partition, 1, 5 * SIZE)
    assert bytes(found) == b"".join(log.batches[1:4])
    assert log.reader.stored(log.partition, 4, 5 * SIZE) is not None
