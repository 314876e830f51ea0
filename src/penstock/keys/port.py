"""The port of a key service: what is asked of AWS KMS, Google's and Azure's, Vault's transit engine, or a local file.

A service keeps master keys, which never leave it, and wraps data keys with them. `context` is authenticated with what
is wrapped, and has to be given again to unwrap it.

Every implementation, fakes included, passes tests/contract/test_key_service.py. Time-outs and retries are its callers'.
"""

from __future__ import annotations

from typing import Protocol

from penstock.base.errors import Unavailable


class KeyService(Protocol):
    """Methods raise `Unavailable` when there is no answer, or no such key where there may be one later."""

    async def create(self) -> str:
        """Make a master key; its id. It lasts when this returns."""

    async def wrap(self, master_key_id: str, secret: bytes, context: bytes) -> bytes:
        """Encrypt a data key. Raises `KeyDestroyed` if the master key is no more."""

    async def unwrap(self, master_key_id: str, wrapped: bytes, context: bytes) -> bytes:
        """Decrypt it. Raises `CorruptData` if this was not wrapped by that key and with that context."""

    async def destroy(self, master_key_id: str) -> None:
        """Let a master key be no more, for good. That it is gone already, or never was, is no error."""


class NoKeyService:
    """Where there is none. Nothing is encrypted there."""

    async def create(self) -> str:
        """Nowhere to make one."""
        raise _none()

    async def wrap(self, master_key_id: str, secret: bytes, context: bytes) -> bytes:
        """Nothing to wrap with."""
        raise _none()

    async def unwrap(self, master_key_id: str, wrapped: bytes, context: bytes) -> bytes:
        """Nothing to unwrap with."""
        raise _none()

    async def destroy(self, master_key_id: str) -> None:
        """There is no key here, which is not the same as that there is none."""
        raise _none()


def _none() -> Unavailable:
    return Unavailable("there is no key service: start with --master-key-file")
