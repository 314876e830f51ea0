"""Share sessions: epochs, what is asked of each, and their ends."""

from __future__ import annotations

import pytest

from penstock.log.refusals import Refused
from penstock.share import sessions as sessions_module
from penstock.share.sessions import MAX_OF_CONNECTION, SessionKey, ShareSession, ShareSessions, TopicIdPartition
from penstock.wire.error_codes import ErrorCode

ANNA, BERTA = SessionKey(1, "group", "anna"), SessionKey(1, "group", "berta")
ONE, TWO = TopicIdPartition(b"t" * 16, 0), TopicIdPartition(b"t" * 16, 1)


def refusal(call) -> ErrorCode:
    with pytest.raises(Refused) as refused:
        call()
    return refused.value.code


def test_requests_come_in_order() -> None:
    sessions = ShareSessions(10)
    assert refusal(lambda: sessions.advance(ANNA, 1)) is ErrorCode.SHARE_SESSION_NOT_FOUND
    session = sessions.open(ANNA, 7, [ONE])
    assert sessions.advance(ANNA, 1) is session
    assert refusal(lambda: sessions.advance(ANNA, 1)) is ErrorCode.INVALID_SHARE_SESSION_EPOCH
    assert sessions.advance(ANNA, 2) is session


def test_epochs_begin_again_at_one() -> None:
    sessions = ShareSessions(10)
    sessions.open(ANNA, 7, []).epoch = 2**31 - 1
    assert sessions.advance(ANNA, 2**31 - 1).epoch == 1


def test_partitions_are_added_and_forgotten() -> None:
    sessions = ShareSessions(10)
    session = sessions.open(ANNA, 7, [ONE])
    sessions.change(session, [ONE, TWO], [])
    assert session.partitions == {ONE: False, TWO: True}, "of what is new something must be said"
    sessions.change(session, [], [ONE])
    assert list(session.partitions) == [TWO]


def test_sessions_end_with_their_connection() -> None:
    sessions = ShareSessions(10)
    first, second = sessions.open(ANNA, 7, [ONE]), sessions.open(BERTA, 7, [ONE])
    sessions.open(SessionKey(2, "group", "anna"), 8, [ONE])
    assert sessions.close_connection(7) == [first, second]
    assert sessions.close_connection(7) == []
    assert len(sessions) == 1


def test_a_session_stays_with_its_principal() -> None:
    sessions = ShareSessions(10)
    anna, eve = ANNA._replace(principal="User:anna"), ANNA._replace(principal="User:eve")
    session = sessions.open(anna, 7, [ONE])
    for call in (lambda: sessions.require(eve), lambda: sessions.advance(eve, 1), lambda: sessions.advance(eve, 5)):
        assert refusal(call) is ErrorCode.SHARE_SESSION_NOT_FOUND
    assert sessions.advance(anna, 1) is session
    assert sessions.open(anna, 8, [TWO]) is not session


def test_who_says_to_be_a_member_first_keeps_nobody_out() -> None:
    sessions = ShareSessions(10)
    anna, eve = ANNA._replace(principal="User:anna"), ANNA._replace(principal="User:eve")
    theirs, session = sessions.open(eve, 9, [ONE]), sessions.open(anna, 7, [ONE])
    assert sessions.advance(anna, 1) is session
    assert sessions.advance(eve, 1) is theirs
    assert sessions.close_connection(9) == [theirs]
    assert sessions.advance(anna, 2) is session
    assert anna.holder != eve.holder


def test_no_two_have_the_same_by_names_that_look_alike() -> None:
    first, second = SessionKey(1, "group", "a", "b c"), SessionKey(1, "group", "a b", " c")
    assert first.holder != second.holder
    assert SessionKey(1, "group", "1 a", "b").holder != SessionKey(1, "group", "1", " ab").holder


def test_a_member_has_one_session() -> None:
    sessions = ShareSessions(1)
    sessions.open(ANNA, 7, [ONE])
    again = sessions.open(ANNA, 8, [TWO])
    assert sessions.close_connection(7) == [], "it has moved to another connection"
    assert sessions.require(ANNA) is again
    assert refusal(lambda: sessions.open(BERTA, 9, [ONE])) is ErrorCode.SHARE_SESSION_LIMIT_REACHED
    assert sessions.close(ANNA) is again
    assert sessions.close(ANNA) is None
    sessions.open(BERTA, 9, [ONE])


def test_no_cluster_takes_all_sessions() -> None:
    sessions = ShareSessions(6)
    evicted: list[ShareSession] = []
    sessions.on_evicted = evicted.append

    def opened(cluster_id: int) -> int:
        before = sum(key.cluster_id == cluster_id for key in sessions._sessions)
        assert refusal(lambda: fill(cluster_id)) is ErrorCode.SHARE_SESSION_LIMIT_REACHED
        return sum(key.cluster_id == cluster_id for key in sessions._sessions) - before

    def fill(cluster_id: int) -> None:
        for number in range(20):
            sessions.open(SessionKey(cluster_id, "group", f"{before}/{number}"), 100 * cluster_id + number, [ONE])

    before = 0
    assert opened(1) == 6, "as long as nobody else wants any"
    assert sessions.advance(SessionKey(1, "group", "0/0"), 1)
    assert opened(7) == 3, "half of them"
    assert [session.key.member_id for session in evicted] == ["0/1", "0/2", "0/3"], "not the one that was used last"
    assert len(sessions) == 6
    before = 1
    assert opened(1) == 0, "what went to others does not come back"
    assert opened(8) == 2
    assert len(sessions) == 6
    assert len(sessions.close_connection(702)) == 1
    assert opened(1) == 1, "what is given back is for everybody"


def test_no_cluster_takes_all_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions_module, "ALL_MAX_PARTITIONS", 25)
    monkeypatch.setattr(sessions_module, "MAX_PARTITIONS", 15)
    sessions = ShareSessions(100)
    evicted: list[ShareSession] = []
    sessions.on_evicted = evicted.append

    def partitions(count: int, first: int = 0) -> list[TopicIdPartition]:
        return [TopicIdPartition(b"t" * 16, number) for number in range(first, first + count)]

    small = sessions.open(SessionKey(1, "group", "small"), 1, partitions(1))
    large = sessions.open(SessionKey(1, "group", "large"), 1, partitions(12))
    other = sessions.open(SessionKey(1, "group", "other"), 1, partitions(10))
    assert refusal(lambda: sessions.change(other, partitions(3, 10), [])) is ErrorCode.SHARE_SESSION_LIMIT_REACHED
    assert len(other.partitions) == 10, "it stays as it was"
    sessions.change(other, partitions(3, 10), partitions(2))
    assert refusal(lambda: sessions.change(other, partitions(9, 20), [])) is ErrorCode.INVALID_REQUEST
    assert len(other.partitions) == 11, "it grows by nothing that it is told it cannot have"
    tenants = sessions.open(SessionKey(7, "group", "member"), 7, partitions(8))
    assert evicted == [large]
    sessions.change(tenants, partitions(4, 8), [])
    assert sessions.require(small.key) is small
    assert refusal(lambda: sessions.change(tenants, partitions(3, 12), [])) is ErrorCode.SHARE_SESSION_LIMIT_REACHED
    sessions.close(other.key)
    sessions.change(tenants, partitions(3, 12), [])


def test_a_connection_has_a_bounded_number_of_sessions() -> None:
    sessions = ShareSessions(10_000)
    for number in range(MAX_OF_CONNECTION):
        sessions.open(SessionKey(1, "group", f"made up {number}"), 7, [ONE])
    assert refusal(lambda: sessions.open(ANNA, 7, [ONE])) is ErrorCode.SHARE_SESSION_LIMIT_REACHED
    sessions.open(SessionKey(1, "group", "made up 0"), 7, [TWO])  # In place of the one it has.
    sessions.open(ANNA, 8, [ONE])
