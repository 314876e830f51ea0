"""How groups are stored: what is written comes back, what is damaged is refused."""

from __future__ import annotations

import pytest
from group_bench import Bench, subscription
from hypothesis import given
from hypothesis import strategies as st

from penstock.agent.settings import SETTINGS
from penstock.base.errors import CorruptData
from penstock.groups.encoding import decode, encode
from penstock.groups.model import ClassicGroup, ClassicMember, GroupState, with_members
from penstock.groups.settings import GroupSettings
from penstock.groups.subscriptions import subscribed_topics

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
INT32 = st.integers(-(1 << 31), (1 << 31) - 1)
MEMBERS = st.builds(
    ClassicMember,
    member_id=TEXT,
    instance_id=st.none() | TEXT,
    client_id=TEXT,
    client_host=TEXT,
    rebalance_timeout_ms=INT32,
    session_timeout_ms=INT32,
    protocols=st.lists(st.tuples(TEXT, st.binary(max_size=20)), max_size=3).map(tuple),
    assignment=st.binary(max_size=20),
)


@st.composite
def groups(draw: st.DrawFn) -> ClassicGroup:
    by_id, instances = with_members(draw(st.lists(MEMBERS, max_size=4, unique_by=lambda member: member.member_id)))
    return ClassicGroup(
        state=draw(st.sampled_from([GroupState.EMPTY, GroupState.COMPLETING_REBALANCE, GroupState.STABLE])),
        generation=draw(INT32),
        protocol_type=draw(st.none() | TEXT),
        protocol_name=draw(st.none() | TEXT),
        leader=draw(st.none() | TEXT),
        members=by_id,
        instances=instances,
        since_ms=draw(st.integers(0, 1 << 62)),
        stored=True,
    )


@given(groups())
def test_stored_groups_come_back(group: ClassicGroup) -> None:
    assert decode(encode(group)) == group
    assert list(decode(encode(group)).members) == list(group.members)


@given(groups(), st.data())
def test_truncated_groups_are_refused(group: ClassicGroup, data: st.DataObject) -> None:
    stored = encode(group)
    with pytest.raises(CorruptData):
        decode(stored[: data.draw(st.integers(0, len(stored) - 1))])


@given(st.binary(max_size=200))
def test_any_bytes_are_a_group_or_refused(stored: bytes) -> None:
    for candidate in (stored, b"\x01\x02" + stored):
        try:
            decode(candidate)
        except CorruptData:
            continue


@pytest.mark.parametrize(
    ("metadata", "topics"),
    [
        (subscription("orders", "payments"), {"orders", "payments"}),
        (subscription(), set()),
        (subscription("orders") + b"later versions", {"orders"}),
        (b"", None),
        (subscription("orders")[:9], None),
        (b"\x00\x00\x7f\xff\xff\xff", None),
        (b"\x00\x00\x00\x00\x00\x01\xff\xff", None),
    ],
)
def test_subscriptions_are_read_as_far_as_they_make_sense(metadata: bytes, topics: set[str] | None) -> None:
    bench = Bench()
    bench.stable(protocols=(("range", metadata),))
    assert subscribed_topics(bench.group) == topics
    assert bench.group.subscribed == topics


def test_settings_of_a_broker_are_the_defaults_here() -> None:
    assert GroupSettings.of(SETTINGS.started_with({})) == GroupSettings()
