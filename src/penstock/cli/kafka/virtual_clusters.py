"""Virtual clusters and environments: APIs that only Penstock has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from penstock.base.dataclasses import dataclass
from penstock.cli.kafka.client import Client
from penstock.cli.kafka.failures import BrokerError, check
from penstock.wire.api_keys import ApiKey
from penstock.wire.messages.alter_environments import AlterEnvironmentsRequest, AlterEnvironmentsResponse
from penstock.wire.messages.alter_virtual_cluster import (
    AlteredLimit,
    AlterVirtualClusterRequest,
    AlterVirtualClusterResponse,
)
from penstock.wire.messages.create_virtual_cluster import (
    CreateVirtualClusterRequest,
    CreateVirtualClusterResponse,
    LimitOfNewCluster,
)
from penstock.wire.messages.delete_virtual_cluster import DeleteVirtualClusterRequest, DeleteVirtualClusterResponse
from penstock.wire.messages.describe_environments import DescribeEnvironmentsRequest, DescribeEnvironmentsResponse
from penstock.wire.messages.describe_virtual_clusters import (
    DescribeVirtualClustersRequest,
    DescribeVirtualClustersResponse,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualCluster:
    """One virtual cluster."""

    name: str
    environment: str
    kafka_id: str
    description: str
    state: str
    created_ms: int
    limits: Mapping[str, float]
    usage: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A set of clusters, by name."""

    name: str
    created_ms: int
    clusters: tuple[str, ...]


def describe_clusters(client: Client, names: Sequence[str] | None = None) -> list[VirtualCluster]:
    """Those of these names, or all that we may see. With no name, the one we are in."""
    request = DescribeVirtualClustersRequest(names=None if names is None else list(names))

    def ask() -> list[VirtualCluster]:
        response = client.call_controller(
            ApiKey.DESCRIBE_VIRTUAL_CLUSTERS, request, DescribeVirtualClustersResponse
        )  # fmt: skip
        check(response.error_code, "clusters", response.error_message)
        return [
            VirtualCluster(
                name=cluster.name, environment=cluster.environment, kafka_id=cluster.kafka_cluster_id,
                description=cluster.description, state=cluster.state, created_ms=cluster.created_ms,
                limits={limit.key: limit.value for limit in cluster.limits},
                usage={used.key: used.value for used in cluster.usage},
            )
            for cluster in response.clusters
        ]  # fmt: skip

    return client.retry(ask)


def current_cluster(client: Client) -> VirtualCluster | None:
    """The one that we are in; None if that is not known: not every broker has any, nor tells everybody."""
    if not client.any_node().offers(ApiKey.DESCRIBE_VIRTUAL_CLUSTERS):
        return None
    try:
        return next(iter(describe_clusters(client, [])), None)
    except BrokerError:
        return None


def create_cluster(
    client: Client, name: str, *, environment: str, description: str, limits: Mapping[str, float]
) -> str:
    """Make a cluster; the id that Kafka's clients are shown."""
    request = CreateVirtualClusterRequest(
        name=name, environment=environment, description=description,
        limits=[LimitOfNewCluster(key=key, value=value) for key, value in limits.items()],
    )  # fmt: skip

    def ask() -> str:
        response = client.call_controller(ApiKey.CREATE_VIRTUAL_CLUSTER, request, CreateVirtualClusterResponse)
        check(response.error_code, "", response.error_message)
        return response.kafka_cluster_id

    return client.retry(ask)


def alter_cluster(client: Client, name: str, *, description: str | None, limits: Mapping[str, float | None]) -> None:
    """Change what is said of a cluster, and its limits; None takes one away."""
    request = AlterVirtualClusterRequest(
        name=name, description=description,
        limits=[
            AlteredLimit(key=key, value=0.0 if value is None else value, remove=value is None)
            for key, value in limits.items()
        ],
    )  # fmt: skip

    def ask() -> None:
        response = client.call_controller(ApiKey.ALTER_VIRTUAL_CLUSTER, request, AlterVirtualClusterResponse)
        check(response.error_code, "", response.error_message)

    client.retry(ask)


def delete_cluster(client: Client, name: str) -> None:
    """Let a cluster go, with everything in it."""

    def ask() -> None:
        response = client.call_controller(
            ApiKey.DELETE_VIRTUAL_CLUSTER, DeleteVirtualClusterRequest(name=name), DeleteVirtualClusterResponse
        )
        check(response.error_code, "", response.error_message)

    client.retry(ask)


def describe_environments(client: Client) -> list[Environment]:
    """All environments."""

    def ask() -> list[Environment]:
        response = client.call_controller(
            ApiKey.DESCRIBE_ENVIRONMENTS, DescribeEnvironmentsRequest(), DescribeEnvironmentsResponse
        )
        check(response.error_code, "environments", response.error_message)
        return [
            Environment(name=found.name, created_ms=found.created_ms, clusters=tuple(found.clusters))
            for found in response.environments
        ]

    return client.retry(ask)


def alter_environments(client: Client, *, creations: Sequence[str] = (), deletions: Sequence[str] = ()) -> None:
    """Make and remove environments."""
    request = AlterEnvironmentsRequest(creations=list(creations), deletions=list(deletions))

    def ask() -> None:
        response = client.call_controller(ApiKey.ALTER_ENVIRONMENTS, request, AlterEnvironmentsResponse)
        for result in response.results:
            check(result.error_code, "", result.error_message)

    client.retry(ask)
