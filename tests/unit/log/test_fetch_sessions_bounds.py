"""Fetch sessions hold a bounded number of partitions, whatever clients name."""

from __future__ import annotations

import pytest

from penstock.base.clock import SystemClock
from penstock.base.randomness import SeededRandomness
from penstock.log import fetch_sessions
from penstock.log.fetch_sessions import FetchSession, FetchSessions
from penstock.log.refusals import Refused
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.fetch import FetchPartition, FetchRequest, FetchTopic, ForgottenTopic


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


def test_one_of_which_too_much_is_changed_at_once_is_dropped(
    sessions: FetchSessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its client says everything anew, and goes on."""
    monkeypatch.setattr(fetch_sessions, "CHANGED_MAX_PARTITIONS", 5)
    session, _, _ = sessions.begin(request(range(8)), by_id=False)
    assert session is not None
    continued, wanted, _ = sessions.begin(request(range(5), session_id=session.session_id, epoch=1), by_id=False)
    assert (continued, len(wanted)) == (session, 8)
    changed = request(range(3), session_id=session.session_id, epoch=2)
    changed.forgotten_topics_data = [ForgottenTopic(topic="t", partitions=[5, 6, 7])]
    with pytest.raises(Refused) as refused:
        sessions.begin(changed, by_id=False)
    assert refused.value.code is ErrorCode.FETCH_SESSION_ID_NOT_FOUND
    assert len(sessions) == 0
    assert sessions.begin(request(range(8)), by_id=False)[0] is not None


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


def test_no_cluster_takes_all_sessions() -> None:
    sessions = FetchSessions(slots=6, clock=SetClock(), randomness=SeededRandomness("sessions"))

    def opened(cluster_id: int, times: int) -> list[FetchSession]:
        owner = cluster_id, "User:a"
        found = [sessions.begin(request(range(1)), by_id=False, owner=owner)[0] for _ in range(times)]
        return [session for session in found if session is not None]

    of_default = opened(1, 10)
    assert len(of_default) == 6, "as long as nobody else wants any"
    assert go_on(sessions, of_default[0]) is of_default[0]
    assert len(opened(7, 10)) == 3, "half of them"
    assert len(sessions) == 6
    for session in of_default[1:4]:
        with pytest.raises(Refused) as refused:
            go_on(sessions, session)
        assert refused.value.code is ErrorCode.FETCH_SESSION_ID_NOT_FOUND, "its client begins anew"
    for session in (of_default[0], *of_default[4:]):
        assert go_on(sessions, session) is session, "those that were used last stay"
    assert len(opened(8, 10)) == 2, "a third of them"
    assert not any(opened(cluster_id, 3) for cluster_id in (1, 7, 8))
    assert len(opened(9, 10)) == 1
    assert len(sessions) == 6


def go_on(sessions: FetchSessions, session: FetchSession) -> FetchSession | None:
    """The next request of a session."""
    asked = request(range(0), session_id=session.session_id, epoch=session.epoch)
    return sessions.begin(asked, by_id=False, owner=session.owner)[0]


def test_what_a_cluster_does_not_use_makes_room_for_its_own_first() -> None:
    clock = SetClock()
    sessions = FetchSessions(slots=4, clock=clock, randomness=SeededRandomness("sessions"))
    alice, bob = (7, "User:alice"), (8, "User:bob")
    first, second = (sessions.begin(request(range(1)), by_id=False, owner=bob)[0] for _ in range(2))
    own, _ = (sessions.begin(request(range(1)), by_id=False, owner=alice)[0] for _ in range(2))
    assert first is not None
    assert second is not None
    assert own is not None
    clock.passed_s += 121
    assert go_on(sessions, second) is second
    assert sessions.begin(request(range(1)), by_id=False, owner=alice)[0] is not None
    with pytest.raises(Refused):
        go_on(sessions, own)
    assert go_on(sessions, first) is first, "it was not used for longer than the one that went"
    clock.passed_s += 121
    assert go_on(sessions, second) is second
    for _ in range(3):
        assert sessions.begin(request(range(1)), by_id=False, owner=alice)[0] is not None
    with pytest.raises(Refused):
        go_on(sessions, first)
    assert sessions.begin(request(range(1)), by_id=False, owner=alice)[0] is None, "all others are in use"
    assert go_on(sessions, second) is second


def test_no_cluster_takes_all_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_sessions, "ALL_MAX_PARTITIONS", 25)
    sessions = FetchSessions(slots=100, clock=SetClock(), randomness=SeededRandomness("sessions"))

    def opened(cluster_id: int, partitions: int = 10) -> FetchSession | None:
        return sessions.begin(request(range(partitions)), by_id=False, owner=(cluster_id, "User:a"))[0]

    first, small = opened(1), opened(1, 1)
    assert first is not None
    assert small is not None
    assert opened(1) is not None
    assert opened(1) is None, "four are left"
    tenants = opened(7, 5)
    assert tenants is not None
    assert len(sessions) == 3, "one of ten has made room"
    assert go_on(sessions, small) is small, "of few partitions is not gained much"
    assert opened(7) is None, "others would have less than it"
    grown = request(range(5, 12), session_id=tenants.session_id, epoch=tenants.epoch)
    assert sessions.begin(grown, by_id=False, owner=tenants.owner)[0] is tenants, "of what is left"
    more = request(range(12, 25), session_id=tenants.session_id, epoch=tenants.epoch)
    with pytest.raises(Refused) as refused:
        sessions.begin(more, by_id=False, owner=tenants.owner)
    assert refused.value.code is ErrorCode.FETCH_SESSION_ID_NOT_FOUND
    assert len(sessions) == 2
    assert opened(7, 12) is not None, "what it had is free again"


class SetClock:
    """A clock that somebody sets."""

    wall_ms, passed_s = 1_700_000_000_000, 1_000.0

    def now_ms(self) -> int:
        return self.wall_ms

    def monotonic(self) -> float:
        return self.passed_s
