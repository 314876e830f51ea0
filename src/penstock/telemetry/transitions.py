"""Rules of asking for subscriptions and of pushing metrics, with the codes of Kafka's brokers. Pure.

A client asks once per interval, and pushes once per interval or right after it has asked, because clients spread their
pushes. Whoever is asked for something else from now on is told by UNKNOWN_SUBSCRIPTION_ID, and may ask at once.
"""

from __future__ import annotations

from dataclasses import replace

from penstock.telemetry.model import Instance, Subscribed
from penstock.wire.compression import Compression
from penstock.wire.error_codes import ErrorCode

ASK_AGAIN = (ErrorCode.UNKNOWN_SUBSCRIPTION_ID, ErrorCode.UNSUPPORTED_COMPRESSION_TYPE)
"""After these a client has to ask anew, and need not wait for that."""


def current(instance: Instance | None, wanted: Subscribed) -> Instance:
    """What is remembered of a client, begun anew if it is not known or asked for something else."""
    if instance is None or instance.subscription_id != wanted.subscription_id:
        return Instance(subscription_id=wanted.subscription_id, interval_ms=wanted.interval_ms)
    return instance


def get(instance: Instance, now_ms: int) -> tuple[Instance, ErrorCode]:
    """A client asks what it is asked for."""
    last_ms = max(instance.last_get_ms, instance.last_push_ms)
    if now_ms - last_ms < instance.interval_ms and instance.last_error not in ASK_AGAIN:
        return instance, ErrorCode.THROTTLING_QUOTA_EXCEEDED
    return replace(instance, last_get_ms=now_ms, may_push=True, last_error=ErrorCode.NONE), ErrorCode.NONE


def push(
    instance: Instance, now_ms: int, *, subscription_id: int, compression: int, size_bytes: int, max_bytes: int,
    terminating: bool,
) -> tuple[Instance, ErrorCode]:  # fmt: skip
    """A client pushes metrics, for the last time if it is terminating."""
    error = ErrorCode.NONE
    in_time = instance.may_push or now_ms - instance.last_push_ms >= instance.interval_ms
    if instance.terminating:
        error = ErrorCode.INVALID_REQUEST
    elif not in_time and not terminating:
        error = ErrorCode.THROTTLING_QUOTA_EXCEEDED
    else:
        if in_time:
            instance = replace(instance, last_push_ms=now_ms, may_push=False)
        if subscription_id != instance.subscription_id:
            error = ErrorCode.UNKNOWN_SUBSCRIPTION_ID
        elif compression not in Compression.__members__.values():
            error = ErrorCode.UNSUPPORTED_COMPRESSION_TYPE
        elif size_bytes > max_bytes:
            error = ErrorCode.TELEMETRY_TOO_LARGE
    return replace(instance, terminating=instance.terminating or terminating, last_error=error), error
