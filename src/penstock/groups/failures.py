"""Errors of the coordinator as Kafka's error codes. The only place with such codes."""

from __future__ import annotations

from penstock.base.errors import Fenced, PlatformError
from penstock.coordination.model import CoordinatorLoading
from penstock.log.refusals import Refused
from penstock.wire.error_codes import ErrorCode

ASK_AGAIN = ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
"""The error for what no longer fits into the response: clients keep the rest and ask again for these."""


def code_of(error: PlatformError) -> ErrorCode:
    """Kafka's code for an error; errors of the platform are retriable for clients."""
    if isinstance(error, Refused):
        return error.code
    if isinstance(error, CoordinatorLoading):
        return ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    if isinstance(error, Fenced):
        return ErrorCode.NOT_COORDINATOR
    return ErrorCode.COORDINATOR_NOT_AVAILABLE


def offset_fetch_code_of(error: PlatformError) -> ErrorCode:
    """The same for OffsetFetch. Consumers give up after COORDINATOR_NOT_AVAILABLE, which Kafka does not send there:
    Java's throws, librdkafka's never reads a record of these partitions. They ask again while a coordinator loads."""
    code = code_of(error)
    return ASK_AGAIN if code is ErrorCode.COORDINATOR_NOT_AVAILABLE else code


def message_of(error: PlatformError) -> str | None:
    """The message for a refusal. Errors of the platform are logged, and not shown to clients."""
    return error.message or None if isinstance(error, Refused) else None
