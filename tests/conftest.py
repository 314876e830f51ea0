"""Fixtures of every tier that talks to a running broker, and the closing list of what was skipped.

`PENSTOCK_TEST_BOOTSTRAP=host:port` points the conformance tests at a broker that runs already. With
`PENSTOCK_TEST_REFERENCE=1` that broker is Apache Kafka, and tests of what Penstock does otherwise on purpose
(marker `differs`) are left out: this is how the suite itself is checked.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from fixtures import toolchains
from fixtures.postgres import PostgresServer, require_postgres
from fixtures.server import Broker, Server
from fixtures.tables import make_tables_at
from hypothesis import settings

SESSION_SERVER: pytest.StashKey[Server] = pytest.StashKey()
LOG_START: pytest.StashKey[int] = pytest.StashKey()


# What one example takes says more of the machine than of the code.
settings.register_profile("penstock", parent=settings.default, deadline=None)
settings.load_profile("penstock")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "differs(why): Penstock deliberately differs here from Apache Kafka")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("PENSTOCK_TEST_REFERENCE") != "1":
        return
    for item in items:
        for mark in item.iter_markers("differs"):
            item.add_marker(pytest.mark.skip(reason=f"differs from the reference: {mark.args[0]}"))


@pytest.fixture(scope="session")
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One broker for the whole session, on free ports and a fresh directory; topics keep tests apart."""
    given = os.environ.get("PENSTOCK_TEST_BOOTSTRAP")
    if given:
        yield Broker(given, is_reference=os.environ.get("PENSTOCK_TEST_REFERENCE") == "1")
        return
    server = Server(tmp_path_factory.mktemp("broker"))
    request.config.stash[SESSION_SERVER] = server
    server.start()
    try:
        yield Broker(server.bootstrap, server=server)
        assert server.running, f"the broker ended by itself with {server.exit_code()}\n{server.log_tail()}"
    finally:
        code = server.stop()
    assert code == 0, f"the broker stopped with {code}\n{server.log_tail()}"


@pytest.fixture
def bootstrap(broker: Broker) -> str:
    """Where to connect."""
    return broker.bootstrap


@pytest.fixture
def fresh_name() -> Callable[..., str]:
    """Makes names of topics and groups that nothing else uses."""

    def make(prefix: str = "t") -> str:
        return f"{prefix}-{uuid.uuid4().hex[:12]}"

    return make


@pytest.fixture(scope="session")
def running_postgres() -> Iterator[Callable[[], PostgresServer]]:
    """One PostgreSQL for the whole session, started by the first test that asks; others are skipped without it."""
    servers: list[PostgresServer] = []

    def get() -> PostgresServer:
        programs = require_postgres()
        if not servers:
            servers.append(PostgresServer(programs))
            servers[0].start()
        return servers[0]

    yield get
    for server in servers:
        server.remove()


@pytest.fixture
async def postgres_dsn(running_postgres: Callable[[], PostgresServer]) -> AsyncIterator[str]:
    """An empty database. It is emptied, not made: dropping one makes the server flush everything it has."""
    server = running_postgres()
    yield await server.empty_database()
    await server.disconnect_everyone()


@pytest.fixture
async def migrated_postgres_dsn(running_postgres: Callable[[], PostgresServer]) -> AsyncIterator[str]:
    """The same with the tables of this version."""
    server = running_postgres()
    yield await server.fresh_database(make_tables_at)
    await server.disconnect_everyone()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    server = item.config.stash.get(SESSION_SERVER, None)
    if server is not None:
        item.stash[LOG_START] = server.log_size()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    server = item.config.stash.get(SESSION_SERVER, None)
    if server is not None and report.failed and "broker" in getattr(item, "fixturenames", ()):
        report.sections.append(("broker log", server.log_tail(since=item.stash.get(LOG_START, 0))))
    return report


def pytest_sessionfinish() -> None:
    report = os.environ.get("PENSTOCK_TEST_MISSING")
    if report:
        Path(report).write_text(json.dumps(toolchains.missing))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not toolchains.missing:
        return
    terminalreporter.section("skipped for lack of a toolchain")
    for name, count in sorted(toolchains.missing.items()):
        terminalreporter.line(f"{name}: {count} test{'' if count == 1 else 's'} (see README, 'Tests')")
