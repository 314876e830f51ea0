"""A request that is turned down with one of Kafka's error codes and a sentence."""

from __future__ import annotations

from penstock.base.errors import InvalidRequest
from penstock.wire.error_codes import ErrorCode


class Refused(InvalidRequest):
    """Turned down; `code` is what a Kafka client is told."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
