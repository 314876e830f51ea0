"""The binary format in which groups are stored: texts, blobs and numbers one after the other, big-endian.

    text     int32 length in bytes (-1: null), UTF-8;   blob the same without null
    list     int32 count, and its elements

Each kind of group defines its layout in its `encoding`. A stored form starts with its version.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from struct import Struct, error
from typing import TypeVar

from penstock.base.errors import CorruptData

T = TypeVar("T")

_INT32 = Struct(">i")
_TOPIC = Struct(">16si")


def pack_count(count: int) -> bytes:
    """The count of a list."""
    return _INT32.pack(count)


def pack_text(text: str | None) -> bytes:
    """A text, or null."""
    return _INT32.pack(-1) if text is None else pack_blob(text.encode())


def pack_blob(blob: bytes) -> bytes:
    """Bytes."""
    return _INT32.pack(len(blob)) + blob


def pack_texts(texts: Iterable[str]) -> bytes:
    """A list of texts."""
    listed = [pack_text(text) for text in texts]
    return pack_count(len(listed)) + b"".join(listed)


def pack_partitions(topics: Mapping[bytes, Iterable[int]]) -> bytes:
    """Partitions by topic id."""
    parts = [pack_count(len(topics))]
    for topic_id, partitions in topics.items():
        numbers = tuple(partitions)
        parts.append(_TOPIC.pack(topic_id, len(numbers)) + Struct(f">{len(numbers)}i").pack(*numbers))
    return b"".join(parts)


class Unpacker:
    """Reads stored bytes sequentially, never past their end."""

    __slots__ = ("_position", "_stored")

    def __init__(self, stored: bytes) -> None:
        self._stored, self._position = bytes(stored), 0

    def fixed(self, layout: Struct) -> tuple[int, ...]:
        """Numbers of a layout."""
        values: tuple[int, ...] = layout.unpack_from(self._stored, self._position)
        self._position += layout.size
        return values

    def count(self) -> int:
        """The count of a list."""
        (count,) = self.fixed(_INT32)
        if not 0 <= count <= len(self._stored):
            raise ValueError(f"impossible count {count}")
        return count

    def raw(self, size: int) -> bytes:
        """That many bytes."""
        start, self._position = self._position, self._position + size
        if size < 0 or self._position > len(self._stored):
            raise ValueError(f"impossible length {size}")
        return self._stored[start : self._position]

    def blob(self) -> bytes | None:
        """Bytes, or null."""
        (size,) = self.fixed(_INT32)
        return None if size == -1 else self.raw(size)

    def text(self) -> str | None:
        """A text, or null."""
        blob = self.blob()
        return None if blob is None else blob.decode()

    def texts(self) -> tuple[str, ...]:
        """A list of texts."""
        return tuple(self.text() or "" for _ in range(self.count()))

    def partitions(self) -> dict[bytes, tuple[int, ...]]:
        """Partitions by topic id."""
        topics: dict[bytes, tuple[int, ...]] = {}
        for _ in range(self.count()):
            topic_id, count = _TOPIC.unpack_from(self._stored, self._position)
            self._position += _TOPIC.size
            if not 0 <= count <= len(self._stored):
                raise ValueError(f"impossible count {count}")
            topics[topic_id] = self.fixed(Struct(f">{count}i"))
        return topics

    def end(self) -> None:
        """Check that all bytes were read."""
        if self._position != len(self._stored):
            raise ValueError("bytes are left over")


def unpacked(stored: bytes, read: Callable[[Unpacker], T]) -> T:
    """Decode stored bytes completely. Raises `CorruptData`."""
    unpacker = Unpacker(stored)
    try:
        value = read(unpacker)
        unpacker.end()
    except (error, ValueError, IndexError) as problem:
        raise CorruptData(f"a stored group cannot be read: {problem}") from problem
    return value
