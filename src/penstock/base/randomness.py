"""Random numbers and identifiers, as something that is passed in, so that a simulation can replay them by seed."""

from __future__ import annotations

import base64
import random
import secrets
from typing import Protocol


class Randomness(Protocol):
    """A source of random bytes and jitter."""

    def token(self, size_bytes: int) -> bytes:
        """That many random bytes."""

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high), for jitter."""


class SystemRandomness:
    """Randomness of the operating system; jitter from a private generator seeded by it."""

    def __init__(self) -> None:
        self._jitter = random.Random(secrets.randbits(64))

    def token(self, size_bytes: int) -> bytes:
        """That many random bytes, unpredictable."""
        return secrets.token_bytes(size_bytes)

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high), for jitter."""
        return self._jitter.uniform(low, high)


class SeededRandomness:
    """The same sequence for the same seed: for simulations and tests."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def token(self, size_bytes: int) -> bytes:
        """That many bytes of the seeded sequence."""
        return self._random.randbytes(size_bytes)

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high) of the seeded sequence."""
        return self._random.uniform(low, high)


def new_uuid(randomness: Randomness) -> bytes:
    """Sixteen bytes of a version 4 UUID (RFC 9562) that Kafka does not reserve.

    Kafka keeps the ids 0 and 1 for itself and avoids ids whose text form starts with `-`
    (it would read as an option on a command line).
    """
    while True:
        raw = bytearray(randomness.token(16))
        raw[6] = (raw[6] & 0x0F) | 0x40
        raw[8] = (raw[8] & 0x3F) | 0x80
        value = bytes(raw)
        if not uuid_text(value).startswith("-"):
            return value


def uuid_text(value: bytes) -> str:
    """Kafka's text form of an id: 22 characters of URL-safe base64 without padding."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode("ascii")
