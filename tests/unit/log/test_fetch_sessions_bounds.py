"""Fetch sessions hold a bounded number of partitions, whatever clients name."""

from __future__ import annotations

import pytest

from penstock.base.clock import SystemClock
from penstock.base.randomness import SeededRandomness
from penstock.log import fetch_sessions
from penstock.log.fetch_sessions import FetchSessions
from penstock.log.refusals import Refused
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.fetch import FetchPartition, FetchRequest, FetchTopic


def request(partitions: range, *, session_id: int = 0, epoch: int = 0) -> FetchRequest:
    wanted = [FetchPartition(partition=number) for number in partitions]
    return FetchRequest(session_id=session_id, session_epoch=epoch, topics=[FetchTopic(topic="t", partitions=wanted)])


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> FetchSessions:
    monkeypatch.setattr(fetch_sessions, "SESSION_MAX_PARTITIONS", 10)
    monkeypatch.setattr(fetch_sessions, "ALL_MAX_PARTITIONS", 25)
    return FetchSessions(slots=100, clock=SystemClock(), randomness=SeededRandomness("sessions"))


def test_one_that_is_too_large_is_not_opened(sessions: FetchSessions) -> None:
    session, wanted, full = sessions.begin(request(range(11)), by_id=False)
    assert (session, len(wanted), full) == (None, 11, True)


def test_one_that_grows_too_large_is_dropped(sessions: FetchSessions) -> None:
    session, _, _ = sessions.begin(request(range(8)), by_id=False)
    assert session is not None
    with pytest.raises(Refused) as refused:
        sessions.begin(request(range(8, 16), session_id=session.session_id, epoch=1), by_id=False)
    assert refused.value.code is ErrorCode.FETCH_SESSION_ID_NOT_FOUND
    assert len(sessions) == 0


def test_room_comes_back_with_the_end_of_a_session(sessions: FetchSessions) -> None:
    opened = [sessions.begin(request(range(10)), by_id=False)[0] for _ in range(3)]
    assert [session is not None for session in opened] == [True, True, False]
    assert opened[0] is not None
    sessions.begin(request(range(0), session_id=opened[0].session_id, epoch=-1), by_id=False)
    assert sessions.begin(request(range(10)), by_id=False)[0] is not None


def test_a_session_is_its_owner_s(sessions: FetchSessions) -> None:
    alice, bob, tenant = (1, "User:alice"), (1, "User:bob"), (2, "User:alice")
    session, _, _ = sessions.begin(request(range(3)), by_id=False, owner=alice)
    assert session is not None
    for other in (bob, tenant):
        with pytest.raises(Refused) as refused:
            sessions.begin(request(range(0), session_id=session.session_id, epoch=1), by_id=False, owner=other)
        assert refused.value.code is ErrorCode.FETCH_SESSION_ID_NOT_FOUND
        sessions.begin(request(range(0), session_id=session.session_id, epoch=-1), by_id=False, owner=other)
    continued, wanted, _ = sessions.begin(
        request(range(0), session_id=session.session_id, epoch=1), by_id=False, owner=alice
    )
    assert continued is session
    assert len(wanted) == 3


def test_setting_the_clock_pushes_nobody_out_and_keeps_nobody() -> None:
    clock = SetClock()
    sessions = FetchSessions(slots=1, clock=clock, randomness=SeededRandomness("sessions"))
    first, _, _ = sessions.begin(request(range(1)), by_id=False)
    assert first is not None
    clock.wall_ms += 3_600_000
    assert sessions.begin(request(range(1)), by_id=False)[0] is None
    clock.wall_ms -= 7_200_000
    clock.passed_s += 121
    second, _, _ = sessions.begin(request(range(1)), by_id=False)
    assert second is not None
    assert second.session_id != first.session_id


def test_no_tenant_takes_all_sessions() -> None:
    clock = SetClock()
    sessions = FetchSessions(slots=6, clock=clock, randomness=SeededRandomness("sessions"))

    def opened(cluster_id: int, times: int) -> int:
        owner = cluster_id, "User:a"
        found = [sessions.begin(request(range(1)), by_id=False, owner=owner)[0] for _ in range(times)]
        return sum(session is not None for session in found)

    assert [opened(7, 10), opened(8, 10)] == [3, 2], "never more than is left to others"
    clock.passed_s += 121
    assert opened(7, 10) == 2, "in place of its own that nobody uses"
    assert len(sessions) == 4
    assert opened(1, 10) == 4, "the deployment's own cluster may have the rest, and what nobody uses"
    assert opened(9, 1) == 0
    clock.passed_s += 121
    assert opened(9, 10) == 1, "in place of one of those who have more"


def test_no_tenant_takes_all_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_sessions, "ALL_MAX_PARTITIONS", 25)
    clock = SetClock()
    sessions = FetchSessions(slots=100, clock=clock, randomness=SeededRandomness("sessions"))

    def opened(cluster_id: int) -> bool:
        return sessions.begin(request(range(10)), by_id=False, owner=(cluster_id, "User:a"))[0] is not None

    assert opened(7)
    assert not opened(7), "it would have more than the five that are left"
    grown, _, _ = sessions.begin(request(range(1)), by_id=False, owner=(7, "User:a"))
    assert grown is not None
    with pytest.raises(Refused):
        sessions.begin(request(range(1, 9), session_id=grown.session_id, epoch=1), by_id=False, owner=(7, "User:a"))
    assert opened(1)
    clock.passed_s += 121
    assert opened(7), "in place of one that nobody uses"
    assert len(sessions) == 2


class SetClock:
    """A clock that somebody sets."""

    wall_ms, passed_s = 1_700_000_000_000, 1_000.0

    def now_ms(self) -> int:
        return self.wall_ms

    def monotonic(self) -> float:
        return self.passed_s
