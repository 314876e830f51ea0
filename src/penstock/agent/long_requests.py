"""Requests and answers that are long: which are, and what is done with them beside the loop.

Reading a hundred thousand elements, writing as many, and even forgetting them takes a tenth of a second each. On a
thread that takes as long, but whoever else wants the interpreter gets it in between, if no single step is long.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from penstock.base.clock import Clock
from penstock.base.context import RequestContext
from penstock.base.threads import OnThread
from penstock.base.twins import in_use
from penstock.log.answers import Appended
from penstock.log.fetch import TOPIC_IDS_SINCE
from penstock.log.fetch_sessions import Named, named_by
from penstock.log.produce import ProduceHandler, portions_of, response_of
from penstock.wire import codec
from penstock.wire.api_keys import ApiKey
from penstock.wire.codec import RequestHeader
from penstock.wire.messages.fetch import FetchRequest
from penstock.wire.messages.produce import ProduceRequest, ProduceResponse
from penstock.wire.primitives import Buffer, Message, let_go, parts_of

SHORT_REQUEST_BYTES = 8 * 1024
"""No request of so few bytes has more elements than are read in some milliseconds."""
LONG_REQUEST_BYTES = 64 * 1024
"""A longer request, unless it carries records, is read beside the loop: that takes more than some milliseconds."""
LONG_REQUEST_ELEMENTS = 5_000
"""So is a shorter one that has more elements."""
LONG_ANSWER_PARTS = 5_000
"""An answer of more parts is written there."""
PRODUCED_AT_ONCE = 1_000
"""Partitions of a produce request that are judged and written together: some milliseconds, and as many when they are
durable. No producer sends more, but by accident or with intent."""

Frame = bytes | memoryview


# ---- which are long --------------------------------------------------------------------------------------------


def may_be_plain(frame: Frame) -> bool:
    """Whether to try to read a frame as a plain produce request at once. Without the twin, a hundred thousand
    partitions take a tenth of a second."""
    return len(frame) <= LONG_REQUEST_BYTES or in_use()


def read_short(header: RequestHeader, frame: Frame) -> Any | None:
    """A request, unless that may take long to read. None if it may, or if there is something wrong with it."""
    key, version = header.api_key, header.api_version
    if key == ApiKey.PRODUCE:
        return codec.read_short_request(key, version, frame, header.body, PRODUCED_AT_ONCE)
    if len(frame) > LONG_REQUEST_BYTES:
        return None
    return codec.read_short_request(key, version, frame, header.body, LONG_REQUEST_ELEMENTS)


def is_long(key: int, response: Any) -> bool:
    """Whether an answer takes long to write."""
    if key not in (ApiKey.FETCH, ApiKey.SHARE_FETCH):
        return parts_of(response, LONG_ANSWER_PARTS) > LONG_ANSWER_PARTS
    # Their records are long, and not written.
    count = 0
    for topic in response.responses:
        count += len(topic.partitions)
        if count > LONG_ANSWER_PARTS:
            return True
    return False


# ---- what is done on a thread ----------------------------------------------------------------------------------


def read_fetch(version: int, frame: Frame, position: int) -> tuple[FetchRequest, Named]:
    """A fetch request, and the partitions it names, which it is without then."""
    request: FetchRequest = codec.read_request(ApiKey.FETCH, version, frame, position)
    named = named_by(request, by_id=version >= TOPIC_IDS_SINCE)
    held: list[Message] = [*request.topics]
    request.topics = []
    let_go(held)
    return request, named


class Portions(NamedTuple):
    """A produce request, and the same in portions. Of what is named twice there is only the last in either."""

    request: ProduceRequest
    portions: list[ProduceRequest]


def read_produce(version: int, frame: Frame, position: int) -> Portions:
    """A produce request of very many partitions."""
    request: ProduceRequest = codec.read_request(ApiKey.PRODUCE, version, frame, position)
    return Portions(request, portions_of(request, PRODUCED_AT_ONCE))


def produce_response(request: ProduceRequest, results: Sequence[Appended], throttle_ms: int) -> ProduceResponse:
    """What its producer is told."""
    response = response_of(request, results)
    response.throttle_time_ms = throttle_ms
    return response


def encode_long(key: int, version: int, correlation_id: int, held: list[Message]) -> list[Buffer]:
    """The frame of a response, which nobody but the list holds."""
    return codec.encode_response(key, version, correlation_id, held[0], is_long=True)


async def release(offload: OnThread, held: list[Message]) -> None:
    """Forget messages, which nobody but the list holds."""
    if held:
        with contextlib.suppress(RuntimeError):  # There is no thread any more, nor anybody who would have to wait.
            await offload(partial(let_go, held))


# ---- portion by portion ----------------------------------------------------------------------------------------


class _NoOrder:
    """The line of a request that is written in portions: those behind it wait until the last one is."""

    def hold(self) -> None:
        """They wait already."""

    def release(self) -> None:
        """They go on waiting."""


_NO_ORDER = _NoOrder()


async def write_portions(
    handler: ProduceHandler, context: RequestContext, asked: Portions, clock: Clock
) -> list[Appended]:
    """Have a produce request written, one portion after the other; what became of its partitions."""
    results, began_s = list[Appended](), clock.monotonic()
    for portion in asked.portions:
        spent_ms = int(1000 * (clock.monotonic() - began_s))
        portion.timeout_ms = max(asked.request.timeout_ms - spent_ms, 1)
        answer: asyncio.Future[list[Appended]] = asyncio.get_running_loop().create_future()
        handler.handle(context, portion, answer.set_result, _NO_ORDER)
        await asyncio.sleep(0)  # It may be known at once.
        results += await answer
    return results
