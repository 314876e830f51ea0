"""Transactional producers of both generations, which do what Kafka's do when answers are lost.

Version 1 (before KIP-890) makes partitions and groups part of a transaction by requests, and keeps its epoch. Version 2
leaves that to the log, and gets a new epoch with the end of each transaction. Either may give up in the middle, as an
application does that is restarted: then its successor takes the id over.

Where there are several agents, batches go to any of them, for each partition over a connection of its own, and
coordinators are looked for until one says that it is the one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from simulation.clients import TRY_AGAIN, Client, Producer
from simulation.history import Append, OffsetSeen, Outcome, PartitionKey, Transaction
from simulation.links import ConnectionLost
from simulation.world import World

from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import add_partitions_to_txn, offset_fetch, produce, txn_offset_commit
from penstock.wire.messages.add_offsets_to_txn import AddOffsetsToTxnRequest
from penstock.wire.messages.end_txn import EndTxnRequest
from penstock.wire.messages.init_producer_id import InitProducerIdRequest

LONG_MS, SHORT_MS = 600_000, 2_000
GIVES_UP = 0.08
"""How often the application is restarted instead of trying something again, or at some other moment."""


class _GaveUp(Exception):
    """The application is restarted here."""


class TransactionalProducer(Producer):
    """Writes to several partitions in transactions. Its group's offset is the number of the last one that says so."""

    def __init__(
        self, world: World, name: str, topic: str, partitions: Sequence[PartitionKey], *, version: int
    ) -> None:  # fmt: skip
        super().__init__(world, name, topic)
        self.partitions, self.version = partitions, version
        self.keys: Sequence[bytes] | None = None
        """Of its records, if they have any."""
        self.group_id = f"group-of-{name}"
        self._producer_id = self._epoch = -1
        self._sequences: dict[PartitionKey, int] = {}
        self._transactions = 0
        self._may_time_out = False
        self._group: Client = self
        self._logs: dict[PartitionKey, Client] = dict.fromkeys(partitions, self)
        if world.is_shared:
            self._group = Client(world, f"{name}-offsets")
            self._logs = {partition: Client(world, f"{name}-{partition.index}") for partition in partitions}

    async def run(self, transactions: int) -> None:
        """So many transactions, one after the other."""
        await self.init(knows_itself=False)
        for _ in range(transactions):
            try:
                await self._transact()
            except _GaveUp:
                await self._restart()
            await asyncio.sleep(self.world.workload.uniform(0, 0.05))

    async def _restart(self) -> None:
        """The application is restarted. Its former self may not have noticed that."""
        self.world.marks.reach("application restarted")
        transaction = self.world.history.transactions_of(self.name)[-1]
        goes_on = all(append.outcome is Outcome.ACKNOWLEDGED for append in transaction.appends)
        async with asyncio.TaskGroup() as both:
            if goes_on and self.world.workload.random() < 0.7:
                both.create_task(self._zombie().commit_late(transaction))
            both.create_task(self.init(knows_itself=False))

    def _zombie(self) -> TransactionalProducer:
        """Somebody else with the same epoch."""
        zombie = TransactionalProducer(self.world, self.name, self.topic, self.partitions, version=self.version)
        zombie._producer_id, zombie._epoch, zombie._sequences = self._producer_id, self._epoch, dict(self._sequences)
        zombie.keys = self.keys
        # Its records are others than its successor's.
        zombie._number = 1_000_000 * self._transactions
        return zombie

    async def commit_late(self, transaction: Transaction) -> None:
        """Go on with a transaction and commit it, knowing nothing of a successor, who may be fenced off or not yet."""
        choose, link = self.world.workload, await self.link()
        await asyncio.sleep(choose.choice((0, choose.uniform(0, 0.1))))
        append = self._next(transaction, choose.choice(self.partitions))
        sent = link.send(ApiKey.PRODUCE, self._produce_version, self.request(append))
        try:
            if self.settle(append, await self.reply(link, sent)) is ErrorCode.INVALID_PRODUCER_EPOCH:
                self.world.marks.reach("zombie refused")
            if choose.random() < 0.5:
                # Maybe its end was asked for before it was restarted.
                transaction.wants_commit = True
                request = self._end_request(commit=True)
                await self.call(ApiKey.END_TXN, 4 if self.version == 1 else 5, request)
        except ConnectionLost:
            return

    async def leave_open(self) -> None:
        """Begin a transaction and be gone for good: only time ends it, maybe before it has really begun."""
        await self.init(knows_itself=False, timeout_ms=SHORT_MS)
        self._may_time_out = True
        transaction = self._new()
        partition = self.world.workload.choice(self.partitions)
        try:
            if self.version == 1:
                await self._add_partitions([partition])
            await self._produce(transaction, partition, 1)
        except _GaveUp:
            self.world.marks.reach("gone without an answer")

    async def init(self, *, knows_itself: bool, timeout_ms: int = LONG_MS) -> None:
        """Get a producer id and an epoch; `knows_itself`: the present ones are told (KIP-360)."""
        request = InitProducerIdRequest(
            transactional_id=self.name, transaction_timeout_ms=timeout_ms,
            producer_id=self._producer_id if knows_itself else -1,
            producer_epoch=self._epoch if knows_itself else -1,
        )  # fmt: skip

        async def attempt() -> Any:
            response = await self.call(ApiKey.INIT_PRODUCER_ID, 4 if self.version == 1 else 5, request)
            return response if self._is_done(response.error_code, "init", self) else None

        given = await self.world.eventually(attempt, "getting an epoch")
        self._adopt(given.producer_id, given.producer_epoch)

    # ---- one transaction -----------------------------------------------------------------------------------------

    async def _transact(self) -> None:
        choose = self.world.workload
        transaction = self._new()
        partitions = choose.sample(list(self.partitions), choose.randint(1, len(self.partitions)))
        offsets, commit = choose.random() < 0.6, choose.random() < 0.65
        if self.version == 1:
            await self._add_partitions(partitions)
        sending = [self._produce(transaction, partition, choose.randint(1, 3)) for partition in partitions]
        failed = [error for error in await asyncio.gather(*sending, return_exceptions=True) if error is not None]
        for error in failed:
            if not isinstance(error, _GaveUp):
                raise error
        if failed and choose.random() < 0.5:
            # Restarted. Else only these batches were given up: the producer goes on, and must not commit.
            raise failed[0]
        if offsets and not failed:
            transaction.sends_offsets = True
            await self._send_offsets(transaction.number)
        if choose.random() < GIVES_UP:
            raise _GaveUp
        await self._end(transaction, commit=commit and not failed)
        if failed and self.version == 1:
            self.world.marks.reach("epoch raised by its producer")
            await self.init(knows_itself=True)

    def _new(self) -> Transaction:
        self._transactions += 1
        if self.world.is_shared and self.world.workload.random() < 0.3:
            # Leaders change.
            for client in self._logs.values():
                client.give_up()
        transaction = Transaction(transactional_id=self.name, number=self._transactions)
        self.world.history.transactions.append(transaction)
        return transaction

    async def _add_partitions(self, partitions: Sequence[PartitionKey]) -> None:
        topic = add_partitions_to_txn.AddPartitionsToTxnTopic(
            name=self.topic, partitions=[partition.index for partition in partitions]
        )
        request = add_partitions_to_txn.AddPartitionsToTxnRequest(
            v3_and_below_transactional_id=self.name, v3_and_below_producer_id=self._producer_id,
            v3_and_below_producer_epoch=self._epoch, v3_and_below_topics=[topic],
        )  # fmt: skip

        async def attempt() -> ErrorCode:
            response = await self.call(ApiKey.ADD_PARTITIONS_TO_TXN, 3, request)
            (result,) = response.results_by_topic_v3_and_below
            return ErrorCode(max(one.partition_error_code for one in result.results_by_partition))

        await self._insist(attempt, "adding partitions")

    async def _produce(self, transaction: Transaction, partition: PartitionKey, batches: int) -> None:
        for _ in range(batches):
            append = self._next(transaction, partition)
            await self._insist(lambda append=append: self._attempt(append), "a batch", may_give_up=True)  # type: ignore[misc]

    def _next(self, transaction: Transaction, partition: PartitionKey) -> Append:
        count, size = self.world.workload.randint(1, 3), self.world.workload.choice((20, 20, 300, 3000))
        append = self.batch(
            partition, records=count, size=size, producer_id=self._producer_id, producer_epoch=self._epoch,
            base_sequence=self._sequences.get(partition, 0), is_transactional=True, keys=self.keys,
        )  # fmt: skip
        self._sequences[partition] = self._sequences.get(partition, 0) + count
        transaction.appends.append(append)
        return append

    @property
    def _produce_version(self) -> int:
        return 9 if self.version == 1 else 12

    async def _attempt(self, append: Append) -> ErrorCode:
        log = self._logs[append.partition]
        return self.settle(append, await log.call(ApiKey.PRODUCE, self._produce_version, self.request(append)))

    def request(self, append: Append) -> produce.ProduceRequest:
        """The request for a batch."""
        request = super().request(append)
        request.transactional_id = self.name
        return request

    async def _send_offsets(self, offset: int) -> None:
        if self.version == 1:
            add = AddOffsetsToTxnRequest(
                transactional_id=self.name, producer_id=self._producer_id, producer_epoch=self._epoch,
                group_id=self.group_id,
            )  # fmt: skip

            async def attempt_to_add() -> ErrorCode:
                return ErrorCode((await self.call(ApiKey.ADD_OFFSETS_TO_TXN, 3, add)).error_code)

            await self._insist(attempt_to_add, "adding a group")
        topic = txn_offset_commit.TxnOffsetCommitRequestTopic(
            name=self.topic,
            partitions=[
                txn_offset_commit.TxnOffsetCommitRequestPartition(
                    partition_index=partition.index, committed_offset=offset
                )
                for partition in self.partitions
            ],
        )
        request = txn_offset_commit.TxnOffsetCommitRequest(
            transactional_id=self.name, group_id=self.group_id, producer_id=self._producer_id,
            producer_epoch=self._epoch, topics=[topic],
        )  # fmt: skip

        async def attempt() -> ErrorCode:
            response = await self._group.call(ApiKey.TXN_OFFSET_COMMIT, 3 if self.version == 1 else 5, request)
            return ErrorCode(max(one.error_code for one in response.topics[0].partitions))

        await self._insist(attempt, "sending offsets", self._group)

    async def _end(self, transaction: Transaction, *, commit: bool) -> None:
        request = self._end_request(commit=commit)
        transaction.wants_commit = commit
        answer: Any = None

        async def attempt() -> ErrorCode:
            nonlocal answer
            answer = await self.call(ApiKey.END_TXN, 4 if self.version == 1 else 5, request)
            return ErrorCode(answer.error_code)

        try:
            await self._insist(attempt, "ending a transaction", may_give_up=True)
        except _GaveUp:
            self.world.marks.reach("end of a transaction not known")
            raise
        transaction.outcome, transaction.answered_at = Outcome.ACKNOWLEDGED, self.now()
        if self.version == 2:
            assert answer.producer_epoch > self._epoch or answer.producer_id != self._producer_id
            self._adopt(answer.producer_id, answer.producer_epoch)

    def _end_request(self, *, commit: bool) -> EndTxnRequest:
        return EndTxnRequest(
            transactional_id=self.name, producer_id=self._producer_id, producer_epoch=self._epoch, committed=commit
        )

    # ---- trying again --------------------------------------------------------------------------------------------

    async def _insist(
        self, attempt: Callable[[], Awaitable[ErrorCode]], what: str, asking: Client | None = None, *,
        may_give_up: bool = False,
    ) -> None:  # fmt: skip
        """Try until it is done, or the application is restarted."""
        while True:
            try:
                if self._is_done(await attempt(), what, asking or self):
                    return
            except ConnectionLost:
                pass
            if may_give_up and self.world.workload.random() < 2 * GIVES_UP:
                raise _GaveUp
            await asyncio.sleep(self.world.source.between(0.005, 0.1))

    def _is_done(self, code: int, what: str, asked: Client) -> bool:
        """Whether it succeeded; False to try again. Only time can have fenced this producer: there is no other."""
        error = ErrorCode(code)
        if error is ErrorCode.NOT_COORDINATOR:
            self.world.marks.reach("another coordinator")
            asked.give_up()
        if self._may_time_out and error in (ErrorCode.INVALID_PRODUCER_EPOCH, ErrorCode.PRODUCER_FENCED):
            raise _GaveUp
        assert error is ErrorCode.NONE or error in TRY_AGAIN, f"{self.name}: {error!r} at {what}"
        return error is ErrorCode.NONE

    def _adopt(self, producer_id: int, epoch: int) -> None:
        assert (producer_id, epoch) != (self._producer_id, self._epoch), "an epoch was given twice"
        self._producer_id, self._epoch = producer_id, epoch
        self._sequences.clear()

    # ---- the group -----------------------------------------------------------------------------------------------

    async def look_at_offsets(self) -> OffsetSeen | None:
        """What the group has by now, or None while the coordinator cannot say."""
        invoked_at = self.now()
        request = offset_fetch.OffsetFetchRequest(
            group_id=self.group_id,
            topics=[
                offset_fetch.OffsetFetchRequestTopic(
                    name=self.topic, partition_indexes=[partition.index for partition in self.partitions]
                )
            ],
        )
        response = await self._group.call(ApiKey.OFFSET_FETCH, 7, request)
        found = response.topics[0].partitions
        if response.error_code == ErrorCode.NOT_COORDINATOR:
            self._group.give_up()
        if response.error_code or any(one.error_code for one in found):
            return None
        seen = OffsetSeen(
            transactional_id=self.name, offsets=tuple(one.committed_offset for one in found), invoked_at=invoked_at
        )
        self.world.history.offsets_seen.append(seen)
        return seen
