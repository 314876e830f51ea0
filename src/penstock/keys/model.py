"""What is known of keys.

A *data key* seals what a cluster stores. It is in the database only wrapped, by the cluster's *master key*, which never
leaves the key service. So whoever has the database and the files has nothing, and whoever destroys the master key has
destroyed every copy of what it protects, backups included.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct

from penstock.base.dataclasses import dataclass, field
from penstock.base.errors import CorruptData, InvalidRequest

SECRET_BYTES = 32
_CONTEXT = Struct(">iq")


class KeyDestroyed(InvalidRequest):
    """The master key is gone for good, and so is everything it protects."""


class KeysErased(CorruptData):
    """What is asked for is sealed by a key that was erased."""


class KeyState(IntEnum):
    """What becomes of the keys of a cluster. The numbers are stored."""

    ON = 1
    ERASING = 2
    """Nothing of it may be read any more; the key service has not confirmed yet that the master key is destroyed."""
    ERASED = 3


class LockReason(IntEnum):
    """Why nothing can be sealed for a cluster."""

    WAITING = 1
    """The key service does not answer; it is asked again."""
    ERASED = 2
    """Its keys are gone for good."""


@dataclass(frozen=True, slots=True)
class DataKey:
    """A data key as it is used. Only in memory."""

    key_id: int
    cluster_id: int
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A data key as it is stored."""

    key_id: int
    cluster_id: int
    master_key_id: str
    wrapped: bytes = field(repr=False)
    created_ms: int

    @property
    def context(self) -> bytes:
        """What it was wrapped with: a key wrapped for another cluster, or another key, does not open."""
        return context_of(self.cluster_id, self.key_id)


@dataclass(frozen=True, slots=True)
class ClusterKeys:
    """The keys of one cluster."""

    cluster_id: int
    state: KeyState
    master_key_id: str
    current_key_id: int
    """The data key that seals what is written now."""
    retired_master_key_id: str = ""
    """A master key that wraps nothing any more and is still to be destroyed."""


def context_of(cluster_id: int, key_id: int) -> bytes:
    """What a data key is wrapped with."""
    return _CONTEXT.pack(cluster_id, key_id)
