"""What the connections of an agent share: the loop and its clock, one receive buffer, memory for what has arrived, and
responses that leave together.

Memory is bounded: a frame's size, the bytes of frames that have not arrived completely, the bytes that wait for a
flush, and the requests read ahead. At each bound reading stops until there is room, of those connections only that need
that room: while large frames wait for memory, requests that need none are answered.
"""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import Callable
from typing import Protocol

from penstock.agent.connection_warnings import ConnectionWarnings
from penstock.agent.request_times import RequestTimes
from penstock.agent.turns import at_turn_end, turn_of
from penstock.base.clock import Clock
from penstock.base.memory import MemoryBounds
from penstock.storage.arena import CHUNK_BYTES, Arena

RECEIVE_BUFFER_BYTES = 256 * 1024
MAX_OTHER_BYTES = 2 * 1024 * 1024
"""The largest request that carries no records: 60,000 partitions of a fetch, more than a group may keep in Kafka."""
HUGE_FRAME_BYTES = 2 * 1024 * 1024
FIRST_SHORTAGE_MS, SHORTAGE_MAX_MS = 20, 1000


class FlowControlled(Protocol):
    """A connection, as far as sharing goes: its bytes take memory, and it can be made to wait."""

    connection_id: int
    throttle_ms: int
    """What its next response to a produce request says about waiting."""

    @property
    def frame_bytes(self) -> int:
        """The size of the large frame that has not arrived completely; 0 if there is none."""

    @property
    def answering(self) -> bool:
        """Whether what arrives now has to wait."""

    def pause(self) -> None:
        """Read nothing more until `resume`."""

    def resume(self) -> None:
        """Read again."""

    def send(self, now: float | None = None) -> None:
        """Send what is ready."""


class SharedIo:
    """One object for all connections. Used on the loop's thread only."""

    def __init__(
        self,
        *,
        clock: Clock,
        times: RequestTimes | None = None,
        pending_bytes: Callable[[], int],
        memory: MemoryBounds = MemoryBounds(),  # noqa: B008  # frozen
        max_frame_bytes: int = 100 * 1024 * 1024,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self._soon = at_turn_end(self.loop)
        self.now, self.turn = clock.monotonic, turn_of(self.loop, clock.monotonic)
        """Seconds, for time-outs: the clock's own method, because it is called several times per request."""
        self.times, self.warnings = times or RequestTimes(clock), ConnectionWarnings(clock)
        self.max_frame_bytes, self.max_other_bytes = max_frame_bytes, min(MAX_OTHER_BYTES, max_frame_bytes)
        self.receive_buffer = memoryview(bytearray(RECEIVE_BUFFER_BYTES))
        self.memory, self.pending_max_bytes = memory, memory.pending_bytes
        self.pending_bytes = pending_bytes
        """How many bytes wait for a flush."""
        self.partial_bytes = 0
        """Bytes held of large frames that have not arrived completely."""
        self.queued_bytes = 0
        """Bytes of requests that wait for those before them."""
        self.draining = False
        """Whether the agent stops: nothing more is read."""
        self.on_shortage: Callable[[], None] = lambda: None
        """Called when memory is short, or a client does not read its responses."""
        self._arena = Arena(memory.receive_arena_bytes)
        self._short_since: float | None = None
        self._short_ms = FIRST_SHORTAGE_MS
        """How long the last shortage of memory for flushes lasted."""
        self._held_back: dict[int, FlowControlled] = {}
        self._receiving: dict[int, FlowControlled] = {}
        """Those with an incomplete large frame, the oldest first."""
        self._unsent: list[FlowControlled] = []

    # ---- memory --------------------------------------------------------------------------------------------------

    def begin_frame(self, connection: FlowControlled, size_bytes: int) -> memoryview:
        """Memory for one large frame. The system allocates its pages as bytes arrive."""
        self._receiving[connection.connection_id] = connection
        if size_bytes > CHUNK_BYTES:  # Rare, and unmapped as soon as nothing refers to it.
            return memoryview(mmap.mmap(-1, size_bytes))
        memory, _ = self._arena.reserve(size_bytes)
        return memory

    def end_frame(self, connection: FlowControlled, received_bytes: int) -> None:
        """The frame is complete, or its connection ended."""
        del self._receiving[connection.connection_id]
        self.partial_bytes -= received_bytes
        self.make_room()

    def trim_memory(self) -> None:
        """Release memory beyond what is kept for frames."""
        self._arena.trim()

    def drop_memory(self) -> None:
        """Release memory of frames that were received."""
        self._arena.drop()

    @property
    def queue_is_full(self) -> bool:
        """Whether reading ahead must stop."""
        return self.queued_bytes > self.memory.queued_bytes

    @property
    def holds_any_back(self) -> bool:
        """Whether a connection is not read because memory is short."""
        return bool(self._held_back)

    def holds_back(self, connection: FlowControlled) -> bool:
        """Stop reading a connection if its next bytes need memory that is not available; `make_room` resumes it."""
        if not self._must_wait(connection):
            return False
        connection.pause()
        self._held_back[connection.connection_id] = connection
        if self.pending_bytes() > self.pending_max_bytes:
            # Its next response reports a throttle time: as long as the last shortage.
            connection.throttle_ms = max(connection.throttle_ms, self._short_ms)
            if self._short_since is None:
                self._short_since = self.now()
        self.on_shortage()
        return True

    def _must_wait(self, connection: FlowControlled) -> bool:
        if self.pending_bytes() > self.pending_max_bytes:
            return True
        frame_bytes = connection.frame_bytes
        if not frame_bytes:
            return False
        is_huge = frame_bytes > HUGE_FRAME_BYTES
        limit = self.memory.huge_partial_bytes if is_huge else self.memory.partial_bytes
        # The oldest must go on, or memory would never be released.
        return self.partial_bytes > limit and connection is not self._next_receiving()

    def _next_receiving(self) -> FlowControlled | None:
        return next((connection for connection in self._receiving.values() if not connection.answering), None)

    def make_room(self) -> None:
        """Memory may be available again: resume the connections that wait for it."""
        if self._short_since is not None and self.pending_bytes() <= self.pending_max_bytes:
            self._short_ms = max(1, min(round((self.now() - self._short_since) * 1000), SHORTAGE_MAX_MS))
            self._short_since = None
        if self._held_back:
            for connection in [held for held in self._held_back.values() if not self._must_wait(held)]:
                del self._held_back[connection.connection_id]
                connection.resume()

    def forget(self, connection_id: int) -> None:
        """A connection ended."""
        self._held_back.pop(connection_id, None)

    # ---- sending -------------------------------------------------------------------------------------------------

    def send_soon(self, connection: FlowControlled) -> None:
        """Send a connection's responses at the end of this turn of the loop, with all that are ready by then."""
        if not self._unsent:
            self._soon(self._send_all)
        self._unsent.append(connection)

    def _send_all(self) -> None:
        now, unsent, self._unsent = self.now(), self._unsent, []
        for connection in unsent:
            connection.send(now)
