"""A client of a cluster: a connection per broker, routing to leaders, coordinators and the controller, retries.

Connects when first used. The connection to a bootstrap address also serves as the one to the broker that it leads to:
who has to authenticate does so once. A bootstrap address that cannot be reached is an error at once, because a person
is waiting and most likely forgot to start something; once the cluster has answered, what may pass is tried again with
growing pauses until the deadline.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Self, TypeVar

from penstock.base.clock import Clock, SystemClock
from penstock.base.dataclasses import dataclass, field
from penstock.base.randomness import uuid_text
from penstock.cli.kafka.client_config import PLAINTEXT, Security
from penstock.cli.kafka.connection import Answer, Connection
from penstock.cli.kafka.failures import BrokerError, ConnectionLost, RequestRefused, Unreachable, check
from penstock.cli.text_formats.addresses import Address
from penstock.wire.api_keys import ApiKey
from penstock.wire.codec import Message
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.metadata import (
    MetadataRequest,
    MetadataRequestTopic,
    MetadataResponse,
    MetadataResponseTopic,
)

T = TypeVar("T")

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0
_REFUSALS = 2
"""After so many new connections without an answer nobody need wait any longer: one may have met a broker that stops."""


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


def by_topic(partitions: Iterable[TopicPartition]) -> dict[str, list[TopicPartition]]:
    """Partitions grouped by topic, as requests have them; both in order."""
    grouped: dict[str, list[TopicPartition]] = {}
    for where in sorted(partitions):
        grouped.setdefault(where.topic, []).append(where)
    return grouped


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """A node of the cluster."""

    node_id: int
    address: Address
    rack: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """Where a partition is."""

    leader: int
    leader_epoch: int
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """A topic and its partitions, by number."""

    name: str
    topic_id: str | None
    internal: bool
    partitions: Mapping[int, Partition]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What one metadata answer told."""

    cluster_id: str | None
    controller_id: int
    brokers: Mapping[int, Broker]
    topics: Mapping[str, Topic] = field(default_factory=dict)
    errors: Mapping[str, int] = field(default_factory=dict)
    """Error codes of topics that were asked for and are not there."""

    def topic(self, name: str) -> Topic:
        """A topic that was asked for."""
        check(self.errors.get(name, ErrorCode.NONE), f"topic {name!r}")
        if name not in self.topics:
            raise BrokerError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"topic {name!r}")
        return self.topics[name]

    def leader(self, where: TopicPartition) -> int:
        """Which node leads a partition."""
        partition = self.topic(where.topic).partitions.get(where.partition)
        if partition is None:
            raise BrokerError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"partition {where}")
        if partition.leader < 0:
            raise BrokerError(ErrorCode.LEADER_NOT_AVAILABLE, f"partition {where}")
        return partition.leader

    def by_leader(self, partitions: Iterable[TopicPartition]) -> Mapping[int, list[TopicPartition]]:
        """Partitions by the node that leads them."""
        grouped: dict[int, list[TopicPartition]] = {}
        for where in partitions:
            grouped.setdefault(self.leader(where), []).append(where)
        return grouped


class Client:
    """Asks a cluster."""

    def __init__(
        self,
        bootstrap: Sequence[Address],
        *,
        timeout_s: float = 30.0,
        client_id: str = "penstock-cli",
        clock: Clock | None = None,
        security: Security = PLAINTEXT,
        cluster: str | None = None,
    ) -> None:
        self.clock: Clock = SystemClock() if clock is None else clock
        self.timeout_s = timeout_s
        self.bootstrap, self.security, self._client_id = tuple(bootstrap), security, client_id
        self._cluster = cluster
        self._any: Connection | None = None
        self._by_node: dict[int, Connection] = {}
        self._brokers: Mapping[int, Broker] = {}
        self._reached: set[int] = set()

    def set_default_cluster(self, cluster: str) -> None:
        """Work in that virtual cluster unless --cluster names one. To be called before anything is asked."""
        self._cluster = self._cluster or cluster

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection; the next request opens a new one."""
        for connection in (*self._by_node.values(), *([self._any] if self._any else [])):
            connection.close()
        self._by_node, self._any = {}, None

    def clone(self) -> Client:
        """A client of the same cluster with connections of its own, for another thread."""
        return Client(
            self.bootstrap, timeout_s=self.timeout_s, client_id=self._client_id, clock=self.clock,
            security=self.security, cluster=self._cluster,
        )  # fmt: skip

    def any_node(self) -> Connection:
        """A connection to any node: one that there is already, else to the first bootstrap address that answers."""
        if self._any is None:
            self._any = next(iter(self._by_node.values()), None) or self._bootstrap_connection()
        return self._any

    def node(self, node_id: int) -> Connection:
        """A connection to one node."""
        if node_id not in self._by_node:
            if node_id not in self._brokers:
                self.metadata([])
            broker = self._brokers.get(node_id)
            if broker is None:
                raise BrokerError(ErrorCode.BROKER_NOT_AVAILABLE, f"broker {node_id}", "it is not in the cluster now")
            bootstrap = self._any
            is_there = bootstrap is not None and bootstrap.is_to(broker.address)
            self._by_node[node_id] = bootstrap if bootstrap and is_there else self._connect_to(broker)
        return self._by_node[node_id]

    def controller(self) -> Connection:
        """A connection to the node that changes things."""
        controller_id = self.metadata([]).controller_id
        return self.any_node() if controller_id < 0 else self.node(controller_id)

    def metadata(self, topics: Iterable[str] | None, *, create: bool = False) -> Cluster:
        """The cluster with these topics, or with all of them for None."""
        names = None if topics is None else [MetadataRequestTopic(name=name) for name in topics]
        connection = self.any_node()
        if names == [] and connection.version_of(ApiKey.METADATA) == 0:
            names = [MetadataRequestTopic(name="__none__")]  # In version 0 an empty list is every topic.
        request = MetadataRequest(topics=names, allow_auto_topic_creation=create)
        cluster = _cluster(connection.call(ApiKey.METADATA, request, MetadataResponse))
        self._brokers = cluster.brokers
        return cluster

    def call_controller(self, api_key: ApiKey, request: Message, answer: type[Answer]) -> Answer:
        """Ask the controller. Callers check error codes inside `retry`, so NOT_CONTROLLER finds the new one."""
        return self.controller().call(api_key, request, answer, wait_s=self.timeout_s)

    def retry(self, attempt: Callable[[], T]) -> T:
        """What an attempt returns. While its failure is retriable, it is repeated for `timeout_s`."""
        deadline = self.clock.monotonic() + self.timeout_s
        pause_s = _FIRST_PAUSE_S
        refused = 0
        while True:
            try:
                return attempt()
            except (BrokerError, ConnectionLost) as error:
                refused = refused + 1 if isinstance(error, RequestRefused) else 0
                if refused == _REFUSALS:
                    raise
                if isinstance(error, BrokerError) and not error.is_retriable:
                    raise
                if self.clock.monotonic() + pause_s > deadline:
                    raise
                if isinstance(error, ConnectionLost):
                    self.close()  # Answers to other requests of the attempt may be on their way.
            time.sleep(pause_s)  # noqa: TID251  # there is no loop in a command
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    def _connect_to(self, broker: Broker) -> Connection:
        try:
            connection = self._connect(broker.address)
        except Unreachable as error:
            if broker.node_id in self._reached:
                raise ConnectionLost(error.problem) from error  # It may come back.
            told = f"The cluster told this address for broker {broker.node_id}. See: penstock up --advertise"
            raise Unreachable(error.problem, told) from error
        self._reached.add(broker.node_id)
        return connection

    def _connect(self, address: Address) -> Connection:
        return Connection(
            address, client_id=self._client_id, clock=self.clock, timeout_s=self.timeout_s, security=self.security,
            cluster=self._cluster,
        )  # fmt: skip

    def _bootstrap_connection(self) -> Connection:
        failures: list[str] = []
        hints: list[str] = []
        # Brokers met earlier outlive a bootstrap address that was only good for the first contact.
        addresses = dict.fromkeys((*self.bootstrap, *(broker.address for broker in self._brokers.values())))
        for address in addresses:
            try:
                return self._connect(address)
            except Unreachable as error:
                failures.append(error.problem)
                hints.append(error.hint)
            except ConnectionLost as error:
                failures.append(str(error))
        if self._brokers:
            raise ConnectionLost(failures[0])
        raise Unreachable("; ".join(failures), *hints[:1])


def _cluster(response: MetadataResponse) -> Cluster:
    topics = {topic.name: _topic(topic) for topic in response.topics if topic.name and not topic.error_code}
    return Cluster(
        cluster_id=response.cluster_id,
        controller_id=response.controller_id,
        brokers={
            broker.node_id: Broker(node_id=broker.node_id, address=Address(broker.host, broker.port), rack=broker.rack)
            for broker in response.brokers
        },
        topics=topics,
        errors={topic.name: topic.error_code for topic in response.topics if topic.name and topic.error_code},
    )


def _topic(topic: MetadataResponseTopic) -> Topic:
    assert topic.name is not None
    partitions = {
        partition.partition_index: Partition(
            leader=partition.leader_id,
            leader_epoch=partition.leader_epoch,
            replicas=tuple(partition.replica_nodes),
            in_sync=tuple(partition.isr_nodes),
        )
        for partition in sorted(topic.partitions, key=lambda partition: partition.partition_index)
    }
    return Topic(
        name=topic.name,
        topic_id=uuid_text(topic.topic_id) if any(topic.topic_id) else None,
        internal=topic.is_internal,
        partitions=partitions,
    )
