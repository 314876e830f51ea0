"""The object store in a local directory: a file per object.

An object is written to a temporary file and renamed into place, so it is visible as a whole or not at all; with `sync`
its bytes and then its name are on the disk before `commit` returns. Temporary files of a crashed process are removed
when the store is opened, which is safe because a data directory belongs to one process.

Large objects bypass the page cache through a recycled staging buffer: fresh pages of the cache would cost several times
as much as everything else, and evict what readers use.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from penstock.base.errors import InvalidRequest, PlatformError
from penstock.base.lazy import lazy_import
from penstock.storage.arena import ALIGNMENT, HUGE_PAGE_BYTES, huge_pages
from penstock.storage.descriptors import DescriptorTable
from penstock.storage.disk import (
    allocate,
    allocates_cheaply,
    is_aligned,
    is_full,
    open_direct,
    sync_directory,
    unavailable,
    write_fully,
)
from penstock.storage.object_store import ObjectInfo, ObjectWriter, check_key, missing
from penstock.storage.pieces import PIECE_MIN_BYTES, Descriptor, FilePiece
from penstock.storage.removing import Remover
from penstock.storage.wal import Buffer, Shared

if TYPE_CHECKING:
    from penstock.storage import page_cache
else:  # Of those who have files that were asked for.
    page_cache = lazy_import("penstock.storage.page_cache")

STAGING_BYTES = 256 * 1024
"""Also the size of one write. A concurrent fsync of the WAL waits for as much, and no more: flushing a disk's cache
flushes it for everybody."""
DIRECT_MIN_BYTES = STAGING_BYTES
"""Objects that fill the staging buffer bypass the page cache."""
ALLOCATION_BYTES = 16 * 1024 * 1024
PATHS_MAX = 256
SENDING_MAX_FILES = 64
"""How many files may be open for responses that clients have not taken yet. Ranges of others are read into memory,
which is bounded as well."""
_IDLE_STAGINGS = 2
_TEMPORARY = ".tmp"


class LocalObjectStore:
    """Objects as files below one directory, which no other process uses at the same time."""

    def __init__(self, root: Path, *, sync: bool, now: Callable[[], float] | None = None) -> None:
        """`now` is the clock of the code that sends pieces: a piece just seen in the page cache is not checked
        again."""
        self._root = root
        self._sync = sync
        self._now = now
        self._sent_lately: dict[str, Path] = {}
        """Paths by key: composing a path takes longer than everything else that is done for a piece."""
        self._temporary = root / _TEMPORARY
        self._numbers = itertools.count(1)
        self._readers = DescriptorTable()
        self._sending: WeakValueDictionary[Path, Descriptor] = WeakValueDictionary()
        self._remover = Remover()
        self._stagings: list[mmap.mmap] = []
        try:
            self._temporary.mkdir(parents=True, exist_ok=True)
            self._allocates = allocates_cheaply(root)
            for leftover in self._temporary.iterdir():
                leftover.unlink()
        except OSError as error:
            raise unavailable(error, "opening", root) from error

    def put(self, key: str, body: Sequence[Buffer]) -> None:
        """Store a whole object at once."""
        writer = self.open_writer(key)
        try:
            for part in body:
                writer.write(part)
            writer.commit()
        finally:
            writer.abort()

    def open_writer(self, key: str) -> ObjectWriter:
        """Store an object piece by piece; uses the memory of one staging buffer."""
        check_key(key)
        return LocalObjectWriter(self, key, self._temporary / str(next(self._numbers)))

    def adopt(self, key: str, shared: Shared) -> int:
        """Hard-link a finished file as an object. It must not be written to any more under its first name."""
        path = self._path(key)
        if not isinstance(shared, Path):
            raise InvalidRequest("only files can be adopted")
        try:
            with self._named_durably(path):
                os.link(shared, path)
            return path.stat().st_size
        except OSError as error:
            # Another file system, or one without hard links.
            raise InvalidRequest(f"{shared} cannot become an object: {error.strerror}") from error

    def read_into(self, key: str, start: int, buffer: memoryview) -> int:
        """Fill the buffer from `start` on. A reader that began before a `delete` finishes undisturbed."""
        path = self._path(key)
        if start < 0:
            raise InvalidRequest(f"an object has no byte {start}")
        with self._explained("reading", key), self._readers.reading(path) as descriptor:
            done = 0
            while done < buffer.nbytes:
                count = os.preadv(descriptor, [buffer[done:]], start + done)
                if count == 0:
                    break
                done += count
            return done

    def piece(self, key: str, start: int, length: int) -> FilePiece | None:
        """A range of a recently read file, if it is in the page cache. Never waits for a disk."""
        if length < PIECE_MIN_BYTES:
            return None
        path = self._known_path(key)
        with contextlib.suppress(OSError):  # E.g. too many open files: then it is read normally.
            descriptor = self._sending.get(path) or self._begin_sending(path)
            if descriptor is not None:
                piece = FilePiece(descriptor, start, length)
                if piece.is_cached():
                    piece.seen_cached_at = None if self._now is None else self._now()
                    return piece
        return None

    def read_cached(self, key: str, start: int, buffer: memoryview) -> int:
        """Fill the buffer with what is in the page cache of a recently read file."""
        with contextlib.suppress(OSError), self._readers.reading_if_open(self._known_path(key)) as descriptor:
            if descriptor is not None:
                return page_cache.read(descriptor, start, buffer)
        return 0

    def _known_path(self, key: str) -> Path:
        path = self._sent_lately.get(key)
        if path is None:
            if len(self._sent_lately) >= PATHS_MAX:
                self._sent_lately.clear()
            path = self._sent_lately[key] = self._path(key)
        return path

    def _begin_sending(self, path: Path) -> Descriptor | None:
        if len(self._sending) >= SENDING_MAX_FILES:
            return None
        fd = self._readers.duplicate(path)
        if fd is None:
            return None
        descriptor = self._sending[path] = Descriptor(fd)
        return descriptor

    def _forget(self, path: Path) -> None:
        """Nothing more is read from the file of that name as it was."""
        self._readers.discard(path)
        self._sending.pop(path, None)

    def size(self, key: str) -> int:
        """Bytes in an object."""
        path = self._path(key)
        with self._explained("looking at", key):
            return path.stat().st_size

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Objects whose keys begin with the prefix, in key order."""
        found: list[str] = []
        with self._explained("listing", prefix):
            for folder, folders, names in os.walk(self._root):
                if _TEMPORARY in folders:
                    folders.remove(_TEMPORARY)
                relative = Path(folder).relative_to(self._root).as_posix()
                inside = "" if relative == "." else f"{relative}/"
                found.extend(inside + name for name in names if (inside + name).startswith(prefix))
        for key in sorted(found):
            try:
                status = (self._root / key).stat()
            except FileNotFoundError:
                continue
            yield ObjectInfo(key=key, size_bytes=status.st_size, modified_ms=status.st_mtime_ns // 1_000_000)

    def delete(self, keys: Sequence[str]) -> None:
        """Remove files. A file that a power failure brings back is found by the next listing."""
        paths = [self._path(key) for key in keys]
        for key, path in zip(keys, paths, strict=True):
            self._forget(path)
            with self._explained("deleting", key), contextlib.suppress(FileNotFoundError, NotADirectoryError):
                self._remover.remove(path)

    def close(self) -> None:
        """Close files not in use and release staging buffers."""
        self._remover.close()
        self._readers.close()
        self._stagings.clear()

    def _path(self, key: str) -> Path:
        check_key(key)
        return self._root / key

    def _publish(self, temporary: Path, key: str) -> None:
        """Rename a finished file into place."""
        path = self._root / key
        with self._named_durably(path):
            temporary.rename(path)

    @contextlib.contextmanager
    def _named_durably(self, path: Path) -> Iterator[None]:
        """Around naming a file: creates and syncs its directories, which are new at most once."""
        fresh = [folder for folder in path.parents if folder.is_relative_to(self._root) and not folder.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
        self._forget(path)
        if self._sync:
            for folder in (path.parent, *(folder.parent for folder in fresh)):
                sync_directory(folder)

    @contextlib.contextmanager
    def _explained(self, doing: str, key: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise missing(key) from None
        except (NotADirectoryError, IsADirectoryError, FileExistsError):
            raise InvalidRequest(f"{key} is no object, or lies below one") from None
        except OSError as error:
            raise unavailable(error, doing, self._root / key) from error

    def _lend_staging(self) -> mmap.mmap:
        with contextlib.suppress(IndexError):
            return self._stagings.pop()
        return huge_pages(HUGE_PAGE_BYTES)  # Of which STAGING_BYTES are used.

    def _take_back(self, staging: mmap.mmap) -> None:
        if len(self._stagings) < _IDLE_STAGINGS:
            self._stagings.append(staging)


class LocalObjectWriter:
    """A temporary file that becomes an object. Bytes are collected in a staging buffer and written when it is full."""

    def __init__(self, store: LocalObjectStore, key: str, path: Path) -> None:
        self._store, self._key, self._path = store, key, path
        self._direct: int | None = None
        self._tries_direct = True
        self._staging: mmap.mmap | None = None
        self._staged_bytes = 0
        self._written_bytes = 0
        self._allocated_bytes = 0
        self._open = self._finished = False
        with self._explained():
            self._plain = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        self._open = True

    def write(self, buffer: Buffer) -> None:
        """Add bytes; aligned memory is written without a copy while nothing is staged."""
        with memoryview(buffer) as given, given.cast("B") as view, self._explained():
            if self._staged_bytes == 0 and view.nbytes >= DIRECT_MIN_BYTES and is_aligned(view):
                self._write_out(view)
                return
            if self._staging is None:
                self._staging = self._store._lend_staging()
            position = 0
            while position < view.nbytes:
                count = min(view.nbytes - position, STAGING_BYTES - self._staged_bytes)
                self._staging[self._staged_bytes : self._staged_bytes + count] = view[position : position + count]
                self._staged_bytes += count
                position += count
                if self._staged_bytes == STAGING_BYTES:
                    self._flush()

    def commit(self) -> None:
        """Write what is staged, sync, and rename the file into place."""
        with self._explained():
            self._flush()
            if self._allocated_bytes > self._written_bytes:
                os.ftruncate(self._plain, self._written_bytes)
            if self._store._sync:
                os.fdatasync(self._plain)
            self._close()
            self._store._publish(self._path, self._key)
            self._finished = True

    def abort(self) -> None:
        """Remove the temporary file."""
        if self._finished:
            return
        self._finished = True
        if self._open:
            self._close()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _flush(self) -> None:
        if self._staging is not None and self._staged_bytes:
            staged_bytes, self._staged_bytes = self._staged_bytes, 0
            with memoryview(self._staging) as staging, staging[:staged_bytes] as staged:
                self._write_out(staged)

    def _write_out(self, view: memoryview) -> None:
        """Append page-aligned memory: whole pages directly, the rest through the page cache."""
        whole = view.nbytes & -ALIGNMENT
        descriptor = self._direct_descriptor() if view.nbytes >= DIRECT_MIN_BYTES else None
        start = self._written_bytes
        if descriptor is None:
            write_fully(self._plain, [view], start)
        else:
            self._allocate(start + view.nbytes)
            with view[:whole] as pages, view[whole:] as rest:
                for done in range(0, whole, STAGING_BYTES):
                    with pages[done : done + STAGING_BYTES] as piece:
                        write_fully(descriptor, [piece], start + done)
                if rest.nbytes:
                    write_fully(self._plain, [rest], start + whole)
        self._written_bytes = start + view.nbytes

    def _direct_descriptor(self) -> int | None:
        if self._written_bytes % ALIGNMENT:
            return None
        if self._direct is None and self._tries_direct:
            self._tries_direct = False
            # Syncing piece by piece keeps the disk's cache small, so that an fsync of the WAL does not wait for long.
            synced = os.O_DSYNC if self._store._sync else 0
            self._direct = open_direct(self._path, os.O_WRONLY | synced)
        return self._direct

    def _allocate(self, end: int) -> None:
        """Allocate blocks before they are written: without, every write waits for the file system to find some."""
        if self._store._allocates and end > self._allocated_bytes:
            grown = max(end, self._allocated_bytes + ALLOCATION_BYTES)
            try:
                allocate(self._plain, self._allocated_bytes, grown - self._allocated_bytes)
            except OSError as error:
                if not is_full(error):
                    raise
                # No room for the whole allocation, but perhaps for the object: continue without allocating.
                grown = sys.maxsize
            self._allocated_bytes = grown

    def _close(self) -> None:
        self._open = False
        os.close(self._plain)
        if self._direct is not None:
            os.close(self._direct)
            self._direct = None
        if self._staging is not None:
            self._store._take_back(self._staging)
            self._staging = None

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Convert an error, and remove the temporary file."""
        try:
            yield
        except (NotADirectoryError, IsADirectoryError, FileExistsError):
            self.abort()
            raise InvalidRequest(f"{self._key} cannot be an object: another object is in its way") from None
        except OSError as error:
            self.abort()
            raise unavailable(error, "writing", self._path) from error
        except PlatformError:
            self.abort()
            raise
