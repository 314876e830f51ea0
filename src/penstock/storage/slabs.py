"""The WAL on a disk: a ring of preallocated slab files that are recycled.

Each object is written after the previous one, at a 4 KiB boundary, with one `O_DIRECT|O_DSYNC` write: no page cache, no
journal commit, one device flush. An object never spans slabs; one that is larger than a slab gets a file of its own.
With durability `process` nothing is synced: small objects go through the page cache, large ones bypass it.

What keeps objects safe:

- Only the caller knows which objects are live. Write positions after a restart are derived from the live locations
  alone; whatever a crash left after them is overwritten. Before `recover`, no file in the directory is changed.
- Space is reused by whole slabs, when the last object of one was released. A recycled file gets a new name first, so a
  location never means two objects, and a read that overlaps a recycling notices that the name is gone.
- A slab whose file was shared with the object store is removed instead of reused; its link count reveals that even
  after a crash.
- Blocks are written once, with zeros, before the fast path reaches them (see slab_file.py). A background thread does it
  a few MiB ahead and prepares the next slab; it sleeps unless an append wakes it. It claims one piece at a time, always
  after everything claimed for objects; an append that reaches the piece being zeroed waits for it, one that finds no
  zeroed space writes to space that is only allocated.

The lock guards the bookkeeping and is never held during I/O, so `release` may be called on an event loop.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from penstock.base.dataclasses import dataclass
from penstock.base.errors import CorruptData, InvalidRequest, OutcomeUnknown, Unavailable
from penstock.storage.arena import ALIGNMENT, HUGE_PAGE_BYTES, aligned, huge_pages
from penstock.storage.descriptors import DescriptorTable
from penstock.storage.disk import (
    O_DIRECT,
    Staging,
    allocates_cheaply,
    is_aligned,
    is_full,
    open_direct,
    read_fully,
    size_of,
    sync_directory,
    unavailable,
    write_fully,
)
from penstock.storage.kernel_writes import KernelWrites
from penstock.storage.removing import Remover
from penstock.storage.slab_file import DIRECT_MIN_BYTES, Slab, SlabWriter, create_file, written_extent
from penstock.storage.wal import Buffer, Done, Shared, WalLocation, check_range

SLAB_BYTES = 64 * 1024 * 1024
SPARE_SLABS = 2
RESERVE_BYTES = 32 * 1024 * 1024
"""Disk space that no slab takes."""
ZERO_AHEAD_BYTES = 8 * 1024 * 1024
ZERO_PIECE_BYTES = 512 * 1024
LARGE_OBJECT_BYTES = 1024 * 1024
"""Objects from this size on write to unzeroed blocks: zeroing ahead of them would write every byte twice."""
_REFUSALS = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)
"""What says that nothing was written, and why not: this is not how to."""
_NAME = re.compile(r"(\d{6,})\.slab")


@dataclass(frozen=True, slots=True, kw_only=True)
class SlabStats:
    """How full the WAL is."""

    slabs: int
    live_bytes: int


class SlabWal:
    """The WAL in recycled slab files. One thread appends at a time; the rest is thread-safe."""

    def __init__(
        self,
        directory: Path,
        *,
        durability: str,
        slab_bytes: int | None = None,
        max_slabs: int = 64,
        direct_io: bool = True,
        kernel_writes: KernelWrites | None = None,
    ) -> None:
        if durability not in ("disk", "process"):
            raise InvalidRequest(f"durability is either disk or process, not {durability}")
        self._directory = directory
        self._durable = durability == "disk"
        self._direct_io = direct_io
        self._kernel_writes = kernel_writes
        """Asynchronous writes, where the system has them. Whoever opened it closes it, before this."""
        self._slab_bytes = max(ALIGNMENT, aligned(SLAB_BYTES if slab_bytes is None else slab_bytes))
        self._max_slabs = max_slabs
        self._staging = Staging()
        self._remover = Remover()
        self._readers = DescriptorTable()
        self._direct_readers = DescriptorTable(flags=os.O_RDONLY | O_DIRECT)
        self._reads_direct = direct_io and O_DIRECT != 0
        self._lock = threading.RLock()
        """Acquired directly where there is no condition to wait for: cheaper than `_state`, which wraps the same
        lock."""
        self._state = threading.Condition(self._lock)
        self._preparing = threading.Lock()
        self._slabs: dict[str, Slab] = {}
        self._free: list[Slab] = []
        self._current: Slab | None = None
        self._next: Slab | None = None
        self._live_bytes = 0
        self._number = 1
        self._zeroing: tuple[Slab, int, int] | None = None
        self._wants_next = False
        self._next_zero_goal = 0
        self._preparer: threading.Thread | None = None
        self._closed = False
        directory.mkdir(parents=True, exist_ok=True)
        self._sparse = not allocates_cheaply(directory)
        self._scan()

    @property
    def capacity_bytes(self) -> int:
        """The capacity of all slabs that there may be."""
        return self._max_slabs * self._slab_bytes

    def append(self, body: Sequence[Buffer]) -> WalLocation:
        """Write one object; with durability `disk` it is on the disk on return."""
        size_bytes = size_of(body)
        if size_bytes == 0:
            raise InvalidRequest("an object of the write-ahead log cannot be empty")
        slab, writer, offset = self._claim(aligned(size_bytes))
        try:
            writer.write(body, size_bytes, offset)
        except OSError as error:
            self._abandon(slab, offset, full=is_full(error))
            failure = unavailable(error, "writing to", self._directory)
            if is_full(error):
                raise failure from error  # The object is incomplete.
            raise OutcomeUnknown(f"{failure}; whether it was written is not known") from error
        except BaseException:
            self._abandon(slab, offset, full=False)
            raise
        self._appended(slab, size_bytes)
        return WalLocation(slab.key, offset, size_bytes)

    def begin(self, body: memoryview, done: Done) -> bool:
        """Have the kernel write an object asynchronously, if there is space at once and the write bypasses the page
        cache."""
        claimed = self._claim_at_once(body)
        if claimed is None or self._kernel_writes is None:
            return False
        slab, descriptor, offset = claimed
        if not self._kernel_writes.begin(
            descriptor, body, offset, partial(self._ended, slab, offset, body.nbytes, done)
        ):
            self._abandon(slab, offset, full=True)
            return False
        return True

    def _ended(self, slab: Slab, offset: int, size_bytes: int, done: Done, result: int) -> None:
        if result == size_bytes:
            self._appended(slab, size_bytes)
            done(WalLocation(slab.key, offset, size_bytes))
            return
        self._abandon(slab, offset, full=False)
        if -result in _REFUSALS:
            # Some file systems accept such a write and then fail it: it is not tried again.
            self._kernel_writes = None
            done(None)
            return
        error = OSError(errno.EIO if result >= 0 else -result, "short write" if result >= 0 else os.strerror(-result))
        failure = unavailable(error, "writing to", self._directory)
        done(OutcomeUnknown(f"{failure}; whether it was written is not known"))

    def read(self, location: WalLocation, start: int, end: int) -> memoryview:
        """Bytes [start, end) of an object. Raise `InvalidRequest` if it was released and its space used again."""
        check_range(location, start, end)
        slab = self._slabs.get(location.key)
        if slab is None or location.offset + location.length > slab.size_bytes:
            raise InvalidRequest(f"the write-ahead log has no object at {location}")
        path = self._directory / location.key
        try:
            with self._readers.reading(path) as descriptor:
                data = os.pread(descriptor, end - start, location.offset + start)
        except FileNotFoundError:
            data = b""
        except OSError as error:
            raise unavailable(error, "reading", path) from error
        if location.key not in self._slabs:
            raise InvalidRequest(f"the object of the write-ahead log at {location} was released")
        if len(data) < end - start:
            raise CorruptData(f"{path} ends before the object at {location}")
        return memoryview(data)

    def read_many(self, locations: Sequence[WalLocation], buffer: memoryview) -> list[memoryview]:
        """Read whole objects with their pages, neighbours with one read. Raise `InvalidRequest` if one was released."""
        views, position, first = [], 0, 0
        for count, location in enumerate(locations, 1):
            following = locations[count] if count < len(locations) else None
            views.append(buffer[position : position + location.length])
            position += aligned(location.length)
            end = location.offset + aligned(location.length)
            if following is None or (following.key, following.offset) != (location.key, end):
                start = locations[first].offset
                self._read_pages(location.key, start, buffer[position - (end - start) : position])
                first = count
        return views

    def share(self, key: str) -> Shared | None:
        """A slab's file, truncated to what was written. It is never used again."""
        with self._lock:
            slab = self._slabs.get(key)
            if slab is None or not slab.sealed:
                return None
            slab.is_shared = True
            path, end = slab.path, slab.position
        try:
            os.truncate(path, end)
        except OSError as error:
            raise unavailable(error, "cutting off the unused end of", path) from error
        return path

    def release(self, locations: Iterable[WalLocation]) -> None:
        """These objects are no longer needed. A slab without any is recycled, or deleted if there are spare ones."""
        with self._lock:
            for location in locations:
                slab = self._slabs.get(location.key)
                if slab is not None and slab.unmark(location.offset):
                    self._live_bytes -= location.length
                    self._free_if_empty(slab)
            surplus = self._take_surplus()
        self._delete(surplus)

    def places(self) -> list[str]:
        """The files."""
        return list(self._slabs)

    def look(self, key: str, offset: int, size_bytes: int) -> memoryview:
        """Bytes of a file."""
        path = self._directory / key
        try:
            with self._readers.reading(path) as descriptor:
                return memoryview(os.pread(descriptor, size_bytes, offset))
        except OSError as error:
            raise unavailable(error, "reading", path) from error

    def recover(self, live: Iterable[WalLocation]) -> None:
        """Set the live objects. Raise `CorruptData` if one of them cannot be there."""
        with self._lock:
            self._forget_everything()
            for location in live:
                self._revive(location)
            for slab in self._slabs.values():
                self._free_if_empty(slab)
            surplus = self._take_surplus()
            ring = [slab for slab in self._slabs.values() if slab.live_objects and slab.size_bytes <= self._slab_bytes]
        self._delete(surplus)
        # Older slabs may have room, where an object did not fit, but nothing may be put there: recovery looks for what
        # follows the last commit of the database in the last slab begun before it, and in those begun since. A file for
        # one large object has only that object.
        newest = max(ring, key=lambda slab: _number_of(slab.path), default=None)
        if newest is not None and newest.has_room and not newest.is_shared:
            with _explained("opening", newest.path):
                newest.writer = self._open_writer(newest.path)
            newest.sealed = False
            self._current = newest

    def stats(self) -> SlabStats:
        """How full the WAL is."""
        with self._lock:
            return SlabStats(slabs=len(self._slabs), live_bytes=self._live_bytes)

    def close(self) -> None:
        """Stop the background thread and close every file."""
        with self._lock:
            self._closed = True
            self._state.notify_all()
        if self._preparer is not None:
            self._preparer.join()
        with self._lock:
            for slab in (self._current, self._next):
                if slab is not None:
                    slab.seal()
            self._current = self._next = None
        self._remover.close()
        self._readers.close()
        self._direct_readers.close()

    # Reading

    def _read_pages(self, key: str, offset: int, buffer: memoryview) -> None:
        slab = self._slabs.get(key)
        if slab is None or offset + buffer.nbytes > slab.size_bytes:
            raise InvalidRequest(f"the write-ahead log has no objects at {offset} of {key}")
        path = self._directory / key
        try:
            complete = self._read_direct(path, offset, buffer)
            if complete is None:
                with self._readers.reading(path) as descriptor:
                    complete = read_fully(descriptor, offset, buffer)
        except FileNotFoundError:
            complete = False
        except OSError as error:
            raise unavailable(error, "reading", path) from error
        if key not in self._slabs:
            raise InvalidRequest(f"the objects of the write-ahead log in {key} were released")
        if not complete:
            raise CorruptData(f"{path} ends before the objects in it do")

    def _read_direct(self, path: Path, offset: int, buffer: memoryview) -> bool | None:
        """Read without the page cache; whether everything was there, or None where that is not possible.

        Without fsync, small objects went through the page cache and are still there: a direct read would have to write
        them out first.
        """
        if not self._reads_direct or (not self._durable and buffer.nbytes < DIRECT_MIN_BYTES) or not is_aligned(buffer):
            return None
        try:
            with self._direct_readers.reading(path) as descriptor:
                return read_fully(descriptor, offset, buffer)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
            self._reads_direct = False
            return None

    def _discard_readers(self, path: Path) -> None:
        self._readers.discard(path)
        self._direct_readers.discard(path)

    # Appending

    def _claim(self, span: int) -> tuple[Slab, SlabWriter, int]:
        """Claim space for one object. Its first page is marked, so that the slab is not recycled meanwhile."""
        if span > self._slab_bytes:
            slab = self._make(span)
        else:
            if self._current is None or self._current.position + span > self._current.size_bytes:
                self._advance()
            assert self._current is not None
            slab = self._current
        assert slab.writer is not None
        with self._lock:
            offset, end = slab.position, slab.position + span
            while self._is_being_zeroed(slab, end):
                self._state.wait()
            _take(slab, offset, end)
            return slab, slab.writer, offset

    def _claim_at_once(self, body: memoryview) -> tuple[Slab, int, int] | None:
        """Claim space if it is there, with a direct descriptor; None where something has to be waited for."""
        slab, span = self._current, body.nbytes
        if self._kernel_writes is None or slab is None or slab.writer is None or not is_aligned(body):
            return None
        descriptor = slab.writer.direct_for(span)
        if descriptor is None:
            return None
        with self._lock:
            offset, end = slab.position, slab.position + span
            if end > slab.size_bytes or self._is_being_zeroed(slab, end):
                return None
            _take(slab, offset, end)
            return slab, descriptor, offset

    def _is_being_zeroed(self, slab: Slab, end: int) -> bool:
        """Whether the piece being zeroed begins before `end`. Under the lock."""
        return self._zeroing is not None and self._zeroing[0] is slab and self._zeroing[1] < end

    def _appended(self, slab: Slab, size_bytes: int) -> None:
        with self._lock:
            self._live_bytes += size_bytes
            if slab is not self._current:
                slab.seal()
            elif self._durable:
                self._wake_preparer(slab, zero=size_bytes < LARGE_OBJECT_BYTES)

    def _abandon(self, slab: Slab, offset: int, *, full: bool) -> None:
        """Undo a claim. After any error but a full disk, no more objects are put into the slab."""
        with self._lock:
            slab.unmark(offset)
            slab.position = offset
            if slab is self._current and full:
                return
            if slab is self._current:
                self._current = None
            slab.seal()
            self._free_if_empty(slab)
            surplus = self._take_surplus()
        self._delete(surplus)

    def _advance(self) -> None:
        """Continue in the next slab."""
        self._prepare_next()
        with self._lock:
            done, self._current, self._next = self._current, self._next, None
            if done is not None:
                done.seal()
                self._free_if_empty(done)
            surplus = self._take_surplus()
        self._delete(surplus)

    # Slabs

    def _prepare_next(self) -> None:
        with self._preparing:
            if self._next is None:
                self._next = self._make(self._slab_bytes)

    def _make(self, size_bytes: int) -> Slab:
        """A slab to write to: a free one under a new name, or a new file."""
        with self._lock:
            slab, old = self._choose(size_bytes)
        try:
            if old is None:
                self._leave_room(size_bytes)
                create_file(slab.path, size_bytes, sparse=self._sparse)
            else:
                old.rename(slab.path)
                self._discard_readers(old)
            slab.writer = self._open_writer(slab.path)
            if self._durable:
                sync_directory(self._directory)
        except OSError as error:
            self._unmake(slab)
            raise unavailable(error, "preparing space in", self._directory) from error
        return slab

    def _leave_room(self, size_bytes: int) -> None:
        """Leave the last of the disk to the metadata: a shorter retention, which frees space, has to be written as
        well."""
        found = os.statvfs(self._directory)
        if found.f_bavail * found.f_frsize < size_bytes + min(RESERVE_BYTES, self._slab_bytes // 2):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _choose(self, size_bytes: int) -> tuple[Slab, Path | None]:
        if self._closed:
            raise Unavailable("the write-ahead log is closed")
        path = self._directory / f"{self._number:06d}.slab"
        if self._free and size_bytes == self._slab_bytes:
            slab = self._free.pop()
            old = slab.path
            del self._slabs[slab.key]
            slab.recycle(path)
        elif len(self._slabs) < self._max_slabs:
            slab, old = Slab(path, size_bytes), None
        else:
            raise Unavailable(
                f"the write-ahead log is full: all of its {self._max_slabs} slabs in {self._directory} are in use, "
                "and compaction has not freed one yet"
            )
        self._number += 1
        self._slabs[slab.key] = slab
        return slab, old

    def _unmake(self, slab: Slab) -> None:
        """Drop a slab that could not be prepared. A file that kept its old name is found again at the next start."""
        with self._lock:
            slab.seal()
            del self._slabs[slab.key]
        self._delete([slab])

    def _open_writer(self, path: Path) -> SlabWriter:
        return SlabWriter(path, durable=self._durable, direct_io=self._direct_io, staging=self._staging)

    def _free_if_empty(self, slab: Slab) -> None:
        if slab.sealed and slab.live_objects == 0 and slab not in self._free:
            self._free.append(slab)

    def _take_surplus(self) -> list[Slab]:
        """Free slabs that are not worth keeping, or must not be used again."""
        odd = [slab for slab in self._free if slab.is_shared or slab.size_bytes != self._slab_bytes]
        usable = [slab for slab in self._free if slab not in odd]
        self._free, surplus = usable[:SPARE_SLABS], odd + usable[SPARE_SLABS:]
        for slab in surplus:
            del self._slabs[slab.key]
        return surplus

    def _delete(self, slabs: Iterable[Slab]) -> None:
        for slab in slabs:
            self._discard_readers(slab.path)
            # A file that cannot be removed now is free space at the next start.
            with contextlib.suppress(OSError):
                self._remover.remove(slab.path)

    # Starting

    def _scan(self) -> None:
        """Load every slab there is; until `recover` all of them count as in use."""
        with _explained("reading", self._directory):
            for path in self._directory.iterdir():
                if _NAME.fullmatch(path.name):
                    status = path.stat()
                    slab = Slab(path, status.st_size & -ALIGNMENT)
                    slab.written_bytes = min(slab.size_bytes, written_extent(path) & -ALIGNMENT)
                    slab.sealed = True
                    slab.is_shared = status.st_nlink > 1
                    self._slabs[path.name] = slab
                    self._number = max(self._number, _number_of(path) + 1)

    def _forget_everything(self) -> None:
        self._current = self._next = None
        self._free = []
        self._live_bytes = 0
        for slab in self._slabs.values():
            slab.seal()
            slab.position = slab.live_objects = 0
            slab.starts = bytearray(len(slab.starts))

    def _revive(self, location: WalLocation) -> None:
        slab = self._slabs.get(location.key)
        if slab is None:
            raise CorruptData(f"{self._directory / location.key} is missing, but objects in it are in use")
        end = location.offset + aligned(location.length)
        if location.offset < 0 or location.offset % ALIGNMENT or location.length <= 0 or end > slab.size_bytes:
            raise CorruptData(f"{slab.path} cannot hold the object at {location}")
        slab.mark(location.offset)
        slab.position = max(slab.position, end)
        self._live_bytes += location.length

    # The background thread

    def _wake_preparer(self, slab: Slab, *, zero: bool) -> None:
        """Request zeroed blocks and the next slab, if an append has come close to the end of either."""
        wanted = False
        if zero and slab.written_bytes < min(slab.position + ZERO_AHEAD_BYTES // 2, slab.size_bytes):
            slab.zero_goal = min(slab.position + ZERO_AHEAD_BYTES, slab.size_bytes)
            wanted = True
        if self._next is None and not self._wants_next and slab.position + ZERO_AHEAD_BYTES > slab.size_bytes:
            self._wants_next = wanted = True
            self._next_zero_goal = ZERO_AHEAD_BYTES if zero else 0
        if wanted and not self._closed:
            if self._preparer is None and not self._start_preparer():
                self._wants_next = False
                return
            self._state.notify_all()

    def _start_preparer(self) -> bool:
        """Start the thread. If no thread can be started, appends work without."""
        preparer = threading.Thread(target=self._prepare, name="slab-preparer", daemon=True)
        try:
            preparer.start()
        except RuntimeError:
            return False
        self._preparer = preparer
        return True

    def _prepare(self) -> None:
        while True:
            with self._lock:
                while not (self._closed or self._wants_next or self._to_zero()):
                    self._state.wait()
                if self._closed:
                    return
                slab = self._to_zero()
            if slab is not None:
                self._zero(slab)
                continue
            # A failure here will fail again, with an answer, when an append needs the slab.
            with contextlib.suppress(Unavailable):
                self._prepare_next()
            with self._lock:
                self._wants_next = False
                if self._next is not None:
                    self._next.zero_goal = min(self._next_zero_goal, self._next.size_bytes)

    def _to_zero(self) -> Slab | None:
        for slab in (self._current, self._next):
            if slab is not None and slab.written_bytes < slab.zero_goal:
                return slab
        return None

    def _zero(self, slab: Slab) -> None:
        """Write zeros up to the slab's goal, then let the journal catch up here rather than in an append."""
        try:
            descriptor = open_direct(slab.path, os.O_WRONLY) if self._direct_io else None
            if descriptor is None:
                descriptor = os.open(slab.path, os.O_WRONLY)
            try:
                # Not closed here: when a write fails, the traceback still holds views of it.
                zeros = memoryview(huge_pages(HUGE_PAGE_BYTES))
                while self._zero_piece(slab, descriptor, zeros):
                    pass
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)
        except OSError:
            # Zeroing only makes appends faster; whatever is wrong will be reported by one of them.
            with self._lock:
                slab.zero_goal = 0

    def _zero_piece(self, slab: Slab, descriptor: int, zeros: memoryview) -> bool:
        with self._lock:
            start, end = slab.written_bytes, min(slab.written_bytes + ZERO_PIECE_BYTES, slab.zero_goal)
            if self._closed or slab.sealed or start >= end:
                return False
            self._zeroing = (slab, start, end)
        done = False
        try:
            with zeros[: end - start] as piece:
                write_fully(descriptor, [piece], start)
            done = True
        finally:
            with self._lock:
                self._zeroing = None
                if done:
                    slab.written_bytes = max(slab.written_bytes, end)
                self._state.notify_all()
        return True


@contextlib.contextmanager
def _explained(doing: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unavailable(error, doing, path) from error


def _take(slab: Slab, offset: int, end: int) -> None:
    """An object takes the space up to `end`."""
    slab.position = end
    slab.written_bytes = max(slab.written_bytes, end)
    slab.mark(offset)


def _number_of(path: Path) -> int:
    return int(path.stem)
