"""The rules of GetTelemetrySubscriptions and PushTelemetry (KIP-714), with the error codes of Kafka's brokers. Pure.

A client may get its subscription once per interval, and push once per interval, or at any time after getting the
subscription, because clients spread their first pushes by a random delay. If the subscription has changed, a push gets
UNKNOWN_SUBSCRIPTION_ID, after which the client may get the new one at once.
"""

from __future__ import annotations

from dataclasses import replace

from penstock.telemetry.model import ClientState, Subscription
from penstock.wire.compression import Compression
from penstock.wire.error_codes import ErrorCode

MAY_GET_AT_ONCE = (ErrorCode.UNKNOWN_SUBSCRIPTION_ID, ErrorCode.UNSUPPORTED_COMPRESSION_TYPE)
"""Errors after which a client has to get its subscription again, without waiting for the interval."""


def current(state: ClientState | None, subscription: Subscription) -> ClientState:
    """The state of a client; a new one if the client is unknown or its subscription has changed."""
    if state is None or state.subscription_id != subscription.subscription_id:
        return ClientState(subscription_id=subscription.subscription_id, interval_ms=subscription.interval_ms)
    return state


def get(state: ClientState, now_ms: int) -> tuple[ClientState, ErrorCode]:
    """Decide GetTelemetrySubscriptions."""
    last_ms = max(state.last_get_ms, state.last_push_ms)
    if now_ms - last_ms < state.interval_ms and state.last_error not in MAY_GET_AT_ONCE:
        return state, ErrorCode.THROTTLING_QUOTA_EXCEEDED
    return replace(state, last_get_ms=now_ms, may_push=True, last_error=ErrorCode.NONE), ErrorCode.NONE


def push(
    state: ClientState, now_ms: int, *, subscription_id: int, compression: int, size_bytes: int, max_bytes: int,
    terminating: bool,
) -> tuple[ClientState, ErrorCode]:  # fmt: skip
    """Decide PushTelemetry. A terminating client pushes for the last time."""
    error = ErrorCode.NONE
    in_time = state.may_push or now_ms - state.last_push_ms >= state.interval_ms
    if state.terminating:
        error = ErrorCode.INVALID_REQUEST
    elif not in_time and not terminating:
        error = ErrorCode.THROTTLING_QUOTA_EXCEEDED
    else:
        if in_time:
            state = replace(state, last_push_ms=now_ms, may_push=False)
        if subscription_id != state.subscription_id:
            error = ErrorCode.UNKNOWN_SUBSCRIPTION_ID
        elif compression not in Compression.__members__.values():
            error = ErrorCode.UNSUPPORTED_COMPRESSION_TYPE
        elif size_bytes > max_bytes:
            error = ErrorCode.TELEMETRY_TOO_LARGE
    return replace(state, terminating=state.terminating or terminating, last_error=error), error
