"""A fetch returns whole batches, in a row, from the one with the offset asked for, below the high watermark."""

from __future__ import annotations

from collections.abc import Iterable

from simulation.history import Fetched
from simulation.logs import batches_of

from penstock.wire.error_codes import ErrorCode
from penstock.wire.records import crc_of


def check_fetches(fetches: Iterable[Fetched], *, with_gaps: bool = False) -> None:
    """Look at every answer. `with_gaps`: key compaction may have taken batches out."""
    for fetched in fetches:
        if fetched.error is not ErrorCode.NONE:
            assert not fetched.records, "records beside an error"
            continue
        total, following = 0, None
        for batch in batches_of(fetched.records):
            header = batch.header
            total += header.size_bytes
            assert crc_of(batch.data) == header.crc, f"the batch at {header.base_offset} is damaged"
            assert header.last_offset < fetched.high_watermark, "a record above the high watermark"
            if following is None:
                assert header.last_offset >= fetched.fetch_offset, "a batch from before the offset asked for"
                first_fits = header.base_offset <= fetched.fetch_offset
                assert first_fits or with_gaps, f"asked for {fetched.fetch_offset}, got {header.base_offset}"
            else:
                in_a_row = header.base_offset == following
                assert in_a_row or (with_gaps and header.base_offset > following), (
                    f"after {following - 1} something else"
                )
            following = header.last_offset + 1
        assert total == len(fetched.records), "a part of a batch was returned"
