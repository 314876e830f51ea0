"""What a guard has at hand: who asks, what they may do, and what there is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from penstock.authorization.authorizer import Action, Authorizer, action
from penstock.base.acls import CLUSTER_NAME, Operation, ResourceType
from penstock.base.context import RequestContext
from penstock.base.dataclasses import dataclass
from penstock.base.portions import breathe, distinct
from penstock.base.settings import BrokerSettings
from penstock.wire.error_codes import ErrorCode

T = TypeVar("T")

CLUSTER, TOPIC, GROUP = ResourceType.CLUSTER, ResourceType.TOPIC, ResourceType.GROUP
TRANSACTIONAL_ID = ResourceType.TRANSACTIONAL_ID

Ask = Callable[[Any], Awaitable[Any]]
"""Has the handler answer a request."""

ZERO_UUID = bytes(16)
DECIDED_AT_ONCE = 25
"""Decisions before others have their turn. Usually each takes microseconds, but whoever has made twenty thousand ACLs
for it has it take hundreds."""
TOLD_AT_ONCE = 5
"""Resources that it is told of what somebody may do to them: eight decisions each."""


class Refusal(NamedTuple):
    """How the caller is told that it may not do something to a kind of resource, in Kafka's words."""

    code: ErrorCode
    message: str


NO_TOPIC = Refusal(ErrorCode.TOPIC_AUTHORIZATION_FAILED, "Topic authorization failed.")
NO_GROUP = Refusal(ErrorCode.GROUP_AUTHORIZATION_FAILED, "Group authorization failed.")
NO_CLUSTER = Refusal(ErrorCode.CLUSTER_AUTHORIZATION_FAILED, "Cluster authorization failed.")
NO_TRANSACTIONAL_ID = Refusal(
    ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "Transactional Id authorization failed."
)  # fmt: skip
NO_TOKEN = Refusal(ErrorCode.DELEGATION_TOKEN_AUTHORIZATION_FAILED, "Delegation Token authorization failed.")


class Topics(Protocol):
    """What is to be known of topics."""

    def names(self, cluster_id: int) -> Sequence[str]:
        """The names of all topics of a virtual cluster, in order."""

    def topic_id(self, cluster_id: int, name: str) -> bytes | None:
        """The id of the topic of that name, or None."""

    def topic_name(self, cluster_id: int, topic_id: bytes) -> str | None:
        """The name of the topic with that id, or None."""

    def partition_count(self, cluster_id: int, topic_id: bytes) -> int | None:
        """How many partitions the topic with that id has, or None when there is no such topic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """One request's caller."""

    authorizer: Authorizer
    topics: Topics
    settings: BrokerSettings
    context: RequestContext
    api_key: int

    def may(self, operation: Operation, resource_type: ResourceType, name: str) -> bool:
        """Whether the caller may do this, which the request asks for."""
        return self.authorizer.allows(self.context, self.api_key, action(operation, resource_type), name)

    def might(self, operation: Operation, resource_type: ResourceType, name: str) -> bool:
        """The same where a denial only hides something, or where another permission would do as well."""
        return self.authorizer.allows(self.context, self.api_key, action(operation, resource_type), name, is_quiet=True)

    async def may_all(self, operation: Operation, resource_type: ResourceType, names: Iterable[str]) -> bool:
        """Whether the caller may do this to all of them. Each denial is reported."""
        denied = 0
        for number, name in enumerate(await distinct(names)):
            await breathe(number, DECIDED_AT_ONCE)
            denied += not self.may(operation, resource_type, name)
        return not denied

    async def visible(
        self, operation: Operation, resource_type: ResourceType, items: Sequence[T], name_of: Callable[[T], str | None]
    ) -> list[T]:
        """Those of what would be shown to whose resources the caller may do this."""
        shown = []
        for number, item in enumerate(items):
            await breathe(number, DECIDED_AT_ONCE)
            if self.might(operation, resource_type, name_of(item) or ""):
                shown.append(item)
        return shown

    def may_cluster(self, operation: Operation) -> bool:
        """Whether the caller may do this to the cluster."""
        return self.may(operation, CLUSTER, CLUSTER_NAME)

    def might_cluster(self, operation: Operation) -> bool:
        """The same, as `might`."""
        return self.might(operation, CLUSTER, CLUSTER_NAME)

    async def might_any(self, asked: Action) -> bool:
        """Whether there is a name with which the caller may do this."""
        return await self.authorizer.allows_any(self.context, asked)

    def operations(self, resource_type: ResourceType, name: str) -> int:
        """What the caller may do to a resource, as a bit field."""
        return self.authorizer.operations(self.context, resource_type, name)

    def cluster_operations(self) -> int:
        """What a caller is told who asks what it may do to the cluster."""
        may_know = self.may_cluster(Operation.DESCRIBE)
        return self.operations(CLUSTER, CLUSTER_NAME) if may_know else 0

    async def split(
        self, operation: Operation, resource_type: ResourceType, items: Sequence[T], name_of: Callable[[T], str | None]
    ) -> tuple[list[T], list[T]]:
        """What may be done and what not, in order. What has no name is left to the handler."""
        allowed: list[T] = []
        denied: list[T] = []
        verdicts: dict[str, bool] = {}
        for number, item in enumerate(items):
            await breathe(number, DECIDED_AT_ONCE)
            name = name_of(item)
            if name is None:
                allowed.append(item)
                continue
            if name not in verdicts:
                verdicts[name] = self.may(operation, resource_type, name)
            (allowed if verdicts[name] else denied).append(item)
        return allowed, denied

    def topic_of(self, name: str, topic_id: bytes, *, by_id: bool) -> str | None:
        """The name of a topic that is given by name or by id; None when there is no topic with that id."""
        return self.topics.topic_name(self.context.cluster_id, bytes(topic_id)) if by_id else name

    def has_topic(self, name: str) -> bool:
        """Whether there is a topic of that name."""
        return self.topics.topic_id(self.context.cluster_id, name) is not None

    def has_partition(self, name: str, index: int) -> bool:
        """Whether a topic has that partition."""
        topic_id = self.topics.topic_id(self.context.cluster_id, name)
        count = None if topic_id is None else self.topics.partition_count(self.context.cluster_id, topic_id)
        return count is not None and 0 <= index < count


Guard = Callable[[Access, Any, Ask], Awaitable[Any]]
