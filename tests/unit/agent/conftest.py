"""An agent for each test that asks for one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from wired_world import Wired

from penstock.agent.agent import Agent
from penstock.base.options import UpOptions


@pytest.fixture
async def wired() -> AsyncIterator[Wired]:
    agent = Agent(UpOptions(data_dir=None, kafka_port=0, http_port=0, client_metrics="prometheus"))
    await agent.start()
    wired = Wired(agent)
    yield wired
    await wired.close()
