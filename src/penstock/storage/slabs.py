"""The write-ahead log in a ring of recycled local files.

Objects are appended to the current slab; when it is full the next one takes over. A slab whose objects have all been
released is renamed to the next number and used again: a location's key therefore never names two things, and a reader
that comes too late finds nothing instead of something else. Only whole slabs are recycled.

Nothing is noted on disk beside the bytes themselves. At a start the owner says which objects are alive; the slab with
the highest number among theirs goes on behind the last of them, and whatever lies there was never committed.

A background thread, started by the first append, prepares: it has the next slab ready before the current one is full
and, for small durable appends, writes zeros ahead of them (see slab.py; large appends grow the file themselves, which
costs them nothing and saves writing twice). It does nothing while nothing is appended.

With durability `disk` an append waits for the device; with `process` it is safe against the death of the process.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from penstock.base.errors import CorruptData, InvalidRequest, Unavailable
from penstock.storage.arena import aligned
from penstock.storage.descriptors import DescriptorTable
from penstock.storage.disk import Staging, read_fully, size_of, sync_directory, unavailable
from penstock.storage.slab import Slab, Sync
from penstock.storage.wal import Buffer, WalLocation

SLAB_BYTES = 64 * 1024 * 1024
MAX_SLABS = 1024
SPARE_SLABS = 2
AHEAD_BYTES = 8 * 1024 * 1024
SMALL_BYTES = 1024 * 1024
_PREFIX = "slab-"


@dataclass(frozen=True, slots=True, kw_only=True)
class SlabStats:
    """How full the ring is."""

    slabs: int
    free_slabs: int
    live_objects: int
    live_bytes: int


class SlabWal:
    """WAL objects in slabs of one directory, which no other process uses at the same time."""

    def __init__(
        self, directory: Path, *, durability: Literal["disk", "process"] = "disk", slab_bytes: int = SLAB_BYTES,
        max_slabs: int = MAX_SLABS,
    ) -> None:  # fmt: skip
        self._directory = directory
        self._sync = Sync(durability)
        self._slab_bytes = aligned(slab_bytes)
        self._max_slabs = max_slabs
        self._staging = Staging()
        self._reads = DescriptorTable()
        self._appending = threading.Lock()
        self._changing = threading.Lock()
        """Guards what is below; held for moments only."""
        self._slabs: dict[str, Slab] = {}
        """The current slab and those with live objects, by key."""
        self._free: list[Slab] = []
        self._long_free: set[int] = set()
        self._current: Slab | None = None
        self._spare: Slab | None = None
        self._next_number = 1
        self._preparing = threading.Lock()
        self._prepare_now = threading.Event()
        self._preparer: threading.Thread | None = None
        self._zero_ahead = False
        """Whether the last append was one that zeros ahead of it make faster."""
        self._closed = False

    # ---- start and end ----------------------------------------------------------------------------------------

    def recover(self, live: Iterable[WalLocation]) -> None:
        """At start: exactly these objects are alive; everything else is free space."""
        found = {path.name: path for path in self._paths()}
        for location in live:
            slab = self._slabs.get(location.key)
            if slab is None:
                slab = self._slabs[location.key] = self._found(location.key, found)
            end = location.offset + location.length
            if end > slab.written:
                raise CorruptData(f"{slab.path} is shorter than a committed object in it needs: {slab.written} < {end}")
            slab.live[location.offset] = location.length
            slab.position = max(slab.position, aligned(end))
        for name, path in found.items():
            if name not in self._slabs:
                self._free.append(self._slab(path))
        self._next_number = 1 + max((_number_of(name) or 0 for name in found), default=0)
        if self._slabs:
            self._current = max(self._slabs.values(), key=lambda slab: slab.number)
            try:
                self._current.open()
            except OSError as error:
                raise unavailable(error, "opening", self._current.path) from error

    def _paths(self) -> list[Path]:
        try:
            if not self._directory.exists():
                self._directory.mkdir(parents=True)
                sync_directory(self._directory.parent)
            return [path for path in self._directory.iterdir() if _number_of(path.name) is not None]
        except OSError as error:
            raise unavailable(error, "opening", self._directory) from error

    def _found(self, key: str, found: dict[str, Path]) -> Slab:
        if key not in found:
            raise CorruptData(f"{self._directory / key} is missing: committed data was in it")
        return self._slab(found[key])

    def _slab(self, path: Path) -> Slab:
        capacity = self._slab_bytes
        if path.exists():
            # Larger where one large object needed it, or where slabs used to be larger.
            capacity = max(capacity, aligned(path.stat().st_size))
        return Slab(path, _number_of(path.name) or 0, capacity, self._sync)

    def close(self) -> None:
        """Release what the operating system lent."""
        self._closed = True
        self._prepare_now.set()
        if self._preparer is not None:
            self._preparer.join()
        with self._appending:
            for slab in (self._current, self._spare):
                if slab is not None:
                    slab.seal()
            self._reads.close()

    # ---- objects ----------------------------------------------------------------------------------------------

    def append(self, body: Sequence[Buffer]) -> WalLocation:
        """Write one object; it is durable on return. Raise `Unavailable` when nothing was written."""
        length = size_of(body)
        if not length:
            raise InvalidRequest("an empty object cannot be written")
        with self._appending:
            if self._closed:
                raise Unavailable("the write-ahead log is closed")
            slab = self._current
            if slab is None or not slab.fits(length):
                slab = self._advance(length)
            try:
                offset = slab.append(body, length, self._staging)
            except OSError as error:
                raise unavailable(error, "writing to", slab.path) from error
            self._zero_ahead = self._sync is Sync.DISK and length < SMALL_BYTES
            if self._wants_preparation(slab):
                self._prepare_soon()
            return WalLocation(slab.key, offset, length)

    def read(self, location: WalLocation, start: int, end: int) -> memoryview:
        """Bytes [start, end) of an object. May run on any thread while another appends."""
        buffer = bytearray(max(0, end - start))
        self.read_into(location, start, memoryview(buffer))
        return memoryview(buffer).toreadonly()

    def read_into(self, location: WalLocation, start: int, buffer: memoryview) -> None:
        """Fill a buffer with an object's bytes from `start` on."""
        if start < 0 or start + buffer.nbytes > location.length:
            raise InvalidRequest(f"bytes [{start}, {start + buffer.nbytes}) are not in {location}")
        try:
            with self._reads.reading(self._directory / location.key) as fd:
                complete = read_fully(fd, location.offset + start, buffer)
        except FileNotFoundError:
            complete = False
        except OSError as error:
            raise unavailable(error, "reading", self._directory / location.key) from error
        # A slab loses its key before it is written again, so the bytes are the object's if the key is still good.
        if location.key not in self._slabs:
            raise InvalidRequest(f"{location} was released")
        if not complete:
            raise CorruptData(f"{location} is not wholly there")

    def release(self, locations: Iterable[WalLocation]) -> None:
        """These objects are no longer needed; their space may be used again. Unknown ones are no error."""
        with self._changing:
            for location in locations:
                slab = self._slabs.get(location.key)
                if slab is None:
                    continue
                slab.live.pop(location.offset, None)
                if not slab.live and slab is not self._current:
                    self._set_free(slab)

    def trim(self) -> int:
        """Delete slabs that were free at the last call already, but for a few; how many. Call it now and then."""
        with self._changing:
            stale = [slab for slab in self._free if slab.number in self._long_free]
            surplus = stale[: max(0, len(self._free) - SPARE_SLABS)]
            self._free = [slab for slab in self._free if slab not in surplus]
            self._long_free = {slab.number for slab in self._free}
        for slab in surplus:
            slab.path.unlink(missing_ok=True)
        return len(surplus)

    def stats(self) -> SlabStats:
        """How full the ring is."""
        with self._changing:
            slabs = list(self._slabs.values())
            free = len(self._free) + (self._spare is not None)
            return SlabStats(
                slabs=len(slabs) + free, free_slabs=free,
                live_objects=sum(len(slab.live) for slab in slabs),
                live_bytes=sum(sum(slab.live.copy().values()) for slab in slabs),
            )  # fmt: skip

    # ---- the ring ---------------------------------------------------------------------------------------------

    def _advance(self, length: int) -> Slab:
        """Make the next slab the current one. With `_appending` held."""
        following = self._take_spare(length)
        with self._changing:
            former, self._current = self._current, following
            self._slabs[following.key] = following
            if former is not None:
                former.seal()
                if not former.live:
                    self._set_free(former)
        return following

    def _take_spare(self, length: int) -> Slab:
        with self._preparing:
            spare, self._spare = self._spare, None
            if spare is not None and not spare.fits(length):
                # An object larger than a slab gets a slab of its own size.
                spare.seal()
                with self._changing:
                    self._free.append(spare)
                spare = None
            return spare or self._make_slab(length)

    def _set_free(self, slab: Slab) -> None:
        """With `_changing` held."""
        del self._slabs[slab.key]
        self._reads.discard(slab.path)
        if slab.capacity > self._slab_bytes:
            slab.path.unlink(missing_ok=True)
        else:
            self._free.append(slab)

    def _make_slab(self, length: int) -> Slab:
        """Recycle a free slab or create one, ready for appends and, with `disk`, durably named. With `_preparing`."""
        with self._changing:
            fitting = [slab for slab in self._free if aligned(length) <= slab.capacity]
            recycled = fitting[0] if fitting else None
            if recycled is not None:
                self._free.remove(recycled)
            elif len(self._slabs) >= self._max_slabs:
                raise Unavailable(
                    f"back-pressure: all {self._max_slabs} slabs of the write-ahead log hold data that is not "
                    "compacted yet"
                )
            number = self._next_number
            self._next_number += 1
        path = self._directory / f"{_PREFIX}{number:010d}"
        try:
            if recycled is not None:
                recycled.path.rename(path)
            slab = Slab(path, number, max(self._slab_bytes, aligned(length)), self._sync)
            slab.open()
            if self._sync is Sync.DISK:
                sync_directory(self._directory)
        except OSError as error:
            raise unavailable(error, "preparing", path) from error
        return slab

    # ---- preparation in the background ------------------------------------------------------------------------

    def _wants_preparation(self, slab: Slab) -> bool:
        if self._wants_spare(slab):
            return True
        return self._zero_ahead and slab.written < slab.capacity and slab.written - slab.position < AHEAD_BYTES // 2

    def _wants_spare(self, slab: Slab) -> bool:
        return self._spare is None and slab.capacity - slab.position < self._slab_bytes // 4

    def _prepare_soon(self) -> None:
        if self._preparer is None:
            self._preparer = threading.Thread(target=self._prepare_loop, name="penstock-slab-preparer", daemon=True)
            self._preparer.start()
        self._prepare_now.set()

    def _prepare_loop(self) -> None:
        while True:
            self._prepare_now.wait()
            self._prepare_now.clear()
            if self._closed:
                return
            # Preparation is only a matter of speed: what fails here fails again where somebody is told.
            try:
                self._prepare()
            except (OSError, Unavailable):
                continue

    def _prepare(self) -> None:
        current = self._current
        if current is None:
            return
        if self._zero_ahead:
            current.prewrite(AHEAD_BYTES)
        if self._wants_spare(current):
            with self._preparing:
                if self._spare is None:
                    self._spare = self._make_slab(0)
                    if self._zero_ahead:
                        self._spare.prewrite(AHEAD_BYTES)


def _number_of(name: str) -> int | None:
    digits = name.removeprefix(_PREFIX)
    return int(digits) if digits != name and digits.isdecimal() else None
