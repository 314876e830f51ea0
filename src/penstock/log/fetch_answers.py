"""What partitions have for a fetch, and the limits of bytes on it. Pure.

Kafka's rule: of the first partition that has anything, at least one batch is returned, whatever its size; everything
else is within the limits of its partition and of the response.
"""

from __future__ import annotations

from collections.abc import Iterable

from penstock.log.aborted import end_of
from penstock.log.fetch_sessions import CachedPartition
from penstock.log.model import Partition
from penstock.wire.messages.fetch import PartitionData


class Answer:
    """What one partition has for a fetch."""

    __slots__ = ("cold_bytes", "data", "is_stored", "partition", "size_bytes", "wanted")

    def __init__(self, wanted: CachedPartition, partition: Partition | None, data: PartitionData) -> None:
        self.wanted = wanted
        self.partition = partition
        self.data = data
        self.size_bytes = 0
        self.cold_bytes = 0
        """How many bytes to read from storage; 0 when memory had everything."""
        self.is_stored = False
        """Whether its records are sent from where they are stored. The log continues after them."""

    def available_bytes(self, *, read_committed: bool) -> int:
        """How much counts towards the client's minimum: what was found in memory or, if there is more, as much as the
        client takes of the partition at once. Whole batches may be less than that, however long it waits."""
        data, wanted = self.data, self.wanted
        end = data.last_stable_offset if read_committed else data.high_watermark
        following = end_of(data.records) if isinstance(data.records, list) else wanted.fetch_offset
        return self.size_bytes if following >= end else max(self.size_bytes, wanted.max_bytes)


def within_limits(answers: Iterable[Answer], max_bytes: int) -> None:
    """Leave out what exceeds the limits, after reads from storage that found more than was expected: a batch is read
    whole. The client asks for it again."""
    room, has_first = max_bytes, False
    for answer in answers:
        if answer.size_bytes > min(answer.wanted.max_bytes, room) and has_first:
            answer.data.records, answer.size_bytes = b"", 0
        has_first = has_first or answer.size_bytes > 0
        room -= answer.size_bytes
