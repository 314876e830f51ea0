"""An agent that is told to do with little memory: everything works, and each kind keeps to its part."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from fixtures.wire import Wire, batch

from penstock.agent.agent import Agent
from penstock.agent.metrics import exposition
from penstock.base.memory import LEAST_BYTES, MemoryBounds
from penstock.base.options import UpOptions
from penstock.wire.api_keys import ApiKey

BATCHES = 60


@pytest.fixture
async def agent() -> AsyncIterator[Agent]:
    agent = Agent(UpOptions(data_dir=None, kafka_port=0, settings={"memory.max.bytes": str(LEAST_BYTES)}))
    await agent.start()
    yield agent
    await agent.stop()


async def test_more_than_fits_is_written_and_read_back(agent: Agent) -> None:
    """36 MB where recent batches have 24 MiB and waiting ones 16, and somebody takes no answer."""
    bounds = MemoryBounds.of(LEAST_BYTES)
    assert agent.server.shared.memory == bounds
    values = [b"%d" % number * 300_000 for number in range(10, 10 + BATCHES)]

    def work() -> None:
        with Wire(f"127.0.0.1:{agent.kafka_port}") as wire, Wire(f"127.0.0.1:{agent.kafka_port}") as deaf:
            wire.create_topic("large")
            sent = [wire.send_produce("large", batch(value)) for value in values]
            answers = [wire.receive(ApiKey.PRODUCE, *one) for one in sent]
            assert [one.responses[0].partition_responses[0].base_offset for one in answers] == list(range(BATCHES))
            deaf.send_fetch("large", 0, max_bytes=50 << 20, partition_max_bytes=50 << 20)
            read: list[bytes | None] = []
            while len(read) < BATCHES:
                read += [record.value for record in wire.fetch_records("large", len(read))]
            assert read == values

    await asyncio.to_thread(work)
    log = agent.log
    assert log.tail.size_bytes <= bounds.tail_bytes * 5 // 4 + 2 * bounds.tail_chunk_bytes
    assert (log.writer.pending_bytes, agent.server.shared.partial_bytes, agent.server.shared.queued_bytes) == (0, 0, 0)
    shown = dict(line.rsplit(" ", 1) for line in exposition(agent).decode().splitlines() if line[0] != "#")
    for kind, most in bounds.kinds():
        assert float(shown[f'penstock_memory_max_bytes{{kind="{kind}"}}']) == most
        assert 0 <= float(shown[f'penstock_memory_bytes{{kind="{kind}"}}']) <= most
