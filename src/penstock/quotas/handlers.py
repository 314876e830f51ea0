"""Quotas shown and changed: DescribeClientQuotas, AlterClientQuotas (KIP-546)."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.base.context import RequestContext
from penstock.base.errors import PlatformError
from penstock.log.admin.failures import admin_failure
from penstock.log.refusals import Refused
from penstock.quotas import transitions
from penstock.quotas.model import Entity
from penstock.quotas.service import Quotas
from penstock.quotas.transitions import Change
from penstock.wire.messages.alter_client_quotas import (
    AlterClientQuotasRequest,
    AlterClientQuotasRequestEntryData,
    AlterClientQuotasResponse,
    AlterClientQuotasResponseEntityData,
    AlterClientQuotasResponseEntryData,
)
from penstock.wire.messages.describe_client_quotas import (
    DescribeClientQuotasRequest,
    DescribeClientQuotasResponse,
    EntityData,
    EntryData,
    ValueData,
)


class QuotaHandlers:
    """Kafka's quota APIs over `Quotas`."""

    def __init__(self, quotas: Quotas) -> None:
        self._quotas = quotas

    async def describe_client_quotas(
        self, context: RequestContext, request: DescribeClientQuotasRequest
    ) -> DescribeClientQuotasResponse:
        """DescribeClientQuotas, key 48, v0-1. v1: flexible. The limits of the entities that a filter matches, by
        exact name, by being a default, or by having a name of that type at all."""
        try:
            wanted = transitions.checked_filter(
                ((each.entity_type, each.match_type, each.match) for each in request.components), strict=request.strict
            )
        except Refused as refusal:
            return DescribeClientQuotasResponse(
                error_code=refusal.code, error_message=refusal.message, entries=None
            )  # fmt: skip
        found = [(who, limits) for who, limits in self._quotas.table(context.cluster_id).items() if wanted.matches(who)]
        return DescribeClientQuotasResponse(
            error_message=None,
            entries=[
                EntryData(
                    entity=[EntityData(entity_type=kind, entity_name=name) for kind, name in who],
                    values=[ValueData(key=key, value=value) for key, value in sorted(limits.items())],
                )
                for who, limits in sorted(found, key=lambda each: _order(each[0]))
            ],
        )

    async def alter_client_quotas(
        self, context: RequestContext, request: AlterClientQuotasRequest
    ) -> AlterClientQuotasResponse:
        """AlterClientQuotas, key 49, v0-1. v1: flexible. Users, client ids, both together, addresses, and the default
        of each; addresses are given as such, names of hosts are not looked up. In force once it is answered."""
        changes = [
            Change(
                entity=[(each.entity_type, each.entity_name) for each in entry.entity],
                limits=[(op.key, None if op.remove else op.value) for op in entry.ops],
            )
            for entry in request.entries
        ]
        refusals: Sequence[PlatformError | None]
        try:
            refusals = await self._quotas.alter(context.cluster_id, changes, validate_only=request.validate_only)
        except PlatformError as error:
            refusals = [error] * len(changes)
        return AlterClientQuotasResponse(
            entries=[_answer(entry, refusal) for entry, refusal in zip(request.entries, refusals, strict=True)]
        )


def _answer(
    entry: AlterClientQuotasRequestEntryData, refusal: PlatformError | None
) -> AlterClientQuotasResponseEntryData:
    answer = AlterClientQuotasResponseEntryData(
        error_message=None,
        entity=[
            AlterClientQuotasResponseEntityData(entity_type=each.entity_type, entity_name=each.entity_name)
            for each in entry.entity
        ],
    )
    if refusal is not None:
        answer.error_code, answer.error_message = admin_failure(refusal)
    return answer


def _order(who: Entity) -> list[tuple[str, bool, str]]:
    return [(kind, name is not None, name or "") for kind, name in who]
