"""Transactions over the Kafka protocol: which there are, what they have written to, and their end by force."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.base.dataclasses import dataclass
from penstock.cli.kafka.client import Client, TopicPartition
from penstock.cli.kafka.coordinators import transaction_coordinator
from penstock.cli.kafka.failures import check
from penstock.wire.api_keys import ApiKey
from penstock.wire.messages.describe_transactions import DescribeTransactionsRequest, DescribeTransactionsResponse
from penstock.wire.messages.init_producer_id import InitProducerIdRequest, InitProducerIdResponse
from penstock.wire.messages.list_transactions import ListTransactionsRequest, ListTransactionsResponse

_FENCE_TIMEOUT_MS = 1
"""Of a transactional id that is initialized only to fence its producer: nothing is written with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """A transactional id, and its last transaction."""

    transactional_id: str
    state: str
    producer_id: int
    producer_epoch: int
    timeout_ms: int
    started_ms: int | None
    """None if none is open."""
    partitions: tuple[TopicPartition, ...]
    coordinator: int


def list_transactions(client: Client, *, states: Iterable[str] = (), longer_than_ms: int = -1) -> list[Transaction]:
    """Those of every coordinator, by transactional id."""
    request = ListTransactionsRequest(state_filters=list(states), duration_filter=longer_than_ms)

    def attempt() -> list[Transaction]:
        found: list[Transaction] = []
        for node_id in client.metadata([]).brokers:
            listed = client.node(node_id).call(ApiKey.LIST_TRANSACTIONS, request, ListTransactionsResponse)
            check(listed.error_code, f"transactions of broker {node_id}")
            names = [one.transactional_id for one in listed.transaction_states]
            found += _described(client, node_id, names, missing_is_error=False)
        return sorted(found, key=lambda one: one.transactional_id)

    return client.retry(attempt)


def describe_transaction(client: Client, transactional_id: str) -> Transaction:
    """One of them."""

    def attempt() -> Transaction:
        node_id, _ = transaction_coordinator(client, transactional_id)
        (found,) = _described(client, node_id, [transactional_id])
        return found

    return client.retry(attempt)


def fence(client: Client, transactional_id: str) -> None:
    """Abort the transaction that is open, and keep its producer from writing any more, as another producer of that
    transactional id would."""
    request = InitProducerIdRequest(transactional_id=transactional_id, transaction_timeout_ms=_FENCE_TIMEOUT_MS)

    def attempt() -> None:
        _, connection = transaction_coordinator(client, transactional_id)
        answer = connection.call(ApiKey.INIT_PRODUCER_ID, request, InitProducerIdResponse)
        check(answer.error_code, f"transactional id {transactional_id!r}")

    client.retry(attempt)


def _described(
    client: Client, node_id: int, names: list[str], *, missing_is_error: bool = True
) -> list[Transaction]:  # fmt: skip
    if not names:
        return []
    request = DescribeTransactionsRequest(transactional_ids=names)
    answer = client.node(node_id).call(ApiKey.DESCRIBE_TRANSACTIONS, request, DescribeTransactionsResponse)
    found: list[Transaction] = []
    for one in answer.transaction_states:
        if one.error_code and not missing_is_error:
            continue  # It has expired since, or only its name may be seen.
        check(one.error_code, f"transactional id {one.transactional_id!r}")
        partitions = [
            TopicPartition(topic.topic, partition) for topic in one.topics for partition in topic.partitions
        ]  # fmt: skip
        found.append(
            Transaction(
                transactional_id=one.transactional_id, state=one.transaction_state, producer_id=one.producer_id,
                producer_epoch=one.producer_epoch, timeout_ms=one.transaction_timeout_ms,
                started_ms=one.transaction_start_time_ms if one.transaction_start_time_ms >= 0 else None,
                partitions=tuple(sorted(partitions)), coordinator=node_id,
            )
        )  # fmt: skip
    return found
