"""Decides requests: super users, then ACLs; and remembers what it has allowed.

A request that is allowed again is found allowed by two look-ups: one for who asks (virtual cluster, principal, host),
one for what. Everything remembered is forgotten when an ACL changes, so a decision is never older than the ACLs. What
is denied is decided anew each time, and told to whoever listens each time; of what is allowed they hear when it was
decided, not when it was remembered. Listeners are called in the middle of requests: they must not wait, nor fail.
"""

from __future__ import annotations

from typing import Protocol

from penstock.authorization.rules import (
    DEFAULT_ALLOW,
    DEFAULT_DENY,
    SUPER_USER,
    AclIndex,
    Verdict,
    canonical_host,
    decide,
    decide_for_any,
)
from penstock.base.acls import SUPPORTED, Operation, ResourceType
from penstock.base.context import PERMANENT_CLUSTER_IDS, RequestContext
from penstock.base.dataclasses import dataclass

MAX_CALLERS = 10_000
MAX_GRANTS = 100_000
MAX_REMEMBERED_CHARS = 255
"""Longer names are decided each time; no topic has one."""

Action = int
"""An operation on a kind of resource, in one number."""


def action(operation: Operation, resource_type: ResourceType) -> Action:
    """The number of an operation on a kind of resource."""
    return int(resource_type) << 8 | int(operation)


READ_TOPIC = action(Operation.READ, ResourceType.TOPIC)
WRITE_TOPIC = action(Operation.WRITE, ResourceType.TOPIC)
WRITE_TRANSACTIONAL_ID = action(Operation.WRITE, ResourceType.TRANSACTIONAL_ID)
CLUSTER_ACTION = action(Operation.CLUSTER_ACTION, ResourceType.CLUSTER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What was decided about one resource of a request."""

    api_key: int
    operation: Operation
    resource_type: ResourceType
    resource_name: str
    verdict: Verdict


class DecisionListener(Protocol):
    """Hears of decisions."""

    def on_decision(self, context: RequestContext, decision: Decision) -> None:
        """One was made."""


class Acls(Protocol):
    """Where ACLs are."""

    def index(self, cluster_id: int) -> AclIndex:
        """Those of a virtual cluster."""


class _Caller:
    """What is remembered of a principal at a host."""

    __slots__ = ("any_of", "granted", "host", "is_super")

    def __init__(self, host: str, *, is_super: bool) -> None:
        self.host, self.is_super = host, is_super
        self.granted: dict[Action, set[str]] = {}
        self.any_of: dict[Action, bool] = {}


class Grant:
    """What somebody was allowed and asks for again and again: as of which generation of what is remembered."""

    __slots__ = ("generation",)

    def __init__(self) -> None:
        self.generation = -1


class Authorizer:
    """Says whether a request may do what it asks for."""

    def __init__(
        self, acls: Acls, *, super_users: frozenset[str] = frozenset(), allow_everyone: bool = False,
        listener: DecisionListener | None = None,
    ) -> None:  # fmt: skip
        self._acls, self._super_users = acls, super_users
        self._default = DEFAULT_ALLOW if allow_everyone else DEFAULT_DENY
        self._callers: dict[tuple[int, str, str, bool], _Caller] = {}
        self._grants = 0
        self._changes = self._all_changed = 0
        self._changed: dict[int, int] = {}
        """With which change ACLs of a cluster were the last to change, of those since all have."""
        self.generation = 0
        """Goes up whenever everything remembered is forgotten: whoever remembers a `Grant` of before has to ask."""
        self.listener = listener

    def forget(self, cluster_id: int | None = None) -> None:
        """ACLs of a virtual cluster have changed, or of any."""
        self._changes += 1
        if cluster_id is None or len(self._changed) >= MAX_CALLERS:
            self._all_changed = self._changes
            self._changed.clear()
        else:
            self._changed[cluster_id] = self._changes
        self._clear()

    def version(self, cluster_id: int) -> int:
        """Goes up with every change of a cluster's ACLs: what was decided before may be decided otherwise now. Those of
        other clusters do not count, for what is done about it takes long, and who changes ACLs all the time holds up
        nobody else."""
        return self._changed.get(cluster_id, self._all_changed)

    def _clear(self) -> None:
        self.generation += 1
        self._callers.clear()
        self._grants = 0

    def allows(
        self, context: RequestContext, api_key: int, asked: Action, name: str, *, is_quiet: bool = False
    ) -> bool:
        """Whether the caller may do that to the resource of that name.

        `is_quiet`: it only decides what is shown, or has an alternative; being denied is nothing to report.
        """
        caller = self._callers.get(
            (context.cluster_id, context.principal, context.client_host, context.is_platform_admin)
        )
        if caller is not None:
            names = caller.granted.get(asked)
            if names is not None and name in names:
                return True
        return self._decide(context, api_key, asked, name, is_quiet)

    async def allows_any(self, context: RequestContext, asked: Action) -> bool:
        """Whether there is a name of a resource to which the caller may do that. Others have their turn meanwhile: all
        ACLs are looked at."""
        caller = self._caller(context)
        allowed = caller.any_of.get(asked)
        if allowed is None:
            if caller.is_super:
                allowed = True
            else:
                verdict = await decide_for_any(
                    self._acls.index(context.cluster_id), context.principal, caller.host, *_parts(asked),
                    default=self._default,
                )  # fmt: skip
                allowed = verdict.allowed
            # If ACLs have changed meanwhile nobody finds this caller any more.
            caller.any_of[asked] = allowed
        return allowed

    def operations(self, context: RequestContext, resource_type: ResourceType, name: str) -> int:
        """What the caller may do to a resource, as Kafka's bit field."""
        bits = 0
        for operation in SUPPORTED[resource_type]:
            if self.allows(context, -1, action(operation, resource_type), name, is_quiet=True):
                bits |= 1 << operation
        return bits

    def _decide(self, context: RequestContext, api_key: int, asked: Action, name: str, is_quiet: bool) -> bool:
        caller = self._caller(context)
        operation, resource_type = _parts(asked)
        if caller.is_super:
            verdict = SUPER_USER
        else:
            verdict = decide(
                self._acls.index(context.cluster_id), context.principal, caller.host, operation, resource_type, name,
                default=self._default,
            )  # fmt: skip
        if verdict.allowed and len(name) <= MAX_REMEMBERED_CHARS:
            if self._grants >= MAX_GRANTS:
                self._clear()
                caller = self._caller(context)
            caller.granted.setdefault(asked, set()).add(name)
            self._grants += 1
        if self.listener is not None and not (is_quiet and (api_key < 0 or not verdict.allowed)):
            self.listener.on_decision(
                context,
                Decision(
                    api_key=api_key, operation=operation, resource_type=resource_type, resource_name=name,
                    verdict=verdict,
                ),
            )  # fmt: skip
        return verdict.allowed

    def _caller(self, context: RequestContext) -> _Caller:
        key = (context.cluster_id, context.principal, context.client_host, context.is_platform_admin)
        caller = self._callers.get(key)
        if caller is None:
            if len(self._callers) >= MAX_CALLERS:
                self._clear()
            # Super users are named by whoever runs the platform; a tenant may call its users what it likes.
            named = is_super_user(context.cluster_id, context.principal, self._super_users)
            is_super = context.is_platform_admin or named
            caller = self._callers[key] = _Caller(canonical_host(context.client_host), is_super=is_super)
        return caller


def is_super_user(cluster_id: int, principal: str, super_users: frozenset[str]) -> bool:
    """Whether somebody is one of those whom the platform's settings name. Who is in a tenant's cluster is not."""
    return cluster_id in PERMANENT_CLUSTER_IDS and principal in super_users


def _parts(asked: Action) -> tuple[Operation, ResourceType]:
    return Operation(asked & 0xFF), ResourceType(asked >> 8)
