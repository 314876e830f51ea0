"""Incremental fetch sessions (KIP-227): a consumer names its partitions once, and then only what changes.

A session is soft state of one agent. If it is lost, its client gets FETCH_SESSION_ID_NOT_FOUND (70) and sends one full
request. When all slots are in use, or sessions hold too many partitions, a new session is refused with id 0 and the
client continues with full requests. Slots and partitions are shared fairly among virtual clusters: idle sessions are
evicted first, the cluster's own before those of others, then sessions of the cluster that has the most.
"""

from __future__ import annotations

from collections import OrderedDict

from penstock.base.clock import Clock, SteadyClock
from penstock.base.context import ANONYMOUS, DEFAULT_CLUSTER_ID
from penstock.base.randomness import Randomness
from penstock.clusters.sharing import FairCapacity
from penstock.log.model import Partition
from penstock.log.refusals import Refused
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.fetch import FetchRequest

FINAL_EPOCH = -1
INITIAL_EPOCH = 0
MIN_EVICTION_MS = 120_000
"""A session used within this time is not evicted, as in Kafka; except that one of a cluster that has more makes room
for one of a cluster that has less."""

SESSION_MAX_PARTITIONS = 50_000
ALL_MAX_PARTITIONS = 500_000
"""Partitions of all sessions together: each takes about 300 bytes."""

CHANGED_MAX_PARTITIONS = 10_000
"""How many partitions one request of a session may add and remove. A client with more changes has to send a full
request, which is processed on a worker thread."""

TopicKey = str | bytes
"""A topic's name (versions up to 12) or its id."""

Owner = tuple[int, str]
"""The owner of a session: virtual cluster and principal."""
NOBODY: Owner = (DEFAULT_CLUSTER_ID, ANONYMOUS)


class CachedPartition:
    """One partition of a fetch, and what the client was last sent about it in this session."""

    __slots__ = (
        "current_leader_epoch", "fetch_offset", "index", "last_fetched_epoch", "max_bytes", "partition",
        "sent_high_watermark", "sent_log_start", "topic", "was_found",
    )  # fmt: skip

    def __init__(
        self, topic: TopicKey, index: int, fetch_offset: int, max_bytes: int, current_leader_epoch: int,
        last_fetched_epoch: int,
    ) -> None:  # fmt: skip
        self.topic = topic
        self.index = index
        self.fetch_offset = fetch_offset
        self.max_bytes = max_bytes
        self.current_leader_epoch = current_leader_epoch
        self.last_fetched_epoch = last_fetched_epoch
        self.partition: Partition | None = None
        """The partition that was found the last time, if it could be read."""
        self.was_found = False
        """Whether the topic id was known before: then, as in Kafka, the topic was deleted, rather than the id
        unknown."""
        self.sent_high_watermark = -1
        self.sent_log_start = -1

    @property
    def is_quiet(self) -> bool:
        """Whether the client is up to date: no records, no new high watermark or log start, and the topic still
        exists."""
        partition = self.partition
        return (
            partition is not None
            and self.fetch_offset == partition.next_offset == self.sent_high_watermark
            and self.sent_log_start == partition.log_start
            and not partition.topic.deleted
        )


Named = dict[tuple[TopicKey, int], CachedPartition]
"""The partitions that a request names. Of one that is named twice the last one counts."""


class FetchSession:
    """What one client fetches."""

    __slots__ = ("acl_version", "by_id", "epoch", "last_used_ms", "owner", "session_id", "wanted")

    def __init__(self, session_id: int, owner: Owner, *, by_id: bool, now_ms: int) -> None:
        self.session_id = session_id
        self.owner = owner
        self.by_id = by_id
        self.epoch = 1
        self.last_used_ms = now_ms
        self.acl_version = -1
        """The ACL version under which reading its partitions was allowed."""
        self.wanted: OrderedDict[tuple[TopicKey, int], CachedPartition] = OrderedDict()

    def served(self, want: CachedPartition) -> None:
        """Its records were sent: it moves to the end of the order, so that no other partition starves."""
        key = (want.topic, want.index)
        if key in self.wanted:
            self.wanted.move_to_end(key)

    def allow(self, acl_version: int) -> None:
        """If ACLs have changed, permissions have to be checked again."""
        if self.acl_version != acl_version:
            self.acl_version = acl_version
            for wanted in self.wanted.values():
                wanted.partition = None


class FetchSessions:
    """The sessions of one agent, at most `slots` of them."""

    def __init__(self, *, slots: int, clock: Clock, randomness: Randomness) -> None:
        # A monotonic clock: setting the wall clock neither evicts sessions in use nor keeps idle ones.
        self._clock, self._randomness = SteadyClock(clock), randomness
        self._capacity = FairCapacity[int](slots, ALL_MAX_PARTITIONS)
        self._sessions: OrderedDict[int, FetchSession] = OrderedDict()
        """By id, least recently used first."""

    def __len__(self) -> int:
        return len(self._sessions)

    def begin(
        self, request: FetchRequest, *, by_id: bool, owner: Owner = NOBODY, named: Named | None = None
    ) -> tuple[FetchSession | None, list[CachedPartition], bool]:
        """The session of a request, the partitions to look at, and whether the answer lists all of them. `named` is
        what the request names, if that was computed before.

        A session of another owner counts as unknown: even the names of its topics are confidential. Raises `Refused`
        with the top-level error when the session is unknown or its epoch is wrong.
        """
        if named is None:
            named = named_by(request, by_id=by_id)
        if request.session_epoch in (FINAL_EPOCH, INITIAL_EPOCH):
            self._drop_own(request.session_id, owner)
            wanted = list(named.values())
            if request.session_epoch == FINAL_EPOCH:
                return None, wanted, True
            session = self._open(by_id, owner, len(wanted)) if len(wanted) <= SESSION_MAX_PARTITIONS else None
            if session is not None:
                session.wanted.update(named)
                self._capacity.grow(owner[0], session.session_id, len(wanted))
            return session, wanted, True
        session = self._continue(request, named, by_id, owner)
        if not session.wanted:  # The client has removed everything: the session ends, and id 0 says so.
            self.drop(session.session_id)
            return None, [], False
        return session, list(session.wanted.values()), False

    def _drop_own(self, session_id: int, owner: Owner) -> None:
        session = self._sessions.get(session_id)
        if session is not None and session.owner == owner:
            self.drop(session_id)

    def _open(self, by_id: bool, owner: Owner, partitions: int) -> FetchSession | None:
        if not self._make_room(owner[0], 1, partitions):
            return None
        while True:
            session_id = int.from_bytes(self._randomness.token(4)) & 0x7FFFFFFF
            if session_id and session_id not in self._sessions:
                break
        session = self._sessions[session_id] = FetchSession(session_id, owner, by_id=by_id, now_ms=self._clock.now_ms())
        self._capacity.add(owner[0], session_id)
        return session

    def _make_room(self, cluster_id: int, sessions: int, partitions: int) -> bool:
        """Whether a cluster may have so many more sessions and partitions. Evicts what has to go for them."""
        capacity = self._capacity
        while capacity.lacks(sessions, partitions):
            idle = self._idle(cluster_id)
            if idle is None:
                break
            self.drop(idle.session_id)
        if not capacity.may_have(cluster_id, sessions, partitions):
            return False
        while (session_id := capacity.next_eviction(cluster_id, sessions, partitions)) is not None:
            self.drop(session_id)
        return True

    def _idle(self, cluster_id: int) -> FetchSession | None:
        """An idle session, preferably of the cluster itself."""
        now_ms = self._clock.now_ms()
        for session_id in (self._capacity.least_recently_used(cluster_id), next(iter(self._sessions), None)):
            oldest = None if session_id is None else self._sessions[session_id]
            if oldest is not None and now_ms - oldest.last_used_ms >= MIN_EVICTION_MS:
                return oldest
        return None

    def _continue(self, request: FetchRequest, named: Named, by_id: bool, owner: Owner) -> FetchSession:
        session = self._sessions.get(request.session_id)
        if session is None or session.owner != owner:
            raise Refused(ErrorCode.FETCH_SESSION_ID_NOT_FOUND, "the fetch session is not known here")
        if request.session_epoch != session.epoch:
            raise Refused(ErrorCode.INVALID_FETCH_SESSION_EPOCH, f"the session is at epoch {session.epoch}")
        if session.by_id != by_id:
            raise Refused(ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR, "a session uses topic names or topic ids, not both")
        forgotten = request.forgotten_topics_data
        if len(named) + sum(len(topic.partitions) for topic in forgotten) > CHANGED_MAX_PARTITIONS:
            self.drop(session.session_id)
            raise Refused(ErrorCode.FETCH_SESSION_ID_NOT_FOUND, "too much of the fetch session is changed at once")
        session.epoch = session.epoch % 0x7FFFFFFF + 1
        session.last_used_ms = self._clock.now_ms()
        self._sessions.move_to_end(session.session_id)
        self._capacity.use(owner[0], session.session_id)
        before = len(session.wanted)
        for topic in forgotten:
            key: TopicKey = topic.topic_id if by_id else topic.topic
            for index in topic.partitions:
                session.wanted.pop((key, index), None)
        for place, want in named.items():
            known = session.wanted.get(place)
            if known is not None:
                want.sent_high_watermark, want.sent_log_start = known.sent_high_watermark, known.sent_log_start
                want.was_found = known.was_found
                if (
                    want.current_leader_epoch == known.current_leader_epoch
                    and want.last_fetched_epoch == known.last_fetched_epoch
                ):
                    want.partition = known.partition
            session.wanted[place] = want
        growth = len(session.wanted) - before
        if growth:
            is_small = len(session.wanted) <= SESSION_MAX_PARTITIONS
            fits = growth < 0 or (is_small and self._make_room(owner[0], 0, growth))
            self._capacity.grow(owner[0], session.session_id, growth)
            if not fits:
                self.drop(session.session_id)
                raise Refused(ErrorCode.FETCH_SESSION_ID_NOT_FOUND, "the fetch session has too many partitions")
        return session

    def drop(self, session_id: int) -> None:
        """Forget a session, if it exists."""
        session = self._sessions.pop(session_id, None)
        if session is not None:
            self._capacity.remove(session.owner[0], session_id)


def named_by(request: FetchRequest, *, by_id: bool) -> Named:
    """What a request names. Pure."""
    named: Named = {}
    for topic in request.topics:
        key: TopicKey = topic.topic_id if by_id else topic.topic
        for one in topic.partitions:
            named[key, one.partition] = CachedPartition(
                key, one.partition, one.fetch_offset, one.partition_max_bytes, one.current_leader_epoch,
                one.last_fetched_epoch,
            )  # fmt: skip
    return named
