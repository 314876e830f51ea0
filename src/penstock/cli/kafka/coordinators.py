"""Which node coordinates a group, or the transactions of a transactional id."""

from __future__ import annotations

from penstock.cli.kafka.client import Client
from penstock.cli.kafka.connection import Connection
from penstock.cli.kafka.failures import check
from penstock.wire.api_keys import ApiKey
from penstock.wire.messages.find_coordinator import FindCoordinatorRequest, FindCoordinatorResponse

_GROUP, _TRANSACTION = 0, 1


def group_coordinator(client: Client, group_id: str) -> tuple[int, Connection]:
    """The node that coordinates a group."""
    return _find(client, _GROUP, group_id, f"group {group_id!r}")


def transaction_coordinator(client: Client, transactional_id: str) -> tuple[int, Connection]:
    """The node that coordinates the transactions of a transactional id."""
    return _find(client, _TRANSACTION, transactional_id, f"transactional id {transactional_id!r}")


def _find(client: Client, key_type: int, key: str, what: str) -> tuple[int, Connection]:
    request = FindCoordinatorRequest(key=key, key_type=key_type, coordinator_keys=[key])
    response = client.any_node().call(ApiKey.FIND_COORDINATOR, request, FindCoordinatorResponse)
    answer = response.coordinators[0] if response.coordinators else response
    check(answer.error_code, what, answer.error_message)
    return answer.node_id, client.node(answer.node_id)
