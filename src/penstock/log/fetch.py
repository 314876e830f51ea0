"""Fetch: what consumers read, at once where memory has it, later where they wait for it.

A fetch looks at each of its partitions. When there is enough, an error, or nothing to wait for, it is answered in
the same step; otherwise it becomes a long poll, which the commits of its partitions wake, or its deadline. Only
batches that are not in memory cost a task of their own, which reads them on worker threads.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from penstock.authorization.authorizer import CLUSTER_ACTION, READ_TOPIC, Authorizer
from penstock.base.acls import CLUSTER_NAME
from penstock.base.context import RequestContext
from penstock.base.durations import Durations
from penstock.base.errors import PlatformError
from penstock.base.portions import together
from penstock.keys.model import Lock
from penstock.log.aborted import AbortedLookup, NothingAborted, aborted_between, batches_below, end_of
from penstock.log.admin.failures import read_failure
from penstock.log.fetch_sessions import FetchSessions, Named, Session, TopicKey, Wanted
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
"""The most one answer carries, whatever is asked for: clients ask again, and memory stays bounded."""
LONG_PARTITIONS = 2_500
"""A fetch of more partitions lets others have their turn in between."""
LOOKED_AT_ONCE = 1_000
"""Partitions that are looked at, or answered of, before that: 10 milliseconds at most."""
_EMPTY = b""
_log = logging.getLogger(__name__)

_FETCH = int(ApiKey.FETCH)

Done = Callable[[FetchResponse], None]
MayRead = Callable[[str], bool]
"""Whether the caller may read the topic of that name."""


class Answer:
    """What is known of one partition of a fetch."""

    __slots__ = ("cold_bytes", "data", "is_stored", "partition", "size_bytes", "wanted")

    def __init__(self, wanted: Wanted, partition: Partition | None, data: PartitionData) -> None:
        self.wanted = wanted
        self.partition = partition
        self.data = data
        self.size_bytes = 0
        self.cold_bytes = 0
        """How much to read from elsewhere; 0 when memory had everything."""
        self.is_stored = False
        """Whether its records are sent from where they are stored. There are more behind them."""


class FetchHandler:
    """Answers Fetch."""

    def __init__(
        self, *, registry: Registry, reader: Reader, sessions: FetchSessions, max_bytes: int = RESPONSE_MAX_BYTES,
        aborted: AbortedLookup | None = None, locked: Mapping[int, Lock] | None = None,
    ) -> None:  # fmt: skip
        self._locked: Mapping[int, Lock] = {} if locked is None else locked
        self.registry, self.reader, self.sessions = registry, reader, sessions
        self.aborted = aborted or NothingAborted()
        self.waits = Durations()
        """How long fetches waited for data, as their clients wanted."""
        self.waited_s = 0.0
        """How long that was for the fetch which is being answered."""
        self.quota: FetchQuota | None = None
        """Who limits how much is read, where anybody does."""
        self.max_bytes = min(max_bytes, RESPONSE_MAX_BYTES)
        self.authorizer: Authorizer | None = None
        """Whom to ask for permission. Without it everybody may read everything."""

    def handle(
        self, context: RequestContext, request: FetchRequest, done: Done, named: Named | None = None
    ) -> Callable[[], None] | None:
        """Fetch, key 1, v4-18. v6: storage errors. v7: sessions. v12: flexible, epochs. v13: topic ids. v15: replica
        state as a tag.

        Calls `done` at once or later; returns how to give up waiting, or None if there is nothing to give up.
        """
        by_id = context.api_version >= TOPIC_IDS_SINCE
        try:
            session, wanted, full = self.sessions.begin(
                request, by_id=by_id, owner=(context.cluster_id, context.principal), named=named
            )
        except Refused as refused:
            self.waited_s = 0.0
            done(FetchResponse(error_code=refused.code))
            return None
        if session is not None and self.authorizer is not None:
            session.allow(self.authorizer.version(context.cluster_id))
        poll = Poll(self, context, request, session, wanted, full, done, self._permission(context, request))
        return poll.start()

    def _permission(self, context: RequestContext, request: FetchRequest) -> MayRead | None:
        """Decides which topics may be read; None where all may. Brokers may read everything or nothing."""
        authorizer = self.authorizer
        if authorizer is None:
            return None
        replica = request.replica_state
        if request.replica_id >= 0 or (replica is not None and replica.replica_id >= 0):
            is_broker = authorizer.allows(context, _FETCH, CLUSTER_ACTION, CLUSTER_NAME)
            return lambda name: is_broker
        allows, denied = partial(authorizer.allows, context, _FETCH, READ_TOPIC), set[str]()

        def may_read(name: str) -> bool:
            # A denial counts for all partitions of a topic, and is told of once, as in Kafka.
            if name in denied:
                return False
            if allows(name):
                return True
            denied.add(name)
            return False

        return may_read

    def look(
        self, cluster_id: int, wanted: Wanted, room_bytes: int, *, read_committed: bool, first: bool,
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
                data.aborted_transactions = []  # As Kafka, which did not get so far as to ask how to read.
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
                data.records = stored  # type: ignore[assignment]  # pieces of files too: whatever can be sent
            elif found is None:
                # No more is read at once; keeping more room for it would leave others without.
                answer.cold_bytes = min(limit, COLD_READ_BYTES) if limit or not first else 1
            elif found:
                answer.size_bytes = sum(map(len, found))
                data.records = list(found)
        return answer

    def _stored(self, partition: Partition, offset: int, max_bytes: int, read_committed: bool) -> list[Piece] | None:
        """Records that can be sent from where they are, unless they have to be looked at for transactions."""
        if read_committed and (partition.transactions or partition.aborted or partition.aborted_from > offset):
            return None
        return self.reader.stored(partition, offset, max_bytes)

    def _committed(self, partition: Partition, answer: Answer, found: list[memoryview]) -> list[memoryview] | None:
        """The stable part of what was found, the aborted transactions noted; None if memory does not have them all."""
        offset, end = answer.wanted.fetch_offset, partition.last_stable_offset
        if partition.aborted_from > offset:
            return None
        if end < partition.next_offset:
            found = batches_below(found, end)
        if partition.aborted and found:
            answer.data.aborted_transactions = _as_message(aborted_between(partition.aborted, offset, end_of(found)))
        return found

    def is_erased(self, cluster_id: int) -> bool:
        """Whether nobody may read anything of a cluster any more, as its keys are gone."""
        return bool(self._locked) and self._locked.get(cluster_id) is Lock.ERASED

    def _resolve(
        self, cluster_id: int, topic_key: TopicKey, index: int, may_read: MayRead | None
    ) -> tuple[Partition | None, ErrorCode]:
        if isinstance(topic_key, str):
            name = topic_key
            topic = self.registry.by_name(cluster_id, name)
        else:
            topic = self.registry.by_id(cluster_id, topic_key)
            if topic is None:
                return None, ErrorCode.UNKNOWN_TOPIC_ID
            name = topic.name
        # Before it is known whether the topic exists: that too is not for everybody.
        if may_read is not None and not may_read(name):
            return None, ErrorCode.TOPIC_AUTHORIZATION_FAILED
        if topic is None or not 0 <= index < len(topic.partitions):
            return None, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        if self.is_erased(cluster_id):
            return None, ErrorCode.TOPIC_AUTHORIZATION_FAILED
        return topic.partitions[index], ErrorCode.NONE


class Poll:
    """One fetch until it is answered. A `Waiter` of its partitions while it waits."""

    __slots__ = (
        "_context", "_done", "_full", "_handler", "_max_bytes", "_may_read", "_min_bytes", "_needed_bytes",
        "_read_committed", "_request", "_scheduled", "_session", "_task", "_timer", "_waited_s", "_waiting", "_wanted",
    )  # fmt: skip

    def __init__(
        self, handler: FetchHandler, context: RequestContext, request: FetchRequest, session: Session | None,
        wanted: Sequence[Wanted], full: bool, done: Done, may_read: MayRead | None,
    ) -> None:  # fmt: skip
        self._handler, self._context, self._request, self._session = handler, context, request, session
        self._may_read = may_read
        self._wanted, self._full = wanted, full
        self._done: Done | None = done
        self._read_committed = request.isolation_level == READ_COMMITTED
        self._max_bytes, self._min_bytes = min(request.max_bytes, handler.max_bytes), request.min_bytes
        if handler.quota is not None:
            room_bytes = handler.quota.fetch_room(context)
            if room_bytes is not None:
                self._max_bytes = min(self._max_bytes, room_bytes)
                self._min_bytes = min(self._min_bytes, self._max_bytes)
        self._waiting: list[Partition] = []
        self._needed_bytes = 0
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._waited_s = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> Callable[[], None] | None:
        """Answer now if that is possible, else wait."""
        if self._is_long:
            self._task = asyncio.get_running_loop().create_task(self._start_slowly())
            return self.cancel
        return self._begin(*self._look())

    async def _start_slowly(self) -> None:
        """The same for so many partitions that others have their turn in between."""
        ends: list[int] = []
        answers, size, urgent = await self._look_slowly(ends)
        if self._done is None:
            return
        if self._is_enough(size, urgent):
            await self._finish_slowly(answers)
            return
        self._wait_for(self._min_bytes - size)
        has_more = False
        for first in range(0, len(self._wanted), LOOKED_AT_ONCE):
            some = self._wanted[first : first + LOOKED_AT_ONCE]
            self._watch(some)
            # It waits from now on, and has looked before.
            has_more = has_more or ends[first : first + LOOKED_AT_ONCE] != list(map(_end, some))
            await asyncio.sleep(0)
            if self._scheduled or self._done is None:
                return
        if has_more:
            self.on_change()

    def _begin(self, answers: list[Answer], size: int, urgent: bool) -> Callable[[], None] | None:
        if self._is_enough(size, urgent):
            self._finish(answers)
            return None if self._done is None else self.cancel
        self._wait_for(self._min_bytes - size)
        self._watch(self._wanted)
        return self.cancel

    def _is_enough(self, size: int, urgent: bool) -> bool:
        return urgent or size >= self._min_bytes or self._request.max_wait_ms <= 0 or not self._wanted

    def _wait_for(self, size_bytes: int) -> None:
        """Answer when there is so much more, or in time."""
        self._needed_bytes = size_bytes
        on_time = self.on_change if self._is_long else self._answer
        self._timer = asyncio.get_running_loop().call_later(self._wait_s, on_time)

    @property
    def _wait_s(self) -> float:
        return min(self._request.max_wait_ms, MAX_WAIT_MS) / 1000

    def _watch(self, some: Sequence[Wanted]) -> None:
        """Be told of what comes in partitions."""
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
        """More data, or more of it stable: how much there is for this reader is to be looked up."""
        if not self._read_committed:
            self.on_append(size_bytes)
        elif self._is_long:
            self.on_change()  # Looking up how much takes as long as answering.
        elif not self._scheduled and self._done is not None:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._look_again)

    def _look_again(self) -> None:
        """Answer if there is enough, else go on waiting."""
        self._scheduled = False
        if self._done is None or not self._waiting:
            return
        answers, size, urgent = self._look()
        if urgent or size >= self._min_bytes:
            self._stop_waiting()
            self._finish(answers)
        else:
            self._needed_bytes = self._min_bytes - size

    def on_change(self) -> None:
        """Answer now, whatever there is."""
        if not self._scheduled and self._done is not None:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._answer)

    def cancel(self) -> None:
        """The client is gone."""
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
        """Look at every partition, and note where each ended then."""
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
        """Look at every partition: what they have, how many bytes, and whether there is a reason not to wait.

        What a session's client knows everything of is only glanced at: most partitions of most fetches are like that.
        """
        return self._look_at(self._wanted, 0)

    def _look_at(self, some: Sequence[Wanted], size: int) -> tuple[list[Answer], int, bool]:
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
        """The same while others have their turn."""
        if any(answer.cold_bytes for answer in answers):
            await self._read_all_cold(answers)
        throttle_ms, allowed = self._charge(answers)
        response = self._response(throttle_ms) if allowed else self._throttled(throttle_ms)
        for first in range(0, len(answers) if allowed else 0, LOOKED_AT_ONCE):
            self._tell(response, answers[first : first + LOOKED_AT_ONCE])
            await asyncio.sleep(0)
        done, self._done = self._done, None
        if done is not None:
            self._handler.waited_s = self._waited_s
            done(response)

    async def _read_cold(self, answers: list[Answer]) -> None:
        """Read what memory does not have; partitions that fail say so, the others are answered."""
        await self._read_all_cold(answers)
        self._respond(answers)

    async def _read_all_cold(self, answers: list[Answer]) -> None:
        await together((answer for answer in answers if answer.cold_bytes), self._read_one)

    async def _read_one(self, answer: Answer) -> None:
        partition = answer.partition
        assert partition is not None
        try:
            offset, stable = answer.wanted.fetch_offset, partition.last_stable_offset
            found = await self._handler.reader.read_batches(partition, offset, answer.cold_bytes)
            if self._read_committed and found:
                # What was stable before the read is stable; what it read may be more.
                found = batches_below(found, stable)
                answer.data.aborted_transactions = await self._aborted(partition, offset, found)
        except PlatformError as problem:
            _log.error("a read of %s-%d failed: %s", partition.topic.name, partition.index, problem)
            answer.data.error_code = _told(read_failure(problem), self._context.api_version)
        except Exception:  # noqa: BLE001  # a bug of ours must not keep the client waiting
            _log.exception("a read of %s-%d failed", partition.topic.name, partition.index)
            answer.data.error_code = ErrorCode.UNKNOWN_SERVER_ERROR
        else:
            data = answer.data
            data.records = list(found) or _EMPTY
            # What was read may have been appended since the first look: marks are never below the records beside them.
            data.high_watermark, data.last_stable_offset = partition.next_offset, partition.last_stable_offset

    async def _aborted(self, partition: Partition, offset: int, found: list[memoryview]) -> list[AbortedTransaction]:
        """The aborted transactions among batches that were read."""
        if not found or not (partition.aborted or partition.aborted_from > offset):
            return []
        end = end_of(found)
        # Memory first: what is dropped from it meanwhile is stored by then.
        recent = aborted_between(partition.aborted, offset, end)
        older = await self._handler.aborted.between(partition, offset, end) if partition.aborted_from > offset else ()
        return _as_message(dict.fromkeys((*older, *recent)))

    def _respond(self, answers: list[Answer]) -> None:
        done, self._done = self._done, None
        if done is None:
            return
        self._handler.waited_s = self._waited_s
        throttle_ms, allowed = self._charge(answers)
        if not allowed:
            done(self._throttled(throttle_ms))
            return
        response = self._response(throttle_ms)
        self._tell(response, answers)
        done(response)

    def _response(self, throttle_ms: int) -> FetchResponse:
        session_id = 0 if self._session is None else self._session.session_id
        return FetchResponse(throttle_time_ms=throttle_ms, session_id=session_id)

    def _tell(self, response: FetchResponse, answers: Iterable[Answer]) -> None:
        """Add what is to be said of partitions."""
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
        """How long the client is to wait for what it gets, and whether it gets it now."""
        quota = self._handler.quota
        if quota is None:
            return 0, True
        # Records and nothing else: what is around them is small, and costs a client that reads nothing nothing.
        return quota.on_fetch(self._context, sum(_record_bytes(answer.data) for answer in answers))

    def _throttled(self, throttle_ms: int) -> FetchResponse:
        """An empty answer. A session that would begin with it does not; one that goes on has told nothing new."""
        session_id = 0
        if self._session is not None:
            if self._full:
                self._handler.sessions.drop(self._session.session_id)
            else:
                session_id = self._session.session_id
        return FetchResponse(throttle_time_ms=throttle_ms, session_id=session_id)

    def _changed(self, answer: Answer) -> bool:
        """Whether a session's client has something to learn of a partition; notes what it is told."""
        wanted, data = answer.wanted, answer.data
        changed = bool(
            self._full
            or data.records
            or data.error_code
            or data.diverging_epoch
            or data.high_watermark != wanted.sent_high_watermark
            or data.log_start_offset != wanted.sent_log_start
        )
        # An error must be told again until the client has reacted to it.
        wanted.sent_high_watermark = -1 if data.error_code else data.high_watermark
        wanted.sent_log_start = data.log_start_offset
        return changed


def _end(wanted: Wanted) -> int:
    """What grows whenever there is more to read of a partition."""
    partition = wanted.partition
    return -1 if partition is None else partition.next_offset + partition.last_stable_offset


def _told(error: ErrorCode, version: int) -> ErrorCode:
    """An error as clients of a version know it: those of the oldest ones try again after this one, as in Kafka."""
    if error is ErrorCode.KAFKA_STORAGE_ERROR and version < STORAGE_ERRORS_SINCE:
        return ErrorCode.NOT_LEADER_OR_FOLLOWER
    return error


def _record_bytes(data: PartitionData) -> int:
    """How long the records of a partition's answer are together; a list of pieces, unless there are none."""
    return sum(map(len, data.records)) if isinstance(data.records, list) else len(data.records or _EMPTY)


def _as_message(aborted: Iterable[Aborted]) -> list[AbortedTransaction]:
    return [AbortedTransaction(producer_id=one.producer_id, first_offset=one.first_offset) for one in aborted]


def _refusal(partition: Partition, wanted: Wanted) -> ErrorCode:
    """Why a partition cannot be read as asked, or NONE."""
    if wanted.current_leader_epoch > LEADER_EPOCH:
        return ErrorCode.UNKNOWN_LEADER_EPOCH
    if 0 <= wanted.current_leader_epoch < LEADER_EPOCH:
        return ErrorCode.FENCED_LEADER_EPOCH
    if wanted.last_fetched_epoch > LEADER_EPOCH or wanted.fetch_offset < partition.log_start:
        return ErrorCode.OFFSET_OUT_OF_RANGE
    if wanted.fetch_offset > partition.next_offset and not _diverges(partition, wanted):
        return ErrorCode.OFFSET_OUT_OF_RANGE
    return ErrorCode.NONE


def _diverges(partition: Partition, wanted: Wanted) -> bool:
    """Whether a client that says what it fetched last has more than there is: it is told where the epoch ends."""
    return wanted.last_fetched_epoch == LEADER_EPOCH and wanted.fetch_offset > partition.next_offset
