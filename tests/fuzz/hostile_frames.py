"""Hostile requests: valid frames of every API and version with mutations, and random bytes."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from struct import pack

from fixtures.raw_client import request_bytes
from fixtures.schema_values import REQUESTS, Values

from penstock.wire.messages.index import APIS

HUGE = tuple(
    bytes.fromhex(text) for text in ("7fffffff", "80000000", "ffffffff", "ffffffff07", "ffffffff0f", "7fff", "8000")
)


def valid(api_key: int, version: int, random: Random) -> bytes:
    """A whole frame with random values."""
    message = Values(REQUESTS[api_key], APIS[api_key][0], version, random, tame=False).message()
    return request_bytes(api_key, version, message, random.getrandbits(31), random.choice((None, "", "fuzz")))  # type: ignore[arg-type]


def _flip(frame: bytearray, random: Random) -> None:
    for _ in range(random.choice((1, 1, 2, 8))):
        frame[random.randrange(len(frame))] ^= 1 << random.randrange(8)


def _overwrite(frame: bytearray, random: Random) -> None:
    at = random.randrange(4, len(frame))
    frame[at : at + 4] = random.choice(HUGE)


def _insert(frame: bytearray, random: Random) -> None:
    at = random.randrange(4, len(frame) + 1)
    frame[at:at] = random.choice((*HUGE, random.randbytes(random.choice((1, 7, 300)))))


def _cut(frame: bytearray, random: Random) -> None:
    del frame[random.randrange(5, len(frame) + 1) :]


def _double(frame: bytearray, random: Random) -> None:
    start = random.randrange(4, len(frame))
    end = random.randrange(start, len(frame)) + 1
    frame[start:start] = frame[start:end] * random.choice((1, 20))


def _tags(frame: bytearray, random: Random) -> None:
    """Tags that nobody knows where a flexible version ends: they must be stepped over."""
    frame[-1:] = b"\x02" + b"\x63\x03abc" + b"\xe4\x01\x00"


SPOILERS: tuple[Callable[[bytearray, Random], None], ...] = (_flip, _overwrite, _insert, _cut, _double, _tags)


def spoilt(frame: bytes, random: Random) -> bytes:
    """The frame with something wrong; mostly its size is right again, so that the inside is looked at."""
    damaged = bytearray(frame)
    for _ in range(random.choice((1, 1, 1, 3))):
        random.choice(SPOILERS)(damaged, random)
    if random.random() < 0.9:
        damaged[:4] = pack(">i", len(damaged) - 4)
    return bytes(damaged)


def nonsense(random: Random) -> bytes:
    """Bytes that have nothing to do with Kafka, some behind a size that has."""
    data = random.randbytes(random.choice((1, 3, 4, 5, 12, 100, 5_000)))
    size = random.choice((len(data), 0, -1, 1, 2**31 - 1, -(2**31), 100 * 1024 * 1024 + 1, len(data) + 1))
    return random.choice(
        (
            data,
            pack(">i", size) + data,
            pack(">ihhi", len(data) + 8, random.randrange(-5, 100), random.randrange(-3, 30), 7) + data,
            b"GET / HTTP/1.1\r\nHost: penstock\r\n\r\n",
            bytes.fromhex("16030100c8010000c40303") + data,  # The beginning of TLS.
        )
    )
