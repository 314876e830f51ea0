"""What goes wrong: probabilities, and the wrappers that draw from them.

Every fault is drawn from one stream of its own, so a change of the schedule or the workload does not reshuffle it.
The stores behind the wrappers are the truth: they survive the crash of whoever uses them.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from simulation.guards import Guards
from simulation.marks import Marks

from penstock.base.errors import OutcomeUnknown, Unavailable
from penstock.keys.port import KeyService
from penstock.storage.object_store import ObjectInfo, ObjectStore, ObjectWriter, Piece
from penstock.storage.wal import Buffer, Done, Shared, WalLocation, WalStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """How often what happens, per operation."""

    before: float = 0.0
    """The store or the database fails and has done nothing."""
    after: float = 0.0
    """It has done it, and the answer is lost."""
    crash_before: float = 0.0
    """The process dies instead of doing it."""
    crash_after: float = 0.0
    """The process dies when it is done, before anybody is told."""
    reads: float = 0.0
    """A read fails."""
    stall: float = 0.0
    """It takes seconds instead of a moment."""
    cut: float = 0.0
    """The connection ends with this message, per message."""


NONE = Faults()
SOME = Faults(
    before=0.02, after=0.02, crash_before=0.003, crash_after=0.003, reads=0.03, stall=0.01, cut=0.006
)  # fmt: skip

T = TypeVar("T")
Kind = Literal["before", "after", "crash before", "crash after"]


class FaultSource:
    """Decides what goes wrong next."""

    def __init__(self, seed: int | str, marks: Marks) -> None:
        self._random = random.Random(f"{seed}:faults")
        self.marks = marks
        self.faults = NONE

    def write(self, what: str) -> Kind | None:
        """What happens to a write."""
        faults, draw = self.faults, self._random.random()
        kinds: tuple[tuple[Kind, float], ...] = (
            ("before", faults.before), ("after", faults.after), ("crash before", faults.crash_before),
            ("crash after", faults.crash_after),
        )  # fmt: skip
        for kind, share in kinds:
            if draw < share:
                self.marks.reach(f"{what}: {kind}")
                return kind
            draw -= share
        return None

    def read(self, what: str) -> bool:
        """Whether a read fails."""
        return self._hit(self.faults.reads, f"{what}: read failed")

    def cut(self) -> bool:
        """Whether a connection ends here."""
        return self._hit(self.faults.cut, "connection cut")

    def delay_s(self) -> float:
        """How long an operation takes to begin."""
        if self._hit(self.faults.stall, "stall"):
            return self._random.uniform(0.5, 3.0)
        return self._random.uniform(0.0, 0.004)

    def transit_s(self) -> float:
        """How long a message is under way."""
        return self._random.uniform(0.0, 0.005)

    def between(self, low: float, high: float) -> float:
        """Some time."""
        return self._random.uniform(low, high)

    def choose(self, options: Sequence[T]) -> T:
        """One of them."""
        return self._random.choice(options)

    def _hit(self, share: float, name: str) -> bool:
        if share and self._random.random() < share:
            self.marks.reach(name)
            return True
        return False


class FaultyWal:
    """A write-ahead log that fails. `die` is the end of the process that uses it."""

    def __init__(self, inner: WalStore, source: FaultSource, die: Callable[[], None], guards: Guards) -> None:
        self._inner, self._source, self._die, self._guards = inner, source, die, guards

    @property
    def capacity_bytes(self) -> int:
        """What fits."""
        return self._inner.capacity_bytes

    def append(self, body: Sequence[Buffer]) -> WalLocation:
        """Write one object."""
        kind = self._source.write("wal")
        if kind == "before":
            raise Unavailable("the log is away")
        if kind == "crash before":
            self._die()
            raise Unavailable("nobody hears this")
        location = self._inner.append(body)
        if kind == "after":
            raise OutcomeUnknown("the log's answer was lost")
        if kind == "crash after":
            self._die()
            raise Unavailable("nobody hears this")
        return location

    def begin(self, body: memoryview, done: Done) -> bool:
        """Objects are appended, and fail there."""
        return False

    def read(self, location: WalLocation, start: int, end: int) -> memoryview:
        """Bytes of an object."""
        if self._source.read("wal"):
            raise Unavailable("the log is away")
        return self._inner.read(location, start, end)

    def read_many(self, locations: Sequence[WalLocation], buffer: memoryview) -> list[memoryview]:
        """Whole objects."""
        if self._source.read("wal"):
            raise Unavailable("the log is away")
        return self._inner.read_many(locations, buffer)

    def share(self, key: str) -> Shared | None:
        """Let an object be another store's as well."""
        if self._source.read("wal"):
            raise Unavailable("the log is away")
        return self._inner.share(key)

    def release(self, locations: Iterable[WalLocation]) -> None:
        """Objects are no longer needed."""
        locations = list(locations)
        self._guards.on_release(locations)
        self._inner.release(locations)

    def places(self) -> list[str]:
        """Where objects may lie. It fails for the many reads that follow: a start must have a chance."""
        if self._source.read("wal"):
            raise Unavailable("the log is away")
        return self._inner.places()

    def look(self, key: str, offset: int, size_bytes: int) -> memoryview:
        """Bytes of a place."""
        return self._inner.look(key, offset, size_bytes)

    def recover(self, live: Iterable[WalLocation]) -> None:
        """Exactly these objects are alive."""
        self._inner.recover(live)

    def close(self) -> None:
        """The data outlives the process."""


class SharedWal(FaultyWal):
    """A write-ahead log that other agents write to as well: a start of one must not free what others have written."""

    def recover(self, live: Iterable[WalLocation]) -> None:
        """Everything named is there; what is not named may be another agent's, about to be."""
        for location in live:
            self._inner.read(location, 0, 0)


class FaultyObjects:
    """An object store that fails."""

    def __init__(self, inner: ObjectStore, source: FaultSource, die: Callable[[], None], guards: Guards) -> None:
        self._inner, self._source, self._die, self._guards = inner, source, die, guards

    def _write(self, work: Callable[[], Any]) -> Any:
        kind = self._source.write("objects")
        if kind == "before":
            raise Unavailable("the store is away")
        if kind == "crash before":
            self._die()
            raise Unavailable("nobody hears this")
        answer = work()
        if kind == "crash after":
            self._die()
        if kind in ("after", "crash after"):
            raise OutcomeUnknown("the store's answer was lost")
        return answer

    def put(self, key: str, body: Sequence[Buffer]) -> None:
        """Store a whole object."""
        self._write(lambda: self._inner.put(key, body))

    def adopt(self, key: str, shared: Shared) -> int:
        """Take what the log shares."""
        size_bytes: int = self._write(lambda: self._inner.adopt(key, shared))
        self._source.marks.reach("adopted")
        return size_bytes

    def open_writer(self, key: str) -> ObjectWriter:
        """Store an object piece by piece."""
        return _FaultyWriter(self._inner.open_writer(key), self._write)

    def read_into(self, key: str, start: int, buffer: memoryview) -> int:
        """Fill the buffer."""
        if self._source.read("objects"):
            raise Unavailable("the store is away")
        return self._inner.read_into(key, start, buffer)

    def piece(self, key: str, start: int, length: int) -> Piece | None:
        """Bytes to be sent as they are."""
        return None if self._source.read("objects") else self._inner.piece(key, start, length)

    def read_cached(self, key: str, start: int, buffer: memoryview) -> int:
        """What is there without waiting."""
        return 0 if self._source.read("objects") else self._inner.read_cached(key, start, buffer)

    def size(self, key: str) -> int:
        """Bytes in an object."""
        return self._inner.size(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Objects in key order."""
        if self._source.read("objects"):
            raise Unavailable("the store is away")
        return self._inner.list(prefix)

    def delete(self, keys: Sequence[str]) -> None:
        """Remove keys."""

        def work() -> None:
            self._guards.on_delete(keys)
            self._inner.delete(keys)

        self._write(work)

    def close(self) -> None:
        """The data outlives the process."""


class FaultyKeyService:
    """A key service that fails."""

    def __init__(self, inner: KeyService, source: FaultSource, die: Callable[[], None]) -> None:
        self._inner, self._source, self._die = inner, source, die

    async def _ask(self, work: Callable[[], Awaitable[T]]) -> T:
        kind = self._source.write("keys")
        if kind == "crash before":
            self._die()
        if kind in ("before", "crash before"):
            raise Unavailable("the key service is away")
        answer = await work()
        if kind == "crash after":
            self._die()
        if kind in ("after", "crash after"):
            raise Unavailable("the key service's answer was lost")
        return answer

    async def create(self) -> str:
        """Make a master key."""
        return await self._ask(self._inner.create)

    async def wrap(self, master_key_id: str, secret: bytes, context: bytes) -> bytes:
        """Encrypt a data key."""
        return await self._ask(lambda: self._inner.wrap(master_key_id, secret, context))

    async def unwrap(self, master_key_id: str, wrapped: bytes, context: bytes) -> bytes:
        """Decrypt it."""
        return await self._ask(lambda: self._inner.unwrap(master_key_id, wrapped, context))

    async def destroy(self, master_key_id: str) -> None:
        """Let a master key be no more."""
        await self._ask(lambda: self._inner.destroy(master_key_id))


class _FaultyWriter:
    """An object on its way into a store that fails at the end."""

    def __init__(self, inner: ObjectWriter, write: Callable[[Callable[[], Any]], Any]) -> None:
        self._inner, self._write = inner, write

    def write(self, buffer: Buffer) -> None:
        """Add bytes."""
        self._inner.write(buffer)

    def commit(self) -> None:
        """Make the object visible."""
        self._write(self._inner.commit)

    def abort(self) -> None:
        """Forget what was written."""
        self._inner.abort()
