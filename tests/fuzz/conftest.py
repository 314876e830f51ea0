"""The broker under attack."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fixtures.server import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for a module. It must still be there, and stop in order, when the module is done."""
    server = Server(tmp_path_factory.mktemp("fuzz"))
    server.start()
    try:
        yield server
        assert server.running, server.log_tail()
    finally:
        code = server.stop()
    assert code == 0, server.log_tail()
