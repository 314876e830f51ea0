"""Members of share groups: take records, hold some for a while, accept some and release others."""

from __future__ import annotations

import asyncio
from typing import Any

from simulation.clients import Client
from simulation.history import Delivery, Outcome, PartitionKey, Said
from simulation.links import ConnectionLost
from simulation.world import World

from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import incremental_alter_configs as configs
from penstock.wire.messages import share_fetch
from penstock.wire.messages.share_group_heartbeat import ShareGroupHeartbeatRequest

ACCEPT, RELEASE, REJECT = 1, 2, 3
GROUP = 32
_OUTCOMES = {
    ErrorCode.NONE: Outcome.ACKNOWLEDGED,
    # An agent that was replaced while it looked up a write whose answer was lost cannot tell whether that happened.
    ErrorCode.NOT_LEADER_OR_FOLLOWER: Outcome.UNKNOWN,
}
"""Of acknowledgements, by their error. Any other one refuses them."""


class ShareConsumer(Client):
    """One member. It forgets what it holds when its connection ends, as clients do."""

    def __init__(self, world: World, group_id: str, number: int, topic: str, partition: PartitionKey) -> None:
        super().__init__(world, f"{group_id}-{number}")
        self.group_id, self.topic, self.partition = group_id, topic, partition
        self.epoch = 0
        self.held: list[Delivery] = []

    async def configure(self, *, queue: str | None = None, **values: str) -> bool | None:
        """Set the group's configuration; None if nobody knows whether that happened."""
        named = {f"share.{name.replace('_', '.')}": value for name, value in values.items()}
        if queue is not None:
            named |= {"errors.deadletterqueue.topic.name": queue, "errors.deadletterqueue.copy.record.enable": "true"}
        resource = configs.AlterConfigsResource(
            resource_type=GROUP, resource_name=self.group_id,
            configs=[
                configs.AlterableConfig(name=name, config_operation=0, value=text) for name, text in named.items()
            ],
        )  # fmt: skip
        answer = await self.call(
            ApiKey.INCREMENTAL_ALTER_CONFIGS, 1, configs.IncrementalAlterConfigsRequest(resources=[resource])
        )
        return True if answer.responses[0].error_code == 0 else None

    async def join(self) -> bool | None:
        """Become a member."""
        request = ShareGroupHeartbeatRequest(
            group_id=self.group_id, member_id=self.name, member_epoch=0, subscribed_topic_names=[self.topic]
        )
        answer = await self.call(ApiKey.SHARE_GROUP_HEARTBEAT, 1, request)
        return True if answer.error_code == 0 else None

    async def leave(self, client: Client) -> None:
        """Be a member no more, as told by another connection: this one goes on to speak of what it has."""
        request = ShareGroupHeartbeatRequest(group_id=self.group_id, member_id=self.name, member_epoch=-1)
        await client.call(ApiKey.SHARE_GROUP_HEARTBEAT, 1, request)

    async def work(
        self, stop: asyncio.Event, *, accepts: float = 0.7, keeps: float = 0.2, rejects: float = 0.0,
        pause_s: float = 0.05,
    ) -> None:  # fmt: skip
        """Take and say until told to stop."""
        while not stop.is_set():
            try:
                await self.round(accepts=accepts, keeps=keeps, rejects=rejects)
            except ConnectionLost:
                self.forget()
            await asyncio.sleep(self.world.workload.uniform(0, pause_s))

    async def drain(self) -> bool | None:
        """Accept everything until nothing is left; True when that is so."""
        self.give_up()
        self.forget()
        assert await self.join()
        empty = 0
        while empty < 3:
            taken = await self.round(accepts=1.0, keeps=0.0)
            empty = 0 if taken or self.held else empty + 1
        return True

    def forget(self) -> None:
        """The session is gone, and whatever it held."""
        self.epoch = 0
        for delivery in self.held:
            delivery.ended_at = min(delivery.ended_at, self.now())
        self.held = []

    async def round(self, *, accepts: float, keeps: float, rejects: float = 0.0) -> int:
        """Say something of what is held, and take more. How many records came."""
        chance, link = self.world.workload, await self.link()
        said: list[tuple[Delivery, int]] = []
        if self.epoch:
            said = [
                (one, ACCEPT if chance.random() < accepts else RELEASE) for one in self.held if chance.random() >= keeps
            ]
        if rejects:
            said = [(one, REJECT if chance.random() < rejects else kind) for one, kind in said]
        words = [
            Said(offset=one.offset, accepts=kind == ACCEPT, rejects=kind == REJECT, invoked_at=self.now())
            for one, kind in said
        ]
        self.world.history.said += words
        for one, _ in said:
            one.ended_at = min(one.ended_at, self.now())
            self.held.remove(one)
        invoked_at = self.now()
        response = await self.reply(link, link.send(ApiKey.SHARE_FETCH, 2, self._request(said)))
        if response.error_code:
            self.world.marks.reach(f"share fetch: {ErrorCode(response.error_code).name}")
            for word in words:
                word.outcome, word.answered_at = Outcome.REFUSED, self.now()
            self.forget()
            return 0
        self.epoch += 1
        return self._learn(response, words, invoked_at, link.life)

    def _request(self, said: list[tuple[Delivery, int]]) -> share_fetch.ShareFetchRequest:
        batches = [
            share_fetch.AcknowledgementBatch(first_offset=one.offset, last_offset=one.offset, acknowledge_types=[kind])
            for one, kind in sorted(said, key=lambda pair: pair[0].offset)
        ]
        partition = share_fetch.FetchPartition(partition_index=self.partition.index, acknowledgement_batches=batches)
        return share_fetch.ShareFetchRequest(
            group_id=self.group_id, member_id=self.name, share_session_epoch=self.epoch, max_wait_ms=100, min_bytes=1,
            max_bytes=1 << 20, max_records=5, batch_size=5,
            topics=[share_fetch.FetchTopic(topic_id=self.partition.topic_id, partitions=[partition])],
        )  # fmt: skip

    def _learn(self, response: Any, words: list[Said], invoked_at: float, life: int) -> int:
        count = 0
        for topic in response.responses:
            for partition in topic.partitions:
                for word in words:
                    word.answered_at = self.now()
                    word.outcome = _OUTCOMES.get(partition.acknowledge_error_code, Outcome.REFUSED)
                for taken in partition.acquired_records:
                    for offset in range(taken.first_offset, taken.last_offset + 1):
                        delivery = Delivery(
                            offset=offset, member_id=self.name, count=taken.delivery_count, invoked_at=invoked_at,
                            answered_at=self.now(), life=life,
                        )  # fmt: skip
                        self.held.append(delivery)
                        self.world.history.deliveries.append(delivery)
                        count += 1
                if partition.error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER:
                    self.forget()
                    self.give_up()
                if partition.error_code:
                    self.world.marks.reach(f"share partition: {ErrorCode(partition.error_code).name}")
        return count
