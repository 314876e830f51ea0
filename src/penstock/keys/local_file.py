"""Master keys in a file of this machine.

A text file that only its owner can read: a line for each key, its id and the key in base64, or `-` where the key was
destroyed. It is replaced as a whole, durably; what it was before is overwritten first, as far as a file system lets one
do that. The file is read again when a key is asked for that is not known, so it may be restored while others wait for
it.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from penstock.base.errors import CorruptData, InvalidRequest, Unavailable
from penstock.base.lazy import lazy_import
from penstock.base.randomness import Randomness
from penstock.keys.model import SECRET_BYTES, KeyDestroyed

if TYPE_CHECKING:
    from cryptography import exceptions
    from cryptography.hazmat.primitives.ciphers import aead
else:
    exceptions = lazy_import("cryptography.exceptions")
    aead = lazy_import("cryptography.hazmat.primitives.ciphers.aead")

T = TypeVar("T")
OnThread = Callable[[Callable[[], None]], Awaitable[None]]
"""Runs work that waits for a disk where it stops nobody."""

_HEAD = "# Master keys of Penstock. What they protect can be read with this file and not without it.\n"
_DESTROYED = "-"
_NONCE_BYTES = 12
_OTHERS = 0o077


class LocalKeyFile:
    """A key service for one machine."""

    def __init__(self, path: Path, randomness: Randomness, on_thread: OnThread | None = None) -> None:
        self._path, self._randomness, self._on_thread = Path(path).absolute(), randomness, on_thread
        self._keys: dict[str, bytes | None] = {}
        """None for those that were destroyed."""

    async def create(self) -> str:
        """Make a key, and the file if there is none yet."""
        key_id, secret = self._randomness.token(8).hex(), self._randomness.token(SECRET_BYTES)
        await self._in_thread(lambda: self._change(key_id, secret))
        return key_id

    async def wrap(self, master_key_id: str, secret: bytes, context: bytes) -> bytes:
        """Encrypt a data key: a nonce, and what AES-GCM makes of it."""
        cipher = aead.AESGCM(await self._find(master_key_id))
        nonce = self._randomness.token(_NONCE_BYTES)
        return nonce + cipher.encrypt(nonce, secret, context)

    async def unwrap(self, master_key_id: str, wrapped: bytes, context: bytes) -> bytes:
        """Decrypt it."""
        cipher = aead.AESGCM(await self._find(master_key_id))
        try:
            return cipher.decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], context)
        except (exceptions.InvalidTag, ValueError):
            raise CorruptData("a data key was not wrapped by its master key, or is damaged") from None

    async def destroy(self, master_key_id: str) -> None:
        """Write the file without the key. That it was there stays known.

        Where there is no file nothing can be destroyed: the key is still in it, wherever it is now.
        """
        await self._in_thread(lambda: self._change(master_key_id, None))

    async def _find(self, key_id: str) -> bytes:
        if key_id not in self._keys:
            await self._in_thread(self._load)
        if key_id not in self._keys:
            raise Unavailable(f"the master key {key_id} is not in {self._path}")
        secret = self._keys[key_id]
        if secret is None:
            raise KeyDestroyed(f"the master key {key_id} was destroyed")
        return secret

    async def _in_thread(self, work: Callable[[], None]) -> None:
        if self._on_thread is None:
            work()
        else:
            await self._on_thread(work)

    # ---- the file: on a worker thread ------------------------------------------------------------------------

    def _load(self) -> None:
        with self._explained():
            self._keys = self._read()

    def _change(self, key_id: str, secret: bytes | None) -> None:
        """Add a key, or destroy one."""
        with self._explained():
            parent = self._path.parent
            fresh = [folder for folder in (parent, *parent.parents) if not folder.exists()]
            parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in fresh:
                with suppress(PermissionError):
                    _sync(folder.parent)
            with self._alone():
                keys = self._read() if self._path.exists() else self._none_yet(secret)
                self._write(keys | {key_id: secret})
                self._keys = keys | {key_id: secret}

    def _none_yet(self, secret: bytes | None) -> dict[str, bytes | None]:
        """The keys of a file that is not there: none, if it never was. Raises `Unavailable` if it has gone."""
        if secret is None or self._keys:
            raise Unavailable(
                f"the master keys are not in {self._path} any more. Put the file back; if no copy of it is left"
                f" anywhere, tell so by an empty one: install -m 600 /dev/null {self._path}"
            )
        return {}

    def _read(self) -> dict[str, bytes | None]:
        with self._path.open("rb") as file:
            _check_mode(self._path, os.fstat(file.fileno()).st_mode)
            text = file.read()
        keys: dict[str, bytes | None] = {}
        try:
            for line in text.decode("ascii").splitlines():
                if line and not line.startswith("#"):
                    key_id, secret = line.split(" ")
                    keys[key_id] = None if secret == _DESTROYED else _secret_of(secret)
        except (ValueError, binascii.Error):
            raise CorruptData(f"the master keys in {self._path} are damaged. Restore the file") from None
        return keys

    def _write(self, keys: dict[str, bytes | None]) -> None:
        lines = [f"{key_id} {_text_of(secret)}\n" for key_id, secret in keys.items()]
        temporary = self._path.with_name(f"{self._path.name}.new")
        with suppress(FileNotFoundError):
            with temporary.open("r+b") as left:  # By a process that died here.
                _overwrite(left.fileno())
            temporary.unlink()
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write((_HEAD + "".join(lines)).encode("ascii"))
            file.flush()
            os.fsync(file.fileno())
        before = None
        with suppress(FileNotFoundError):
            before = os.open(self._path, os.O_WRONLY)
        try:
            temporary.rename(self._path)
            _sync(self._path.parent)
            if before is not None:
                _overwrite(before)
        finally:
            if before is not None:
                os.close(before)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While no other process changes the file."""
        lock = os.open(self._path.with_name(f"{self._path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Unavailable(f"the master keys in {self._path} cannot be used: {error.strerror}") from error


def check_key_file(path: Path) -> None:
    """Raise `InvalidRequest` if others than its owner can read a file of master keys."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    _check_mode(path, mode)


def _check_mode(path: Path, mode: int) -> None:
    if mode & _OTHERS:
        raise InvalidRequest(
            f"the master keys in {path} can be read by others than their owner. If they are still secret:"
            f" chmod 600 {path}"
        )


def _secret_of(text: str) -> bytes:
    secret = base64.b64decode(text, validate=True)
    if len(secret) != SECRET_BYTES:
        raise ValueError("a master key of another size")
    return secret


def _text_of(secret: bytes | None) -> str:
    return _DESTROYED if secret is None else base64.b64encode(secret).decode("ascii")


def _overwrite(descriptor: int) -> None:
    size_bytes = os.fstat(descriptor).st_size
    os.pwrite(descriptor, bytes(size_bytes), 0)
    os.fsync(descriptor)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
