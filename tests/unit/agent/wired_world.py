"""A whole agent in memory, and raw clients of it."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from agent_world import Client, turns
from fixtures.wire import batch

from penstock.agent.agent import Agent
from penstock.agent.listeners import Listener
from penstock.wire import codec
from penstock.wire.api_keys import ApiKey
from penstock.wire.messages import produce
from penstock.wire.messages.api_versions import ApiVersionsRequest
from penstock.wire.messages.metadata import MetadataRequest, MetadataRequestTopic


class Wired:
    """An agent in memory, and raw clients of it."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.table = dict(agent.requests.dispatcher.table)
        self._clients: list[Client] = []
        self._correlation_id = 0

    def connect(self) -> Client:
        ours, theirs = socket.socketpair()
        self.agent.server._accept(theirs, "10.0.0.1", Listener())
        self._clients.append(Client(ours))
        return self._clients[-1]

    async def send(self, client: Client, key: int, version: int, message: Any) -> int:
        """Send one request; its correlation id."""
        self._correlation_id += 1
        frame = codec.encode_request(key, version, self._correlation_id, "tester", message)
        await client.send(b"".join(bytes(part) for part in frame))
        return self._correlation_id

    async def receive(self, client: Client, key: int, version: int, correlation_id: int) -> Any:
        """The response to it."""
        (frame,) = await client.receive(1)
        found, position = codec.read_response_header(key, version, frame, 0)
        assert found == correlation_id
        return codec.read_response(key, version, frame, position)

    async def ask(self, client: Client, key: int, version: int, message: Any) -> Any:
        """A request and its response."""
        return await self.receive(client, key, version, await self.send(client, key, version, message))

    async def close(self) -> None:
        for client in self._clients:
            client.close()
        await turns(5)
        await self.agent.stop()


def producing(topic: str, *, acks: int, data: bytes | None = None) -> produce.ProduceRequest:
    share = produce.PartitionProduceData(index=0, records=batch(b"v") if data is None else data)
    return produce.ProduceRequest(
        transactional_id=None, acks=acks, timeout_ms=1000,
        topic_data=[produce.TopicProduceData(name=topic, partition_data=[share])],
    )  # fmt: skip


async def make_topic(wired: Wired, client: Client, name: str = "orders") -> None:
    request = MetadataRequest(topics=[MetadataRequestTopic(name=name)], allow_auto_topic_creation=True)
    for _ in range(5):
        answer = await wired.ask(client, ApiKey.METADATA, 9, request)
        if not answer.topics[0].error_code:
            return
    raise AssertionError(answer)


class Gate:
    """A thread that does nothing until it is let."""

    def __init__(self) -> None:
        self.open, self.works = asyncio.Event(), 0

    async def __call__(self, work: Any) -> Any:
        self.works += 1
        await self.open.wait()
        return work()


async def others_are_answered(wired: Wired) -> None:
    other = wired.connect()
    assert (await wired.ask(other, ApiKey.API_VERSIONS, 0, ApiVersionsRequest())).error_code == 0
