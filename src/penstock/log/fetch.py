"""Fetch: long polls over the tail in memory, and cold reads for everything older.

A fetch looks at each of its partitions. With `min_bytes` of data, an error, or nothing to wait for it is answered in
the same turn of the event loop; otherwise it becomes a long poll, completed by commits to its partitions or by its
deadline. Only batches that are not in memory need a task of their own, which reads them on worker threads.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from penstock.authorization.authorizer import CLUSTER_ACTION, READ_TOPIC, Authorizer
from penstock.base.acls import CLUSTER_NAME
from penstock.base.context import RequestContext
from penstock.base.cooperative import gather_in_batches
from penstock.base.durations import Durations
from penstock.base.errors import PlatformError
from penstock.keys.model import LockReason
from penstock.log.aborted import AbortedLookup, NothingAborted, aborted_between, batches_below, end_of
from penstock.log.admin.failures import read_failure
from penstock.log.fetch_answers import Answer, within_limits
from penstock.log.fetch_sessions import CachedPartition, FetchSession, FetchSessions, Named, TopicKey
from penstock.log.model import LEADER_EPOCH, Partition
from penstock.log.model import AbortedTransaction as Aborted
from penstock.log.quota import FetchQuota
from penstock.log.reader import COLD_READ_BYTES, Reader
from penstock.log.refusals import Refused
from penstock.log.registry import Registry
from penstock.storage.object_store import Piece
from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.fetch import (
    AbortedTransaction,
    EpochEndOffset,
    FetchableTopicResponse,
    FetchRequest,
    FetchResponse,
    PartitionData,
)

TOPIC_IDS_SINCE = 13
STORAGE_ERRORS_SINCE = 6
READ_COMMITTED = 1
MAX_WAIT_MS = 600_000
RESPONSE_MAX_BYTES = 8 * 1024 * 1024
"""The most one response contains, whatever the client allows: clients fetch again, and memory stays bounded."""
LONG_PARTITIONS = 2_500
"""A fetch of more partitions than this yields to the event loop in between."""
LOOKED_AT_ONCE = 1_000
"""How many partitions are looked at, or added to the response, before it yields: 10 milliseconds at most."""
_EMPTY = b""
_log = logging.getLogger(__name__)

_FETCH = int(ApiKey.FETCH)

Done = Callable[[FetchResponse, float], None]
"""Takes the answer, and how long data was waited for, as the client wanted, in seconds."""
MayRead = Callable[[str], bool]
"""Whether the caller may read the topic of that name."""
_NOTHING: MayRead = frozenset[str]().__contains__
"""What a client may read that says to be a broker and may not act as one."""


class FetchHandler:
    """Answers Fetch. `handle` calls `done` at once or later; it returns how to cancel the wait, None if it is over."""

    def __init__(
        self, *, registry: Registry, reader: Reader, sessions: FetchSessions, max_bytes: int = RESPONSE_MAX_BYTES,
        aborted: AbortedLookup | None = None, locked: Mapping[int, LockReason] | None = None,
    ) -> None:  # fmt: skip
        self._locked: Mapping[int, LockReason] = {} if locked is None else locked
        self.registry, self.reader, self.sessions = registry, reader, sessions
        self.aborted = aborted or NothingAborted()
        self.waits = Durations()
        """How long fetches waited for data: long polls, not slowness."""
        self.quota: FetchQuota | None = None
        """The quota on bytes read, if there is one."""
        self.max_bytes = min(max_bytes, RESPONSE_MAX_BYTES)
        self.authorizer: Authorizer | None = None
        """Checks permissions. None: everybody may read everything."""

    def handle(
        self, context: RequestContext, request: FetchRequest, done: Done, named: Named | None = None
    ) -> Callable[[], None] | None:
        """Fetch, key 1, v4-18. v6: storage errors. v7: sessions. v12: flexible, epochs. v13: topic ids. v15: replica
        state as a tag."""
        by_id = context.api_version >= TOPIC_IDS_SINCE
        try:
            session, wanted, full = self.sessions.begin(
                request, by_id=by_id, owner=(context.cluster_id, context.principal), named=named
            )
        except Refused as refused:
            done(FetchResponse(error_code=refused.code), 0.0)
            return None
        if session is not None and self.authorizer is not None:
            session.allow(self.authorizer.version(context.cluster_id))
        poll = Poll(self, context, request, session, wanted, full, done, self._permission(context, request))
        return poll.start()

    def _permission(self, context: RequestContext, request: FetchRequest) -> MayRead | None:
        """Which topics may be read; None: all. A follower fetch (replica id) may read everything or nothing."""
        authorizer = self.authorizer
        if authorizer is None:
            return None
        replica = request.replica_state
        if request.replica_id >= 0 or (replica is not None and replica.replica_id >= 0):
            return None if authorizer.allows(context, _FETCH, CLUSTER_ACTION, CLUSTER_NAME) else _NOTHING
        allows, denied = partial(authorizer.allows, context, _FETCH, READ_TOPIC), set[str]()

        def may_read(name: str) -> bool:
            # A denial applies to all partitions of a topic and is audited once, as in Kafka.
            if name in denied:
                return False
            if allows(name):
                return True
            denied.add(name)
            return False

        return may_read

    def look(
        self, cluster_id: int, wanted: CachedPartition, room_bytes: int, *, read_committed: bool, first: bool,
        may_read: MayRead | None = None,
    ) -> Answer:  # fmt: skip
        """What one partition has for a fetch, from memory."""
        data = PartitionData(
            partition_index=wanted.index, records=_EMPTY, aborted_transactions=[] if read_committed else None
        )
        partition, error = self._resolve(cluster_id, wanted.topic, wanted.index, may_read)
        if partition is not None:
            error = _refusal(partition, wanted)
            wanted.was_found = True
        elif error is ErrorCode.UNKNOWN_TOPIC_ID and wanted.was_found:
            error = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        if partition is None or error is not ErrorCode.NONE:
            wanted.partition = None
            data.error_code, data.high_watermark, data.log_start_offset = error, -1, -1
            if partition is None:
                data.aborted_transactions = []  # As in Kafka, where the isolation level does not matter yet.
            return Answer(wanted, partition, data)
        wanted.partition = partition
        end = partition.last_stable_offset if read_committed else partition.next_offset
        data.high_watermark, data.last_stable_offset = partition.next_offset, partition.last_stable_offset
        data.log_start_offset = partition.log_start
        answer = Answer(wanted, partition, data)
        if _diverges(partition, wanted):
            data.diverging_epoch = EpochEndOffset(epoch=LEADER_EPOCH, end_offset=partition.next_offset)
        elif wanted.fetch_offset < end and (room_bytes > 0 or first):
            limit = min(max(wanted.max_bytes, 0), max(room_bytes, 0))
            found = self.reader.tail(partition, wanted.fetch_offset, limit, at_least_one=first)
            if read_committed and found:
                found = self._committed(partition, answer, found)
            stored = self._stored(partition, wanted.fetch_offset, limit, read_committed) if found is None else None
            if stored:
                answer.size_bytes, answer.is_stored = sum(map(len, stored)), True
                data.records = stored  # type: ignore[assignment]  # file ranges, too: whatever can be sent
            elif found is None:
                # No more is read at once; reserving more of the response would starve other partitions.
                answer.cold_bytes = min(limit, COLD_READ_BYTES) if limit or not first else 1
            elif found:
                answer.size_bytes = sum(map(len, found))
                data.records = list(found)
        return answer

    def _stored(self, partition: Partition, offset: int, max_bytes: int, read_committed: bool) -> list[Piece] | None:
        """Records that can be sent directly from storage, unless they must be inspected for aborted transactions."""
        if read_committed and (partition.transactions or partition.aborted or partition.aborted_from > offset):
            return None
        return self.reader.stored(partition, offset, max_bytes)

    def _committed(self, partition: Partition, answer: Answer, found: list[memoryview]) -> list[memoryview] | None:
        """Batches below the last stable offset; notes the aborted transactions. None: memory does not have them all."""
        offset, end = answer.wanted.fetch_offset, partition.last_stable_offset
        if partition.aborted_from > offset:
            return None
        if end < partition.next_offset:
            found = batches_below(found, end)
        if partition.aborted and found:
            answer.data.aborted_transactions = _as_message(aborted_between(partition.aborted, offset, end_of(found)))
        return found

    def is_erased(self, cluster_id: int) -> bool:
        """Whether a cluster's data is unreadable for good because its keys were erased."""
        return bool(self._locked) and self._locked.get(cluster_id) is LockReason.ERASED

    def _resolve(
        self, cluster_id: int, topic_key: TopicKey, index: int, may_read: MayRead | None
    ) -> tuple[Partition | None, ErrorCode]:
        if isinstance(topic_key, str):
            name = topic_key
            topic = self.registry.by_name(cluster_id, name)
        else:
            topic = self.registry.by_id(cluster_id, topic_key)
            if topic is None:
                is_refused = may_read is _NOTHING
                return None, ErrorCode.TOPIC_AUTHORIZATION_FAILED if is_refused else ErrorCode.UNKNOWN_TOPIC_ID
            name = topic.name
        # Checked before it is known whether the topic exists: existence, too, is confidential.
        if may_read is not None and not may_read(name):
            return None, ErrorCode.TOPIC_AUTHORIZATION_FAILED
        if topic is None or not 0 <= index < len(topic.partitions):
            return None, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        if self.is_erased(cluster_id):
            return None, ErrorCode.TOPIC_AUTHORIZATION_FAILED
        return topic.partitions[index], ErrorCode.NONE


class Poll:
    """One fetch until it is answered. While it waits it is a `Waiter` of its partitions."""

    __slots__ = (
        "_context", "_done", "_full", "_handler", "_max_bytes", "_may_read", "_min_bytes", "_needed_bytes",
        "_read_committed", "_request", "_scheduled", "_session", "_task", "_timer", "_waited_s", "_waiting", "_wanted",
    )  # fmt: skip

    def __init__(
        self, handler: FetchHandler, context: RequestContext, request: FetchRequest, session: FetchSession | None,
        wanted: Sequence[CachedPartition], full: bool, done: Done, may_read: MayRead | None,
    ) -> None:  # fmt: skip
        self._handler, self._context, self._request, self._session = handler, context, request, session
        self._may_read = may_read
        self._wanted, self._full = wanted, full
        self._done: Done | None = done
        self._read_committed = request.isolation_level == READ_COMMITTED
        self._max_bytes = min(request.max_bytes, handler.max_bytes)
        if handler.quota is not None:
            room_bytes = handler.quota.fetch_room(context)
            if room_bytes is not None:
                self._max_bytes = min(self._max_bytes, room_bytes)
        # More than a response may contain never comes, however long it is waited for.
        self._min_bytes = min(request.min_bytes, self._max_bytes)
        self._waiting: list[Partition] = []
        self._needed_bytes = 0
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._waited_s = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> Callable[[], None] | None:
        """Answer now if possible, else wait."""
        if self._is_long:
            self._task = asyncio.get_running_loop().create_task(self._start_slowly())
            return self.cancel
        return self._begin(*self._look())

    async def _start_slowly(self) -> None:
        """The same for so many partitions that it must yield in between."""
        ends: list[int] = []
        answers, size, urgent = await self._look_slowly(ends)
        if self._done is None:
            return
        missing_bytes = self._missing(answers, size, urgent)
        if missing_bytes <= 0:
            await self._finish_slowly(answers)
            return
        self._wait_for(missing_bytes)
        has_more = False
        for first in range(0, len(self._wanted), LOOKED_AT_ONCE):
            some = self._wanted[first : first + LOOKED_AT_ONCE]
            self._watch(some)
            # Register as a waiter first, then look again: no commit in between is missed.
            has_more = has_more or ends[first : first + LOOKED_AT_ONCE] != list(map(_end, some))
            await asyncio.sleep(0)
            if self._scheduled or self._done is None:
                return
        if has_more:
            self.on_change()

    def _begin(self, answers: list[Answer], size: int, urgent: bool) -> Callable[[], None] | None:
        missing_bytes = self._missing(answers, size, urgent)
        if missing_bytes <= 0:
            self._finish(answers)
            return None if self._done is None else self.cancel
        self._wait_for(missing_bytes)
        self._watch(self._wanted)
        return self.cancel

    def _missing(self, answers: Sequence[Answer], size: int, urgent: bool) -> int:
        """How many more bytes to wait for; 0 or less to answer now."""
        if urgent or size >= self._min_bytes or self._request.max_wait_ms <= 0 or not self._wanted:
            return 0
        if size:  # Else no partition has anything.
            size = sum(answer.available_bytes(read_committed=self._read_committed) for answer in answers)
        return self._min_bytes - size

    def _wait_for(self, size_bytes: int) -> None:
        """Answer after so many more bytes, or at the deadline."""
        self._needed_bytes = size_bytes
        on_time = self.on_change if self._is_long else self._answer
        self._timer = asyncio.get_running_loop().call_later(self._wait_s, on_time)

    @property
    def _wait_s(self) -> float:
        return min(self._request.max_wait_ms, MAX_WAIT_MS) / 1000

    def _watch(self, some: Sequence[CachedPartition]) -> None:
        """Register with partitions for news of appends."""
        for wanted in some:
            partition = wanted.partition
            if partition is not None:
                partition.waiters[self] = None
                self._waiting.append(partition)

    def on_append(self, size_bytes: int) -> None:
        """More data: answer once it is enough, after the commit that brought it."""
        self._needed_bytes -= size_bytes
        if self._needed_bytes <= 0:
            self.on_change()

    def on_stable(self, size_bytes: int) -> None:
        """More data, or more of it stable: how much of it this reader may see has to be looked up."""
        if not self._read_committed:
            self.on_append(size_bytes)
        elif self._is_long:
            self.on_change()  # The look-up would take as long as the answer.
        elif not self._scheduled and self._done is not None:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._look_again)

    def _look_again(self) -> None:
        """Answer if there is enough, else keep waiting."""
        self._scheduled = False
        if self._done is None or not self._waiting:
            return
        answers, size, urgent = self._look()
        self._needed_bytes = self._missing(answers, size, urgent)
        if self._needed_bytes <= 0:
            self._stop_waiting()
            self._finish(answers)

    def on_change(self) -> None:
        """Answer now, with whatever there is."""
        if not self._scheduled and self._done is not None:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._answer)

    def cancel(self) -> None:
        """The client has disconnected."""
        self._done = None
        self._stop_waiting()
        if self._task is not None:
            self._task.cancel()

    def _stop_waiting(self) -> None:
        for partition in self._waiting:
            partition.waiters.pop(self, None)
        self._waiting = []
        if self._timer is not None:
            began_s = self._timer.when() - self._wait_s
            self._waited_s = asyncio.get_running_loop().time() - began_s
            self._handler.waits.add(self._waited_s)
            self._timer.cancel()
            self._timer = None

    def _answer(self) -> None:
        self._stop_waiting()
        if self._done is None:
            return
        if self._is_long:
            self._task = asyncio.get_running_loop().create_task(self._answer_slowly())
            return
        answers, _, _ = self._look()
        self._finish(answers)

    async def _answer_slowly(self) -> None:
        answers, _, _ = await self._look_slowly([])
        if self._done is not None:
            await self._finish_slowly(answers)

    @property
    def _is_long(self) -> bool:
        return len(self._wanted) > LONG_PARTITIONS

    async def _look_slowly(self, ends: list[int]) -> tuple[list[Answer], int, bool]:
        """Look at every partition, and note its end at that moment."""
        everything = self._wanted
        answers, size, urgent = list[Answer](), 0, False
        for first in range(0, len(everything), LOOKED_AT_ONCE):
            some = everything[first : first + LOOKED_AT_ONCE]
            found, size, is_urgent = self._look_at(some, size)
            answers += found
            urgent = urgent or is_urgent
            ends += map(_end, some)
            await asyncio.sleep(0)
        return answers, size, urgent

    def _look(self) -> tuple[list[Answer], int, bool]:
        """Look at every partition: the answers, their bytes, and whether there is a reason not to wait.

        Partitions of which a session is up to date are skipped quickly: that is most partitions of most fetches.
        """
        return self._look_at(self._wanted, 0)

    def _look_at(self, some: Sequence[CachedPartition], size: int) -> tuple[list[Answer], int, bool]:
        """Look at some partitions, after others that have so many bytes."""
        handler, read_committed, has_session = self._handler, self._read_committed, self._session is not None
        cluster_id, room = self._context.cluster_id, self._max_bytes
        has_session = has_session and not handler.is_erased(cluster_id)
        answers, urgent = [], False
        for wanted in some:
            if has_session and wanted.is_quiet:
                continue
            answer = handler.look(
                cluster_id, wanted, room - size, read_committed=read_committed, first=size == 0,
                may_read=self._may_read,
            )  # fmt: skip
            data = answer.data
            if data.error_code or answer.cold_bytes or answer.is_stored or data.diverging_epoch:
                urgent = True
            size += answer.cold_bytes or answer.size_bytes
            answers.append(answer)
        return answers, size, urgent

    def _finish(self, answers: list[Answer]) -> None:
        if any(answer.cold_bytes for answer in answers):
            self._task = asyncio.get_running_loop().create_task(self._read_cold(answers))
        else:
            self._respond(answers)

    async def _finish_slowly(self, answers: list[Answer]) -> None:
        """The same, yielding in between."""
        if any(answer.cold_bytes for answer in answers):
            await self._read_all_cold(answers)
        throttle_ms, allowed = self._charge(answers)
        response = self._response(throttle_ms) if allowed else self._throttled(throttle_ms)
        for first in range(0, len(answers) if allowed else 0, LOOKED_AT_ONCE):
            self._tell(response, answers[first : first + LOOKED_AT_ONCE])
            await asyncio.sleep(0)
        done, self._done = self._done, None
        if done is not None:
            done(response, self._waited_s)

    async def _read_cold(self, answers: list[Answer]) -> None:
        """Read what memory does not have. A partition that fails gets an error, the others are answered."""
        await self._read_all_cold(answers)
        self._respond(answers)

    async def _read_all_cold(self, answers: list[Answer]) -> None:
        cold = [answer for answer in answers if answer.cold_bytes]

        def has_some() -> bool:
            return any(answer.size_bytes for answer in cold)

        await gather_in_batches(cold, partial(self._read_one, has_some))
        within_limits(answers, self._max_bytes)

    async def _read_one(self, has_some: Callable[[], bool], answer: Answer) -> None:
        partition = answer.partition
        assert partition is not None
        try:
            offset, stable = answer.wanted.fetch_offset, partition.last_stable_offset
            found = await self._handler.reader.read_batches(partition, offset, answer.cold_bytes, gives_up=has_some)
            if self._read_committed and found:
                # The last stable offset from before the read bounds it; the read may have got more.
                found = batches_below(found, stable)
                answer.data.aborted_transactions = await self._aborted(partition, offset, found)
        except PlatformError as problem:
            _log.error("a read of %s-%d failed: %s", partition.topic.name, partition.index, problem)
            answer.data.error_code = _told(read_failure(problem), self._context.api_version)
        except Exception:  # noqa: BLE001  # a bug must not leave the client without an answer
            _log.exception("a read of %s-%d failed", partition.topic.name, partition.index)
            answer.data.error_code = ErrorCode.UNKNOWN_SERVER_ERROR
        else:
            data = answer.data
            data.records, answer.size_bytes = list(found) or _EMPTY, sum(map(len, found))
            # Records may have been appended since the first look: the high watermark must not be below the records
            # returned.
            data.high_watermark, data.last_stable_offset = partition.next_offset, partition.last_stable_offset

    async def _aborted(self, partition: Partition, offset: int, found: list[memoryview]) -> list[AbortedTransaction]:
        """The aborted transactions that overlap the batches read."""
        if not found or not (partition.aborted or partition.aborted_from > offset):
            return []
        end = end_of(found)
        # Memory first: what is dropped from memory meanwhile has been stored by then.
        recent = aborted_between(partition.aborted, offset, end)
        older = await self._handler.aborted.between(partition, offset, end) if partition.aborted_from > offset else ()
        return _as_message(dict.fromkeys((*older, *recent)))

    def _respond(self, answers: list[Answer]) -> None:
        done, self._done = self._done, None
        if done is None:
            return
        throttle_ms, allowed = self._charge(answers)
        if not allowed:
            done(self._throttled(throttle_ms), self._waited_s)
            return
        response = self._response(throttle_ms)
        self._tell(response, answers)
        done(response, self._waited_s)

    def _response(self, throttle_ms: int) -> FetchResponse:
        session_id = 0 if self._session is None else self._session.session_id
        return FetchResponse(throttle_time_ms=throttle_ms, session_id=session_id)

    def _tell(self, response: FetchResponse, answers: Iterable[Answer]) -> None:
        """Add the partitions' answers to the response."""
        session, topics = self._session, response.responses
        last: TopicKey | None = None
        if topics:
            last = topics[-1].topic or topics[-1].topic_id
        for answer in answers:
            if session is not None and not self._changed(answer):
                continue
            key = answer.wanted.topic
            if key != last or not topics:
                topic = FetchableTopicResponse()
                if isinstance(key, str):
                    topic.topic = key
                else:
                    topic.topic_id = key
                topics.append(topic)
                last = key
            topics[-1].partitions.append(answer.data)
            if session is not None and answer.data.records:
                session.served(answer.wanted)

    def _charge(self, answers: list[Answer]) -> tuple[int, bool]:
        """The throttle time for what the client gets, and whether it gets it now."""
        quota = self._handler.quota
        if quota is None:
            return 0, True
        # Only records count: the rest is small, and an idle consumer should cost nothing.
        return quota.on_fetch(self._context, sum(_record_bytes(answer.data) for answer in answers))

    def _throttled(self, throttle_ms: int) -> FetchResponse:
        """An empty response. A new session is dropped with it; an existing one reports nothing new."""
        session_id = 0
        if self._session is not None:
            if self._full:
                self._handler.sessions.drop(self._session.session_id)
            else:
                session_id = self._session.session_id
        return FetchResponse(throttle_time_ms=throttle_ms, session_id=session_id)

    def _changed(self, answer: Answer) -> bool:
        """Whether a session's client has news of a partition; records what it gets."""
        wanted, data = answer.wanted, answer.data
        changed = bool(
            self._full
            or data.records
            or data.error_code
            or data.diverging_epoch
            or data.high_watermark != wanted.sent_high_watermark
            or data.log_start_offset != wanted.sent_log_start
        )
        # An error is repeated until the client reacts to it.
        wanted.sent_high_watermark = -1 if data.error_code else data.high_watermark
        wanted.sent_log_start = data.log_start_offset
        return changed


def _end(wanted: CachedPartition) -> int:
    """Grows whenever there is more to read of a partition."""
    partition = wanted.partition
    return -1 if partition is None else partition.next_offset + partition.last_stable_offset


def _told(error: ErrorCode, version: int) -> ErrorCode:
    """An error as a version knows it: the oldest versions get a retriable one instead, as in Kafka."""
    if error is ErrorCode.KAFKA_STORAGE_ERROR and version < STORAGE_ERRORS_SINCE:
        return ErrorCode.NOT_LEADER_OR_FOLLOWER
    return error


def _record_bytes(data: PartitionData) -> int:
    """The size of a partition's records; a list of pieces, or None."""
    return sum(map(len, data.records)) if isinstance(data.records, list) else len(data.records or _EMPTY)


def _as_message(aborted: Iterable[Aborted]) -> list[AbortedTransaction]:
    return [AbortedTransaction(producer_id=one.producer_id, first_offset=one.first_offset) for one in aborted]


def _refusal(partition: Partition, wanted: CachedPartition) -> ErrorCode:
    """Why a partition cannot be read as requested, or NONE."""
    if wanted.current_leader_epoch > LEADER_EPOCH:
        return ErrorCode.UNKNOWN_LEADER_EPOCH
    if 0 <= wanted.current_leader_epoch < LEADER_EPOCH:
        return ErrorCode.FENCED_LEADER_EPOCH
    if wanted.last_fetched_epoch > LEADER_EPOCH or wanted.fetch_offset < partition.log_start:
        return ErrorCode.OFFSET_OUT_OF_RANGE
    if wanted.fetch_offset > partition.next_offset and not _diverges(partition, wanted):
        return ErrorCode.OFFSET_OUT_OF_RANGE
    return ErrorCode.NONE


def _diverges(partition: Partition, wanted: CachedPartition) -> bool:
    """Whether the client's last fetched epoch and offset are beyond the log: the response says where the epoch ends."""
    return wanted.last_fetched_epoch == LEADER_EPOCH and wanted.fetch_offset > partition.next_offset
