"""`small_log` with one safeguard off, named by `PENSTOCK_TEST_BREAK`: whoever checks histories must notice."""

from __future__ import annotations

import os
import sys
from functools import partial

from small_log import TUNING

from penstock.__main__ import main as command_line
from penstock.agent import main
from penstock.log import model, writer
from penstock.transactions import store
from penstock.transactions.cells import Cell
from penstock.transactions.model import EndMarkers
from penstock.transactions.service import TransactionService


def offsets_are_not_committed() -> None:
    """What relays have read is not committed with what they have written."""
    store._commit_offsets = lambda cluster_id, producer_id: iter(())  # type: ignore[assignment,return-value]


def open_data_is_shown() -> None:
    """Readers of committed data get what is not decided yet."""
    model.Partition.last_stable_offset = property(lambda self: self.next_offset)  # type: ignore[assignment,misc]


def ends_miss_a_partition() -> None:
    """Of several partitions of an aborted transaction one gets a marker that says the opposite."""
    write_markers = TransactionService.write_markers

    def torn(self, flush, cell, ending):  # type: ignore[no-untyped-def]
        first, *others = self.partitions_of(cell) or [None]
        write_markers(self, flush, Cell(cell.txn, dict.fromkeys(others)), ending)
        if first is not None:
            opposite = EndMarkers(ending.producer, commit=not ending.commit if others else ending.commit)
            write_markers(self, flush, Cell(cell.txn, {first: None}), opposite)

    TransactionService.write_markers = torn  # type: ignore[method-assign]


def producers_are_not_judged() -> None:
    """Batches that were sent again are appended again."""
    writer.check_sequence = lambda *args: None  # type: ignore[assignment]


if __name__ == "__main__":
    globals()[os.environ["PENSTOCK_TEST_BREAK"]]()
    main.run = partial(main.run, tuning=TUNING)  # type: ignore[assignment]  # What `up` calls.
    sys.exit(command_line())
