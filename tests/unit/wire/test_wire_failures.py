"""Error codes of changes that failed."""

from __future__ import annotations

import pytest

from penstock.base.errors import (
    Conflict,
    CorruptData,
    Fenced,
    InvalidRequest,
    OutcomeUnknown,
    PlatformError,
    Unavailable,
)
from penstock.wire.error_codes import ErrorCode
from penstock.wire.failures import change_failure


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidRequest("a"), ErrorCode.INVALID_REQUEST),
        (Unavailable("b"), ErrorCode.NOT_CONTROLLER),
        (Conflict("c"), ErrorCode.NOT_CONTROLLER),
        (Fenced("d"), ErrorCode.NOT_CONTROLLER),
        (OutcomeUnknown("e"), ErrorCode.REQUEST_TIMED_OUT),
        (CorruptData("f"), ErrorCode.UNKNOWN_SERVER_ERROR),
    ],
)
def test_only_what_may_be_tried_again_is_told_by_a_retriable_code(error: PlatformError, code: ErrorCode) -> None:
    assert change_failure(error) == (code, str(error))


def test_what_is_not_to_happen_twice_has_a_code_of_its_own() -> None:
    final = ErrorCode.UNKNOWN_SERVER_ERROR
    assert change_failure(OutcomeUnknown("a"), unknown=final) == (final, "a")
    assert change_failure(InvalidRequest("a"), invalid=ErrorCode.POLICY_VIOLATION)[0] == ErrorCode.POLICY_VIOLATION
