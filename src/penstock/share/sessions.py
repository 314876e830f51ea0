"""Share sessions: which partitions a member fetches, and in which order its requests came.

A session belongs to a member and to the connection it was opened on. When the connection ends so does the session, and
what the member has acquired is released: nobody waits for the locks of a consumer that is gone. Nobody proves to be a
member before its session is opened, so what one connection and one tenant may open is bounded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from penstock.clusters.limits import has_room
from penstock.log.refusals import Refused
from penstock.wire.error_codes import ErrorCode

INITIAL_EPOCH, FINAL_EPOCH = 0, -1
_LAST_EPOCH = 2**31 - 1
MAX_PARTITIONS = 50_000
"""Of one session."""
MAX_OF_CONNECTION = 100
"""Sessions. A client of Kafka's has one on each connection."""


class SessionKey(NamedTuple):
    """Whose session."""

    cluster_id: int
    group_id: str
    member_id: str


class TopicPartition(NamedTuple):
    """A partition by the id of its topic."""

    topic_id: bytes
    partition_index: int


class Session:
    """What a member fetches."""

    __slots__ = ("connection_id", "epoch", "key", "partitions")

    def __init__(self, key: SessionKey, connection_id: int, partitions: Iterable[TopicPartition]) -> None:
        self.key = key
        self.connection_id = connection_id
        self.epoch = 1
        self.partitions: dict[TopicPartition, bool] = dict.fromkeys(partitions, False)
        """In the order they were named, with whether the next answer must say something of each."""

    def next_epoch(self) -> None:
        """A request of the session was accepted."""
        self.epoch = 1 if self.epoch == _LAST_EPOCH else self.epoch + 1


class ShareSessions:
    """The sessions of one agent, at most so many."""

    def __init__(self, max_sessions: int) -> None:
        self._max_sessions = max_sessions
        self._sessions: dict[SessionKey, Session] = {}
        self._of_connection: dict[int, dict[SessionKey, None]] = {}
        self._of_cluster: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, key: SessionKey, connection_id: int, partitions: Iterable[TopicPartition]) -> Session:
        """A new session, in place of one that the member may have had."""
        self.close(key)
        left = self._max_sessions - len(self._sessions)
        if (
            not has_room(key.cluster_id, self._of_cluster[key.cluster_id], left)
            or len(self._of_connection.get(connection_id, ())) >= MAX_OF_CONNECTION
        ):
            raise Refused(ErrorCode.SHARE_SESSION_LIMIT_REACHED, "The limit of share sessions has been reached.")
        session = Session(key, connection_id, partitions)
        _check_size(session)
        self._sessions[key] = session
        self._of_connection.setdefault(connection_id, {})[key] = None
        self._of_cluster[key.cluster_id] += 1
        return session

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
        return session

    def change(self, session: Session, added: Iterable[TopicPartition], forgotten: Iterable[TopicPartition]) -> None:
        """The member names partitions anew, or does not want them any more."""
        for partition in added:
            session.partitions.setdefault(partition, True)
        for partition in forgotten:
            session.partitions.pop(partition, None)
        _check_size(session)

    def close(self, key: SessionKey) -> Session | None:
        """The session that ends, if there is one."""
        session = self._sessions.pop(key, None)
        if session is not None:
            keys = self._of_connection[session.connection_id]
            del keys[key]
            if not keys:
                del self._of_connection[session.connection_id]
            self._of_cluster[key.cluster_id] -= 1
            if not self._of_cluster[key.cluster_id]:
                del self._of_cluster[key.cluster_id]
        return session

    def close_connection(self, connection_id: int) -> list[Session]:
        """The sessions that end with a connection."""
        closed = [self.close(key) for key in list(self._of_connection.get(connection_id, ()))]
        return [session for session in closed if session is not None]


def _check_size(session: Session) -> None:
    if len(session.partitions) > MAX_PARTITIONS:
        raise Refused(ErrorCode.INVALID_REQUEST, f"A share session may have {MAX_PARTITIONS} partitions.")
