"""The client's part of SASL: PLAIN, SCRAM and OAUTHBEARER as exchanges of messages, without I/O."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Generator

from penstock.cli.kafka.client_config import Security
from penstock.cli.kafka.failures import AuthenticationFailed

Messages = Generator[bytes, bytes, None]
"""Yields what to send and is sent what was answered; returns when it is satisfied with the last answer."""

SCRAM_HASHES = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}
MIN_ITERATIONS, MAX_ITERATIONS = 4096, 1_000_000
"""Of a password's hash. With fewer, whoever poses as the server could soon find the password from our proof."""
_SERVER_FIRST = re.compile(r"r=([\x21-\x2B\x2D-\x7E]+),s=([a-zA-Z0-9/+=]+),i=(\d+).*")


def messages(security: Security, nonce: str) -> Messages:
    """The exchange that a configuration asks for."""
    match security.mechanism:
        case "PLAIN":
            return _plain(security)
        case "OAUTHBEARER":
            return _bearer(security)
        case _:
            return _scram(security, nonce)


def _is_sound(iterations: str) -> bool:
    return len(iterations) <= len(str(MAX_ITERATIONS)) and MIN_ITERATIONS <= int(iterations) <= MAX_ITERATIONS


def _plain(security: Security) -> Messages:
    yield b"\0" + security.user.encode("utf-8") + b"\0" + security.password.encode("utf-8")


def _bearer(security: Security) -> Messages:
    answer = yield f"n,,\x01auth=Bearer {security.token}\x01\x01".encode()
    if answer:
        yield b"\x01"
        raise AuthenticationFailed("the token is not accepted")


def _scram(security: Security, nonce: str) -> Messages:
    hash_name = SCRAM_HASHES[security.mechanism]
    name = security.user.replace("=", "=3D").replace(",", "=2C")
    first = f"n={name},r={nonce}" + (",tokenauth=true" if security.is_token_auth else "")
    challenge = (yield f"n,,{first}".encode()).decode("utf-8", "replace")
    match = _SERVER_FIRST.fullmatch(challenge)
    if match is None or not match[1].startswith(nonce) or not _is_sound(match[3]):
        raise AuthenticationFailed("the server does not speak SCRAM as it should")
    salt = base64.b64decode(match[2])
    salted = hashlib.pbkdf2_hmac(hash_name, security.password.encode("utf-8"), salt, int(match[3]))
    client_key = hmac.digest(salted, b"Client Key", hash_name)
    final = f"c=biws,r={match[1]}"
    text = f"{first},{challenge},{final}".encode()
    signature = hmac.digest(hashlib.new(hash_name, client_key).digest(), text, hash_name)
    proof = base64.b64encode(bytes(a ^ b for a, b in zip(client_key, signature, strict=True))).decode("ascii")
    answer = yield f"{final},p={proof}".encode()
    proves = hmac.digest(hmac.digest(salted, b"Server Key", hash_name), text, hash_name)
    if not hmac.compare_digest(answer.split(b",")[0], b"v=" + base64.b64encode(proves)):
        raise AuthenticationFailed("the server does not know the password: it may be another one than it says")
