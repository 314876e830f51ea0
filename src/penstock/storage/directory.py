"""The data directory: one folder with everything, owned by one process at a time.

    lock          held with flock for the life of the process; its text is the owner's process id
    format        JSON: the version of this layout, the cluster id, and where the metadata is if it is not here;
                  written once, atomically
    starts        the number of the newest start that the metadata knows of
    slabs/        the write-ahead log
    segments/     compacted data
    metadata.db   topics, groups, commits

A directory with a format newer than this program is refused, and so is one that has data but no format file: with a new
cluster id every client would believe that it talks to another cluster. The same goes for data whose metadata is
missing, or older than the last start: whatever the metadata does not name would be taken for leftovers, and deleted. If
the disk has lost commits, a start without them has to be asked for.

Two files are locked, because whoever believes a lock to be stale deletes the file that is called so.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from penstock.base.errors import CorruptData, InvalidRequest, Unavailable
from penstock.base.randomness import Randomness, SystemRandomness, new_uuid, uuid_text
from penstock.storage.disk import sync_directory

FORMAT_VERSION = 1
METADATA_HERE = "sqlite"
_PLACES = {"sqlite": "the directory itself", "postgresql": "PostgreSQL"}
MIN_FREE_BYTES = 128 * 1024 * 1024
"""Free space needed for a new directory: the first slab and some room for metadata."""
MIN_FREE_TO_GO_ON_BYTES = 16 * 1024 * 1024
"""For an existing one: enough to make changes that free space."""


class Format(NamedTuple):
    """The content of the format file."""

    version: int
    cluster_id: str
    metadata: str
    """Where the metadata is stored."""


class DataDirectory:
    """An open data directory: its paths, and the lock that keeps other processes out."""

    def __init__(self, path: Path, locks: list[int], cluster_id: str) -> None:
        self._locks = locks
        self.path = path
        self.slabs, self.segments, self.database = path / "slabs", path / "segments", path / "metadata.db"
        self.cluster_id = cluster_id

    @classmethod
    def open(
        cls, path: Path, *, metadata: str = METADATA_HERE, randomness: Randomness | None = None
    ) -> DataDirectory:  # fmt: skip
        """Create or open a directory and lock it. Raise `Unavailable` with a message that says what to do.

        `metadata` is where the metadata is stored: that cannot change during the life of a directory.
        """
        path = Path(path).absolute()
        with _explained(path):
            fresh = [folder for folder in (path, *path.parents) if not folder.exists()]
            # It contains records and credentials: not readable for other users of this machine.
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in fresh:
                with suppress(PermissionError):  # Folders may be writable without being readable.
                    sync_directory(folder.parent)
            locks = [_take_lock(path)]
            try:
                _check_free_space(path, MIN_FREE_TO_GO_ON_BYTES if (path / "format").exists() else MIN_FREE_BYTES)
                cluster_id = _check_format(path, metadata)
                cluster_id = cluster_id or _write_format(path, metadata, randomness or SystemRandomness())
                locks.append(_locked(path / "format", path))
                directory = cls(path, locks, cluster_id)
                if metadata == METADATA_HERE:
                    directory._check_database()
                # Even in an existing directory that is readable for others.
                directory.slabs.mkdir(mode=0o700, exist_ok=True)
                directory.segments.mkdir(mode=0o700, exist_ok=True)
                sync_directory(path)
            except BaseException:
                for lock in locks:
                    os.close(lock)
                raise
        return directory

    def close(self) -> None:
        """Unlock the directory."""
        for lock in self._locks:
            with suppress(OSError):  # A forked process may have the same file open.
                fcntl.flock(lock, fcntl.LOCK_UN)
            os.close(lock)
        self._locks = []

    @property
    def has_data(self) -> bool:
        """Whether anything was ever appended, so that the metadata cannot be new."""
        # Either may be a file system of its own, with a folder like lost+found.
        return any(self.slabs.glob("*.slab")) or any(self.segments.glob("[0-9a-f][0-9a-f]"))

    @property
    def newest_start(self) -> int:
        """The number of the newest start, which the metadata must know of; 0 if none was noted."""
        file = self.path / "starts"
        try:
            return int(file.read_bytes())
        except FileNotFoundError:
            return 0
        except ValueError:
            raise CorruptData(f"The file {file} is damaged. Restore the data directory from a backup.") from None

    def note_start(self, number: int) -> None:
        """Remember a start that the metadata has durably."""
        with _explained(self.path):
            _write_durably(self.path / "starts", b"%d\n" % number)
            sync_directory(self.path)

    def check_start(self, known: int) -> None:
        """Raise `CorruptData` if the metadata knows of no start as new as the newest."""
        newest = self.newest_start
        if known < newest:
            raise CorruptData(
                f"The metadata of the data directory {self.path} is older than its data: it ends with start {known},"
                f" the data with start {newest}. Restore all of the directory, and its metadata, from the same backup."
                f" (Without the file {self.path / 'starts'} it starts, and deletes what the metadata does not know of.)"
            )

    def lost(self, first: int, count: int, reason: str) -> CorruptData:
        """The refusal of a start that would overwrite acknowledged commits, from `first` on, which cannot be read."""
        return CorruptData(
            f"The data directory {self.path} has lost {count} acknowledged commit{'s' if count > 1 else ''}: {reason}."
            " Restore the directory from a backup; or copy it, and start it once with"
            f" --give-up-commits-from {first}, which goes on without them and overwrites them."
        )

    def _check_database(self) -> None:
        """Raise `CorruptData` where SQLite would begin a new database for old data."""
        file = self.database
        if self.has_data and not (file.exists() and file.stat().st_size):
            raise CorruptData(
                f"The data directory {self.path} has data, but {file} is {'empty' if file.exists() else 'missing'}."
                " Restore all of the directory from a backup."
            )


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn errors of the operating system into messages about the data directory."""
    try:
        yield
    except (FileExistsError, NotADirectoryError) as error:
        raise Unavailable(f"The data directory {path} cannot be used: {error.filename} is not a directory.") from error
    except PermissionError as error:
        raise Unavailable(
            f"The data directory {path} is not writable for this user. Change its owner, or choose another directory."
        ) from error
    except OSError as error:
        raise Unavailable(f"The data directory {path} cannot be used: {error.strerror}.") from error


def owner_of(path: Path) -> str | None:
    """The id of the process that has a directory open, or `unknown`; None if there is none. Creates nothing."""
    try:
        lock = os.open(path / "lock", os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _owner(lock)
    except OSError:
        return None
    finally:
        os.close(lock)  # This also unlocks it.
    return None


def _owner(lock: int) -> str:
    return os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"


def _take_lock(path: Path) -> int:
    lock = _locked(path / "lock", path)
    try:
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    except OSError:
        os.close(lock)
        raise
    return lock


def _locked(file: Path, directory: Path) -> int:
    """Open a file and lock it until it is closed."""
    lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = _owner(lock)
        os.close(lock)
        raise Unavailable(
            f"The data directory {directory} is in use by another process"
            f" (pid {owner if owner.isdigit() else 'unknown'}). Stop that process, or choose another directory."
        ) from None
    except OSError:
        os.close(lock)
        raise
    return lock


def _check_free_space(path: Path, needed_bytes: int) -> None:
    usage = os.statvfs(path)
    free_bytes = usage.f_bavail * usage.f_frsize
    if free_bytes < needed_bytes:
        raise Unavailable(
            f"The disk of the data directory {path} has only {free_bytes // 2**20} MiB left; "
            f"at least {needed_bytes // 2**20} MiB are needed. Free some space, or choose another directory."
        )


def read_format(path: Path) -> Format | None:
    """The format file of an existing directory, None for a new one. Locks and creates nothing."""
    file = path / "format"
    try:
        text = file.read_bytes()
    except FileNotFoundError:
        if (path / "metadata.db").exists() or (path / "slabs").exists():
            raise CorruptData(f"The data directory {path} has data but no format file. Restore {file}.") from None
        return None
    try:
        stored = json.loads(text)
        return Format(
            int(stored["version"]), str(stored["cluster_id"]), str(stored.get("metadata", METADATA_HERE))
        )  # fmt: skip
    except (ValueError, TypeError, KeyError):
        raise CorruptData(f"The format file {file} is damaged. Restore it from a backup.") from None


def _check_format(path: Path, metadata: str) -> str | None:
    """The cluster id of an existing directory that can be opened, None for a new one. Raises otherwise."""
    found = read_format(path)
    if found is None:
        return None
    if found.version > FORMAT_VERSION:
        raise InvalidRequest(
            f"The data directory {path} was written by a newer release (format {found.version}; "
            f"this one knows formats up to {FORMAT_VERSION}). Start the newer release, or choose another directory."
        )
    made_for = found.metadata
    if made_for != metadata:
        cure = "Leave --metadata out" if made_for == METADATA_HERE else "Say where that is, with --metadata"
        raise InvalidRequest(
            f"The data directory {path} has its metadata in {_PLACES.get(made_for, made_for)}, not in"
            f" {_PLACES.get(metadata, metadata)}. {cure}, or choose another directory."
        )
    return found.cluster_id


def _write_format(path: Path, metadata: str, randomness: Randomness) -> str:
    """Choose a cluster id and make it durable before anything can refer to it."""
    cluster_id = uuid_text(new_uuid(randomness))
    stored: dict[str, int | str] = {"version": FORMAT_VERSION, "cluster_id": cluster_id}
    if metadata != METADATA_HERE:
        stored["metadata"] = metadata
    _write_durably(path / "format", json.dumps(stored).encode() + b"\n")
    return cluster_id


def _write_durably(path: Path, content: bytes) -> None:
    """Replace a file as a whole. Its name is durable once the directory is synced."""
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
