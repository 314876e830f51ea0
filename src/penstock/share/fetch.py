"""ShareFetch: acknowledgements of earlier records, and newly acquired ones, at once or when there are some.

A fetch visits the partitions of its session, starting with a different one each time, and acquires records until it has
enough. Each partition has an equal part of the bytes. If there is nothing to acquire, the fetch waits: for appends, for
records that become available again, or for its maximum wait time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from penstock.authorization.authorizer import READ_TOPIC, Authorizer
from penstock.base.context import RequestContext
from penstock.base.cooperative import CHEAP_ITEMS_PER_TURN, TurnBudget, yield_if_due
from penstock.base.dataclasses import dataclass
from penstock.base.errors import Fenced, PlatformError
from penstock.groups.failures import message_of
from penstock.groups.share.service import ShareGroups
from penstock.log.admin.failures import read_failure
from penstock.log.fetch import MAX_WAIT_MS, RESPONSE_MAX_BYTES
from penstock.log.model import Partition
from penstock.log.refusals import Refused
from penstock.log.registry import Registry
from penstock.share.acknowledging import AcknowledgeResult, Acknowledging, acknowledgements_of, session_key
from penstock.share.model import Acquire
from penstock.share.reading import NOTHING, AcquiredBatches
from penstock.share.service import SharePartitions
from penstock.share.sessions import (
    FINAL_EPOCH,
    INITIAL_EPOCH,
    SessionKey,
    ShareSession,
    ShareSessions,
    TopicIdPartition,
)
from penstock.share.settings import ShareConfigs
from penstock.share.store import PartitionName
from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.share_fetch import (
    AcquiredRecords,
    FetchPartition,
    PartitionData,
    ShareFetchableTopicResponse,
    ShareFetchRequest,
    ShareFetchResponse,
)

RENEWALS_SINCE = 2
_AGAIN_S = 0.05
_OPTIMISED, _EXACT = 0, 1
"""Kafka's acquire mode `record_limit`."""
_EMPTY = b""
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _PartitionFetch:
    """One partition of a fetch."""

    partition: TopicIdPartition
    name: PartitionName
    log: Partition | None
    error: ErrorCode = ErrorCode.NONE
    message: str | None = None
    acquired: AcquiredBatches = NOTHING


class ShareFetchHandler:
    """Answers ShareFetch."""

    def __init__(
        self,
        *,
        registry: Registry,
        partitions: SharePartitions,
        sessions: ShareSessions,
        configs: ShareConfigs,
        groups: ShareGroups,
        max_bytes: int = RESPONSE_MAX_BYTES,
    ) -> None:
        self._registry, self._partitions, self._sessions, self._configs = registry, partitions, sessions, configs
        self._groups, self._max_bytes = groups, min(max_bytes, RESPONSE_MAX_BYTES)
        self._acknowledging = Acknowledging(registry, partitions)
        self.authorizer: Authorizer | None = None
        """Checks permissions. None: everybody may read everything."""

    async def share_fetch(self, context: RequestContext, request: ShareFetchRequest) -> ShareFetchResponse:
        """ShareFetch, key 78, v1-2. v2: acquire modes (KIP-1206), renewals (KIP-1222)."""
        acknowledgements = await acknowledgements_of(request.topics)
        try:
            key = session_key(context, request.group_id, request.member_id)
            if request.share_acquire_mode not in (_OPTIMISED, _EXACT):
                raise Refused(ErrorCode.INVALID_REQUEST, "Unknown share acquire mode.")
            _check_renewal(context.api_version, request)
            session = await self._session(key, context, request, bool(acknowledgements))
        except Refused as refused:
            if refused.code is ErrorCode.SHARE_SESSION_LIMIT_REACHED:
                # There may be room soon; a client that got an error at once would retry at once.
                await asyncio.sleep(min(max(request.max_wait_ms, 0), MAX_WAIT_MS) / 1000)
            return ShareFetchResponse(error_code=refused.code, error_message=refused.message)
        # Records are acquired after the acknowledgements of all partitions are decided, while these become durable.
        begun = await self._acknowledging.begin(
            key, acknowledgements, version=context.api_version, is_renewal=request.is_renew_ack
        )
        if acknowledgements:
            await asyncio.sleep(0)  # So that the database has them while records are looked for.
        wanted = await self._fetch_for(context, key, session, request)
        results = await begun.results()
        if request.share_session_epoch == FINAL_EPOCH:
            await self.close_session(key)
        return ShareFetchResponse(
            acquisition_lock_timeout_ms=self._configs.of(key.cluster_id, key.group_id).limits.lock_ms,
            responses=await _responses(session, request.share_session_epoch, wanted, results),
        )

    async def close_session(self, key: SessionKey) -> None:
        """A member ends its session: release what it has acquired."""
        session = self._sessions.close(key)
        if session is not None:
            await self.release(session)

    async def release(self, session: ShareSession) -> None:
        """Release what the member of a closed session had acquired."""
        key = session.key
        for partition in session.partitions:
            try:
                await self._partitions.release(PartitionName(key.cluster_id, key.group_id, *partition), key.holder)
            except PlatformError as failure:
                _log.debug("a lock of share group %s waits for its time-out: %s", key.group_id, failure)

    # --- Sessions ---

    async def _session(
        self, key: SessionKey, context: RequestContext, request: ShareFetchRequest, acknowledges: bool
    ) -> ShareSession | None:
        """The session of a request; None when it ends with the request."""
        epoch, budget = request.share_session_epoch, TurnBudget(CHEAP_ITEMS_PER_TURN)
        named, forgotten = list[TopicIdPartition](), list[TopicIdPartition]()
        for topic in request.topics:
            named += await budget.map_each(topic.partitions, partial(_topic_id_partition, topic.topic_id))
            await budget.spend()
        for gone in request.forgotten_topics_data:
            forgotten += await budget.map_each(gone.partitions, partial(TopicIdPartition, gone.topic_id))
            await budget.spend()
        if epoch == FINAL_EPOCH:
            self._sessions.require(key)
            return None
        if epoch == INITIAL_EPOCH:
            if acknowledges:
                raise Refused(ErrorCode.INVALID_REQUEST, "The first request of a share session cannot acknowledge.")
            return self._sessions.open(key, context.connection_id, named)
        session = self._sessions.advance(key, epoch)
        self._sessions.change(session, named, forgotten)
        return session

    async def _wanted(
        self, context: RequestContext, key: SessionKey, session: ShareSession, epoch: int
    ) -> list[_PartitionFetch]:
        """The partitions of a session, starting with a different one in each epoch.

        The session may have topics whose permission was revoked since. Nothing is acquired from those: the client would
        not get the records, and they would be locked.
        """
        wanted = []
        for number, partition in enumerate(list(session.partitions)):
            await yield_if_due(number)
            one = _PartitionFetch(partition, PartitionName(key.cluster_id, key.group_id, *partition), None)
            topic = self._registry.by_id(key.cluster_id, partition.topic_id)
            if topic is None:
                one.error = ErrorCode.UNKNOWN_TOPIC_ID
            elif not self._may_read(context, topic.name):
                one.error = ErrorCode.TOPIC_AUTHORIZATION_FAILED
            elif not 0 <= partition.partition_index < len(topic.partitions):
                one.error = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            else:
                one.log = topic.partitions[partition.partition_index]
            wanted.append(one)
        at = epoch % len(wanted) if wanted else 0
        return wanted[at:] + wanted[:at]

    def _may_read(self, context: RequestContext, name: str) -> bool:
        authorizer = self.authorizer
        return authorizer is None or authorizer.allows(context, ApiKey.SHARE_FETCH, READ_TOPIC, name)

    # --- Fetching ---

    async def _fetch_for(
        self, context: RequestContext, key: SessionKey, session: ShareSession | None, request: ShareFetchRequest
    ) -> list[_PartitionFetch]:
        """The partitions of a session with acquired records; none where a request only acknowledges."""
        if session is None or (context.api_version >= RENEWALS_SINCE and request.is_renew_ack):
            return []
        wanted = await self._wanted(context, key, session, request.share_session_epoch)
        await self._fetch(key, wanted, request)
        return wanted

    async def _fetch(self, key: SessionKey, wanted: Sequence[_PartitionFetch], request: ShareFetchRequest) -> None:
        """Acquire what is available, or wait for it."""
        readable = [one for one in wanted if one.log is not None]
        if not readable or request.max_records <= 0 or request.max_bytes <= 0:
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + min(max(request.max_wait_ms, 0), MAX_WAIT_MS) / 1000
        patient = request.max_wait_ms > 0
        if (await self._ready(readable, request) or not patient) and await self._round(key, readable, request):
            return
        if not patient:
            return
        wakeup = _Wakeup()
        names = [one.name for one in readable]
        self._partitions.watch(names, wakeup.wake)
        for one in readable:
            assert one.log is not None
            one.log.waiters[wakeup] = None
        try:
            while not await self._next_round(key, readable, request, wakeup, deadline):
                pass
        finally:
            self._partitions.unwatch(names, wakeup.wake)
            for one in readable:
                assert one.log is not None
                one.log.waiters.pop(wakeup, None)

    async def _next_round(
        self,
        key: SessionKey,
        readable: Sequence[_PartitionFetch],
        request: ShareFetchRequest,
        wakeup: _Wakeup,
        deadline: float,
    ) -> bool:
        """Wait until there is something, then acquire it. Whether the fetch is complete."""
        loop = asyncio.get_running_loop()
        wakeup.arm()
        late = loop.time() >= deadline
        if not late and not await self._ready(readable, request):
            await wakeup.wait(deadline)
            late = loop.time() >= deadline
            if not late and not await self._ready(readable, request):
                return False
        if await self._round(key, readable, request) or late:
            return True
        # Another member was faster, or there were no records after all: do not retry at once.
        await wakeup.wait(min(deadline, loop.time() + _AGAIN_S))
        return False

    async def _ready(self, readable: Sequence[_PartitionFetch], request: ShareFetchRequest) -> bool:
        """Whether a round may yield `min_bytes`."""
        each_bytes = self._bytes_of_each(readable, request)
        needed = min(request.min_bytes, each_bytes * len(readable))
        for number, one in enumerate(readable):
            await yield_if_due(number, CHEAP_ITEMS_PER_TURN)
            assert one.log is not None
            found = self._partitions.ready_bytes(one.name, one.log, each_bytes)
            needed -= found
            if found and needed <= 0:
                return True
        return False

    def _bytes_of_each(self, readable: Sequence[_PartitionFetch], request: ShareFetchRequest) -> int:
        """How many bytes of the response each partition may fill."""
        return max(1, min(request.max_bytes, self._max_bytes) // len(readable))

    async def _round(self, key: SessionKey, readable: Sequence[_PartitionFetch], request: ShareFetchRequest) -> bool:
        """Acquire from each partition in turn. Whether there is anything to respond."""
        try:
            await self._partitions.prove()
        except PlatformError as failure:
            for number, one in enumerate(readable):
                await yield_if_due(number, CHEAP_ITEMS_PER_TURN)
                _fail(one, failure)
            return True
        room = request.max_records
        each_bytes, left_bytes = self._bytes_of_each(readable, request), min(request.max_bytes, self._max_bytes)
        exact = request.share_acquire_mode == _EXACT
        has_results = False
        for number, one in enumerate(readable):
            await yield_if_due(number)
            if room <= 0 or left_bytes <= 0:
                break
            asked = Acquire(key.holder, room, request.batch_size, exact)
            await self._acquire(one, asked, min(each_bytes, left_bytes), has_some=has_results)
            room -= one.acquired.offset_count
            # A batch is acquired whole, however large it is.
            left_bytes -= one.acquired.size_bytes
            has_results = has_results or bool(one.acquired.ranges) or one.error is not ErrorCode.NONE
        return has_results

    async def _start_at(self, name: PartitionName) -> int | None:
        return await self._groups.first_offset((name.cluster_id, name.group_id), name.topic_id, name.partition_index)

    async def _acquire(self, one: _PartitionFetch, asked: Acquire, max_bytes: int, *, has_some: bool) -> None:
        assert one.log is not None
        if one.log.topic.deleted:
            one.error = ErrorCode.UNKNOWN_TOPIC_ID
            return
        try:
            one.acquired = await self._partitions.acquire(
                one.name, one.log, asked, max_bytes, self._start_at, gives_up=lambda: has_some
            )
        except PlatformError as failure:
            _fail(one, failure)
            if not isinstance(failure, Refused):
                _log.warning("share group %s cannot read: %s", one.name.group_id, failure)


class _Wakeup:
    """Wakes a waiting fetch. A `Waiter` of its partitions' logs."""

    __slots__ = ("_woken",)

    def __init__(self) -> None:
        self._woken: asyncio.Future[None] | None = None

    def arm(self) -> None:
        """Start listening."""
        self._woken = asyncio.get_running_loop().create_future()

    async def wait(self, deadline: float) -> None:
        """Return once something has happened, or at a time of the loop."""
        assert self._woken is not None
        alarm = asyncio.get_running_loop().call_at(deadline, self.wake)
        try:
            await self._woken
        finally:
            alarm.cancel()

    def wake(self) -> None:
        """Something happened."""
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    def on_append(self, size_bytes: int) -> None:
        """There is more in the log."""
        self.wake()

    def on_stable(self, size_bytes: int) -> None:
        """There is more in the log, or more of it is stable."""
        self.wake()

    def on_change(self) -> None:
        """The log changed in another way."""
        self.wake()


def _topic_id_partition(topic_id: bytes, asked: FetchPartition) -> TopicIdPartition:
    return TopicIdPartition(topic_id, asked.partition_index)


def _check_renewal(version: int, request: ShareFetchRequest) -> None:
    if version < RENEWALS_SINCE or not request.is_renew_ack:
        return
    fields = {
        "maxBytes": request.max_bytes,
        "minBytes": request.min_bytes,
        "maxRecords": request.max_records,
        "maxWaitMs": request.max_wait_ms,
    }
    wrong = [f"{name} must be set to 0" for name, value in fields.items() if value]
    if wrong:
        raise Refused(ErrorCode.INVALID_REQUEST, f"{', '.join(wrong)}, if isRenewAck is true.")


def _fail(one: _PartitionFetch, failure: PlatformError) -> None:
    one.error, one.message = _fetch_failure(failure), message_of(failure)


def _fetch_failure(error: PlatformError) -> ErrorCode:
    """The error for a partition that cannot be read now, among those that clients know."""
    if isinstance(error, Refused):
        return error.code
    if isinstance(error, Fenced):
        return ErrorCode.NOT_LEADER_OR_FOLLOWER
    return read_failure(error)


async def _responses(
    session: ShareSession | None,
    epoch: int,
    wanted: Iterable[_PartitionFetch],
    results: Mapping[TopicIdPartition, AcknowledgeResult],
) -> list[ShareFetchableTopicResponse]:
    """The partitions of a response: in the first one of a session all, later those with results."""
    remaining = dict(results)
    topics: dict[bytes, ShareFetchableTopicResponse] = {}
    for number, one in enumerate(wanted):
        await yield_if_due(number, CHEAP_ITEMS_PER_TURN)
        outcome = remaining.pop(one.partition, None)
        has_results = one.acquired.ranges or one.error is not ErrorCode.NONE or outcome is not None
        if session is not None and epoch != INITIAL_EPOCH:
            has_results = has_results or session.partitions.get(one.partition, False)
            if one.partition in session.partitions:
                session.partitions[one.partition] = one.error is not ErrorCode.NONE
        if has_results or epoch == INITIAL_EPOCH:
            _add_response(topics, one.partition, _data(one), outcome)
    for number, (partition, outcome) in enumerate(remaining.items()):
        await yield_if_due(number, CHEAP_ITEMS_PER_TURN)
        _add_response(
            topics, partition, PartitionData(partition_index=partition.partition_index, records=_EMPTY), outcome
        )
    return list(topics.values())


def _data(one: _PartitionFetch) -> PartitionData:
    acquired = one.acquired
    return PartitionData(
        partition_index=one.partition.partition_index,
        error_code=one.error,
        error_message=one.message,
        records=list(acquired.records) or _EMPTY,
        acquired_records=[
            AcquiredRecords(first_offset=first, last_offset=last, delivery_count=deliveries)
            for first, last, deliveries in acquired.ranges
        ],
    )


def _add_response(
    topics: dict[bytes, ShareFetchableTopicResponse], partition: TopicIdPartition, data: PartitionData,
    outcome: AcknowledgeResult | None,
) -> None:  # fmt: skip
    if outcome is not None:
        data.acknowledge_error_code, data.acknowledge_error_message = outcome.error, outcome.message
    topic = topics.get(partition.topic_id)
    if topic is None:
        topic = topics[partition.topic_id] = ShareFetchableTopicResponse(topic_id=partition.topic_id)
    topic.partitions.append(data)
