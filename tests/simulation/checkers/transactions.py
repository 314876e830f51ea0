"""Invariant 4: a transaction becomes visible as a whole or never; nobody sees one that is open or was aborted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from simulation.checkers.watermarks import check_rises
from simulation.history import Fetched, History, OffsetSeen, Outcome, Transaction
from simulation.logs import batches_of

from penstock.wire.error_codes import ErrorCode
from penstock.wire.records import iter_records


def check_transactions(history: History, final: Iterable[Fetched], groups: Iterable[OffsetSeen]) -> None:
    """`final`: everything, read as committed data when all was over; `groups`: the offsets at that time."""
    visible = {value for fetched in final for value in visible_values(fetched)}
    committed = {transaction for transaction in history.transactions if _is_visible(transaction, visible)}
    _check_told(history.transactions, committed)
    _check_plain(history, visible)
    _check_readers(history, visible)
    for seen in groups:
        mine = history.transactions_of(seen.transactional_id)
        last = max((one.number for one in mine if one.sends_offsets and one in committed), default=-1)
        assert set(seen.offsets) == {last}, f"{seen.transactional_id} is at {seen.offsets}, committed is {last}"
    _check_offsets(history, committed)


def visible_values(fetched: Fetched) -> Iterator[bytes | None]:
    """What a reader of committed data takes from an answer: as Kafka's consumers do it."""
    waiting = sorted(fetched.aborted, key=lambda one: one[1])
    left_out: set[int] = set()
    for batch in batches_of(fetched.records):
        header = batch.header
        while waiting and waiting[0][1] <= header.last_offset:
            left_out.add(waiting.pop(0)[0])
        if header.is_control:
            (marker,) = iter_records(batch.data)
            assert marker.key is not None
            if marker.key == b"\0\0\0\0":
                left_out.discard(header.producer_id)
        elif not (header.is_transactional and header.producer_id in left_out):
            yield from (record.value for record in batch.records)


def check_latest(history: History, final: Iterable[Fetched]) -> None:
    """In a compacted topic, which has one partition: of each key, readers find what was committed last."""
    found: dict[bytes | None, int] = {}
    owners = {
        value: one for one in history.transactions for append in one.appends for value in append.values
    }  # fmt: skip
    for fetched in final:
        visible = set(visible_values(fetched))
        for batch in batches_of(fetched.records):
            for record in batch.records:
                if record.value in visible:
                    owner = owners[record.value]
                    assert owner.wants_commit, f"{owner.transactional_id} {owner.number} was not committed"
                    found[record.key] = record.offset
    for transaction in history.transactions:
        if transaction.wants_commit and transaction.outcome is Outcome.ACKNOWLEDGED:
            for append in transaction.appends:
                for number, key in enumerate(append.keys):
                    latest, offset = found.get(key, -1), append.base_offset + number
                    assert latest >= offset, f"of {key!r} there is {latest}, and {offset} was committed"


def check_stable(fetches: Sequence[Fetched]) -> None:
    """What is stable stays so, and readers of committed data get nothing else."""
    for partition in sorted({fetched.partition for fetched in fetches}):
        told = [
            fetched
            for fetched in fetches
            if fetched.partition == partition and fetched.error is ErrorCode.NONE
        ]  # fmt: skip
        check_rises(told, lambda fetched: fetched.last_stable_offset, "the last stable offset")
        for fetched in told:
            assert fetched.last_stable_offset <= fetched.high_watermark, "stable above the high watermark"
            if fetched.read_committed:
                for batch in batches_of(fetched.records):
                    assert batch.header.last_offset < fetched.last_stable_offset, "a record that is not stable"


def _is_visible(transaction: Transaction, visible: set[bytes | None]) -> bool:
    """Whether the records of a transaction can be seen: all of them can, or none."""
    appends = [append for append in transaction.appends if append.outcome is Outcome.ACKNOWLEDGED]
    seen = {append: [value in visible for value in append.values] for append in transaction.appends}
    name = f"{transaction.transactional_id} {transaction.number}"
    if not any(any(values) for values in seen.values()):
        return False
    assert all(all(seen[append]) for append in appends), f"{name} is visible in part"
    return True


def _check_told(transactions: Sequence[Transaction], committed: set[Transaction]) -> None:
    for transaction in transactions:
        name = f"{transaction.transactional_id} {transaction.number}"
        if transaction not in committed:
            is_lost = transaction.wants_commit and transaction.outcome is Outcome.ACKNOWLEDGED
            assert not is_lost, f"{name} was committed, and cannot be seen"
        else:
            assert transaction.wants_commit, f"{name} was not committed, and can be seen"


def _check_plain(history: History, visible: set[bytes | None]) -> None:
    inside = {append for transaction in history.transactions for append in transaction.appends}
    for append in history.acknowledged:
        if append not in inside:
            assert visible.issuperset(append.values), "a batch that belongs to no transaction cannot be seen"


def _check_readers(history: History, visible: set[bytes | None]) -> None:
    for fetched in history.fetches:
        if fetched.read_committed and fetched.error is ErrorCode.NONE:
            early = [value for value in visible_values(fetched) if value not in visible]
            assert not early, f"what was not committed was read: {_named(early)}"


def _check_offsets(history: History, committed: set[Transaction]) -> None:
    """Each look at a group finds a committed transaction's offset, and no older one than was known to be."""
    for seen in history.offsets_seen:
        mine = history.transactions_of(seen.transactional_id)
        possible = {-1, *(one.number for one in mine if one.sends_offsets and one in committed)}
        assert len(set(seen.offsets)) == 1, f"{seen.transactional_id}: offsets of several transactions {seen.offsets}"
        found = seen.offsets[0]
        assert found in possible, f"{seen.transactional_id} is at {found}, which was not committed"
        known = (
            one.number
            for one in mine
            if one.sends_offsets and one in committed and one.answered_at < seen.invoked_at
        )  # fmt: skip
        assert found >= max(known, default=-1), f"{seen.transactional_id} went back to {found}"


def _named(values: Sequence[bytes | None]) -> str:
    return ", ".join((value or b"").rstrip(b".").decode() for value in values[:3])
