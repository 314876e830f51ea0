"""What keys of a cluster there are to be next: pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from penstock.base.errors import InvalidRequest
from penstock.keys.model import ClusterKeys, KeyState, LockReason, WrappedKey


def check_usable(keys: ClusterKeys | None) -> ClusterKeys:
    """The keys of a cluster that is to get another one; raise `InvalidRequest` if it cannot."""
    if keys is None:
        raise InvalidRequest("the cluster is not encrypted")
    if keys.state is not KeyState.ON:
        raise InvalidRequest("the keys of the cluster were erased")
    return keys


def check_stays(stays: bool) -> None:
    """Raise `InvalidRequest` if a cluster goes, which gets no keys any more."""
    if not stays:
        raise InvalidRequest("the cluster is being deleted")


def rotated(keys: ClusterKeys, key_id: int) -> ClusterKeys:
    """From now on another data key seals what is written."""
    return replace(check_usable(keys), current_key_id=key_id)


def rewrapped(keys: ClusterKeys, master_key_id: str) -> ClusterKeys:
    """All data keys are wrapped by another master key; the old one is to be destroyed."""
    if check_usable(keys).retired_master_key_id:
        raise InvalidRequest("the master key before this one is still to be destroyed; try again when it is")
    return replace(keys, master_key_id=master_key_id, retired_master_key_id=keys.master_key_id)


def without_retired(keys: ClusterKeys) -> ClusterKeys:
    """The retired master key is destroyed."""
    return replace(keys, retired_master_key_id="")


def erasing(keys: ClusterKeys | None) -> ClusterKeys:
    """Nothing may be read any more. Asking twice changes nothing."""
    if keys is None:
        raise InvalidRequest("the cluster is not encrypted: there is no key whose loss would make its data unreadable")
    return keys if keys.state is KeyState.ERASED else replace(keys, state=KeyState.ERASING)


def erased(keys: ClusterKeys) -> ClusterKeys:
    """The key service has confirmed it."""
    return replace(keys, state=KeyState.ERASED, master_key_id="", retired_master_key_id="")


def left_behind(keys: ClusterKeys, stored: Iterable[WrappedKey]) -> list[WrappedKey]:
    """Data keys that are still wrapped by the retired master key, because they could not be unwrapped."""
    retired = keys.retired_master_key_id
    if not retired or keys.state is not KeyState.ON:
        return []
    return [key for key in stored if key.cluster_id == keys.cluster_id and key.master_key_id == retired]


def to_destroy(keys: ClusterKeys, stored: Iterable[WrappedKey] = ()) -> list[str]:
    """The master keys that are still to be destroyed. One that still wraps a data key is not, unless all are erased."""
    doomed = [keys.retired_master_key_id] if keys.retired_master_key_id and not left_behind(keys, stored) else []
    if keys.state is KeyState.ERASING and keys.master_key_id:
        doomed.append(keys.master_key_id)
    return doomed


def lock_of(keys: ClusterKeys, *, has_current: bool) -> LockReason | None:
    """Why nothing can be sealed for a cluster, or None."""
    if keys.state is not KeyState.ON:
        return LockReason.ERASED
    return None if has_current else LockReason.WAITING


def spent(
    stored: Iterable[WrappedKey], clusters: Mapping[int, ClusterKeys], in_use: Collection[int],
    replaced_at: Mapping[int, int], wal_floor: int,
) -> list[int]:  # fmt: skip
    """Data keys by which nothing is sealed any more, and nothing ever will be.

    No segment is (`in_use`), and neither is anything in the write-ahead log: what came after the commit at which the
    key was replaced was sealed by another, and what came before it has left the log.
    """
    found = []
    for key in stored:
        cluster = clusters.get(key.cluster_id)
        if cluster is None or cluster.current_key_id == key.key_id or key.key_id in in_use:
            continue
        if replaced_at.get(key.key_id, wal_floor + 1) <= wal_floor:
            found.append(key.key_id)
    return found
