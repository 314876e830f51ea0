"""What a client is told when the log's services raise: our few errors as Kafka codes."""

from __future__ import annotations

from penstock.base.errors import CorruptData, InvalidRequest, OutcomeUnknown, PlatformError
from penstock.keys.model import KeysErased
from penstock.log.refusals import Refused
from penstock.log.seals import BrokenSeal
from penstock.wire.error_codes import ErrorCode


def admin_failure(error: PlatformError) -> tuple[ErrorCode, str]:
    """The code and the sentence for a change that failed. Clients retry NOT_CONTROLLER, nothing happened there."""
    match error:
        case Refused(code=code, message=message):
            return code, message
        case InvalidRequest():
            return ErrorCode.INVALID_REQUEST, str(error)
        case OutcomeUnknown():
            return ErrorCode.REQUEST_TIMED_OUT, str(error)
        case CorruptData():
            return ErrorCode.UNKNOWN_SERVER_ERROR, str(error)
        case _:
            return ErrorCode.NOT_CONTROLLER, str(error)


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
