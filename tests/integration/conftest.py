"""The command line against a running broker: the fixture's, or the one PENSTOCK_TEST_BOOTSTRAP names."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

import pytest
from cli_session import Session
from fixtures.secured import USER, Secured


@pytest.fixture(scope="module")
def session(request: pytest.FixtureRequest) -> Session:
    named = os.environ.get("PENSTOCK_TEST_BOOTSTRAP")
    return Session(named or request.getfixturevalue("broker").bootstrap)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """A broker with TLS and credentials, for a user who may do everything."""
    settings = {"authorizer.class.name": "", "super.users": f"User:{USER}"}
    secured = Secured(tmp_path_factory.mktemp("secured"), settings=settings)
    secured.server.start()
    yield secured
    assert secured.server.stop() == 0


@pytest.fixture
def topic(session: Session) -> Iterator[str]:
    """A topic of three partitions that is gone afterwards."""
    name = f"cli-{secrets.token_hex(4)}"
    session.run("topic", "create", name, "-p", "3")
    yield name
    session.run("topic", "delete", name, "--yes")
