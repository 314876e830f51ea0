"""Storage of events: a topic, created with the first event, written by the log's own writer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from penstock.audit.events import CONTENT_TYPE
from penstock.base.clock import Clock
from penstock.base.context import AUDIT_TOPIC
from penstock.base.errors import InvalidRequest, Unavailable
from penstock.log.answers import Appended
from penstock.log.batches import Rejected, inspect
from penstock.log.model import Topic
from penstock.log.topics import NewTopic, Topics
from penstock.log.writer import Writer
from penstock.wire.compression import Compression
from penstock.wire.error_codes import ErrorCode
from penstock.wire.records import Record, build_batch

PRODUCE_VERSION = 13
_HEADERS = (("content-type", CONTENT_TYPE.encode("ascii")),)
_FOR_GOOD = frozenset(
    {
        ErrorCode.MESSAGE_TOO_LARGE, ErrorCode.INVALID_RECORD, ErrorCode.INVALID_TIMESTAMP,
        ErrorCode.UNSUPPORTED_COMPRESSION_TYPE, ErrorCode.INVALID_CONFIG, ErrorCode.POLICY_VIOLATION,
    }
)  # fmt: skip


class TopicAppender:
    """Appends to the audit topic of a virtual cluster."""

    def __init__(self, *, topics: Topics, writer: Writer, clock: Clock, cluster_id: int, retention_ms: int) -> None:
        self._topics, self._writer, self._clock = topics, writer, clock
        self._cluster_id = cluster_id
        self._overrides: Mapping[str, str] = MappingProxyType(
            {"cleanup.policy": "delete", "retention.ms": str(retention_ms)}
        )

    async def append(self, events: Sequence[bytes]) -> None:
        """Append one batch, and wait until it is durable."""
        partition = (await self._topic()).partitions[0]
        now_ms = self._clock.now_ms()
        records = [
            Record(offset=number, timestamp=now_ms, value=event, headers=_HEADERS)
            for number, event in enumerate(events)
        ]
        data = build_batch(records, compression=Compression.LZ4)
        accepted = inspect(data, partition.topic.config, now_ms, version=PRODUCE_VERSION, transactional=False)
        if isinstance(accepted, Rejected):
            raise InvalidRequest(f"{AUDIT_TOPIC} does not take them: {accepted.message or accepted.error.name}")
        ticket = _Ticket()
        self._writer.submit(partition, accepted, ticket, 0)
        await ticket.settled

    async def _topic(self) -> Topic:
        found = self._topics.registry.by_name(self._cluster_id, AUDIT_TOPIC)
        if found is not None:
            return found
        wanted = NewTopic(name=AUDIT_TOPIC, partition_count=1, replication_factor=1, overrides=self._overrides)
        (made,) = await self._topics.create(self._cluster_id, [wanted])
        if isinstance(made, Topic):
            return made
        raise _problem(made.code, made.message)


class _Ticket:
    """Waits for the writer without a time-out."""

    timeout_ms = None

    def time_out(self) -> None:
        """Never called: there is no time-out."""

    def __init__(self) -> None:
        self.settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settle(self, position: int, result: Appended) -> None:
        """The batch is durable, or refused."""
        if self.settled.done():
            return
        if result.error:
            self.settled.set_exception(_problem(result.error, result.message))
        else:
            self.settled.set_result(None)


def _problem(code: ErrorCode, message: str | None) -> InvalidRequest | Unavailable:
    text = f"{AUDIT_TOPIC}: {message or code.name}"
    return InvalidRequest(text) if code in _FOR_GOOD else Unavailable(text)
