"""How the process is told whether, and how, to authorize."""

from __future__ import annotations

from typing import Protocol

from penstock.authorization.changes import parse_super_users
from penstock.base.dataclasses import dataclass

STANDARD_AUTHORIZER = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
"""What Apache Kafka calls an authorizer that keeps ACLs with the rest of the metadata."""


class Texts(Protocol):
    """Broker-wide settings."""

    def text(self, name: str) -> str | None:
        """The text that counts."""

    def flag(self, name: str) -> bool:
        """The value of a true-or-false setting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationSettings:
    """What was decided about deciding."""

    is_on: bool
    super_users: frozenset[str] = frozenset()
    allow_everyone: bool = False

    @classmethod
    def of(cls, settings: Texts, *, asks_for_credentials: bool) -> AuthorizationSettings:
        """Those of a process: where nothing is said, on when clients have to prove who they are."""
        asked = settings.text("authorizer.class.name") or ""
        return cls(
            is_on=asked == STANDARD_AUTHORIZER or (not asked and asks_for_credentials),
            super_users=parse_super_users(settings.text("super.users") or ""),
            allow_everyone=settings.flag("allow.everyone.if.no.acl.found"),
        )
