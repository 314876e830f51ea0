"""Errors of the log's services as Kafka's error codes."""

from __future__ import annotations

from penstock.base.errors import CorruptData, PlatformError
from penstock.keys.model import KeysErased
from penstock.log.refusals import Refused
from penstock.log.seals import BrokenSeal
from penstock.wire.error_codes import ErrorCode
from penstock.wire.failures import change_failure


def admin_failure(error: PlatformError) -> tuple[ErrorCode, str]:
    """The code and the message for a change that failed."""
    return (error.code, error.message) if isinstance(error, Refused) else change_failure(error)


def read_failure(error: PlatformError) -> ErrorCode:
    """The code for a partition that could not be read. Clients retry KAFKA_STORAGE_ERROR."""
    match error:
        case KeysErased():
            return ErrorCode.TOPIC_AUTHORIZATION_FAILED
        case BrokenSeal():
            return ErrorCode.CORRUPT_MESSAGE
        case CorruptData():
            return ErrorCode.UNKNOWN_SERVER_ERROR
        case _:
            return ErrorCode.KAFKA_STORAGE_ERROR
