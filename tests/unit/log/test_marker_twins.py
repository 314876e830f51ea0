"""What transactions cost beside their records, compiled and not: markers, and what compaction notes of producers."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from penstock.base.twins import reference
from penstock.log import markers
from penstock.log.batches import Accepted
from penstock.log.commits import CONTROL, TRANSACTIONAL, ProducerBatch
from penstock.log.upkeep import wal_plan

NOW_MS = 1_000_000


@given(
    producer_id=st.integers(0, 2**63 - 1), epoch=st.integers(0, 2**15 - 1), commit=st.booleans(),
    coordinator_epoch=st.integers(-1, 2**31 - 1), now_ms=st.integers(0, 2**62),
)  # fmt: skip
def test_markers_are_the_same(**fields: Any) -> None:
    assert markers.marker(**fields) == reference(markers.marker)(**fields)
    assert type(markers.marker(**fields)) is Accepted


@given(
    st.lists(
        st.builds(
            ProducerBatch, st.sampled_from((1, 2, 3)), st.sampled_from((0, 0, 1)), st.just(0), st.just(0),
            st.integers(0, 99), st.just(NOW_MS), st.sampled_from((0, 0, TRANSACTIONAL, TRANSACTIONAL | CONTROL)),
        ),
        max_size=9,
    )
)  # fmt: skip
def test_a_pass_of_compaction_notes_producers(batches: list[ProducerBatch]) -> None:
    seen = []
    for function in (wal_plan.note_producers, reference(wal_plan.note_producers)):
        producers, found = dict[int, wal_plan.PassProducer](), 0
        for number, some in enumerate((batches[:4], batches[4:])):
            found += function(producers, 100 * number, tuple(some), NOW_MS + number)
        seen.append((found, [(key, one.epoch, one.last_ms, list(one.batches)) for key, one in producers.items()]))
        assert found == len(producers)
    assert seen[0] == seen[1]
