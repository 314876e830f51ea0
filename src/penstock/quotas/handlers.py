"""Kafka's quota APIs: DescribeClientQuotas, AlterClientQuotas (KIP-546)."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.base.context import RequestContext
from penstock.base.cooperative import CHEAP_ITEMS_PER_TURN, map_each, sort_items, yield_if_due
from penstock.base.errors import PlatformError
from penstock.log.admin.failures import admin_failure
from penstock.log.refusals import Refused
from penstock.quotas import transitions
from penstock.quotas.model import Entity, EntityLimits
from penstock.quotas.service import Quotas
from penstock.quotas.transitions import QuotaAlteration
from penstock.wire.error_codes import ErrorCode
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

EXCESSIVE = f"One request may change the limits of {transitions.MAX_RECORDS} entities at most."


class QuotaHandlers:
    """Kafka's quota APIs over `Quotas`."""

    def __init__(self, quotas: Quotas) -> None:
        self._quotas = quotas

    async def describe_client_quotas(
        self, context: RequestContext, request: DescribeClientQuotasRequest
    ) -> DescribeClientQuotasResponse:
        """DescribeClientQuotas, key 48, v0-1. v1: flexible. The limits of the entities that a filter matches: by exact
        name, the default, or any name of that type."""
        try:
            wanted = transitions.checked_filter(
                ((part.entity_type, part.match_type, part.match) for part in request.components), strict=request.strict
            )
        except Refused as refusal:
            return DescribeClientQuotasResponse(
                error_code=refusal.code, error_message=refusal.message, entries=None
            )  # fmt: skip
        found: list[tuple[Entity, EntityLimits]] = []
        # A table is immutable; a change replaces it.
        for number, (who, limits) in enumerate(self._quotas.table(context.cluster_id).items()):
            await yield_if_due(number, CHEAP_ITEMS_PER_TURN)
            if wanted.matches(who):
                found.append((who, limits))
        entries = await map_each(await sort_items(found, lambda one: _order(one[0])), _entry)
        return DescribeClientQuotasResponse(entries=entries)

    async def alter_client_quotas(
        self, context: RequestContext, request: AlterClientQuotasRequest
    ) -> AlterClientQuotasResponse:
        """AlterClientQuotas, key 49, v0-1. v1: flexible. Users, client ids, pairs of them, addresses, and the default
        of each; addresses must be given as numbers, host names are not resolved. In force once it is answered."""
        if len(request.entries) > transitions.MAX_RECORDS:
            excessive = Refused(ErrorCode.POLICY_VIOLATION, EXCESSIVE)
            return AlterClientQuotasResponse(
                entries=await map_each(request.entries, lambda entry: _answer(entry, excessive))
            )
        changes = await map_each(request.entries, _alteration)
        refusals: Sequence[PlatformError | None]
        try:
            refusals = await self._quotas.alter(context.cluster_id, changes, validate_only=request.validate_only)
        except PlatformError as error:
            refusals = [error] * len(changes)
        return AlterClientQuotasResponse(
            entries=await map_each(list(zip(request.entries, refusals, strict=True)), lambda one: _answer(*one))
        )


def _entry(one: tuple[Entity, EntityLimits]) -> EntryData:
    who, limits = one
    return EntryData(
        entity=[EntityData(entity_type=kind, entity_name=name) for kind, name in who],
        values=[ValueData(key=key, value=value) for key, value in sorted(limits.items())],
    )


def _alteration(entry: AlterClientQuotasRequestEntryData) -> QuotaAlteration:
    return QuotaAlteration(
        entity=[(part.entity_type, part.entity_name) for part in entry.entity],
        limits=[(op.key, None if op.remove else op.value) for op in entry.ops],
    )


def _answer(
    entry: AlterClientQuotasRequestEntryData, refusal: PlatformError | None
) -> AlterClientQuotasResponseEntryData:
    answer = AlterClientQuotasResponseEntryData(
        error_message=None,
        entity=[
            AlterClientQuotasResponseEntityData(entity_type=part.entity_type, entity_name=part.entity_name)
            for part in entry.entity
        ],
    )
    if refusal is not None:
        answer.error_code, answer.error_message = admin_failure(refusal)
    return answer


def _order(who: Entity) -> list[tuple[str, bool, str]]:
    return [(kind, name is not None, name or "") for kind, name in who]
