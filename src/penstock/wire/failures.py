"""Our errors as Kafka error codes, for responses to failed changes."""

from __future__ import annotations

from penstock.base.errors import CorruptData, InvalidRequest, OutcomeUnknown, PlatformError
from penstock.wire.error_codes import ErrorCode

ApiError = tuple[ErrorCode, str | None]
"""An error code and a message, as in most of Kafka's responses."""
NO_ERROR: ApiError = ErrorCode.NONE, None


def change_failure(
    error: PlatformError, *, invalid: ErrorCode = ErrorCode.INVALID_REQUEST,
    unknown: ErrorCode = ErrorCode.REQUEST_TIMED_OUT,
) -> tuple[ErrorCode, str]:  # fmt: skip
    """The code and message of an error. Clients retry after NOT_CONTROLLER (nothing changed) and REQUEST_TIMED_OUT.

    `invalid`: the code for an invalid request. `unknown`: the code for a change that may have happened; not
    REQUEST_TIMED_OUT if it must not be made twice.
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
