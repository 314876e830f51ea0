"""What clients are told when the coordinator cannot answer. The only place with such codes."""

from __future__ import annotations

from penstock.base.errors import Fenced, PlatformError
from penstock.coordination.model import Loading
from penstock.log.refusals import Refused
from penstock.wire.error_codes import ErrorCode

ASK_AGAIN = ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
"""For what an answer has no room for: clients ask again for that, and keep the rest."""


def code_of(error: PlatformError) -> ErrorCode:
    """Kafka's code for a failure; those of the platform make clients try again."""
    if isinstance(error, Refused):
        return error.code
    if isinstance(error, Loading):
        return ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    if isinstance(error, Fenced):
        return ErrorCode.NOT_COORDINATOR
    return ErrorCode.COORDINATOR_NOT_AVAILABLE


def message_of(error: PlatformError) -> str | None:
    """What is said beside the code: why something was refused. What ails the platform is for its own log."""
    return error.message or None if isinstance(error, Refused) else None
