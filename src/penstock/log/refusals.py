"""`Refused`: the error of a request that is answered with one of Kafka's error codes and a message."""

from __future__ import annotations

from penstock.base.errors import InvalidRequest
from penstock.wire.error_codes import ErrorCode


class Refused(InvalidRequest):
    """A refused request; `code` is Kafka's error code for it."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
