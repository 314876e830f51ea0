"""The comparison can fail: what counts as the same, what is covered by a declaration, what is no longer needed."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from comparing.batches import batches_to_plain, build_batches
from comparing.comparison import Comparison, Verdict
from comparing.judging import ABSENT, Declared, Difference, differences
from comparing.names import Names
from comparing.normalising import Normaliser
from comparing.running import Answer
from comparing.sequences import Sequence_, Step

from penstock.wire.api_keys import ApiKey

NOW = 1_700_000_000_000
STEP = Step(key=ApiKey.METADATA, version=12, fields={}, words={})
SEQUENCE = Sequence_(group="g", name="s", topics={}, parameters={}, steps=[STEP])


def flat(answer: Any, tag: str = "0a1b2c3d", **values: Any) -> dict[str, Any]:
    names = Names(tag, NOW, {})
    names.values |= values
    return Normaliser(tag, NOW, names).flat(answer)


def found(kafka: Any, penstock: Any) -> list[tuple[str, Any, Any]]:
    answers = [[Answer(STEP, flat(answer))] for answer in (kafka, penstock)]
    return [(one.path, one.kafka, one.penstock) for one in differences(SEQUENCE, *answers)]


def test_order_and_pieces_do_not_count_but_elements_do() -> None:
    one = {"topics": [{"name": "a", "partitions": [{"index": 0}, {"index": 1}]}, {"name": "b", "partitions": []}]}
    two = {
        "topics": [
            {"name": "b", "partitions": []},
            {"name": "a", "partitions": [{"index": 1}]},
            {"name": "a", "partitions": [{"index": 0}]},
        ]
    }
    assert found(one, two) == []
    del two["topics"][1]
    assert found(one, two) == [("topics[a].partitions[1]", "<present>", ABSENT)]


def test_ids_count_by_which_are_the_same() -> None:
    assert (
        found({"a": {"producer_id": 7}, "b": {"producer_id": 7}}, {"a": {"producer_id": 9}, "b": {"producer_id": 9}})
        == []
    )
    kafka, penstock = ({"a": {"producer_id": 7}, "b": {"producer_id": second}} for second in (7, 8))
    assert found(kafka, penstock) == [("b.producer_id", "<producer 1>", "<producer 2>")]
    assert found({"producer_id": 0}, {"producer_id": -1}) == [("producer_id", "<producer 1>", -1)]
    assert found({"topic_id": bytes(16)}, {"topic_id": b"x" * 16}) == [("topic_id", "zero", "<id 1>")]


def test_times_near_the_base_count_to_the_millisecond() -> None:
    assert found({"timestamp": NOW + 5}, {"timestamp": NOW + 6}) == [("timestamp", "now+5", "now+6")]
    assert found({"timestamp": 1}, {"timestamp": -1}) == [("timestamp", 1, -1)]


def test_what_belongs_to_others_is_left_out() -> None:
    names = ["0a1b2c3d-mine", "ffffffff-theirs", "__consumer_offsets"]
    answer = flat({"groups": [{"group_id": name} for name in names]})
    assert answer == {"groups.count": 1, "groups[$mine].group_id": "$mine"}


def test_null_empty_and_absent_are_different() -> None:
    assert found({"a": None}, {"a": ""}) == [("a", None, "")]
    assert found({"a": []}, {"a": None}) == [("a", ABSENT, None), ("a.count", 0, ABSENT)]
    assert found({"a": True}, {"a": 1}) == [("a", True, 1)]


def test_an_answer_that_did_not_come_is_one_difference() -> None:
    answers = [Answer(STEP, {"": "the connection is closed"})], [Answer(STEP, flat({"a": 1, "b": 2}))]
    assert [(one.path, one.kafka) for one in differences(SEQUENCE, *answers)] == [("", "the connection is closed")]


def test_a_declaration_covers_what_it_names_and_goes_stale() -> None:
    seen = Difference(sequence="g: s", step="Metadata v12", number=0, path="topics[a].error_code", kafka=3, penstock=0)
    entry = Declared(
        name="n", apis=("Metadata",), sequences=("g: *",), fields=("topics[*].error_code",), kafka=[3, 5], penstock=0,
        reason="",
    )  # fmt: skip
    assert entry.covers(seen)
    for other in (
        {"apis": ("Fetch",)},
        {"sequences": ("h: *",)},
        {"fields": ("topics",)},
        {"kafka": 4},
        {"penstock": "0"},
    ):
        assert not dataclasses.replace(entry, **other).covers(seen)
    used = Verdict(sequence=SEQUENCE, declared=[(seen, entry)])
    assert Comparison(verdicts=[used], entries=[entry]).stale == []
    assert Comparison(verdicts=[], entries=[entry]).stale == [entry]


def test_batches_are_told_field_by_field() -> None:
    (batch,) = batches_to_plain(
        build_batches([{"values": ["a"], "timestamp": NOW, "patch": {"base_offset": 5}}]) or b""
    )
    assert (batch["base_offset"], batch["record_count"], batch["crc_is_right"]) == (5, 1, True)
    (spoilt,) = batches_to_plain(build_batches([{"values": ["a"], "timestamp": NOW, "crc": "wrong"}]) or b"")
    assert not spoilt["crc_is_right"]
    assert batches_to_plain((build_batches([{"values": ["a"], "timestamp": NOW}]) or b"")[:-3]) == [{"cut": True}]


def test_lives_count_to_the_minute_and_waits_roughly() -> None:
    now = int(time.time() * 1000)
    day, later, long_after = ({"max_timestamp_ms": now + 86_400_000 + more} for more in (0, 900, 120_000))
    assert found(day, later) == []
    assert found(day, long_after) == [("max_timestamp_ms", "in 1440 min", "in 1442 min")]
    assert flat({"max_timestamp": NOW + 60_000}) == {"max_timestamp": "now+60000"}
    assert found({"max_timestamp_ms": -1}, {"max_timestamp_ms": 0}) == [("max_timestamp_ms", -1, 0)]
    assert found({"throttle_time_ms": 189_000}, {"throttle_time_ms": 185_123}) == []
    assert found({"throttle_time_ms": 0}, {"throttle_time_ms": 1}) == [("throttle_time_ms", 0, "about 0 s")]


def test_tokens_count_by_which_are_the_same() -> None:
    one, other = ({"token_id": letter * 22, "hmac": letter.encode() * 64} for letter in "ab")
    assert found({"tokens": [one, other]}, {"tokens": [other, one]}) == []
    assert found({"a": one, "b": one}, {"a": one, "b": other}) == [
        ("b.hmac", "<secret 1>", "<secret 2>"), ("b.token_id", "<uuid 1>", "<uuid 2>"),
    ]  # fmt: skip
