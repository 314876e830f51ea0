"""SCRAM-SHA-256 and SCRAM-SHA-512 (RFC 5802, RFC 7677), the server's side. Pure.

Of a password only two derived keys are stored, which verify it without revealing it: `stored_key` verifies the client,
`server_key` proves the server to the client. Channel binding is not offered, as in Kafka. `ServerExchange` takes the
client's messages and returns the server's; for unknown names it runs against a credential that nobody can satisfy, so
that an exchange does not reveal which names exist.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping
from enum import IntEnum

from penstock.base.dataclasses import dataclass, field
from penstock.identity.failures import Denied, InvalidCredentials

MIN_ITERATIONS, MAX_ITERATIONS = 4096, 16384
"""Kafka's limits on credentials."""
DEFAULT_ITERATIONS = 8192
TOKEN_EXTENSION = "tokenauth"
"""The extension by which a client says that name and password are those of a delegation token."""

_BASE_36 = "0123456789abcdefghijklmnopqrstuvwxyz"
_VALUE = r"[\x01-\x2B\x2D-\x7F]+"
_SASL_NAME = r"(?:[\x01-\x2B\x2D-\x3C\x3E-\x7F]|=2C|=3D)+"
_PRINTABLE = r"[\x21-\x2B\x2D-\x7E]+"
_BASE64 = r"(?:[a-zA-Z0-9/+]{4})*(?:[a-zA-Z0-9/+]{3}=|[a-zA-Z0-9/+]{2}==)?"
_EXTENSIONS = rf"(?:,[A-Za-z]+={_VALUE})*"
_CLIENT_FIRST = re.compile(
    rf"n,(?:a=(?P<authzid>{_SASL_NAME}))?,(?P<bare>(?:m={_VALUE},)?n=(?P<name>{_SASL_NAME}),r=(?P<nonce>{_PRINTABLE})"
    rf"(?P<extensions>{_EXTENSIONS}))"
)
_CLIENT_FINAL = re.compile(
    rf"(?P<unproved>c=(?P<channel>{_BASE64}),r=(?P<nonce>{_PRINTABLE}){_EXTENSIONS}),p=(?P<proof>{_BASE64})"
)


class Mechanism(IntEnum):
    """The two mechanisms, by Kafka's numbers."""

    SCRAM_SHA_256 = 1
    SCRAM_SHA_512 = 2

    @property
    def sasl_name(self) -> str:
        """Its name in SASL."""
        return self.name.replace("_", "-")

    @property
    def hash_name(self) -> str:
        """Its hash in hashlib."""
        return self.name.removeprefix("SCRAM_").replace("_", "").lower()


BY_SASL_NAME: Mapping[str, Mechanism] = {mechanism.sasl_name: mechanism for mechanism in Mechanism}


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What is stored of a password for one mechanism."""

    mechanism: Mechanism
    iterations: int
    salt: bytes = field(repr=False)
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientFirst:
    """The client's first message."""

    name: str
    authorization_id: str
    nonce: str
    header: str
    """The message without its header, verbatim: it is part of what the client signs."""
    bare: str
    is_token: bool


def salted_password(mechanism: Mechanism, password: bytes, salt: bytes, iterations: int) -> bytes:
    """The slow part: milliseconds of CPU time."""
    return hashlib.pbkdf2_hmac(mechanism.hash_name, password, salt, iterations)


def credential_of(mechanism: Mechanism, salted: bytes, salt: bytes, iterations: int) -> Credential:
    """What is stored of a password, from its salted form."""
    client_key = _hmac(mechanism, salted, b"Client Key")
    return Credential(
        mechanism=mechanism, iterations=iterations, salt=salt,
        stored_key=hashlib.new(mechanism.hash_name, client_key).digest(),
        server_key=_hmac(mechanism, salted, b"Server Key"),
    )  # fmt: skip


def has_password(credential: Credential, password: bytes) -> bool:
    """Whether this is the password; constant time apart from the salting, which takes as long for any password."""
    mechanism = credential.mechanism
    salted = salted_password(mechanism, password, credential.salt, credential.iterations)
    computed = credential_of(mechanism, salted, credential.salt, credential.iterations)
    return hmac.compare_digest(computed.stored_key, credential.stored_key)


def decoy(mechanism: Mechanism, name: str, secret: bytes) -> Credential:
    """The credential for an unknown name: deterministic per name, and satisfied by no password.

    It looks as if it was made by our tools, or by Kafka's, whose salts are 130 random bits in base 36.
    """
    made = hmac.digest(secret, f"{mechanism.sasl_name} {name}".encode(), "sha512")
    size = hashlib.new(mechanism.hash_name).digest_size
    iterations, salt = DEFAULT_ITERATIONS, made[1:17]
    if made[0] & 1:
        iterations, salt = MIN_ITERATIONS, _in_base_36(int.from_bytes(made[1:18]) >> 6)
    return Credential(
        mechanism=mechanism, iterations=iterations, salt=salt,
        stored_key=hmac.digest(secret, made + b"stored", mechanism.hash_name)[:size],
        server_key=hmac.digest(secret, made + b"server", mechanism.hash_name)[:size],
    )  # fmt: skip


def _in_base_36(number: int) -> bytes:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _BASE_36[digit] + digits
    return digits.encode("ascii")


def read_client_first(token: bytes) -> ClientFirst:
    """Parse the client's first message."""
    text = _text(token)
    match = _CLIENT_FIRST.fullmatch(text)
    if match is None:
        raise InvalidCredentials("the first message is not one of SCRAM")
    extensions = dict(pair.split("=", 1) for pair in match["extensions"].split(",") if pair)
    return ClientFirst(
        name=_unescaped(match["name"]),
        authorization_id=_unescaped(match["authzid"] or ""),
        nonce=match["nonce"],
        header=text[: match.start("bare")],
        bare=match["bare"],
        is_token=extensions.get(TOKEN_EXTENSION, "").lower() == "true",
    )


class ServerExchange:
    """The check of one client against one credential."""

    def __init__(self, first: ClientFirst, credential: Credential, server_nonce: str) -> None:
        if first.authorization_id not in ("", first.name):
            raise Denied("Authentication failed: Client requested an authorization id that is different from username")
        self._first, self._credential = first, credential
        self._nonce = first.nonce + server_nonce
        salt = base64.b64encode(credential.salt).decode("ascii")
        self._challenge = f"r={self._nonce},s={salt},i={credential.iterations}"

    @property
    def challenge(self) -> bytes:
        """The server's first message."""
        return self._challenge.encode("ascii")

    def finish(self, token: bytes) -> bytes:
        """Verify the client's proof; returns the server's final message. Raises `InvalidCredentials`."""
        match = _CLIENT_FINAL.fullmatch(_text(token))
        if match is None or not hmac.compare_digest(match["nonce"].encode(), self._nonce.encode()):
            raise InvalidCredentials("the final message does not belong to this exchange")
        # The client must repeat its channel binding flag from the first message: that it uses none.
        if base64.b64decode(match["channel"]) not in (b"n,,", self._first.header.encode()):
            raise InvalidCredentials("the channel is bound to something else")
        credential = self._credential
        mechanism = credential.mechanism
        text = f"{self._first.bare},{self._challenge},{match['unproved']}".encode()
        signature = _hmac(mechanism, credential.stored_key, text)
        proof = _decoded(match["proof"])
        if len(proof) != len(signature):
            raise InvalidCredentials("the proof has another length")
        client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
        if not hmac.compare_digest(hashlib.new(mechanism.hash_name, client_key).digest(), credential.stored_key):
            raise InvalidCredentials("the proof is wrong")
        return b"v=" + base64.b64encode(_hmac(mechanism, credential.server_key, text))


def _hmac(mechanism: Mechanism, key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, mechanism.hash_name)


def _text(token: bytes) -> str:
    try:
        return token.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidCredentials("not text") from error


def _unescaped(name: str) -> str:
    return name.replace("=2C", ",").replace("=3D", "=")


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise InvalidCredentials("not base64") from error
