"""What a client is told when a change failed: our few errors as Kafka codes."""

from __future__ import annotations

from penstock.base.errors import CorruptData, InvalidRequest, OutcomeUnknown, PlatformError
from penstock.wire.error_codes import ErrorCode


def change_failure(
    error: PlatformError, *, invalid: ErrorCode = ErrorCode.INVALID_REQUEST,
    unknown: ErrorCode = ErrorCode.REQUEST_TIMED_OUT,
) -> tuple[ErrorCode, str]:  # fmt: skip
    """The code and the sentence. Clients retry NOT_CONTROLLER, for which nothing happened, and REQUEST_TIMED_OUT.

    `invalid`: of a request that has to be changed. `unknown`: of a change that may have happened; another one than
    REQUEST_TIMED_OUT where it must not happen twice.
    """
    match error:
        case InvalidRequest():
            return invalid, str(error)
        case OutcomeUnknown():
            return unknown, str(error)
        case CorruptData():
            return ErrorCode.UNKNOWN_SERVER_ERROR, str(error)
        case _:
            return ErrorCode.NOT_CONTROLLER, str(error)
