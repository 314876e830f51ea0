"""Every test of transactions on the wire, against a broker whose metadata is in PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
from fixtures.postgres import PostgresServer
from fixtures.server import Server
from test_wire_transactions import *  # noqa: F403  # the tests themselves


@pytest.fixture(scope="module")
def postgres_broker(
    running_postgres: Callable[[], PostgresServer], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """One broker for all of them."""
    dsn = asyncio.run(running_postgres().empty_database())
    server = Server(
        tmp_path_factory.mktemp("broker"), environment={"PENSTOCK_METADATA": dsn}, settings={"num.partitions": "1"}
    )
    server.start()
    yield server
    assert server.stop() == 0
    assert "ERROR" not in server.log_tail(limit=10**7)


@pytest.fixture
def bootstrap(postgres_broker: Server) -> str:
    """Where to connect."""
    return postgres_broker.bootstrap
