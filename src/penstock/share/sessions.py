"""Share sessions: the partitions that a member fetches, and the epoch of its requests.

A session belongs to a member and to the connection it was opened on. When the connection closes the session ends, and
what the member has acquired is released: the locks of a crashed consumer do not have to time out. Membership is not
verified before a session is opened, so the sessions of one connection are bounded, and sessions and their partitions
are shared fairly among virtual clusters: only a cluster that has the most loses a session to one that has fewer.

In Apache Kafka any principal that may read the group and knows a member's id can take over its session, and with it
what the member has acquired. Here a session belongs to one principal, as does what was acquired in it. Another
principal with the same member id is a different member, which neither takes over the session nor blocks it, even if it
came first. The same principal may continue its session on another connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from penstock.base.context import ANONYMOUS
from penstock.clusters.sharing import FairCapacity
from penstock.log.refusals import Refused
from penstock.wire.error_codes import ErrorCode

INITIAL_EPOCH, FINAL_EPOCH = 0, -1
_LAST_EPOCH = 2**31 - 1
MAX_PARTITIONS = 10_000
"""Of one session."""
ALL_MAX_PARTITIONS = 500_000
"""Of all sessions together."""
MAX_OF_CONNECTION = 100
"""Sessions. A client of Kafka's has one on each connection."""


class SessionKey(NamedTuple):
    """Identifies a session."""

    cluster_id: int
    group_id: str
    member_id: str
    principal: str = ANONYMOUS

    @property
    def holder(self) -> str:
        """The owner of what is acquired in the session."""
        return f"{len(self.member_id)} {self.member_id}{self.principal}"


class TopicIdPartition(NamedTuple):
    """A partition by its topic id."""

    topic_id: bytes
    partition_index: int


class ShareSession:
    """The partitions that a member fetches."""

    __slots__ = ("connection_id", "epoch", "key", "partitions")

    def __init__(self, key: SessionKey, connection_id: int, partitions: Iterable[TopicIdPartition]) -> None:
        self.key, self.connection_id = key, connection_id
        self.epoch = 1
        self.partitions: dict[TopicIdPartition, bool] = dict.fromkeys(partitions, False)
        """In the order they were added, with whether the next response must include each."""

    def next_epoch(self) -> None:
        """A request of the session was accepted."""
        self.epoch = 1 if self.epoch == _LAST_EPOCH else self.epoch + 1


class ShareSessions:
    """The sessions of one agent, at most `max_sessions`."""

    def __init__(self, max_sessions: int) -> None:
        self._capacity = FairCapacity[SessionKey](max_sessions, ALL_MAX_PARTITIONS)
        self._sessions: dict[SessionKey, ShareSession] = {}
        self._of_connection: dict[int, dict[SessionKey, None]] = {}
        self.on_evicted: Callable[[ShareSession], None] = lambda session: None
        """Called with a session that was evicted for another cluster's."""

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, key: SessionKey, connection_id: int, partitions: Iterable[TopicIdPartition]) -> ShareSession:
        """A new session; it replaces the member's earlier one."""
        self.close(key)
        session = ShareSession(key, connection_id, partitions)
        _check_size(len(session.partitions))
        if len(self._of_connection.get(connection_id, ())) >= MAX_OF_CONNECTION:
            raise _limit_reached()
        self._make_room(key.cluster_id, 1, len(session.partitions))
        self._sessions[key] = session
        self._of_connection.setdefault(connection_id, {})[key] = None
        self._capacity.add(key.cluster_id, key, len(session.partitions))
        return session

    def _make_room(self, cluster_id: int, sessions: int, partitions: int) -> None:
        """Evict sessions of other clusters if a cluster needs their room; raise `Refused` if it may not have it."""
        capacity = self._capacity
        if not capacity.may_have(cluster_id, sessions, partitions):
            raise _limit_reached()
        while (key := capacity.next_eviction(cluster_id, sessions, partitions)) is not None:
            self._evict(key)

    def _evict(self, key: SessionKey) -> None:
        session = self.close(key)
        if session is not None:
            self.on_evicted(session)

    def require(self, key: SessionKey) -> ShareSession:
        """The session of a member."""
        session = self._sessions.get(key)
        if session is None:
            raise Refused(ErrorCode.SHARE_SESSION_NOT_FOUND, "The share session was not found.")
        return session

    def advance(self, key: SessionKey, epoch: int) -> ShareSession:
        """The session of a request with the expected epoch. Raises `Refused`."""
        session = self.require(key)
        if session.epoch != epoch:
            raise Refused(ErrorCode.INVALID_SHARE_SESSION_EPOCH, "The share session epoch is invalid.")
        session.next_epoch()
        self._capacity.use(key.cluster_id, key)
        return session

    def change(
        self, session: ShareSession, added: Iterable[TopicIdPartition], forgotten: Iterable[TopicIdPartition]
    ) -> None:
        """Add and remove partitions of a session."""
        gone = set(forgotten)
        fresh = [one for one in dict.fromkeys(added) if one not in session.partitions and one not in gone]
        key, before = session.key, len(session.partitions)
        for partition in gone:
            session.partitions.pop(partition, None)
        self._capacity.grow(key.cluster_id, key, len(session.partitions) - before)
        if fresh:
            _check_size(len(session.partitions) + len(fresh))
            self._make_room(key.cluster_id, 0, len(fresh))
            session.partitions.update(dict.fromkeys(fresh, True))
            self._capacity.grow(key.cluster_id, key, len(fresh))

    def close(self, key: SessionKey) -> ShareSession | None:
        """End a session, if there is one, and return it."""
        session = self._sessions.pop(key, None)
        if session is not None:
            keys = self._of_connection[session.connection_id]
            del keys[key]
            if not keys:
                del self._of_connection[session.connection_id]
            self._capacity.remove(key.cluster_id, key)
        return session

    def close_connection(self, connection_id: int) -> list[ShareSession]:
        """End the sessions of a connection, and return them."""
        closed = [self.close(key) for key in list(self._of_connection.get(connection_id, ()))]
        return [session for session in closed if session is not None]


def _check_size(partitions: int) -> None:
    if partitions > MAX_PARTITIONS:
        raise Refused(ErrorCode.INVALID_REQUEST, f"A share session may have {MAX_PARTITIONS} partitions.")


def _limit_reached() -> Refused:
    return Refused(ErrorCode.SHARE_SESSION_LIMIT_REACHED, "The limit of share sessions has been reached.")
