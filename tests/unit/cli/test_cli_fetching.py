"""Which batches of an answer people get to see."""

from __future__ import annotations

import struct

from penstock.cli.kafka.fetching import Aborted
from penstock.wire.messages.fetch import AbortedTransaction, PartitionData
from penstock.wire.records import Record, build_batch, parse_header

ABORT, COMMIT = 0, 1


def data_batch(offset: int, producer_id: int, *, transactional: bool = True) -> bytes:
    return build_batch([Record(offset=offset, value=b"x")], producer_id=producer_id, is_transactional=transactional)


def marker(offset: int, producer_id: int, kind: int) -> bytes:
    record = Record(offset=offset, key=struct.pack(">hh", 0, kind), value=bytes(6))
    return build_batch([record], producer_id=producer_id, is_transactional=True, is_control=True)


def shown(batches: list[bytes], *aborted: tuple[int, int]) -> list[int]:
    listed = [AbortedTransaction(producer_id=producer, first_offset=first) for first, producer in aborted]
    filtered = Aborted(PartitionData(aborted_transactions=listed))
    headers = [(parse_header(batch), memoryview(batch)) for batch in batches]
    return [header.base_offset for header, batch in headers if not filtered.hides(header, batch)]


def test_markers_are_never_shown() -> None:
    assert shown([data_batch(0, 7), marker(1, 7, COMMIT), data_batch(2, 7, transactional=False)]) == [0, 2]


def test_an_aborted_transaction_hides_its_own_records_until_its_marker() -> None:
    batches = [
        data_batch(0, 7),
        data_batch(1, 8),
        data_batch(2, -1, transactional=False),
        marker(3, 7, ABORT),
        data_batch(4, 7),
        marker(5, 7, COMMIT),
        marker(6, 8, COMMIT),
    ]
    assert shown(batches, (0, 7)) == [1, 2, 4]


def test_transactions_that_aborted_before_one_another() -> None:
    batches = [data_batch(0, 7), marker(1, 7, ABORT), data_batch(2, 7), data_batch(3, 8), marker(4, 7, ABORT)]
    assert shown(batches, (2, 7), (0, 7)) == [3]


def test_without_the_list_everything_is_shown() -> None:
    assert shown([data_batch(0, 7), marker(1, 7, ABORT)]) == [0]
