"""Encryption at rest, applied to the log: sealing flushes and segments, and opening them for reads and chores.

A flush is laid out in plain memory, which becomes the tail; what is stored is a second body with the same front, in
which the shares of encrypted clusters are sealed, after all others. Plain shares have the same positions in both
bodies. While any cluster is encrypted, the gaps around a body's shares are wiped: memory is reused, and what one tenant
wrote must not reach the disk as padding after what another one writes.

Before bytes are opened on a worker thread, `ready` loads their keys into memory, on the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Protocol

from penstock.base.checksums import crc32c
from penstock.base.errors import CorruptData, Unavailable
from penstock.base.randomness import Randomness
from penstock.keys.model import DataKey, LockReason
from penstock.log.answers import Appended
from penstock.log.commits import CONTROL, SEAL_BYTES
from penstock.log.flush import Flush, Share
from penstock.log.model import EntrySeal, Partition, Seal, Topic
from penstock.log.seals import SALT_BYTES, BrokenSeal, RangeCipher, covering, stored_bytes
from penstock.storage.arena import Arena, aligned
from penstock.wire.error_codes import ErrorCode

SEALED_BYTES = 16 * 1024 * 1024
"""Memory for sealed bodies in flight."""
SOON_S = 0.5


class DataKeySource(Protocol):
    """What is needed of the data keys (see keys/service.py)."""

    @property
    def clusters(self) -> Mapping[int, object]: ...
    @property
    def current(self) -> Mapping[int, DataKey]: ...
    @property
    def locked(self) -> Mapping[int, LockReason]: ...
    @property
    def is_on(self) -> bool: ...
    def peek(self, key_id: int) -> DataKey | None: ...
    async def ready(self, key_ids: Collection[int]) -> None: ...


class Sealing:
    """Seals what clusters with keys write, and opens it."""

    def __init__(self, keys: DataKeySource, randomness: Randomness) -> None:
        self._keys, self._randomness = keys, randomness
        self._arena = Arena(SEALED_BYTES)
        self.locked = keys.locked
        """Clusters that cannot write now, and why."""

    def drop_memory(self) -> None:
        """Release memory."""
        self._arena.drop()

    # ---- flushes ---------------------------------------------------------------------------------------------

    def arrange(self, shares: list[Share]) -> int:
        """Move the shares that are to be sealed after all others; how much more room a commit record needs."""
        current = self._keys.current
        if not current:
            return 0
        sealed = [share for share in shares if share.partition.topic.cluster_id in current]
        if not sealed:
            return 0
        shares[:] = [share for share in shares if share.partition.topic.cluster_id not in current] + sealed
        position = 0
        for share in shares:
            share.byte_start = position
            position += share.byte_length
        return len(shares) * SEAL_BYTES

    def seal(self, flush: Flush, front: int, end: int) -> None:
        """Make the stored body of one that is laid out, with a front of this size and up to this end.

        Raises `Unavailable` if a locked cluster has records in it, not only markers. Callers check before they append.
        """
        if self.locked:
            for share in flush.shares:
                if share.partition.topic.cluster_id in self.locked and _has_records(share):
                    raise Unavailable(f"nothing can be sealed for {share.partition.topic.name} now")
        if not self._keys.is_on:
            return
        body, current = flush.body, self._keys.current
        body[:front], body[end:] = bytes(front), bytes(len(body) - end)
        ciphers = [self._cipher_of(share.partition, current) for share in flush.shares]
        if not any(ciphers):
            return
        plain_end = end
        size = front
        for share, cipher in zip(flush.shares, ciphers, strict=True):
            if cipher is None:
                size += share.byte_length
            else:
                plain_end = min(plain_end, share.byte_start)
                size += stored_bytes(share.byte_length)
        stored, _ = self._arena.reserve(aligned(size))
        stored[:plain_end] = body[:plain_end]
        stored[size:] = bytes(len(stored) - size)
        position, seals = plain_end, list[EntrySeal | None]()
        for share, cipher in zip(flush.shares, ciphers, strict=True):
            if cipher is None:
                seals.append(None)
                continue
            range_cipher, seal = cipher
            target = stored[position : position + stored_bytes(share.byte_length)]
            range_cipher.seal_into(body[share.byte_start : share.byte_start + share.byte_length], target)
            seals.append(EntrySeal(seal.key_id, seal.salt, position, share.byte_length, 0, share.base, crc32c(target)))
            position += len(target)
        flush.stored, flush.seals = stored, seals

    def _cipher_of(self, partition: Partition, current: Mapping[int, DataKey]) -> tuple[RangeCipher, Seal] | None:
        key = current.get(partition.topic.cluster_id)
        return None if key is None else self._new(key, partition)

    def _new(self, key: DataKey, partition: Partition) -> tuple[RangeCipher, Seal]:
        salt = self._randomness.token(SALT_BYTES)
        return RangeCipher(key, salt, partition), Seal(key.key_id, salt)

    # ---- segments --------------------------------------------------------------------------------------------

    def new_range(self, partition: Partition) -> tuple[RangeCipher, Seal] | None:
        """The cipher for a new segment of a partition; None if the segment stays plain. On any thread.

        Raises `Unavailable` while the cluster's key is unavailable.
        """
        if not self._keys.is_on:
            return None
        cluster_id = partition.topic.cluster_id
        made = None if cluster_id in self.locked else self._cipher_of(partition, self._keys.current)
        # Keys may come and go while this thread looks: data of a cluster that has keys must never be written plain.
        if made is None and (cluster_id in self._keys.clusters or cluster_id in self.locked):
            raise Unavailable(f"nothing can be sealed for {partition.topic.name} now")
        return made

    def is_locked(self, topic: Topic) -> bool:
        """Whether nothing of a topic can be rewritten now, because it could not be sealed."""
        return topic.cluster_id in self.locked

    # ---- opening ---------------------------------------------------------------------------------------------

    async def ready(self, seals: Iterable[Seal | EntrySeal | None]) -> None:
        """Load the keys of seals into memory. Raises `Unavailable`, or `KeysErased`."""
        wanted = {seal.key_id for seal in seals if seal is not None}
        if wanted:
            await self._keys.ready(wanted)

    def is_ready(self, seal: Seal | EntrySeal | None) -> bool:
        """Whether a sealed range can be opened without waiting."""
        return seal is None or self._keys.peek(seal.key_id) is not None

    async def ready_soon(self, seals: Iterable[Seal | EntrySeal | None]) -> None:
        """The same for chores, which share one task and must not be held up by a key service that does not answer. The
        request goes on, so the keys may be there the next time."""
        try:
            async with asyncio.timeout(SOON_S):
                await self.ready(seals)
        except TimeoutError:
            raise Unavailable("the key service has not answered yet") from None

    def cipher(self, seal: Seal | EntrySeal, partition: Partition) -> RangeCipher:
        """The cipher that opens a range. On any thread, after `ready`."""
        key = self._keys.peek(seal.key_id)
        if key is None:
            raise Unavailable("a data key has left memory before it was used")
        if key.cluster_id != partition.topic.cluster_id:
            raise BrokenSeal("a range is sealed by another cluster's key")
        return RangeCipher(key, seal.salt, partition)


class RangeReader(Protocol):
    """What is needed of an object store."""

    def read_into(self, key: str, start: int, buffer: memoryview) -> int: ...


class StoredRange(Protocol):
    """A range of a partition's bytes in an object."""

    @property
    def object_key(self) -> str: ...
    @property
    def byte_offset(self) -> int: ...
    @property
    def byte_length(self) -> int: ...
    @property
    def seal(self) -> Seal | None: ...


def read_range(
    objects: RangeReader,
    sealing: Sealing | None,
    ref: StoredRange,
    partition: Partition,
    start: int,
    target: memoryview,
) -> int:
    """Fill the target with bytes of a segment, opened if it is sealed; how many there were. On a worker thread."""
    if ref.seal is None:
        return objects.read_into(ref.object_key, ref.byte_offset + start, target)
    if sealing is None:
        raise Unavailable("this is sealed, and there are no keys")
    first, end = covering(start, start + len(target), ref.byte_length)
    sealed = memoryview(bytearray(end - first))
    if objects.read_into(ref.object_key, ref.byte_offset + first, sealed) < len(sealed):
        raise BrokenSeal(f"{ref.object_key} ends before its segment does")
    sealing.cipher(ref.seal, partition).open_into(sealed, start, target)
    return len(target)


def read_span(
    read: Callable[[int, int], memoryview], sealing: Sealing | None, seal: EntrySeal, partition: Partition,
    target: memoryview,
) -> None:  # fmt: skip
    """Open the bytes of a sealed span; `read` reads from its WAL object. On a worker thread."""
    if sealing is None:
        raise Unavailable("this is sealed, and there are no keys")
    first, end = covering(seal.skipped, seal.skipped + len(target), seal.length)
    try:
        sealed = read(seal.start + first, seal.start + end)
    except CorruptData as problem:
        raise BrokenSeal(str(problem)) from problem
    sealing.cipher(seal, partition).open_into(sealed, seal.skipped, target)


def _has_records(share: Share) -> bool:
    return any(not batch.flags & CONTROL for batch, *_ in share.appended)


def locked_out(lock: LockReason) -> Appended:
    """The answer to batches that cannot be written."""
    if lock is LockReason.ERASED:
        return Appended(
            ErrorCode.TOPIC_AUTHORIZATION_FAILED,
            message="the keys of this cluster were erased: nobody can use it again",
        )
    return Appended(ErrorCode.KAFKA_STORAGE_ERROR, message="the key service does not answer; try again")
