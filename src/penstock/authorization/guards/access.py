"""What guards work with: the caller of a request, the authorizer, the topics that exist, Kafka's denials."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from penstock.authorization.authorizer import Action, Authorizer, action
from penstock.base.acls import CLUSTER_NAME, Operation, ResourceType
from penstock.base.context import RequestContext
from penstock.base.cooperative import distinct, yield_if_due
from penstock.base.dataclasses import dataclass
from penstock.base.settings import BrokerSettings
from penstock.wire.error_codes import ErrorCode

T = TypeVar("T")

CLUSTER, TOPIC, GROUP = ResourceType.CLUSTER, ResourceType.TOPIC, ResourceType.GROUP
TRANSACTIONAL_ID = ResourceType.TRANSACTIONAL_ID

Handler = Callable[[Any], Awaitable[Any]]
"""Passes a request to its handler; returns the response."""

ZERO_UUID = bytes(16)
DECISIONS_AT_ONCE = 25
"""Decisions between yields to the event loop. One usually takes microseconds, but hundreds of them for a principal with
twenty thousand ACLs."""
OPERATIONS_AT_ONCE = 5
"""Resources whose authorized operations are listed between yields: each takes up to eight decisions."""


class Denial(NamedTuple):
    """The error of a denial for one type of resource; the messages are Kafka's."""

    code: ErrorCode
    message: str


TOPIC_DENIED = Denial(ErrorCode.TOPIC_AUTHORIZATION_FAILED, "Topic authorization failed.")
GROUP_DENIED = Denial(ErrorCode.GROUP_AUTHORIZATION_FAILED, "Group authorization failed.")
CLUSTER_DENIED = Denial(ErrorCode.CLUSTER_AUTHORIZATION_FAILED, "Cluster authorization failed.")
TRANSACTIONAL_ID_DENIED = Denial(
    ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "Transactional Id authorization failed."
)  # fmt: skip
TOKEN_DENIED = Denial(ErrorCode.DELEGATION_TOKEN_AUTHORIZATION_FAILED, "Delegation Token authorization failed.")


class TopicDirectory(Protocol):
    """Look-ups of existing topics."""

    def names(self, cluster_id: int) -> Sequence[str]:
        """The sorted names of all topics of a virtual cluster."""

    def topic_id(self, cluster_id: int, name: str) -> bytes | None:
        """The id of the topic with that name, or None."""

    def topic_name(self, cluster_id: int, topic_id: bytes) -> str | None:
        """The name of the topic with that id, or None."""

    def partition_count(self, cluster_id: int, topic_id: bytes) -> int | None:
        """The number of partitions of the topic with that id; None if there is no such topic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestAccess:
    """The access of one request: its caller, and what decides about it."""

    authorizer: Authorizer
    topics: TopicDirectory
    settings: BrokerSettings
    context: RequestContext
    api_key: int

    def may(self, operation: Operation, resource_type: ResourceType, name: str) -> bool:
        """Whether the caller may do this. A denial is reported to the audit log."""
        return self.authorizer.allows(self.context, self.api_key, action(operation, resource_type), name)

    def may_quietly(self, operation: Operation, resource_type: ResourceType, name: str) -> bool:
        """The same without reporting a denial: for filtering a response, or if another permission would do."""
        return self.authorizer.allows(self.context, self.api_key, action(operation, resource_type), name, is_quiet=True)

    async def may_all(self, operation: Operation, resource_type: ResourceType, names: Iterable[str]) -> bool:
        """Whether the caller may do this to all of these resources. Each denial is reported."""
        denied = 0
        for number, name in enumerate(await distinct(names)):
            await yield_if_due(number, DECISIONS_AT_ONCE)
            denied += not self.may(operation, resource_type, name)
        return not denied

    async def visible(
        self, operation: Operation, resource_type: ResourceType, items: Sequence[T], name_of: Callable[[T], str | None]
    ) -> list[T]:
        """The items of a response that the caller may see: those on whose resource it may do this."""
        shown = []
        for number, item in enumerate(items):
            await yield_if_due(number, DECISIONS_AT_ONCE)
            if self.may_quietly(operation, resource_type, name_of(item) or ""):
                shown.append(item)
        return shown

    def may_on_cluster(self, operation: Operation) -> bool:
        """Whether the caller may do this to the cluster."""
        return self.may(operation, CLUSTER, CLUSTER_NAME)

    def may_quietly_on_cluster(self, operation: Operation) -> bool:
        """The same without reporting a denial."""
        return self.may_quietly(operation, CLUSTER, CLUSTER_NAME)

    async def may_on_any(self, asked: Action) -> bool:
        """Whether the caller may do this to at least one resource of the type, existing or not."""
        return await self.authorizer.allows_any(self.context, asked)

    def operations(self, resource_type: ResourceType, name: str) -> int:
        """The operations that the caller may do on a resource, as Kafka's bit field."""
        return self.authorizer.operations(self.context, resource_type, name)

    def cluster_operations(self) -> int:
        """The operations that the caller may do on the cluster; none unless it may DESCRIBE the cluster."""
        may_know = self.may_on_cluster(Operation.DESCRIBE)
        return self.operations(CLUSTER, CLUSTER_NAME) if may_know else 0

    async def split(
        self, operation: Operation, resource_type: ResourceType, items: Sequence[T], name_of: Callable[[T], str | None]
    ) -> tuple[list[T], list[T]]:
        """Divide items into allowed and denied. Items without a name are allowed: the handler refuses them."""
        allowed: list[T] = []
        denied: list[T] = []
        verdicts: dict[str, bool] = {}
        for number, item in enumerate(items):
            await yield_if_due(number, DECISIONS_AT_ONCE)
            name = name_of(item)
            if name is None:
                allowed.append(item)
                continue
            if name not in verdicts:
                verdicts[name] = self.may(operation, resource_type, name)
            (allowed if verdicts[name] else denied).append(item)
        return allowed, denied

    def topic_of(self, name: str, topic_id: bytes, *, by_id: bool) -> str | None:
        """The name of a topic that a request names by name or by id; None if there is no topic with that id."""
        return self.topics.topic_name(self.context.cluster_id, bytes(topic_id)) if by_id else name

    def has_topic(self, name: str) -> bool:
        """Whether a topic of that name exists."""
        return self.topics.topic_id(self.context.cluster_id, name) is not None

    def has_partition(self, name: str, index: int) -> bool:
        """Whether a topic of that name exists and has that partition."""
        topic_id = self.topics.topic_id(self.context.cluster_id, name)
        count = None if topic_id is None else self.topics.partition_count(self.context.cluster_id, topic_id)
        return count is not None and 0 <= index < count


Guard = Callable[[RequestAccess, Any, Handler], Awaitable[Any]]
