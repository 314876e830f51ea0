"""Adoption: a WAL file of large flushes becomes an object as it is, without being copied.

A long range of one partition inside a WAL object is no worse than the same bytes in an object that compaction wrote: it
reads as fast, and one more row costs less than copying it. So a WAL file that consists almost entirely of such ranges
is hard-linked into the object store. Nobody writes to it again, and after the WAL has released it only the object
remains. Short ranges in between are copied as always; their space in the file is wasted.

A file that still receives objects is left for later: the pass ends before it, unless its commits are too old or too
many to wait.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from penstock.base.errors import InvalidRequest
from penstock.log.upkeep.rewriting import SegmentChanges
from penstock.log.upkeep.uploads import Upload
from penstock.log.upkeep.wal_plan import PartitionRange, WalFile, is_long
from penstock.storage.wal import Shared, WalStore

MIN_BYTES = 8 * 1024 * 1024
LONG_SHARE = 0.75
_log = logging.getLogger(__name__)


class Adoption:
    """Decides which WAL files become objects, and makes them objects."""

    def __init__(self, changes: SegmentChanges, wal: WalStore, *, min_bytes: int = MIN_BYTES) -> None:
        self._changes, self._wal, self._min_bytes = changes, wal, min_bytes
        self._works = True

    def candidates(self, files: dict[str, WalFile], ranges: Iterable[PartitionRange]) -> list[WalFile]:
        """The files that consist of long ranges, in the order of their commits."""
        if not self._works:
            return []
        for moved in ranges:
            for span in moved.spans:
                if is_long(span) and span.location is not None:
                    files[span.location.key].long_bytes += span.byte_length
        return [
            file
            for file in files.values()
            if file.long_bytes >= self._min_bytes and file.long_bytes >= LONG_SHARE * file.held_bytes
        ]

    async def share(self, key: str) -> Shared | None:
        """A handle on a file; None while it still receives objects."""
        return await self._changes.in_thread(lambda: self._wal.share(key))

    async def adopt(self, shared: Shared, upload: Upload) -> int | None:
        """Make a file an object; its size, or None where the store cannot do that, now or ever."""
        try:
            return await self._changes.in_thread(lambda: self._changes.objects.adopt(upload.key, shared))
        except InvalidRequest as problem:
            _log.info("files of the write-ahead log are copied into segments: %s", problem)
            self._works = False
            return None
