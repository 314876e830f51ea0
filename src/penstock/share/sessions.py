"""Share sessions: which partitions a member fetches, and in which order its requests came.

A session belongs to a member and to the connection it was opened on. When the connection ends so does the session, and
what the member has acquired is released: nobody waits for the locks of a consumer that is gone. Nobody proves to be a
member before its session is opened, so what one connection may open is bounded, and sessions and their partitions are
shared fairly among virtual clusters: one that has most loses a session to one that has less, and nobody else does.

With Apache Kafka whoever may read the group and knows the id of a member can take its session, and with it what the
member has acquired. Here a session is one principal's, and so is what was acquired in it. Another principal that says
to be the same member is another member, which neither takes that nor is in the way, also if it came first. On another
connection the same principal may go on with its session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from penstock.base.context import ANONYMOUS
from penstock.clusters.sharing import Holdings
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
    """Whose session."""

    cluster_id: int
    group_id: str
    member_id: str
    principal: str = ANONYMOUS

    @property
    def holder(self) -> str:
        """Who has what is acquired in the session."""
        return f"{len(self.member_id)} {self.member_id}{self.principal}"


class TopicPartition(NamedTuple):
    """A partition by the id of its topic."""

    topic_id: bytes
    partition_index: int


class Session:
    """What a member fetches."""

    __slots__ = ("connection_id", "epoch", "key", "partitions")

    def __init__(self, key: SessionKey, connection_id: int, partitions: Iterable[TopicPartition]) -> None:
        self.key, self.connection_id = key, connection_id
        self.epoch = 1
        self.partitions: dict[TopicPartition, bool] = dict.fromkeys(partitions, False)
        """In the order they were named, with whether the next answer must say something of each."""

    def next_epoch(self) -> None:
        """A request of the session was accepted."""
        self.epoch = 1 if self.epoch == _LAST_EPOCH else self.epoch + 1


class ShareSessions:
    """The sessions of one agent, at most so many."""

    def __init__(self, max_sessions: int) -> None:
        self._holdings = Holdings[SessionKey](max_sessions, ALL_MAX_PARTITIONS)
        self._sessions: dict[SessionKey, Session] = {}
        self._of_connection: dict[int, dict[SessionKey, None]] = {}
        self.on_evicted: Callable[[Session], None] = lambda session: None
        """Told of a session that had to go for one of another cluster."""

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, key: SessionKey, connection_id: int, partitions: Iterable[TopicPartition]) -> Session:
        """A new session, in place of one that the member may have had."""
        self.close(key)
        session = Session(key, connection_id, partitions)
        _check_size(len(session.partitions))
        if len(self._of_connection.get(connection_id, ())) >= MAX_OF_CONNECTION:
            raise _limit_reached()
        self._make_room(key.cluster_id, 1, len(session.partitions))
        self._sessions[key] = session
        self._of_connection.setdefault(connection_id, {})[key] = None
        self._holdings.add(key.cluster_id, key, len(session.partitions))
        return session

    def _make_room(self, cluster_id: int, sessions: int, partitions: int) -> None:
        """See whether a cluster may have so much more; sessions of others that have to go for that are gone."""
        holdings = self._holdings
        if not holdings.may_have(cluster_id, sessions, partitions):
            raise _limit_reached()
        while (key := holdings.given_up(cluster_id, sessions, partitions)) is not None:
            self._evict(key)

    def _evict(self, key: SessionKey) -> None:
        session = self.close(key)
        if session is not None:
            self.on_evicted(session)

    def require(self, key: SessionKey) -> Session:
        """The session of a member."""
        session = self._sessions.get(key)
        if session is None:
            raise Refused(ErrorCode.SHARE_SESSION_NOT_FOUND, "The share session was not found.")
        return session

    def go_on(self, key: SessionKey, epoch: int) -> Session:
        """The session of a member whose request is the next one."""
        session = self.require(key)
        if session.epoch != epoch:
            raise Refused(ErrorCode.INVALID_SHARE_SESSION_EPOCH, "The share session epoch is invalid.")
        session.next_epoch()
        self._holdings.use(key.cluster_id, key)
        return session

    def change(self, session: Session, added: Iterable[TopicPartition], forgotten: Iterable[TopicPartition]) -> None:
        """The member names partitions anew, or does not want them any more."""
        gone = set(forgotten)
        fresh = [one for one in dict.fromkeys(added) if one not in session.partitions and one not in gone]
        key, before = session.key, len(session.partitions)
        for partition in gone:
            session.partitions.pop(partition, None)
        self._holdings.grow(key.cluster_id, key, len(session.partitions) - before)
        if fresh:
            _check_size(len(session.partitions) + len(fresh))
            self._make_room(key.cluster_id, 0, len(fresh))
            session.partitions.update(dict.fromkeys(fresh, True))
            self._holdings.grow(key.cluster_id, key, len(fresh))

    def close(self, key: SessionKey) -> Session | None:
        """The session that ends, if there is one."""
        session = self._sessions.pop(key, None)
        if session is not None:
            keys = self._of_connection[session.connection_id]
            del keys[key]
            if not keys:
                del self._of_connection[session.connection_id]
            self._holdings.remove(key.cluster_id, key)
        return session

    def close_connection(self, connection_id: int) -> list[Session]:
        """The sessions that end with a connection."""
        closed = [self.close(key) for key in list(self._of_connection.get(connection_id, ()))]
        return [session for session in closed if session is not None]


def _check_size(partitions: int) -> None:
    if partitions > MAX_PARTITIONS:
        raise Refused(ErrorCode.INVALID_REQUEST, f"A share session may have {MAX_PARTITIONS} partitions.")


def _limit_reached() -> Refused:
    return Refused(ErrorCode.SHARE_SESSION_LIMIT_REACHED, "The limit of share sessions has been reached.")
