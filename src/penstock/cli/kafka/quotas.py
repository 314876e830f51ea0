"""Quotas over the Kafka protocol: shown and changed."""

from __future__ import annotations

from collections.abc import Mapping

from penstock.base.dataclasses import dataclass
from penstock.cli.kafka.client import Client
from penstock.cli.kafka.failures import check
from penstock.wire.api_keys import ApiKey
from penstock.wire.messages.alter_client_quotas import (
    AlterClientQuotasRequest,
    AlterClientQuotasRequestEntityData,
    AlterClientQuotasRequestEntryData,
    AlterClientQuotasResponse,
    OpData,
)
from penstock.wire.messages.describe_client_quotas import (
    ComponentData,
    DescribeClientQuotasRequest,
    DescribeClientQuotasResponse,
)

Entity = Mapping[str, str | None]
"""Names by type; None is the default of its type."""

_EXACT, _DEFAULT = 0, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """The limits of an entity."""

    entity: Entity
    limits: Mapping[str, float]


def quotas(client: Client, parts: Entity, *, strict: bool) -> list[Quota]:
    """The quotas of entities that have these parts, and if `strict` no others."""
    request = DescribeClientQuotasRequest(
        components=[
            ComponentData(entity_type=kind, match_type=_DEFAULT if name is None else _EXACT, match=name)
            for kind, name in parts.items()
        ],
        strict=strict,
    )

    def attempt() -> list[Quota]:
        response = client.any_node().call(ApiKey.DESCRIBE_CLIENT_QUOTAS, request, DescribeClientQuotasResponse)
        check(response.error_code, "quotas", response.error_message)
        return [
            Quota(
                entity={part.entity_type: part.entity_name for part in entry.entity},
                limits={each.key: each.value for each in entry.values},
            )
            for entry in response.entries or ()
        ]

    return client.retry(attempt)


def alter_quota(client: Client, entity: Entity, changes: Mapping[str, float | None], *, dry_run: bool) -> None:
    """Set limits of an entity; None takes one away."""
    entry = AlterClientQuotasRequestEntryData(
        entity=[
            AlterClientQuotasRequestEntityData(entity_type=kind, entity_name=name) for kind, name in entity.items()
        ],
        ops=[OpData(key=key, value=value or 0.0, remove=value is None) for key, value in changes.items()],
    )
    request = AlterClientQuotasRequest(entries=[entry], validate_only=dry_run)

    def attempt() -> None:
        answer = client.call_controller(ApiKey.ALTER_CLIENT_QUOTAS, request, AlterClientQuotasResponse)
        check(answer.entries[0].error_code, "the quota", answer.entries[0].error_message)

    client.retry(attempt)
