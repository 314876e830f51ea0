"""One client's connection: frames in, responses out, in order.

The socket is read and written directly, without an asyncio transport: received bytes go where they are wanted in one
copy, and responses leave as a list of buffers that nobody joins or copies. Small frames share the server's one
receive buffer, so that an idle connection owns none; a large frame gets memory of its own, which is only touched as
its bytes arrive.

Requests of a connection are answered in the order they came. Produce requests are all under way at once, so that
pipelining survives the disk; any other request holds those behind it, as in Kafka. It waits for those before it, too,
where its answer may depend on them: the dispatcher knows.
A client that is over a quota is muted: it is told how long, and until then nothing is read from it and nothing that was
read ahead is begun, while what it is owed is sent. One timer ends that.

A client that does not read its responses is not read from either, and behind a request that is held only a little is
read ahead: what waits in a connection is bounded, and counted with what waits in all others.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from struct import Struct
from typing import TYPE_CHECKING, Any, Protocol

from penstock.agent.listeners import Listener
from penstock.agent.repeated_produce import RepeatedProduce
from penstock.agent.sending import PREFETCH_S, Output, Uncached, drop_sent, send_first
from penstock.agent.shared_io import SharedIo
from penstock.agent.streams import Stream
from penstock.agent.tls import TlsStream
from penstock.base.context import RequestContext
from penstock.identity.model import Identity
from penstock.wire.primitives import Buffer, Malformed

if TYPE_CHECKING:
    from penstock.agent.sasl_session import SaslSession

SIZE = Struct(">i")
OWN_MEMORY_FROM_BYTES = 16 * 1024
"""Frames from this size on, when they do not arrive in one piece, get memory of their own."""
QUEUE_MAX_REQUESTS = 64
QUEUE_MAX_BYTES = 1024 * 1024
OUTPUT_MAX_BYTES = 1024 * 1024
"""With more than this unsent, a connection's next request is left in the socket."""
MAX_SLOTS = 1024
READ_AHEAD_BYTES = 16 * 1024
"""How much is read at once behind a request that is not answered yet."""
SOFTWARE_MAX = 128
"""Characters of a client's program's name that are kept."""
_PRODUCE = 0
_HELD, _MUTED, _BEHIND = 1, 2, 4
"""Why requests have to wait: for one under way, for a throttle time, for the answers to all before them."""
_log = logging.getLogger(__name__)

RequestHandler = Callable[["Connection", "bytes | memoryview"], None]
"""Takes a frame of a connection, and answers it. Raises `Malformed` to end the connection."""


class ConnectionOwner(Protocol):
    """Keeps all connections, and is told what becomes of them."""

    def count(self, connection: Connection, cluster_id: int) -> None:
        """A connection is in a virtual cluster from now on."""

    def forget(self, connection: Connection) -> None:
        """A connection ended."""


class Slot:
    """The place of one response in the order of a connection."""

    __slots__ = ("buffers", "key", "since_s")
    buffers: list[Buffer] | None
    key: int
    """Of which API its request is."""
    since_s: float
    """Since when that has been here, without what its client wanted to wait."""


class Connection:
    """A client. Everything runs on the loop's thread."""

    __slots__ = (
        "_busy", "_contexts", "_frame", "_frame_base", "_frame_filled", "_frame_since", "_head", "_input_paused",
        "_muted_until", "_out", "_owner", "_pending", "_prefetching", "_queue", "_queue_bytes", "_reader", "_shared",
        "_slots", "_sock", "_writing", "answer", "authenticate_by", "cancel_wait", "closed", "connection_id",
        "correlation_id", "counted_in", "fd", "host", "identity", "last_active", "listener", "max_frame_bytes",
        "out_bytes", "port", "repeated_produce", "sasl", "server_name", "software", "stalled_since", "task",
        "throttle_ms",
    )  # fmt: skip

    def __init__(
        self, shared: SharedIo, owner: ConnectionOwner, answer: RequestHandler, sock: Stream, *, host: str,
        connection_id: int, listener: Listener, identity: Identity,
    ) -> None:  # fmt: skip
        self._shared, self._owner, self._sock = shared, owner, sock
        self.fd, self.host = sock.fileno(), host
        self.port = 0
        """The client's; 0 where it has none."""
        self.software: tuple[str, str] | None = None
        """Name and version of the client's program, if it said so."""
        self.connection_id = connection_id
        self.server_name = identity.server_name
        """By which name TLS was asked for a cluster here."""
        self.counted_in: int | None = None
        """Among whose connections it is counted; nobody's before it is proven whose it is."""
        self.correlation_id = 0
        """The client's number of the request that is being carried out."""
        self.listener = listener
        self.identity = identity
        """Whose connection it is; nobody's before that is proven."""
        self.answer = answer
        """Takes its requests: one who checks credentials, until they are proven and while they end."""
        self.sasl: SaslSession | None = None
        """How far the proof has come, on a listener that asks for one."""
        self.authenticate_by: float | None = None
        """When it is closed if that is not proven by then."""
        self.max_frame_bytes = shared.max_frame_bytes
        self._head = b""
        """The beginning of a small frame whose rest has not come."""
        self._frame: memoryview | None = None
        """A large frame that is being received."""
        self._frame_filled = 0
        self._frame_since, self._frame_base = 0.0, 0
        """Since when the frame's bytes have been read without a break, and how many there were then."""
        self._slots: deque[Slot] = deque()
        self._queue: deque[bytes | memoryview] = deque()
        self._queue_bytes = 0
        self._busy = 0
        """Why nothing that arrives is begun: one word, because every request asks."""
        self._muted_until: asyncio.TimerHandle | None = None
        self.throttle_ms = 0
        """What the next response to a produce request says about waiting."""
        self._out: Output = deque()
        self._prefetching = False
        """Whether what is sent next is on its way from the disk."""
        self.out_bytes = 0
        self._writing = False
        self._input_paused = False
        self._contexts: dict[tuple[int, str | None], RequestContext] = {}
        self.closed = False
        self.repeated_produce: RepeatedProduce | None = None
        """What its last produce request looked like, if the next one can be read faster for it."""
        self.task: asyncio.Task[None] | None = None
        self.cancel_wait: Callable[[], None] | None = None
        self.last_active = shared.now()
        self.stalled_since: float | None = None
        """Since when responses wait for the client without any progress."""
        self._pending = sock.pending if isinstance(sock, TlsStream) else None
        self._reader = self._on_readable if self._pending is None else self._on_tls_readable
        shared.loop.add_reader(self.fd, self._reader)
        if self._pending is not None:
            shared.loop.call_soon(self._reader)

    # ---- in ------------------------------------------------------------------------------------------------------

    def _on_readable(self) -> None:
        try:
            shared = self._shared
            if self.out_bytes > OUTPUT_MAX_BYTES or len(self._slots) >= MAX_SLOTS:
                # Only now that something has come: most clients send nothing before they have their large response.
                self._pause_input()
                return
            is_short = shared.pending_bytes() > shared.pending_max_bytes
            if (is_short or self._frame is not None) and shared.holds_back(self):
                return
            if self._frame is not None:
                self._receive_frame(self._frame)
            else:
                self._receive_frames()
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as problem:
            _log.debug("connection %d from %s ends: %s", self.connection_id, self.host, problem)
            self.close()
        except Malformed as problem:
            self.refuse(problem)
        except Exception:  # noqa: BLE001  # a bug of ours must cost one connection, never the process
            _log.exception("connection %d from %s ends", self.connection_id, self.host)
            self.close()

    def _on_tls_readable(self) -> None:
        if self.closed or self._input_paused:
            return
        self._on_readable()
        if not self.closed and not self._input_paused and self._pending is not None and self._pending():
            self._shared.loop.call_soon(self._on_tls_readable)

    def _receive_frames(self) -> None:
        buffer, head = self._shared.receive_buffer, self._head
        held = len(head)
        if held:
            buffer[:held] = head
        if self._busy or self._queue:
            room = buffer[held : held + READ_AHEAD_BYTES]
        else:
            room = buffer[held:] if held else buffer
        count = self._sock.recv_into(room)
        if not count:
            self.close()
            return
        self.last_active = self._shared.turn.began_s
        end = held + count
        position = 0
        self._head = b""
        while end - position >= 4 and not self.closed:
            (size,) = SIZE.unpack_from(buffer, position)
            if not 0 < size <= self.max_frame_bytes:
                raise Malformed(f"a frame announces {size} bytes")
            following = position + 4 + size
            if following > end:
                if size >= OWN_MEMORY_FROM_BYTES:
                    self._begin_frame(size, buffer[position + 4 : end])
                    return
                break
            self._on_frame(bytes(buffer[position + 4 : following]))
            position = following
        if position < end:
            self._head = bytes(buffer[position:end])

    def _begin_frame(self, size: int, received: memoryview) -> None:
        self._frame = self._shared.begin_frame(self, size)
        self._frame_filled = len(received)
        self._frame[: len(received)] = received
        self._shared.partial_bytes += len(received)
        self._check_kind(self._frame)
        self._note_progress()
        if self.answering:
            self._pause_input()

    def _note_progress(self) -> None:
        self._frame_since, self._frame_base = self._shared.now(), self._frame_filled

    def _receive_frame(self, frame: memoryview) -> None:
        if self._frame_filled < 2 and len(frame) > self._shared.max_other_bytes:
            count = self._sock.recv_into(frame[self._frame_filled : 2])
        else:
            count = self._sock.recv_into(frame[self._frame_filled :])
        if not count:
            self.close()
            return
        self.last_active = self._shared.turn.began_s
        self._frame_filled += count
        self._shared.partial_bytes += count
        self._check_kind(frame)
        if self._frame_filled == len(frame):
            self._frame = None
            self._shared.end_frame(self, self._frame_filled)
            self._on_frame(frame)

    def _check_kind(self, frame: memoryview) -> None:
        """Only records make a request really large; another one is refused before it costs memory."""
        if len(frame) > self._shared.max_other_bytes and self._frame_filled >= 2:
            api_key = int.from_bytes(frame[:2])
            if api_key != _PRODUCE:
                raise Malformed(f"{len(frame)} bytes for a request of API {api_key}, which carries no records")

    def _on_frame(self, frame: bytes | memoryview) -> None:
        # The properties in words, for every request passes here.
        if self._busy or self._queue or self.out_bytes > OUTPUT_MAX_BYTES or len(self._slots) >= MAX_SLOTS:
            self._queue.append(frame)
            self._queue_bytes += len(frame)
            self._shared.queued_bytes += len(frame)
            if (
                len(self._queue) >= QUEUE_MAX_REQUESTS
                or self._queue_bytes >= QUEUE_MAX_BYTES
                or self._shared.queue_is_full
                or self._is_full
            ):
                self._pause_input()
            return
        self._dispatch(frame)

    @property
    def _is_full(self) -> bool:
        """Whether enough responses wait to be sent, or to be known."""
        return self.out_bytes > OUTPUT_MAX_BYTES or len(self._slots) >= MAX_SLOTS

    def _dispatch(self, frame: bytes | memoryview) -> None:
        try:
            self.answer(self, frame)
        except Malformed as problem:
            self.refuse(problem)
        except Exception:  # noqa: BLE001  # a bug of ours must cost one connection, never the process
            _log.exception("connection %d from %s ends", self.connection_id, self.host)
            self.close()

    def refuse(self, why: object) -> None:
        """End the connection because of what the client sent, and say so: the client only sees it closed."""
        if not self.closed:
            self._shared.warnings.warn("connection %d from %s is closed: %s", self.connection_id, self.host, why)
            self.close()

    def context(self, api_version: int, client_id: str | None) -> RequestContext:
        """Who asks. The same object for the same kind of request."""
        key = (api_version, client_id)
        context = self._contexts.get(key)
        if context is None:
            if len(self._contexts) > 64:
                self._contexts.clear()
            identity, listener = self.identity, self.listener
            software_name, software_version = self.software or (None, None)
            context = self._contexts[key] = RequestContext(
                cluster_id=identity.cluster_id,
                principal=identity.principal,
                client_id=client_id,
                client_host=self.host,
                client_port=self.port,
                client_software_name=software_name,
                client_software_version=software_version,
                listener_name=listener.name,
                server_name=self.server_name,
                security_protocol=listener.protocol,
                token_authenticated=identity.token_authenticated,
                is_platform_admin=identity.is_platform_admin,
                is_proven=self.authenticate_by is None,
                api_version=api_version,
                connection_id=self.connection_id,
            )
        return context

    def belongs_to(self, identity: Identity) -> None:
        """It is proven whose connection this is: it may send what anybody may."""
        self.identity = identity
        self._owner.count(self, identity.cluster_id)
        self.repeated_produce = None
        self._contexts.clear()
        self.max_frame_bytes = self._shared.max_frame_bytes
        self.authenticate_by = None

    def introduce(self, software_name: str, software_version: str) -> None:
        """The client says what program it is. Nobody has to keep more of it than makes sense."""
        self.software = software_name[:SOFTWARE_MAX], software_version[:SOFTWARE_MAX]
        self.repeated_produce = None
        self._contexts.clear()

    @property
    def client_id(self) -> str | None:
        """What its client has called itself, the last time that it was another name or another kind of request."""
        return next(reversed(self._contexts), (0, None))[1]

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run work that belongs to this connection."""
        return self._shared.loop.create_task(work)

    @property
    def held(self) -> bool:
        """Whether a request is under way that those behind it must wait for."""
        return bool(self._busy & _HELD)

    @property
    def answering(self) -> bool:
        """Whether what arrives now has to wait."""
        return bool(self._busy or self._queue or self._is_full)

    def hold(self) -> None:
        """A request is under way that those behind it must wait for."""
        self._busy |= _HELD

    def release(self) -> None:
        """That request is answered: go on with what came meanwhile."""
        self._busy &= ~_HELD
        self.cancel_wait = None
        self.task = None
        self._go_on()

    def must_follow(self, frame: bytes | memoryview) -> bool:
        """Whether requests before this one are not answered yet: it, and those behind it, are begun once they are."""
        if self._slots:
            self._queue.appendleft(frame)
            self._queue_bytes += len(frame)
            self._shared.queued_bytes += len(frame)
            self._busy |= _BEHIND
        return bool(self._slots)

    def release_soon(self) -> None:
        """The same, but nothing is begun before the caller has returned."""
        self._shared.loop.call_soon(self.release)

    def _go_on(self) -> None:
        """Begin what was read ahead, as far as that may be, and read on."""
        if self._queue:
            self.last_active = self._shared.now()
        while self._queue and not self._busy and not self.closed and not self._is_full:
            frame = self._queue.popleft()
            self._queue_bytes -= len(frame)
            self._shared.queued_bytes -= len(frame)
            self._dispatch(frame)
        self._resume_if_clear()

    def mute(self, throttle_ms: int) -> None:
        """Begin and read nothing more for so long; what is under way is answered."""
        if self.closed:
            return
        loop = self._shared.loop
        self._shared.times.throttled.add(throttle_ms / 1000)
        until = loop.time() + throttle_ms / 1000
        if self._muted_until is not None:
            if self._muted_until.when() >= until:
                return
            self._muted_until.cancel()
        self._muted_until = loop.call_at(until, self._unmute)
        self._busy |= _MUTED
        self._pause_input()

    def _unmute(self) -> None:
        self._muted_until = None
        self._busy &= ~_MUTED
        if self._frame is not None:
            self._note_progress()
        self._go_on()

    def _pause_input(self) -> None:
        if not self._input_paused and not self.closed:
            self._input_paused = True
            self._shared.loop.remove_reader(self.fd)

    def pause(self) -> None:
        """Read nothing more until `resume`."""
        self._pause_input()

    def resume(self) -> None:
        """Read again, unless there is still a reason of the connection's own not to."""
        if self._frame is not None:
            self._note_progress()
        self._resume_if_clear()

    def _resume_if_clear(self) -> None:
        if (
            self._input_paused
            and not self.closed
            and not self._busy & _MUTED
            and not self._shared.draining
            and not self._is_full
            and len(self._queue) < QUEUE_MAX_REQUESTS
            and self._queue_bytes < QUEUE_MAX_BYTES
            and not (self._queue and self._shared.queue_is_full)
            and not (self._frame is not None and self.answering)
        ):
            self._input_paused = False
            self._shared.loop.add_reader(self.fd, self._reader)
            if self._pending is not None:
                self._shared.loop.call_soon(self._reader)

    # ---- out -----------------------------------------------------------------------------------------------------

    def open_slot(self, key: int) -> Slot:
        """The next place in the order of responses, for that of a request of an API."""
        slot = Slot()  # Without a constructor: every request has one.
        slot.buffers, slot.key, slot.since_s = None, key, self.last_active
        self._slots.append(slot)
        return slot

    def fill(self, slot: Slot, buffers: list[Buffer]) -> None:
        """A response is ready; it leaves once those before it have."""
        slot.buffers = buffers
        shared = self._shared
        times, took_s = shared.times, shared.now() - slot.since_s
        durations = times.answered[slot.key]
        durations.counts[int(took_s * 10_000).bit_length()] += 1
        durations.total_s += took_s
        if took_s > times.slow_s:
            times.warn_slow(slot.key, took_s, self.client_id, self.host)
        slots, out = self._slots, self._out
        moved = False
        while slots and slots[0].buffers is not None:
            ready = slots.popleft().buffers
            if ready:
                out.extend(ready)
                self.out_bytes += sum(map(len, ready))
                moved = True
        if moved and not self._writing:
            shared.send_soon(self)
        elif not moved and not self._busy and (self._queue or self._input_paused):
            shared.loop.call_soon(self._go_on)  # No response leaves that would go on with what waits for room.
        if not slots and self._busy & _BEHIND:
            self._busy &= ~_BEHIND
            shared.loop.call_soon(self._go_on)

    @property
    def frame_bytes(self) -> int:
        """The size of the large frame that has not arrived completely; 0 if there is none."""
        return 0 if self._frame is None else len(self._frame)

    def receives_slower(self, bytes_per_s: float, after_s: float) -> bool:
        """Whether its frame has come more slowly than that for so long, though it was read all the time."""
        waited_s = self._shared.now() - self._frame_since
        if self._frame is None or self._input_paused or waited_s < after_s:
            return False
        return self._frame_filled - self._frame_base < bytes_per_s * waited_s

    @property
    def waiting_responses(self) -> int:
        """Responses that are not sent completely."""
        return len(self._slots) + bool(self._out)

    def send(self, now: float | None = None) -> None:
        """Send what is ready, as far as the socket takes it. `now` is for who has just looked at the clock."""
        if self.closed or self._prefetching:
            return
        try:
            self._send(self._shared.now() if now is None else now)
        except (BlockingIOError, InterruptedError):
            self._wait_writable()
        except Uncached:
            self._stop_writing()
            self._prefetching = True
            self._shared.loop.call_later(PREFETCH_S, self._send_prefetched)
        except OSError:
            self.close()

    def _send(self, now: float) -> None:
        out = self._out
        while out:
            sent = send_first(self._sock, out, self.out_bytes, now)
            self.out_bytes -= sent
            if self.stalled_since is not None:
                self._shared.times.stalled.add(now - self.stalled_since)
                self.stalled_since = None
            if drop_sent(out, sent):
                self._wait_writable()
                return
        self._stop_writing()
        if self._queue and not self._busy:
            self._go_on()
        elif self._input_paused:
            self._resume_if_clear()

    def _stop_writing(self) -> None:
        if self._writing:
            self._writing = False
            self._shared.loop.remove_writer(self.fd)

    def _send_prefetched(self) -> None:
        self._prefetching = False
        self.send()

    def _wait_writable(self) -> None:
        if self.stalled_since is None:
            self.stalled_since = self._shared.now()
            self._shared.on_shortage()
        if not self._writing:
            self._writing = True
            self._shared.loop.add_writer(self.fd, self.send)

    def close(self) -> None:
        """End the connection. What it waited for is given up; what it produced is still written."""
        if self.closed:
            return
        self.closed = True
        loop = self._shared.loop
        if not self._input_paused:
            loop.remove_reader(self.fd)
        if self._writing:
            loop.remove_writer(self.fd)
        if self._muted_until is not None:
            self._muted_until.cancel()
            self._muted_until = None
        if self._frame is not None:
            self._frame = None
            self._shared.end_frame(self, self._frame_filled)
        self._shared.queued_bytes -= self._queue_bytes
        self._queue_bytes = 0
        if self.cancel_wait is not None:
            self.cancel_wait()
            self.cancel_wait = None
        if self.task is not None:
            self.task.cancel()
        self._slots.clear()
        self._out.clear()
        self._queue.clear()
        self._sock.close()
        self._owner.forget(self)
