"""Authorization decisions: super users, then ACLs; with a cache of what was allowed.

A cached decision takes two look-ups: one by caller (virtual cluster, principal, host), one by operation and resource
name. The cache is cleared whenever an ACL changes, so a decision is never older than the ACLs. Denials are not cached:
each is decided, and reported to the listener, every time; allowed operations are reported when they are decided, not
when they are found in the cache. The listener is called during requests: it must not wait, nor fail.
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
MAX_CACHED_NAME_CHARS = 255
"""Decisions about longer names are not cached; no topic has one."""

Action = int
"""An operation on a type of resource, in one number."""


def action(operation: Operation, resource_type: ResourceType) -> Action:
    """The number of an operation on a type of resource."""
    return int(resource_type) << 8 | int(operation)


READ_TOPIC = action(Operation.READ, ResourceType.TOPIC)
WRITE_TOPIC = action(Operation.WRITE, ResourceType.TOPIC)
WRITE_TRANSACTIONAL_ID = action(Operation.WRITE, ResourceType.TRANSACTIONAL_ID)
CLUSTER_ACTION = action(Operation.CLUSTER_ACTION, ResourceType.CLUSTER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The decision about one resource of a request."""

    api_key: int
    operation: Operation
    resource_type: ResourceType
    resource_name: str
    verdict: Verdict


class DecisionListener(Protocol):
    """Notified of decisions."""

    def on_decision(self, context: RequestContext, decision: Decision) -> None:
        """A decision was made."""


class Acls(Protocol):
    """The source of ACLs."""

    def index(self, cluster_id: int) -> AclIndex:
        """The ACLs of a virtual cluster."""


class _Caller:
    """The cached decisions for a principal at a host."""

    __slots__ = ("any_of", "granted", "host", "is_super")

    def __init__(self, host: str, *, is_super: bool) -> None:
        self.host, self.is_super = host, is_super
        self.granted: dict[Action, set[str]] = {}
        self.any_of: dict[Action, bool] = {}


class Grant:
    """A decision that its caller caches itself: valid as long as `generation` is the authorizer's."""

    __slots__ = ("generation",)

    def __init__(self) -> None:
        self.generation = -1


class Authorizer:
    """Decides whether a request is allowed."""

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
        """The number of the last change of a cluster's ACLs, by cluster; older ones are covered by `_all_changed`."""
        self.generation = 0
        """Incremented when the cache is cleared: a `Grant` of an earlier generation is not valid any more."""
        self.listener = listener

    def forget(self, cluster_id: int | None = None) -> None:
        """ACLs of a virtual cluster have changed; None: of any."""
        self._changes += 1
        if cluster_id is None or len(self._changed) >= MAX_CALLERS:
            self._all_changed = self._changes
            self._changed.clear()
        else:
            self._changed[cluster_id] = self._changes
        self._clear()

    def version(self, cluster_id: int) -> int:
        """Incremented with every change of a cluster's ACLs: earlier decisions may not hold any more. Changes in other
        clusters do not count: deciding again is expensive, and a tenant that keeps changing ACLs must not cause it for
        others."""
        return self._changed.get(cluster_id, self._all_changed)

    def _clear(self) -> None:
        self.generation += 1
        self._callers.clear()
        self._grants = 0

    def allows(
        self, context: RequestContext, api_key: int, asked: Action, name: str, *, is_quiet: bool = False
    ) -> bool:
        """Whether the caller may do an operation on the resource of that name.

        `is_quiet`: denials are not reported, because they only filter a response, or another permission would do.
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
        """Whether there is any resource name on which the caller may do an operation. Yields to the event loop: it may
        have to read all ACLs of the cluster."""
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
            # If ACLs have changed meanwhile, this caller is not in the cache any more.
            caller.any_of[asked] = allowed
        return allowed

    def operations(self, context: RequestContext, resource_type: ResourceType, name: str) -> int:
        """The operations that the caller may do on a resource, as Kafka's bit field."""
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
        if verdict.allowed and len(name) <= MAX_CACHED_NAME_CHARS:
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
            # `super.users` names principals of the permanent clusters; tenants may use the same names.
            named = is_super_user(context.cluster_id, context.principal, self._super_users)
            is_super = context.is_platform_admin or named
            caller = self._callers[key] = _Caller(canonical_host(context.client_host), is_super=is_super)
        return caller


def is_super_user(cluster_id: int, principal: str, super_users: frozenset[str]) -> bool:
    """Whether a principal is one of `super.users`. Principals of tenants' clusters never are."""
    return cluster_id in PERMANENT_CLUSTER_IDS and principal in super_users


def _parts(asked: Action) -> tuple[Operation, ResourceType]:
    return Operation(asked & 0xFF), ResourceType(asked >> 8)
