"""Users of a cluster: the SCRAM credential APIs. A password is hashed here; it never travels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from penstock.base.dataclasses import dataclass
from penstock.base.errors import InvalidRequest
from penstock.base.randomness import SystemRandomness
from penstock.cli.kafka.client import Client
from penstock.cli.kafka.failures import check
from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.alter_user_scram_credentials import (
    AlterUserScramCredentialsRequest,
    AlterUserScramCredentialsResponse,
    ScramCredentialDeletion,
    ScramCredentialUpsertion,
)
from penstock.wire.messages.describe_user_scram_credentials import (
    DescribeUserScramCredentialsRequest,
    DescribeUserScramCredentialsResponse,
    UserName,
)

MECHANISMS = {1: ("SCRAM-SHA-256", "sha256"), 2: ("SCRAM-SHA-512", "sha512")}
ITERATIONS = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Somebody with a password."""

    name: str
    mechanisms: tuple[str, ...]
    iterations: tuple[int, ...]
    numbers: tuple[int, ...]


def describe_users(client: Client, names: Sequence[str] | None = None) -> list[User]:
    """All users, or those of these names that there are."""
    request = DescribeUserScramCredentialsRequest(
        users=None if names is None else [UserName(name=name) for name in names]
    )

    def ask() -> list[User]:
        response = client.call_controller(
            ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS, request, DescribeUserScramCredentialsResponse
        )
        check(response.error_code, "users", response.error_message)
        found = []
        for result in response.results:
            if result.error_code == ErrorCode.RESOURCE_NOT_FOUND:
                continue
            check(result.error_code, f"user {result.user!r}", result.error_message)
            numbers = tuple(info.mechanism for info in result.credential_infos)
            found.append(
                User(
                    name=result.user, numbers=numbers,
                    mechanisms=tuple(MECHANISMS.get(number, (str(number), ""))[0] for number in numbers),
                    iterations=tuple(info.iterations for info in result.credential_infos),
                )
            )  # fmt: skip
        return sorted(found, key=lambda user: user.name)

    return client.retry(ask)


def set_password(client: Client, name: str, password: str) -> None:
    """Give a user a password, with every mechanism. One request may alter a user only once, so there are two."""
    if not name or not password:
        raise InvalidRequest("a user has a name and a password")
    for number, (_, hash_name) in MECHANISMS.items():
        salt = SystemRandomness().token(16)
        salted = hashlib.pbkdf2_hmac(hash_name, password.encode("utf-8"), salt, ITERATIONS)
        upsertion = ScramCredentialUpsertion(
            name=name, mechanism=number, iterations=ITERATIONS, salt=salt, salted_password=salted
        )
        _alter(client, AlterUserScramCredentialsRequest(upsertions=[upsertion]))


def delete_users(client: Client, users: Sequence[User]) -> None:
    """Forget everything that proves these users."""
    for user in users:
        for number in user.numbers:
            deletion = ScramCredentialDeletion(name=user.name, mechanism=number)
            _alter(client, AlterUserScramCredentialsRequest(deletions=[deletion]))


def _alter(client: Client, request: AlterUserScramCredentialsRequest) -> None:
    def ask() -> None:
        response = client.call_controller(
            ApiKey.ALTER_USER_SCRAM_CREDENTIALS, request, AlterUserScramCredentialsResponse
        )
        for result in response.results:
            check(result.error_code, f"user {result.user!r}", result.error_message)

    client.retry(ask)
