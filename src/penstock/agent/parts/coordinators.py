"""What an agent coordinates: groups of all kinds, share partitions, transactions."""

from __future__ import annotations

from penstock.agent.parts.log import Log
from penstock.agent.parts.runtime import Runtime
from penstock.agent.parts.stores import Stores
from penstock.agent.tuning import NODE_ID
from penstock.base.dataclasses import dataclass
from penstock.clusters.limits import LimitKey
from penstock.clusters.service import Clusters
from penstock.coordination.leases import LeaseHolder
from penstock.coordination.timers import LoopScheduler
from penstock.groups.expiry import OffsetExpiry
from penstock.groups.service import GroupService
from penstock.groups.settings import GroupSettings
from penstock.groups.share.service import ShareGroups
from penstock.groups.store import PendingOffsetWriter
from penstock.log.aborted import StoredAborted
from penstock.log.model import Partition, Topic
from penstock.log.producer_ids import ProducerIds
from penstock.log.record_first import RecordFirstCommitPath
from penstock.log.topics import Topics
from penstock.log.upkeep.background import Background
from penstock.metadata.database import TransactionRunner
from penstock.share.dead_letters import DeadLetters
from penstock.share.service import SharePartitions
from penstock.share.settings import ShareConfigs
from penstock.transactions.chores import TransactionalIdExpiry, TransactionTimeouts
from penstock.transactions.service import TransactionService
from penstock.transactions.settings import TransactionSettings
from penstock.transactions.slots import AllSlots, LeasedSlots, Slots

LEASE_HOLDER = LeaseHolder(name=f"agent-{NODE_ID}")


def transactions_of(
    runtime: Runtime, stores: Stores, topics: Topics, log: Log, producer_ids: ProducerIds, background: Background
) -> TransactionService:
    """Transactions; not open yet, as everything else has to be there before."""
    clock, settings = runtime.clock, TransactionSettings.of(runtime.settings)
    slots: Slots = AllSlots()
    if not log.commit_path.is_alone:
        slots = LeasedSlots(stores.database, holder=LEASE_HOLDER, clock=clock)
    service = TransactionService(
        database=stores.database, registry=log.registry, writer=log.writer, producer_ids=producer_ids, clock=clock,
        slots=slots,
    )  # fmt: skip
    if not isinstance(log.commit_path, RecordFirstCommitPath):
        log.commit_path.follower.on_transactions = service.began
    time_outs = TransactionTimeouts(service, settings)
    background.add(time_outs, TransactionalIdExpiry(service, settings))
    service.on_begin, time_outs.wake = time_outs.began, background.waker(time_outs.name)
    topics.before_deletion = service.keep_open
    return service


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupCoordinators:
    """Groups, and what share groups have done with partitions."""

    groups: GroupService
    share_groups: ShareGroups
    share_configs: ShareConfigs
    share_partitions: SharePartitions
    dead_letters: DeadLetters

    async def on_topic_created(self, topic: Topic) -> None:
        """Groups may be subscribed to it, or have more partitions to assign."""
        self.groups.topics_changed(topic.cluster_id)

    async def on_topic_altered(self, topic: Topic) -> None:
        """Nothing to do."""

    async def on_topic_deleted(self, topic: Topic) -> None:
        """A topic's committed offsets go with it."""
        self.groups.topics_changed(topic.cluster_id)
        await self.groups.forget_topic(topic.cluster_id, topic.topic_id)
        await self.share_partitions.forget_topic(topic.cluster_id, topic.topic_id)
        await self.share_groups.forget_topic(topic.cluster_id, topic.topic_id)

    async def on_trimmed(self, partition: Partition) -> None:
        """Nothing to do."""

    async def expire(self) -> None:
        """Drop offsets that have not been used for long, or whose topic is gone."""
        await self.share_partitions.forget_deleted_topics()
        await self.groups.expire_offsets()


async def open_groups(
    runtime: Runtime, stores: Stores, clusters: Clusters, topics: Topics, log: Log, transactions: TransactionService,
    background: Background,
) -> GroupCoordinators:  # fmt: skip
    """Take over groups and share partitions, and be notified of changes of topics from now on."""
    clock, closing, settings = runtime.clock, runtime.closing, GroupSettings.of(runtime.settings)
    database: TransactionRunner = stores.database
    pending_offset_writer: PendingOffsetWriter | None = None
    if isinstance(log.commit_path, RecordFirstCommitPath):
        database, pending_offset_writer = log.commit_path.up_to_date, transactions
    groups = GroupService(
        database=database, topics=log.registry, settings=settings, configs=topics, holder=LEASE_HOLDER,
        clock=clock, scheduler=LoopScheduler(), randomness=runtime.randomness,
        pending_offset_writer=pending_offset_writer, catch_up=log.commit_path.store_changes, live=topics.settings,
    )  # fmt: skip
    groups.limit = clusters.limit(LimitKey.GROUPS)
    await groups.open()
    closing.push_async_callback(groups.close)
    configs = ShareConfigs(topics, runtime.settings)
    partitions = SharePartitions(
        database=stores.database, reader=log.reader, aborted=StoredAborted(stores.database), configs=configs,
        offset_for_timestamp=log.timestamps.offset_for_timestamp, holder=LEASE_HOLDER, clock=clock,
        scheduler=LoopScheduler(), writer=log.writer, is_alone=log.commit_path.is_alone,
    )  # fmt: skip
    dead_letters = DeadLetters(
        partitions=partitions, topics=topics, configs=configs, reader=log.reader, writer=log.writer, clock=clock,
        scheduler=LoopScheduler(), executor=runtime.executor("dead-letters"),
    )  # fmt: skip
    await partitions.open()
    closing.push_async_callback(partitions.close)
    closing.push_async_callback(dead_letters.close)
    groups.before_deletion = partitions.settle_group
    groups.delete_with = partitions.delete_group
    coordinators = GroupCoordinators(
        groups=groups, share_groups=ShareGroups(groups, log.registry, topics), share_configs=configs,
        share_partitions=partitions, dead_letters=dead_letters,
    )  # fmt: skip
    topics.listen(coordinators)
    background.add(OffsetExpiry(coordinators.expire, settings, is_ready=runtime.is_ready))
    return coordinators
