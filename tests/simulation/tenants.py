"""A tenant at work in a virtual cluster: it does not matter what it makes there, as long as there is some of all."""

from __future__ import annotations

import asyncio

from simulation.clients import Client
from simulation.links import ConnectionLost
from simulation.world import World

from penstock.metadata.database import Script
from penstock.metadata.inline import InlineDatabase
from penstock.wire.api_keys import ApiKey
from penstock.wire.messages import add_partitions_to_txn, join_group, offset_commit, produce
from penstock.wire.messages import create_topics as creation
from penstock.wire.messages.init_producer_id import InitProducerIdRequest
from penstock.wire.records import Record, build_batch

TOPICS, GROUPS, IDS = 4, 3, 3
PARTITIONS = 2
ONLY_ROWS = (
    "INSERT INTO scram_credential (cluster_id, user_name, mechanism, iterations, salt, stored_key, server_key,"
    " updated_ms) VALUES ($1, 'bob', 1, 4096, X'00', X'00', X'00', 0)",
    "INSERT INTO service_account (cluster_id, name, description, created_ms) VALUES ($1, 'app', '', 0)",
    "INSERT INTO api_key (cluster_id, key_id, owner, description, salt, secret_hash, created_ms)"
    " VALUES ($1, 'PK' || $1, 'app', '', X'00', X'00', 0)",
    "INSERT INTO delegation_token (cluster_id, token_id, owner, requester, renewers, issued_ms, expires_ms, max_ms,"
    " hmac_hash) VALUES ($1, 't', 'User:bob', 'User:bob', '', 0, 0, 0, X'00')",
    "INSERT INTO quota (cluster_id, entity, key, value) VALUES ($1, 'user=bob', 'producer_byte_rate', 1)",
    "INSERT INTO config (cluster_id, kind, name, key, value) VALUES ($1, 32, 'g', 'consumer.session.timeout.ms', '9')",
    "INSERT INTO group_member (cluster_id, group_id, member_id, state) VALUES ($1, 'gone', 'm', X'00')",
    "INSERT INTO share_partition (cluster_id, group_id, topic_id, partition_index, slot, start_offset,"
    " delivery_complete, state_epoch, state) VALUES ($1, 's', X'00', 0, 0, 0, 0, 0, X'00')",
    "INSERT INTO cluster_limit (cluster_id, key, value) VALUES ($1, 'partitions', 1000)",
)
"""Of what nobody keeps in memory while it is not asked for, one each."""


def only_rows(cluster_id: int) -> Script[None]:
    """Write them."""
    for sql in ONLY_ROWS:
        yield sql, (cluster_id,)


class Tenant(Client):
    """Does one thing after the other in its cluster, and cares about no answer."""

    def __init__(self, world: World, name: str, cluster_id: int) -> None:
        super().__init__(world, name, cluster_id=cluster_id)
        self._acts = (self.make_topic, self.write, self.write, self.commit, self.join, self.begin)

    async def have_some_of_everything(self) -> None:
        """While nothing goes wrong."""
        for number in range(TOPICS):
            await self.make_topic(number)
            await self.write(number)
        for number in range(GROUPS):
            await self.commit(number)
            await self.join(number)
        for number in range(IDS):
            await self.begin(number)

    async def work(self, stop: asyncio.Event, *, pause_s: float = 0.05) -> None:
        """Go on, also when there is no such cluster any more."""
        choose = self.world.workload
        while not stop.is_set():
            await asyncio.sleep(choose.uniform(0, pause_s))
            try:
                await choose.choice(self._acts)(choose.randrange(TOPICS + 2))
            except ConnectionLost:
                self.world.marks.reach("a tenant was cut off")

    async def make_topic(self, number: int) -> None:
        """One that may be there."""
        topic = creation.CreatableTopic(name=f"topic-{number}", num_partitions=PARTITIONS, replication_factor=1)
        await self.call(ApiKey.CREATE_TOPICS, 7, creation.CreateTopicsRequest(topics=[topic], timeout_ms=20_000))

    async def write(self, number: int) -> None:
        """A batch."""
        await self._produce(number, self._batch(), None)

    async def commit(self, number: int) -> None:
        """An offset of a group without members."""
        partition = offset_commit.OffsetCommitRequestPartition(
            partition_index=0, committed_offset=number, committed_metadata=""
        )
        topic = offset_commit.OffsetCommitRequestTopic(name="topic-0", partitions=[partition])
        request = offset_commit.OffsetCommitRequest(
            group_id=f"group-{number}", generation_id_or_member_epoch=-1, member_id="", topics=[topic]
        )
        await self.call(ApiKey.OFFSET_COMMIT, 8, request)

    async def join(self, number: int) -> None:
        """A member of a group, which is not heard of again for a long time."""
        protocol = join_group.JoinGroupRequestProtocol(name="range", metadata=b"")
        request = join_group.JoinGroupRequest(
            group_id=f"members-{number}", session_timeout_ms=1_000_000, rebalance_timeout_ms=1_000, member_id="",
            protocol_type="consumer", protocols=[protocol],
        )  # fmt: skip
        await self.call(ApiKey.JOIN_GROUP, 3, request)

    async def begin(self, number: int) -> None:
        """A transaction that nobody ends."""
        name = f"id-{number}"
        request = InitProducerIdRequest(transactional_id=name, transaction_timeout_ms=600_000)
        begun = await self.call(ApiKey.INIT_PRODUCER_ID, 4, request)
        if begun.error_code:
            return
        topic = add_partitions_to_txn.AddPartitionsToTxnTopic(name="topic-0", partitions=[0])
        adding = add_partitions_to_txn.AddPartitionsToTxnRequest(
            v3_and_below_transactional_id=name, v3_and_below_producer_id=begun.producer_id,
            v3_and_below_producer_epoch=begun.producer_epoch, v3_and_below_topics=[topic],
        )  # fmt: skip
        await self.call(ApiKey.ADD_PARTITIONS_TO_TXN, 3, adding)
        data = self._batch(
            producer_id=begun.producer_id, producer_epoch=begun.producer_epoch, base_sequence=0, is_transactional=True
        )
        await self._produce(0, data, name)

    def _batch(self, **options: int) -> bytes:
        now_ms = self.world.clock.now_ms()
        record = Record(offset=0, timestamp=now_ms, value=self.name.encode().ljust(200, b"."))
        return build_batch([record], **options)

    async def _produce(self, number: int, data: bytes, transactional_id: str | None) -> None:
        partition = produce.PartitionProduceData(index=number % PARTITIONS, records=data)
        request = produce.ProduceRequest(
            transactional_id=transactional_id, acks=-1, timeout_ms=20_000,
            topic_data=[produce.TopicProduceData(name=f"topic-{number}", partition_data=[partition])],
        )  # fmt: skip
        await self.call(ApiKey.PRODUCE, 9, request)


class Seen:
    """Partitions of a virtual cluster that ever were, noted by the database itself."""

    def __init__(self, database: InlineDatabase, cluster_id: int) -> None:
        self._connection, self.cluster_id = database._connection, cluster_id
        self._connection.execute("CREATE TABLE seen_partition (partition_id INTEGER)")
        for row in self._connection.execute("SELECT partition_id FROM partition WHERE cluster_id = ?", (cluster_id,)):
            self._connection.execute("INSERT INTO seen_partition VALUES (?)", row)
        self._connection.execute(
            "CREATE TRIGGER seen_partitions AFTER INSERT ON partition WHEN new.cluster_id ="
            f" {cluster_id} BEGIN INSERT INTO seen_partition VALUES (new.partition_id); END"
        )

    @property
    def partition_ids(self) -> set[int]:
        """Their ids."""
        return {row[0] for row in self._connection.execute("SELECT partition_id FROM seen_partition")}
