"""Removed records stay removed, and nothing else goes with them."""

from __future__ import annotations

from collections.abc import Sequence

from simulation.history import Fetched, Outcome, Trim
from simulation.logs import StoredLog

from penstock.wire.error_codes import ErrorCode


def check_trims(trims: Sequence[Trim], fetches: Sequence[Fetched], log: StoredLog) -> None:
    """One partition whose log start moves for no other reason."""
    mine = [trim for trim in trims if trim.partition == log.partition]
    acknowledged = [trim for trim in mine if trim.outcome is Outcome.ACKNOWLEDGED]
    # -1 asks for everything there is: how far that went, only the answer says.
    certain = max((trim.low_watermark for trim in acknowledged), default=0)
    assert log.log_start >= certain, f"the log starts at {log.log_start} again, {certain} was acknowledged"
    possible = {0, *(trim.low_watermark for trim in acknowledged), *(trim.offset for trim in mine if trim.offset >= 0)}
    open_ended = any(trim.offset < 0 and trim.outcome is Outcome.UNKNOWN for trim in mine)
    assert log.log_start in possible or open_ended, f"the log starts at {log.log_start}, where nobody cut it"
    for trim in acknowledged:
        _check_gone(trim, [fetched for fetched in fetches if fetched.partition == log.partition])


def _check_gone(trim: Trim, fetches: Sequence[Fetched]) -> None:
    """Who asks after a trim was acknowledged is not given what is below."""
    for fetched in fetches:
        if fetched.invoked_at > trim.answered_at and fetched.fetch_offset < trim.low_watermark:
            refused = fetched.error in (ErrorCode.OFFSET_OUT_OF_RANGE, ErrorCode.KAFKA_STORAGE_ERROR)
            assert refused or fetched.error is ErrorCode.UNKNOWN_TOPIC_ID, (
                f"offset {fetched.fetch_offset} can be read below the log start {trim.low_watermark}"
            )
