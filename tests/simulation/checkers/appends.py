"""Invariant 1: what was acknowledged is in the log once, at its offset, unchanged, in the order of real time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from simulation.history import Append, Outcome, PartitionKey
from simulation.logs import StoredLog

from penstock.wire.records import ATTRIBUTES_POSITION


def check_appends(appends: Sequence[Append], logs: Iterable[StoredLog]) -> None:
    """Compare what producers were told with what consumers find."""
    for log in logs:
        mine = [append for append in appends if append.partition == log.partition]
        _check_partition(mine, log)


def _check_partition(appends: Sequence[Append], log: StoredLog) -> None:
    stored = {batch.header.base_offset: batch for batch in log.batches}
    values = Counter(record.value for batch in log.batches for record in batch.records)
    twice = [value for value, count in values.items() if count > 1]
    assert not twice, f"records appear more than once: {_named(twice)}"
    sent = {value for append in appends for value in append.values}
    assert not values.keys() - sent, f"records nobody sent: {_named(sorted(values.keys() - sent))}"
    for append in appends:
        if append.outcome is Outcome.ACKNOWLEDGED and append.base_offset >= log.log_start:
            batch = stored.get(append.base_offset)
            assert batch is not None, f"an acknowledged batch is not at {append.base_offset}: {_named(append.values)}"
            assert batch.data[ATTRIBUTES_POSITION:] == append.data[ATTRIBUTES_POSITION:], (
                "an acknowledged batch changed"
            )
        elif append.outcome is Outcome.REFUSED:
            present = [value for value in append.values if values[value]]
            assert not present, f"a refused batch is in the log: {_named(present)}"
    check_real_time_order([append for append in appends if append.outcome is Outcome.ACKNOWLEDGED])


def check_real_time_order(acknowledged: Sequence[Append]) -> None:
    """A batch sent after another one was acknowledged has the higher offset. O(n log n)."""
    by_answer = sorted(acknowledged, key=lambda append: append.answered_at)
    settled, floor = 0, -1
    for append in sorted(acknowledged, key=lambda append: append.invoked_at):
        while by_answer[settled].answered_at < append.invoked_at:
            floor, settled = max(floor, by_answer[settled].base_offset), settled + 1
        assert append.base_offset > floor, (
            f"{_named(append.values)} got offset {append.base_offset} after {floor} was known"
        )


def acknowledged_of(appends: Iterable[Append], partition: PartitionKey) -> list[Append]:
    """The acknowledged appends to one partition."""
    return [append for append in appends if append.partition == partition and append.outcome is Outcome.ACKNOWLEDGED]


def _named(values: Sequence[bytes | None]) -> str:
    """The first of these records, by their names."""
    return ", ".join((value or b"").rstrip(b".").decode() for value in values[:3])
