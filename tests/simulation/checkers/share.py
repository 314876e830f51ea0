"""Share groups: one member at a time, nothing accepted again, nothing lost, no record too often; dead letters once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from simulation.history import Delivery, Outcome, Said


def check_accepted(deliveries: Sequence[Delivery], said: Sequence[Said]) -> None:
    """What was accepted is not given to anybody who asks later."""
    accepted: dict[int, float] = {}
    for word in said:
        if word.accepts and word.outcome is Outcome.ACKNOWLEDGED:
            accepted[word.offset] = min(word.answered_at, accepted.get(word.offset, float("inf")))
    for delivery in deliveries:
        since = accepted.get(delivery.offset, float("inf"))
        assert delivery.invoked_at < since, f"{delivery.offset} was accepted at {since} and delivered again: {delivery}"


def check_exclusive(deliveries: Sequence[Delivery], lock_s: float) -> None:
    """In one life of an agent, a record is given to somebody else only when it was let go, or its lock ran out."""
    by_offset: dict[int, list[Delivery]] = {}
    for delivery in sorted(deliveries, key=lambda one: one.answered_at):
        for before in by_offset.get(delivery.offset, ()):
            if before.life != delivery.life or delivery.answered_at - before.invoked_at >= lock_s:
                continue
            assert before.ended_at <= delivery.answered_at, f"two members have {delivery.offset}: {before}, {delivery}"
        by_offset.setdefault(delivery.offset, []).append(delivery)


def check_counts(deliveries: Sequence[Delivery], limit: int) -> None:
    """No record is delivered more often than allowed, and each time is counted, as long as the agent lives."""
    last: dict[tuple[int, int], Delivery] = {}
    for delivery in sorted(deliveries, key=lambda one: one.answered_at):
        assert 1 <= delivery.count <= limit, delivery
        before = last.get((delivery.life, delivery.offset))
        assert before is None or before.count < delivery.count, f"not counted: {before}, {delivery}"
        last[delivery.life, delivery.offset] = delivery


def check_complete(end_offset: int, deliveries: Sequence[Delivery], said: Sequence[Said], limit: int) -> None:
    """Once a group has taken all there is, each record was accepted or rejected, or tried as often as allowed."""
    ended = {word.offset for word in said if (word.accepts or word.rejects) and word.outcome is not Outcome.REFUSED}
    tried_out = {delivery.offset for delivery in deliveries if delivery.count >= limit}
    lost = [offset for offset in range(end_offset) if offset not in ended and offset not in tried_out]
    assert not lost, f"never done with: {lost}"


def check_letters(
    letters: Sequence[tuple[int, bytes | None]], values: Mapping[int, bytes | None], deliveries: Sequence[Delivery],
    said: Sequence[Said], limit: int,
) -> None:  # fmt: skip
    """The dead letter queue has one copy of each record that was given up, and of no other."""
    told = [offset for offset, _ in letters]
    twice = sorted({offset for offset in told if told.count(offset) > 1})
    assert not twice, f"more than one letter of {twice}"
    rejected = {word.offset for word in said if word.rejects and word.outcome is Outcome.ACKNOWLEDGED}
    assert rejected <= set(told), f"no letter of {sorted(rejected - set(told))}"
    accepted = {word.offset for word in said if word.accepts and word.outcome is Outcome.ACKNOWLEDGED}
    assert not accepted.intersection(told), f"accepted, and yet dead letters: {sorted(accepted.intersection(told))}"
    given_up = {word.offset for word in said if word.rejects and word.outcome is not Outcome.REFUSED}
    given_up |= {delivery.offset for delivery in deliveries if delivery.count >= limit}
    assert given_up >= set(told), f"nobody gave up {sorted(set(told) - given_up)}"
    wrong = [offset for offset, value in letters if values[offset] != value]
    assert not wrong, f"letters of {wrong} have other values"
