"""The keys of encrypted clusters: APIs that only Penstock has."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.base.dataclasses import dataclass
from penstock.cli.kafka.client import Client
from penstock.cli.kafka.failures import check
from penstock.wire.api_keys import ApiKey
from penstock.wire.messages.alter_cluster_keys import AlterClusterKeysRequest, AlterClusterKeysResponse
from penstock.wire.messages.describe_cluster_keys import DescribeClusterKeysRequest, DescribeClusterKeysResponse

ENCRYPT, ROTATE, REWRAP, ERASE = range(4)
"""What can be done to the keys of a cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterKeys:
    """What there is of a cluster's keys."""

    name: str
    state: str
    master_key_id: str
    data_keys: int
    current_since_ms: int | None


def describe_keys(client: Client, names: Sequence[str] | None = None) -> list[ClusterKeys]:
    """Of all encrypted clusters, or those of these names."""
    request = DescribeClusterKeysRequest(names=None if names is None else list(names))

    def ask() -> list[ClusterKeys]:
        response = client.call_controller(ApiKey.DESCRIBE_CLUSTER_KEYS, request, DescribeClusterKeysResponse)
        check(response.error_code, "keys", response.error_message)
        return [
            ClusterKeys(
                name=found.name, state=found.state, master_key_id=found.master_key_id, data_keys=found.data_keys,
                current_since_ms=None if found.current_since_ms < 0 else found.current_since_ms,
            )
            for found in response.clusters
        ]  # fmt: skip

    return client.retry(ask)


def alter_keys(client: Client, name: str, action: int) -> str:
    """Do something to the keys of a cluster; their state after it."""
    request = AlterClusterKeysRequest(name=name, action=action)
    response = client.call_controller(ApiKey.ALTER_CLUSTER_KEYS, request, AlterClusterKeysResponse)
    check(response.error_code, "", response.error_message)
    return str(response.state)
