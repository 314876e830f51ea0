"""The live agents, as Kafka clients see them: brokers with ids and addresses.

Any agent serves any partition; which one a client gets as the leader is a matter of load and of racks, never of
correctness. A deployment of one process has one broker, `SingleBroker`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from penstock.base.context import RequestContext
from penstock.base.dataclasses import dataclass, replace
from penstock.log.model import Partition


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """A live agent under its advertised address."""

    node_id: int
    host: str
    port: int
    rack: str | None = None


class Brokers(Protocol):
    """The live agents, as a given caller should see them."""

    @property
    def node_id(self) -> int:
        """The id of this agent; always one of `alive`."""

    def kafka_cluster_id(self, cluster_id: int) -> str:
        """A virtual cluster's Kafka cluster id: 22 characters, never changing."""

    def alive(self, context: RequestContext) -> Sequence[Broker]:
        """Every live agent, by node id, with the address that this caller can reach it at."""

    def controller_id(self, context: RequestContext) -> int:
        """The agent that administrative requests go to; one of `alive`."""

    def leader(self, partition: Partition, context: RequestContext) -> int:
        """The agent that this caller should use for a partition; one of `alive`."""


class SingleBroker:
    """The only agent of an embedded deployment. It has an address per listener; clients get that of their own
    listener."""

    def __init__(self, *, kafka_cluster_id: str, node_id: int, host: str, port: int, rack: str | None = None) -> None:
        self._kafka_cluster_id = kafka_cluster_id
        self._broker = Broker(node_id=node_id, host=host, port=port, rack=rack)
        self._by_listener: dict[str, Broker] = {}
        self.kafka_id_of: Callable[[int], str] = lambda cluster_id: self._kafka_cluster_id
        """Knows the Kafka cluster ids of virtual clusters, where there are several."""

    def advertise(self, host: str, port: int, listener_name: str | None = None) -> None:
        """Set the address that clients of a listener get; without a name, those of listeners that have none of their
        own."""
        broker = Broker(node_id=self._broker.node_id, host=host, port=port, rack=self._broker.rack)
        if listener_name is None:
            self._broker = broker
        else:
            self._by_listener[listener_name] = broker

    @property
    def node_id(self) -> int:
        """The only node id."""
        return self._broker.node_id

    def kafka_cluster_id(self, cluster_id: int) -> str:
        """The id that this deployment was created with, unless a virtual cluster has its own."""
        return self.kafka_id_of(cluster_id)

    def alive(self, context: RequestContext) -> Sequence[Broker]:
        """The one broker."""
        broker = self._by_listener.get(context.listener_name, self._broker)
        return (broker if context.server_name is None else replace(broker, host=context.server_name),)

    def controller_id(self, context: RequestContext) -> int:
        """The one broker."""
        return self._broker.node_id

    def leader(self, partition: Partition, context: RequestContext) -> int:
        """The one broker."""
        return self._broker.node_id


def replica_nodes(leader: int, replication_factor: int, alive: Sequence[Broker]) -> list[int]:
    """The replicas that a partition is shown with: its leader, then other live agents up to the replication factor.

    The same list serves as the in-sync replicas: monitoring tools raise an alarm when the two differ.
    """
    others = [broker.node_id for broker in alive if broker.node_id != leader]
    return [leader, *others[: max(replication_factor, 1) - 1]]
