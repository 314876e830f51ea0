"""From a frame to its response: reads the header, finds the API, runs the handler, fills the slot.

Produce and Fetch are answered by callbacks, without a task of their own in the common case. Everything else is a
coroutine that the connection waits for.

Where somebody has limits, `throttles` is there: what a produce request carries is counted when it arrives, everything
else when it is answered. Over a limit a connection is muted at once, and its next response says for how long.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

from penstock.agent import api_versions, long_requests
from penstock.agent.apis import Api, Begin
from penstock.agent.connection import Connection, Slot
from penstock.agent.repeated_produce import RepeatedProduce
from penstock.agent.throttling import Stopwatch, record_bytes, throttle, timed
from penstock.base.clock import Clock
from penstock.base.context import RequestContext
from penstock.base.errors import PlatformError
from penstock.base.threads import OnThread
from penstock.log.answers import TIMED_OUT, Appended
from penstock.log.fetch import FetchHandler
from penstock.log.fetch_sessions import Named
from penstock.log.produce import ProduceHandler, refusal_of, response_of, response_of_plain
from penstock.quotas.throttles import ClientMeters, Throttles, count_time
from penstock.wire import codec
from penstock.wire.api_keys import ApiKey
from penstock.wire.codec import RequestHeader
from penstock.wire.hot import (
    PlainProduce,
    ProduceShape,
    TakenProduce,
    answer,
    answer_produce,
    learn,
    read_produce,
    take,
)
from penstock.wire.messages.produce import ProduceRequest
from penstock.wire.primitives import Malformed, Message

_PRODUCE = int(ApiKey.PRODUCE)
_BESIDE_BATCHES = frozenset(
    (
        ApiKey.PRODUCE, ApiKey.ADD_PARTITIONS_TO_TXN, ApiKey.ADD_OFFSETS_TO_TXN, ApiKey.TXN_OFFSET_COMMIT,
        ApiKey.END_TXN,
    )
)  # fmt: skip
"""Requests that are begun while batches that came before them are being written: those of transactions are put in order
with batches by the flush that they share. Any other one may depend on what is in the log."""
_log = logging.getLogger(__name__)


class RepeatedProduceTicket:
    """A produce request of one partition on its way."""

    __slots__ = ("_connection", "_shape", "_slot", "_taken")

    def __init__(self, connection: Connection, slot: Slot, shape: ProduceShape, taken: TakenProduce) -> None:
        self._connection, self._shape, self._taken = connection, shape, taken
        self._slot: Slot | None = slot
        """Where its answer goes; None once it has timed out."""

    @property
    def timeout_ms(self) -> int | None:
        """How long is waited for the answer."""
        return None if self._slot is None else self._shape.timeout_ms

    def time_out(self) -> None:
        """Answer now."""
        self.settle(0, TIMED_OUT)
        self._slot = None

    def settle(self, position: int, result: Appended) -> None:
        """Answer it."""
        connection, slot, shape, taken = self._connection, self._slot, self._shape, self._taken
        if connection.closed or slot is None:
            return
        error, base_offset, append_time_ms, log_start, _, _ = result
        throttle_ms = connection.throttle_ms
        if throttle_ms:
            connection.throttle_ms = 0
        if error:
            key, version = ApiKey.PRODUCE, shape.version
            response = refusal_of(shape.topic_name, shape.topic_id, taken.partition_index, result)
            response.throttle_time_ms = throttle_ms
            connection.fill(slot, codec.encode_response(key, version, taken.correlation_id, response))
            return
        answered = answer(
            shape, taken.correlation_id, taken.partition_index, base_offset, append_time_ms, log_start, throttle_ms
        )
        connection.fill(slot, [answered])


class Dispatcher:
    """Answers requests of all connections."""

    def __init__(self, *, produce: ProduceHandler, fetch: FetchHandler, clock: Clock) -> None:
        self._produce, self._fetch, self._clock = produce, fetch, clock
        self.throttles: Throttles | None = None
        """Who limits clients, while any has a limit."""
        self.offload: OnThread | None = None
        """Where long requests are read and long answers written, so that nobody else waits for that."""
        self.table: Mapping[int, Api] = {}
        """The APIs that are answered."""
        self.requests = dict.fromkeys(map(int, ApiKey), 0)
        """How many requests came, by API key."""
        self._producing: set[asyncio.Task[None]] = set()

    def serve(self, table: Mapping[int, Api]) -> None:
        """Answer these APIs from now on."""
        self.table = table

    def __call__(self, connection: Connection, frame: bytes | memoryview) -> None:
        """Start answering one frame. Raises `Malformed` when the connection must end."""
        repeated = connection.repeated_produce
        if repeated is not None and self._produce_repeated(connection, repeated, frame):
            return
        plain = read_produce(frame) if long_requests.may_be_plain(frame) else None
        if plain is not None and len(plain.shares) <= long_requests.PRODUCED_AT_ONCE:
            self._produce_plainly(connection, plain, frame)
            return
        header = codec.read_request_header(frame, 0)
        key, version = header.api_key, header.api_version
        api = self.table.get(key)
        if api is None or version not in api.versions:
            if key != ApiKey.API_VERSIONS or api is None:
                raise Malformed(f"{_name(key)} v{version} is not served (client id {header.client_id!r})")
            slot, refusal = connection.open_slot(key), api_versions.unsupported(self.table)
            self._reply(connection, slot, key, 0, header.correlation_id, refusal)
            return
        if key not in _BESIDE_BATCHES and connection.must_follow(frame):
            return
        self.requests[key] += 1
        if len(frame) > long_requests.SHORT_REQUEST_BYTES and self.offload is not None:
            request = long_requests.read_short(header, frame)
            if request is None:
                self._take_long(connection, self.offload, api, header, frame)
                return
        else:
            try:
                request = codec.read_request(key, version, frame, header.body)
            except Malformed as problem:
                raise Malformed(f"{problem} (client id {header.client_id!r})") from problem
        if key == ApiKey.API_VERSIONS and request.client_software_name:
            connection.introduce(request.client_software_name, request.client_software_version)
        connection.correlation_id = header.correlation_id
        context = connection.context(version, header.client_id)
        slot = connection.open_slot(key)
        if key == ApiKey.PRODUCE:
            counted = self._count_produce(connection, context, len(frame), tell=request.acks != 0)
            self._produce.handle(
                context,
                request,
                partial(self._produced, connection, slot, version, header.correlation_id, request),
                connection,
            )
            if counted is not None:
                count_time(*counted, self._clock.monotonic() * 1000)
            return
        throttle_ms, stopwatch = self._arrived(context, len(frame))
        if key == ApiKey.FETCH:
            self._start_fetch(connection, slot, context, header.correlation_id, request, throttle_ms, stopwatch)
        else:
            connection.hold()
            run = partial(
                self._run, connection, slot, api, context, key, header.correlation_id, request, throttle_ms, stopwatch
            )
            if api.begin is not None and self.throttles is None:
                self._begin(connection, slot, api.begin, context, key, header.correlation_id, request, run)
            else:
                connection.task = connection.spawn(run())

    def _arrived(self, context: RequestContext, size_bytes: int) -> tuple[int, Stopwatch | None]:
        """For how long the connection of a request has to wait once that is answered, and what measures it, if that
        matters. Nobody pays for those who only say that they are of a cluster."""
        if self.throttles is None or not context.is_proven:
            return 0, None
        client = self.throttles.client(context)
        throttle_ms = self.throttles.on_request(client, size_bytes)
        return throttle_ms, None if client.request_time is None else Stopwatch(client, self._clock)

    def _take_long(
        self, connection: Connection, offload: OnThread, api: Api, header: RequestHeader, frame: bytes | memoryview
    ) -> None:
        """Start answering a request that takes so long to read that others are not to wait for it."""
        connection.hold()
        if header.api_key != ApiKey.PRODUCE:
            connection.task = connection.spawn(self._answer_long(connection, offload, api, header, frame))
            return
        # What was produced is written, whether its client is still there or not.
        self._produce.decoding_bytes += len(frame)
        task = connection.spawn(self._produce_long(connection, offload, header, frame))
        self._producing.add(task)
        task.add_done_callback(self._producing.discard)

    async def drain(self) -> None:
        """Wait until everything that came to be produced is on its way."""
        while self._producing:
            await asyncio.wait(self._producing)

    async def _answer_long(
        self, connection: Connection, offload: OnThread, api: Api, header: RequestHeader, frame: bytes | memoryview
    ) -> None:
        key, version = header.api_key, header.api_version
        held, named = list[Message](), None
        try:
            if key == ApiKey.FETCH:
                request, named = await offload(partial(long_requests.read_fetch, version, frame, header.body))
            else:
                held.append(await offload(partial(codec.read_request, key, version, frame, header.body)))
            connection.correlation_id = header.correlation_id
            context, slot = connection.context(version, header.client_id), connection.open_slot(key)
            throttle_ms, stopwatch = self._arrived(context, len(frame))
            if named is not None:
                self._start_fetch(
                    connection, slot, context, header.correlation_id, request, throttle_ms, stopwatch, named
                )
            else:
                await self._run(
                    connection, slot, api, context, key, header.correlation_id, held[0], throttle_ms, stopwatch
                )
        except Malformed as problem:
            connection.refuse(f"{problem} (client id {header.client_id!r})")
        except Exception:  # noqa: BLE001  # a bug of ours must cost one connection, never the process
            _log.exception("%s v%d failed", ApiKey(key).name, version)
            connection.close()
        finally:
            await long_requests.release(offload, held)

    async def _produce_long(
        self, connection: Connection, offload: OnThread, header: RequestHeader, frame: bytes | memoryview
    ) -> None:
        held = list[Message]()
        try:
            await self._produce_portions(connection, offload, header, frame, held)
        except Malformed as problem:
            connection.refuse(f"{problem} (client id {header.client_id!r})")
        except Exception:  # noqa: BLE001  # a bug of ours must cost one connection, never the process
            _log.exception("PRODUCE v%d failed", header.api_version)
            connection.close()
        finally:
            self._produce.decoding_bytes -= len(frame)
            await long_requests.release(offload, held)

    async def _produce_portions(
        self, connection: Connection, offload: OnThread, header: RequestHeader, frame: bytes | memoryview,
        held: list[Message],
    ) -> None:  # fmt: skip
        """Have written what is of very many partitions, so many at a time; `held` gets what is to be let go of."""
        version, correlation_id = header.api_version, header.correlation_id
        request, portions = asked = await offload(partial(long_requests.read_produce, version, frame, header.body))
        held += (request, *portions)
        connection.correlation_id = correlation_id
        context, slot = connection.context(version, header.client_id), connection.open_slot(ApiKey.PRODUCE)
        counted = self._count_produce(connection, context, len(frame), tell=request.acks != 0)
        results = await long_requests.write_portions(self._produce, context, asked, self._clock)
        if counted is not None:
            count_time(*counted, self._clock.monotonic() * 1000)
        if connection.closed:
            return
        if request.acks == 0:
            self._produced(connection, slot, version, correlation_id, request, results)
            connection.release()
            return
        throttle_ms, connection.throttle_ms = connection.throttle_ms, 0
        answer: list[Message] = [await offload(partial(long_requests.produce_response, request, results, throttle_ms))]
        await self._write_long(connection, offload, slot, ApiKey.PRODUCE, version, correlation_id, answer)

    def _produce_repeated(self, connection: Connection, repeated: RepeatedProduce, frame: bytes | memoryview) -> bool:
        """Start answering a produce request like the connection's last one; False if it is another request."""
        shape = repeated.shape
        if type(frame) is not bytes:
            return False
        taken = take(shape, frame)
        if taken is None:
            return False
        self.requests[ApiKey.PRODUCE] += 1
        connection.correlation_id = taken.correlation_id
        throttles, client, since_ms = self.throttles, None, 0.0
        if throttles is not None:
            if repeated.version != throttles.version:
                repeated.client, repeated.version = throttles.client(repeated.context), throttles.version
            client, since_ms = repeated.client, self._clock.monotonic() * 1000
            assert client is not None
            throttle_ms = throttles.on_produce(client, len(frame), since_ms)
            if throttle_ms:
                _hold_off(connection, throttle_ms, tell=True)
        self._produce.handle_one(
            repeated.context, shape, taken.partition_index, memoryview(frame)[taken.start : taken.end],
            RepeatedProduceTicket(connection, connection.open_slot(_PRODUCE), shape, taken), repeated, connection,
        )  # fmt: skip
        if client is not None and client.request_time is not None:
            count_time(client, since_ms, self._clock.monotonic() * 1000)
        return True

    def _produce_plainly(self, connection: Connection, plain: PlainProduce, frame: bytes | memoryview) -> None:
        """Start answering a produce request that was read without a message."""
        self.requests[ApiKey.PRODUCE] += 1
        context = connection.context(plain.version, plain.client_id)
        if type(frame) is bytes and len(plain.shares) == 1 and plain.transactional_id is None:
            shape = learn(frame)
            connection.repeated_produce = None if shape is None else RepeatedProduce(shape, context)
        slot = connection.open_slot(_PRODUCE)
        counted = self._count_produce(connection, context, len(frame), tell=True)
        self._produce.handle_plain(
            context, plain, frame, partial(self._plainly_produced, connection, slot, plain), connection
        )
        if counted is not None:
            count_time(*counted, self._clock.monotonic() * 1000)

    def _plainly_produced(
        self, connection: Connection, slot: Slot, plain: PlainProduce, results: list[Appended]
    ) -> None:
        if connection.closed:
            return
        throttle_ms, connection.throttle_ms = connection.throttle_ms, 0
        answered = answer_produce(plain, results, throttle_ms)
        if answered is not None:
            connection.fill(slot, [answered])
            return
        response = response_of_plain(plain, results)
        response.throttle_time_ms = throttle_ms
        self._reply(connection, slot, ApiKey.PRODUCE, plain.version, plain.correlation_id, response)

    def _count_produce(
        self, connection: Connection, context: RequestContext, size_bytes: int, *, tell: bool
    ) -> tuple[ClientMeters, float] | None:
        """A produce request arrived: mute its connection if that was too much. The time it takes counts for the next
        one, because it is not known before this one is on its way. Whose it is, and when it began, if anybody counts.
        """
        if self.throttles is None:
            return None
        client, now_ms = self.throttles.client(context), self._clock.monotonic() * 1000
        throttle_ms = self.throttles.on_produce(client, size_bytes, now_ms)
        if throttle_ms:
            _hold_off(connection, throttle_ms, tell=tell)
        return client, now_ms

    def _produced(
        self, connection: Connection, slot: Slot, version: int, correlation_id: int, request: ProduceRequest,
        results: list[Appended],
    ) -> None:  # fmt: skip
        if connection.closed:
            return
        if request.acks == 0:
            if any(result.error for result in results):
                # Nobody reads an answer; a closed connection is how such a producer learns of a failure.
                connection.refuse("it produces without acknowledgements, and what it sent cannot be written")
            else:
                connection.fill(slot, [])
            return
        response = response_of(request, results)
        response.throttle_time_ms, connection.throttle_ms = connection.throttle_ms, 0
        self._reply(connection, slot, ApiKey.PRODUCE, version, correlation_id, response)

    def _start_fetch(
        self, connection: Connection, slot: Slot, context: RequestContext, correlation_id: int, request: Any,
        throttle_ms: int, stopwatch: Stopwatch | None, named: Named | None = None,
    ) -> None:  # fmt: skip
        answered = False

        def done(response: Message, waited_s: float) -> None:
            nonlocal answered
            answered = True
            slot.since_s += waited_s
            if connection.closed:
                return
            if self.throttles is not None:
                time_ms = 0 if stopwatch is None else self.throttles.on_time(stopwatch.client, stopwatch.spent_s())
                throttle(connection, response, max(time_ms, throttle_ms))
            if self.offload is not None and long_requests.is_long(ApiKey.FETCH, response):
                connection.hold()
                connection.cancel_wait = None
                connection.task = connection.spawn(
                    self._write_long(
                        connection, self.offload, slot, ApiKey.FETCH, context.api_version, correlation_id, [response]
                    )
                )
                return
            self._reply(connection, slot, ApiKey.FETCH, context.api_version, correlation_id, response)
            if connection.held:
                connection.release()

        cancel = self._fetch.handle(context, request, done, named)
        if not answered:
            if stopwatch is not None:
                stopwatch.pause()
            connection.hold()
            connection.cancel_wait = cancel

    def _begin(
        self, connection: Connection, slot: Slot, begin: Begin, context: RequestContext, key: int, correlation_id: int,
        request: Any, run: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:  # fmt: skip
        """Start answering a request whose answer comes by a callback, and goes ahead of others'."""

        def done(response: Message | None) -> None:
            if connection.closed:
                return
            if response is None:
                connection.task = connection.spawn(run())
                return
            try:
                self._reply(connection, slot, key, context.api_version, correlation_id, response)
                connection.send()
            except Exception:  # noqa: BLE001  # a bug of ours must cost one connection, never what has called this
                _log.exception("%s v%d failed", ApiKey(key).name, context.api_version)
                connection.close()
            else:
                connection.release_soon()

        begin(context, request, done)

    async def _write_long(
        self, connection: Connection, offload: OnThread, slot: Slot, key: int, version: int, correlation_id: int,
        held: list[Message],
    ) -> None:  # fmt: skip
        """Answer with a long message, which nobody but the list holds, and go on with what comes behind its request."""
        try:
            answered = await offload(partial(long_requests.encode_long, key, version, correlation_id, held))
        except Exception:  # noqa: BLE001  # a bug of ours must cost one connection, never the process
            _log.exception("%s v%d cannot be answered", ApiKey(key).name, version)
            connection.close()
            return
        if not connection.closed:
            connection.fill(slot, answered)
            connection.release()
        await long_requests.release(offload, held)

    async def _run(
        self, connection: Connection, slot: Slot, api: Api, context: RequestContext, key: int, correlation_id: int,
        request: Any, throttle_ms: int, stopwatch: Stopwatch | None,
    ) -> None:  # fmt: skip
        assert api.handle is not None
        try:
            if stopwatch is None:
                response = await api.handle(context, request)
            else:
                response = await timed(api.handle(context, request), stopwatch)
        except PlatformError as problem:
            _log.warning("%s v%d failed: %s", ApiKey(key).name, context.api_version, problem)
            connection.close()
        except Exception:  # noqa: BLE001  # a bug of ours must cost one connection, never the process
            _log.exception("%s v%d failed", ApiKey(key).name, context.api_version)
            connection.close()
        else:
            if not connection.closed:
                if self.throttles is not None:
                    if stopwatch is not None:
                        time_ms = self.throttles.on_time(stopwatch.client, stopwatch.spent_s())
                        throttle_ms = max(throttle_ms, time_ms)
                    if key == ApiKey.SHARE_FETCH:
                        # Its records are acquired: keeping them back would keep them from others as well.
                        throttle_ms = max(throttle_ms, self.throttles.on_sent(context, record_bytes(response)))
                    throttle(connection, response, throttle_ms)
                if key == ApiKey.ENTER_CLUSTER and not response.error_code:
                    connection.belongs_to(connection.identity.inside(response.cluster_id))
                if self.offload is not None and long_requests.is_long(key, response):
                    held = [response]
                    del response
                    await self._write_long(
                        connection, self.offload, slot, key, context.api_version, correlation_id, held
                    )
                else:
                    self._reply(connection, slot, key, context.api_version, correlation_id, response)
                    connection.release()

    def _reply(
        self, connection: Connection, slot: Slot, key: int, version: int, correlation_id: int, response: Message
    ) -> None:
        connection.fill(slot, codec.encode_response(key, version, correlation_id, response))


def _hold_off(connection: Connection, throttle_ms: int, *, tell: bool) -> None:
    """Have a producer wait, and say so with the next response, if it gets any."""
    connection.mute(throttle_ms)
    if tell:
        connection.throttle_ms = max(connection.throttle_ms, throttle_ms)


def _name(api_key: int) -> str:
    return ApiKey(api_key).name if api_key in ApiKey._value2member_map_ else f"API {api_key}"
