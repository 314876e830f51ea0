"""Reading partitions in offset order, to where they ended when asked or for ever.

One request per leader and round, all sent before the first answer is read. Which partition comes first in a request
moves on from round to round, because a broker only promises the first one its first batch whole. Control batches are
never shown; what aborted transactions wrote is left out when only committed records are wanted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from penstock.base.errors import CorruptData
from penstock.cli.kafka.client import Client, Cluster, TopicPartition
from penstock.cli.kafka.failures import BrokerError, ConnectionLost, check
from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.fetch import FetchPartition, FetchRequest, FetchResponse, FetchTopic, PartitionData
from penstock.wire.primitives import Malformed
from penstock.wire.records import BatchHeader, Record, iter_batches, iter_records

_REQUEST_BYTES = 16 * 1024 * 1024
_PARTITION_BYTES = 1024 * 1024
_ABORT = 0

Fetched = list[tuple[TopicPartition, PartitionData]]


class Reader:
    """Reads from `positions` on; `ends` are offsets not to go beyond, none means for ever."""

    def __init__(
        self,
        client: Client,
        positions: Mapping[TopicPartition, int],
        *,
        ends: Mapping[TopicPartition, int] | None = None,
        committed: bool = False,
    ) -> None:
        self.positions = dict(positions)
        self._client, self._ends, self._committed = client, ends, committed
        self._cluster: Cluster | None = None
        self._turn = 0

    @property
    def open(self) -> list[TopicPartition]:
        """Partitions that have, or may get, more."""
        if self._ends is None:
            return list(self.positions)
        return [where for where, position in self.positions.items() if position < self._ends[where]]

    def poll(self, wait_ms: int) -> Iterator[tuple[TopicPartition, Record]]:
        """Records that are there, or that come while the brokers wait. Positions move as records are taken."""
        for where, _, batch in self.poll_batches(wait_ms):
            end = None if self._ends is None else self._ends[where]
            for record in _decoded(where, batch):
                if end is not None and record.offset >= end:
                    break
                if record.offset >= self.positions[where]:
                    self.positions[where] = record.offset + 1
                    yield where, record

    def poll_batches(self, wait_ms: int) -> Iterator[tuple[TopicPartition, BatchHeader, memoryview]]:
        """The same, batch by batch and not decoded; the first one may begin before the position."""
        for where, data in self._client.retry(lambda: self._fetch(wait_ms)):
            buffer = data.records
            if not buffer:
                continue
            assert not isinstance(buffer, list)
            aborted = Aborted(data)
            for position, header in iter_batches(buffer):
                if header.last_offset < self.positions[where]:
                    continue
                batch = memoryview(buffer)[position : position + header.size_bytes]
                if not aborted.hides(header, batch):
                    yield where, header, batch
                self.positions[where] = max(self.positions[where], header.last_offset + 1)

    def _fetch(self, wait_ms: int) -> Fetched:
        wanted = self.open
        if not wanted:
            return []
        first = self._turn % len(wanted)
        try:
            fetched = self._fetch_from_leaders(wanted[first:] + wanted[:first], wait_ms)
        except (BrokerError, ConnectionLost):
            self._cluster = None
            raise
        self._turn += 1
        return fetched

    def _fetch_from_leaders(self, wanted: Sequence[TopicPartition], wait_ms: int) -> Fetched:
        if self._cluster is None:
            self._cluster = self._client.metadata({where.topic for where in wanted})
        by_leader = self._cluster.by_leader(wanted)
        connections = [self._client.node(node_id) for node_id in by_leader]
        for connection, partitions in zip(connections, by_leader.values(), strict=True):
            connection.send(ApiKey.FETCH, self._request(partitions, wait_ms))
        answers = [connection.receive(FetchResponse, wait_s=wait_ms / 1_000) for connection in connections]
        fetched: Fetched = []
        for answer in answers:
            check(answer.error_code, "fetch")
            for topic in answer.responses:
                fetched += [(TopicPartition(topic.topic, data.partition_index), data) for data in topic.partitions]
        for where, data in fetched:
            self._check(where, data)
        return fetched

    def _request(self, partitions: Sequence[TopicPartition], wait_ms: int) -> FetchRequest:
        topics: dict[str, FetchTopic] = {}
        for where in partitions:
            topic = topics.setdefault(where.topic, FetchTopic(topic=where.topic))
            topic.partitions.append(
                FetchPartition(
                    partition=where.partition,
                    fetch_offset=self.positions[where],
                    partition_max_bytes=_PARTITION_BYTES,
                )
            )
        return FetchRequest(
            max_wait_ms=wait_ms,
            min_bytes=1,
            max_bytes=_REQUEST_BYTES,
            isolation_level=int(self._committed),
            topics=list(topics.values()),
        )

    def _check(self, where: TopicPartition, data: PartitionData) -> None:
        if data.error_code == ErrorCode.OFFSET_OUT_OF_RANGE:
            detail = f"offset {self.positions[where]}"
            raise BrokerError(data.error_code, f"{where}, {detail}")
        check(data.error_code, f"partition {where}")


def _decoded(where: TopicPartition, batch: memoryview) -> Iterator[Record]:
    try:
        yield from iter_records(batch, check_offsets=False)
    except Malformed as error:
        raise CorruptData(f"partition {where} holds a batch that cannot be read: {error}") from error


class Aborted:
    """Which batches of one answer belong to aborted transactions.

    A transaction's records lie between its first offset, which the answer names, and its control batch.
    """

    def __init__(self, data: PartitionData) -> None:
        listed = sorted(data.aborted_transactions or (), key=lambda aborted: aborted.first_offset, reverse=True)
        self._coming = [(aborted.first_offset, aborted.producer_id) for aborted in listed]
        self._current: set[int] = set()

    def hides(self, header: BatchHeader, batch: memoryview) -> bool:
        """Whether a batch is not for people: control, or aborted."""
        while self._coming and self._coming[-1][0] <= header.last_offset:
            self._current.add(self._coming.pop()[1])
        if header.is_control:
            if _is_abort(batch):
                self._current.discard(header.producer_id)
            return True
        return header.is_transactional and header.producer_id in self._current


def _is_abort(batch: memoryview) -> bool:
    for record in iter_records(batch, check_offsets=False):
        if record.key is not None and len(record.key) >= 4:
            return int.from_bytes(record.key[2:4], "big") == _ABORT
    return False
