"""Connections of the wire tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from fixtures.guests import admin, authorizing, guest, open_at, secret, stranger  # noqa: F401
from fixtures.kafka_tools import Tool, ToolRunner, tool_at
from fixtures.wire import Wire


@pytest.fixture(scope="session")
def tools() -> Iterator[ToolRunner]:
    """The process that Kafka's tools run in, one after the other."""
    with ToolRunner() as runner:
        yield runner


@pytest.fixture
def tool(bootstrap: str, tools: ToolRunner) -> Tool:
    """Kafka's tools against the broker."""
    return tool_at(bootstrap, tools)


@pytest.fixture
def connect(bootstrap: str) -> Iterator[Callable[..., Wire]]:
    """Opens raw connections, closed after the test."""
    opened: list[Wire] = []

    def open_one(**options: object) -> Wire:
        opened.append(Wire(bootstrap, **options))
        return opened[-1]

    yield open_one
    for client in opened:
        client.close()


@pytest.fixture
def wire(connect: Callable[..., Wire]) -> Wire:
    """One raw connection."""
    return connect()


@pytest.fixture
def topic(wire: Wire, fresh_name: Callable[..., str]) -> str:
    """A fresh topic of one partition."""
    name = fresh_name()
    wire.create_topic(name)
    return name
