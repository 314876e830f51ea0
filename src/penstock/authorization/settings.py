"""Settings of authorization, under Kafka's names."""

from __future__ import annotations

from penstock.base.config_values import BOOLEAN, STRING, ConfigValue
from penstock.base.dataclasses import dataclass
from penstock.base.errors import InvalidRequest
from penstock.base.settings import BrokerSettings, declare, setting

STANDARD_AUTHORIZER = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
"""Apache Kafka's authorizer that stores ACLs with the other metadata."""


def parse_super_users(text: str) -> frozenset[str]:
    """The principals in `super.users`, such as `User:alice;User:bob`. Raises `InvalidRequest`."""
    users = frozenset(part.strip() for part in text.split(";") if part.strip())
    for user in users:
        kind, colon, name = user.partition(":")
        if not (kind and colon and name):
            raise InvalidRequest(f"super.users: a principal is written Type:name, as in User:alice, not {user!r}")
    return users


def _principals(value: ConfigValue) -> str | None:
    """What is wrong with `super.users`, or None."""
    try:
        parse_super_users(str(value))
    except InvalidRequest as problem:
        return str(problem)
    return None


SETTINGS = declare(
    setting(
        "authorizer.class.name", STRING, "", choices=("", "none", STANDARD_AUTHORIZER),
        doc=f"Whether ACLs decide what clients may do. {STANDARD_AUTHORIZER}: they do. none: whoever can connect"
        " may do everything. Empty: they do if any listener asks for credentials.",
    ),
    setting(
        "super.users", STRING, "", check=_principals,
        doc="Who may do everything, whatever ACLs say: principals of the default virtual cluster, separated by"
        " semicolons, such as User:alice;User:bob.",
    ),
    setting(
        "allow.everyone.if.no.acl.found", BOOLEAN, "false",
        "Whether a resource that no ACL covers is open to everybody rather than to super users only.",
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationSettings:
    """Whether and how requests are authorized."""

    is_on: bool
    super_users: frozenset[str] = frozenset()
    allow_everyone: bool = False

    @classmethod
    def of(cls, settings: BrokerSettings, *, asks_for_credentials: bool) -> AuthorizationSettings:
        """From the settings of a process: by default on if any listener asks for credentials."""
        asked = settings.text("authorizer.class.name") or ""
        return cls(
            is_on=asked == STANDARD_AUTHORIZER or (not asked and asks_for_credentials),
            super_users=parse_super_users(settings.text("super.users") or ""),
            allow_everyone=settings.flag("allow.everyone.if.no.acl.found"),
        )
