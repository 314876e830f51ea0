"""When offsets of classic groups expire (KIP-211)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from group_bench import TOPIC, Bench, subscription

from penstock.groups import transitions
from penstock.groups.model import GroupDeleted, OffsetAndMetadata, OffsetsDeleted, Record, StoredOffsets, TopicPartition

DAY_MS = 86_400_000


def expire(bench: Bench, committed_ms: int, **more: object) -> tuple[object, ...]:
    offset = OffsetAndMetadata(committed_offset=1, leader_epoch=0, metadata="", committed_ms=committed_ms, **more)
    stored = StoredOffsets(offsets={(TOPIC, 0): offset}, topic_names={TOPIC: "orders"})
    decision = transitions.expire_offsets(bench.group, stored, 99, bench.now_ms, bench.settings)
    return tuple(type(record) for record in decision.records)


def test_offsets_of_an_empty_group_expire_from_when_it_became_empty() -> None:
    bench = Bench()
    bench.stable()
    bench.leave("m1")
    bench.pass_ms(7 * DAY_MS - 1)
    assert expire(bench, committed_ms=0) == ()
    bench.pass_ms(1)
    assert expire(bench, committed_ms=bench.now_ms) == (GroupDeleted,)


def test_a_group_without_members_and_offsets_goes_at_the_next_look() -> None:
    bench = Bench()
    bench.stable()
    expire_now = partial(
        transitions.expire_offsets, stored=StoredOffsets(offsets={}, topic_names={}), waiter=99, now_ms=1,
        settings=bench.settings,
    )  # fmt: skip
    assert expire_now(bench.group).records == ()
    bench.leave("m1")
    assert expire_now(bench.group).records == (GroupDeleted(),)


def test_offsets_of_members_expire_only_in_topics_they_left() -> None:
    bench = Bench()
    bench.stable(protocols=(("range", subscription("orders")),), session_timeout_ms=1_800_000)
    assert expire(bench, committed_ms=bench.now_ms - 8 * DAY_MS) == ()
    bench.group = replace(bench.group, subscribed=frozenset({"other"}))
    assert expire(bench, committed_ms=bench.now_ms - 6 * DAY_MS) == ()
    assert expire(bench, committed_ms=bench.now_ms - 8 * DAY_MS) == (OffsetsDeleted,)


def test_offsets_of_a_simple_group_expire_from_their_commit() -> None:
    bench = Bench()
    bench.commit()
    assert expire(bench, committed_ms=bench.now_ms - 6 * DAY_MS) == ()
    assert expire(bench, committed_ms=bench.now_ms - 7 * DAY_MS) == (GroupDeleted,)
    assert expire(bench, committed_ms=bench.now_ms, expires_ms=bench.now_ms) == (GroupDeleted,)


def test_an_open_transaction_keeps_the_offsets_of_its_partitions_and_the_group() -> None:
    bench = Bench()
    bench.commit()
    bench.pass_ms(7 * DAY_MS)
    old = OffsetAndMetadata(committed_offset=1, leader_epoch=0, metadata="", committed_ms=0)
    offsets, names = {(TOPIC, 0): old, (TOPIC, 1): old}, {TOPIC: "orders"}

    def expire_beside(*pending: TopicPartition) -> tuple[Record, ...]:
        stored = StoredOffsets(offsets=offsets, pending=pending, topic_names=names)
        return transitions.expire_offsets(bench.group, stored, 99, bench.now_ms, bench.settings).records

    assert expire_beside() == (GroupDeleted(),)
    assert expire_beside((TOPIC, 1)) == (OffsetsDeleted(((TOPIC, 0),)),)
    assert expire_beside((TOPIC, 0), (TOPIC, 1)) == ()
    offsets.clear()
    assert expire_beside((TOPIC, 1)) == (), "the first offsets of a group wait"
    assert expire_beside() == (GroupDeleted(),)


def test_offsets_of_connect_never_expire_while_it_runs() -> None:
    bench = Bench()
    bench.stable(protocol_type="connect", session_timeout_ms=1_800_000)
    assert expire(bench, committed_ms=0) == ()
