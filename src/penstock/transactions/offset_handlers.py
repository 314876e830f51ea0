"""TxnOffsetCommit: offsets that become committed when a transaction does.

The group coordinator validates the member and stores the offsets as pending, in order with everything else that happens
to the group, and only if the producer is still in that transaction. That they are stored makes the group part of the
transaction: nothing else is written. Clients before KIP-890 have added the group by AddOffsetsToTxn.
"""

from __future__ import annotations

from penstock.base.context import RequestContext
from penstock.base.errors import PlatformError
from penstock.groups.commit_validation import validate_offsets
from penstock.groups.failures import code_of
from penstock.groups.model import CommitOffsets, OffsetAndMetadata, TopicPartition, TransactionOwner
from penstock.groups.service import GroupService, TopicLookup
from penstock.transactions.model import NEVER_MS, AddToTransaction, ProducerIdAndEpoch
from penstock.transactions.service import TransactionService
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.txn_offset_commit import (
    TxnOffsetCommitRequest,
    TxnOffsetCommitResponse,
    TxnOffsetCommitResponsePartition,
    TxnOffsetCommitResponseTopic,
)

IMPLICIT_SINCE, ABORTABLE_SINCE, TOPIC_IDS_SINCE, UNKNOWN_GROUPS_SINCE = 5, 4, 6, 6


class TransactionOffsetHandlers:
    """Answers TxnOffsetCommit."""

    def __init__(self, service: TransactionService, groups: GroupService, topics: TopicLookup) -> None:
        self._service, self._groups, self._topics = service, groups, topics

    async def txn_offset_commit(
        self, context: RequestContext, request: TxnOffsetCommitRequest
    ) -> TxnOffsetCommitResponse:
        """TxnOffsetCommit, key 28, v0-6. v2: leader epochs. v3: flexible, members (KIP-447). v4: TRANSACTION_ABORTABLE.
        v5: adds the group to the transaction implicitly (KIP-890). v6: topic ids."""
        asked = await validate_offsets(
            self._topics, context.cluster_id, request.topics, by_id=context.api_version >= TOPIC_IDS_SINCE,
            metadata_max_size=self._groups.settings.offset_metadata_max_size, now_ms=self._groups.now_ms(),
        )  # fmt: skip
        if asked.is_for_group:
            asked.outcome = await self._commit(context, request, asked.offsets)
        topics = await asked.response_topics(
            request.topics, TxnOffsetCommitResponseTopic, TxnOffsetCommitResponsePartition
        )
        return TxnOffsetCommitResponse(topics=topics)

    async def _commit(
        self, context: RequestContext, request: TxnOffsetCommitRequest, offsets: dict[TopicPartition, OffsetAndMetadata]
    ) -> ErrorCode:
        if not request.group_id:
            return ErrorCode.INVALID_GROUP_ID
        if not request.transactional_id:
            return ErrorCode.INVALID_REQUEST
        try:
            # Before the group is added: an invalid group must not become part of a transaction.
            await self._groups.check_group_limit((context.cluster_id, request.group_id))
            error, began_ms = await self._join(context, request)
            if error is not ErrorCode.NONE:
                return error
            asked = CommitOffsets(
                member_id=request.member_id,
                instance_id=request.group_instance_id,
                generation=request.generation_id_or_member_epoch,
                offsets=offsets,
                knows_unknown_groups=context.api_version >= UNKNOWN_GROUPS_SINCE,
                version=context.api_version,
                owner=TransactionOwner(
                    transactional_id=request.transactional_id,
                    producer_id=request.producer_id,
                    epoch=request.producer_epoch,
                    begins=context.api_version >= IMPLICIT_SINCE,
                    began_ms=began_ms,
                ),
            )
            return await self._groups.commit_offsets((context.cluster_id, request.group_id), asked)
        except PlatformError as problem:
            return code_of(problem)

    async def _join(self, context: RequestContext, request: TxnOffsetCommitRequest) -> tuple[ErrorCode, int]:
        """Add the group to the transaction, or check that it was added; and when that transaction began."""
        key = (context.cluster_id, request.transactional_id)
        producer = ProducerIdAndEpoch(request.producer_id, request.producer_epoch)
        began_ms = NEVER_MS
        if context.api_version >= IMPLICIT_SINCE:
            error = await self._service.begin_offset_commit(key, producer, request.group_id)
        else:
            add = AddToTransaction(producer=producer, groups=frozenset((request.group_id,)))
            known, began_ms = await self._service.check_part(key, add)
            abortable = context.api_version >= ABORTABLE_SINCE
            missing = ErrorCode.TRANSACTION_ABORTABLE if abortable else ErrorCode.INVALID_TXN_STATE
            error = missing if known is None else known
        return (ErrorCode.INVALID_PRODUCER_EPOCH if error is ErrorCode.PRODUCER_FENCED else error), began_ms
