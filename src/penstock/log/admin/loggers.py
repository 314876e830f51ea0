"""The levels of this process's loggers (KIP-412), under Kafka's names for levels."""

from __future__ import annotations

import logging

from penstock.log.refusals import Refused
from penstock.wire.error_codes import ErrorCode

ROOT = "root"
TRACE = 5

_LEVELS = {
    "TRACE": TRACE, "DEBUG": logging.DEBUG, "INFO": logging.INFO, "WARN": logging.WARNING,
    "ERROR": logging.ERROR, "FATAL": logging.CRITICAL,
}  # fmt: skip


def levels() -> dict[str, str]:
    """Every existing logger with its effective level, by name."""
    names = [name for name, logger in logging.root.manager.loggerDict.items() if isinstance(logger, logging.Logger)]
    return {name: _name(logging.getLogger(name).getEffectiveLevel()) for name in sorted([ROOT, *names])}


def check(name: str, level: str | None) -> None:
    """Raise `Refused` unless a logger may be given this level; None unsets it."""
    if name != ROOT and name not in levels():
        raise Refused(ErrorCode.INVALID_CONFIG, f"Logger {name} does not exist.")
    if level is None:
        if name == ROOT:
            raise Refused(ErrorCode.INVALID_REQUEST, f"The level of the {ROOT} logger cannot be unset.")
    elif level not in _LEVELS:
        raise Refused(ErrorCode.INVALID_CONFIG, f"Log level {level} is not one of {', '.join(_LEVELS)}.")


def set_level(name: str, level: str | None) -> None:
    """Set a logger's level until the process ends; None makes it inherit its parent's."""
    logging.getLogger(None if name == ROOT else name).setLevel(logging.NOTSET if level is None else _LEVELS[level])


def _name(level: int) -> str:
    below = [name for name, number in _LEVELS.items() if number <= level]
    return below[-1] if below else "TRACE"
