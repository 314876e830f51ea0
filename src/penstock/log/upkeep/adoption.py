"""Adoption: what large flushes wrote to the WAL becomes an object as it is, without being copied.

A long stretch of one partition inside a WAL object is no worse than the same bytes in an object that compaction
wrote: it is read as fast, and a row more costs less than copying it. So a WAL file that consists of such stretches,
nearly, is given to the object store under a second name. Nobody writes to it again, and when the WAL has let go of it
the object is all that is left. Short stretches in between are copied as always; their space in the file is lost.

A file to which objects are still being added has to wait: the pass ends before it, unless its commits are too old or
too many to wait.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from penstock.base.errors import InvalidRequest
from penstock.log.upkeep.rewriting import SegmentChanges
from penstock.log.upkeep.uploads import Upload
from penstock.log.upkeep.wal_plan import Stretch, WalFile, is_long
from penstock.storage.wal import Shared, WalStore

MIN_BYTES = 8 * 1024 * 1024
LONG_SHARE = 0.75
_log = logging.getLogger(__name__)


class Adoption:
    """Which WAL files can be objects, and how they become some."""

    def __init__(self, changes: SegmentChanges, wal: WalStore, *, min_bytes: int = MIN_BYTES) -> None:
        self._changes, self._wal, self._min_bytes = changes, wal, min_bytes
        self._works = True

    def candidates(self, files: dict[str, WalFile], stretches: Iterable[Stretch]) -> list[WalFile]:
        """The files that consist of long stretches, in the order of their commits."""
        if not self._works:
            return []
        for stretch in stretches:
            for span in stretch.spans:
                if is_long(span) and span.location is not None:
                    files[span.location.key].long_bytes += span.byte_length
        return [
            file
            for file in files.values()
            if file.long_bytes >= self._min_bytes and file.long_bytes >= LONG_SHARE * file.held_bytes
        ]

    async def share(self, key: str) -> Shared | None:
        """Get hold of a file; None while it grows."""
        return await self._changes.in_thread(lambda: self._wal.share(key))

    async def adopt(self, shared: Shared, upload: Upload) -> int | None:
        """Let a file be an object; its size, or None where that does not work: then it never will."""
        try:
            return await self._changes.in_thread(lambda: self._changes.objects.adopt(upload.key, shared))
        except InvalidRequest as problem:
            _log.info("files of the write-ahead log are copied into segments: %s", problem)
            self._works = False
            return None
