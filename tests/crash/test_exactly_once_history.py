"""The checker of histories notices each way in which one can be wrong, and nothing in one that is right."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from exactly_once_clients import OUT_PARTITIONS, ManyByRequest, PlainByRequest
from exactly_once_history import TOPICS, Log, Seen, check

INPUTS, TRANSACTIONS, RECORDS = 12, 5, 9
ABORTED = "many/3"


def history() -> Log:
    """Everything in its place: every input relayed, transactions one of which was aborted, idempotent records."""
    log: Log = {(topic, partition): {} for topic in TOPICS for partition in range(OUT_PARTITIONS)}
    for topic in ("out", "again"):
        for number in range(INPUTS):
            append(log, topic, number % OUT_PARTITIONS, str(number))
    for number in range(1, TRANSACTIONS + 1):
        for partition in range(OUT_PARTITIONS):
            append(log, "many", partition, f"many/{number}")
    for number in range(RECORDS):
        append(log, "plain", number % OUT_PARTITIONS, f"plain/{number}")
    return log


def append(log: Log, topic: str, partition: int, value: str) -> None:
    values = log[topic, partition]
    values[len(values)] = value


def judge(everything: Log, change: Callable[[Log, Log, Seen], None]) -> None:
    """Check a history after something was done to what is committed, to everything, or to what a reader saw."""
    committed = {
        place: {offset: value for offset, value in values.items() if value != ABORTED}
        for place, values in everything.items()
    }
    seen = Seen(committed_only=True, records={place: list(values.items()) for place, values in committed.items()})
    many, plain = ManyByRequest("", "many"), PlainByRequest("", "plain")
    many.decided = {f"many/{number}": f"many/{number}" != ABORTED for number in range(1, TRANSACTIONS + 1)}
    plain.number = RECORDS
    change(committed, everything, seen)
    check(everything=everything, committed=committed, seen=[seen], inputs=INPUTS, many=[many], plain=[plain])


def in_both(place: tuple[str, int], change: Callable[[dict[int, str]], None]) -> Callable[[Log, Log, Seen], None]:
    """The same done to what is committed and to everything; nobody has read it yet."""

    def done(committed: Log, everything: Log, seen: Seen) -> None:
        seen.records.clear()
        for log in (committed, everything):
            change(log[place])

    return done


def exchange(values: dict[int, str]) -> None:
    """The last of a partition's records for the first."""
    first, last = min(values), max(values)
    values[first], values[last] = values[last], values[first]


def lose(values: dict[int, str]) -> None:
    del values[max(values)]


def double(values: dict[int, str]) -> None:
    values[max(values) + 1] = values[max(values)]


def test_a_history_in_order_is_one() -> None:
    judge(history(), lambda committed, everything, seen: None)


@pytest.mark.parametrize(
    ("topic", "change", "complaint"),
    [
        ("out", lose, "not relayed to out"),
        ("again", double, "relayed twice to again"),
        ("out", exchange, "relayed to out in another order"),
        ("many", lose, "transactions in part, or twice"),
        ("many", double, "transactions in part, or twice"),
        ("many", exchange, "transactions of many are in another order"),
        ("plain", lose, "plain in 0: lost, twice, or in another order"),
        ("plain", double, "plain in 0: lost, twice, or in another order"),
        ("plain", exchange, "plain in 0: lost, twice, or in another order"),
    ],
)
def test_what_is_wrong_in_the_log_is_noticed(
    topic: str, change: Callable[[dict[int, str]], None], complaint: str
) -> None:
    with pytest.raises(AssertionError, match=complaint):
        judge(history(), in_both((topic, 0), change))


def test_what_is_committed_against_what_was_told_is_noticed() -> None:
    def show(committed: Log, everything: Log, seen: Seen) -> None:
        for place in committed:
            committed[place] = dict(everything[place])
        seen.records.clear()

    def hide(committed: Log, everything: Log, seen: Seen) -> None:
        for values in committed.values():
            for offset, value in list(values.items()):
                if value == "many/1":
                    del values[offset]
        seen.records.clear()

    with pytest.raises(AssertionError, match="many/3 was aborted"):
        judge(history(), show)
    with pytest.raises(AssertionError, match="many/1 was committed"):
        judge(history(), hide)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda records: records.insert(0, records[-1]), "went back"),
        (lambda records: records.pop(1), "missed 1"),
        (lambda records: records.append((99, "many/9")), "saw many/9 at 99"),
        (lambda records: records.insert(2, (2, ABORTED)), "saw many/3 at 2"),
    ],
)
def test_what_a_reader_should_not_have_seen_is_noticed(
    change: Callable[[list[tuple[int, str]]], None], complaint: str
) -> None:
    with pytest.raises(AssertionError, match=complaint):
        judge(history(), lambda committed, everything, seen: change(seen.records["many", 0]))
