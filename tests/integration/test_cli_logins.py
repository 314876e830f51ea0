"""A command authenticates once where one connection is enough: counted where the logins arrive."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from cli_session import Session
from fixtures.secured import USER, Secured

LINES = b"k:v\nk:w\n"


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    settings = {"authorizer.class.name": "", "super.users": f"User:{USER}"}
    secured = Secured(tmp_path_factory.mktemp("logins"), settings=settings)
    secured.server.start()
    yield secured
    assert secured.server.stop() == 0


def _logins(secured: Secured) -> int:
    page = secured.server.http_text("/metrics")
    found = re.search(r"^penstock_authentications_total (\d+)$", page, re.MULTILINE)
    assert found is not None, page
    return int(found[1])


@pytest.fixture
def logins_of(secured: Secured) -> Callable[..., int]:
    """Runs a command; how often it logged in."""
    login = secured.properties("SASL_PLAINTEXT", "SCRAM-SHA-512")
    session = Session(secured.at("SASL_PLAINTEXT").replace("127.0.0.1", "localhost"))

    def run(*words: str) -> int:
        before = _logins(secured)
        session.run(*words, "--client-config", str(login), stdin=LINES)
        return _logins(secured) - before

    return run


@pytest.mark.parametrize(
    "commands",
    [
        ("topic create t -p 2", "topic list", "topic describe t", "topic alter t -s retention.ms=60000",
         "topic trim t --before end --yes", "topic add-partitions t --add 1", "topic delete t --yes"),
        ("produce made", "consume made", "consume made -g readers", "group list", "group describe readers",
         "group lag readers", "group seek readers --to start", "group delete readers --yes"),
        ("config alter --broker -s log.retention.ms=86400000", "config describe --broker", "config list"),
        ("user list", "user password alice --dry-run", "user create bob", "user delete bob --yes"),
        ("acl allow bob read --topic t", "acl list", "acl remove bob --yes", "role grant developer bob",
         "role members"),
        ("quota set --user bob producer_byte_rate=1000", "quota list"),
        ("service-account create robot", "api-key create robot --dry-run", "api-key list"),
        ("env create test", "cluster create one --env test", "cluster describe one", "cluster list",
         "topic create t --cluster one", "cluster delete one --yes"),
        ("transaction list", "cluster info", "version", "audit tail -n 1"),
    ],
    ids=lambda commands: commands[0].partition(" ")[0],
)  # fmt: skip
def test_a_command_logs_in_once(logins_of: Callable[..., int], commands: tuple[str, ...]) -> None:
    expected = {command: 0 if command == "version" else 1 for command in commands}
    assert {command: logins_of(*command.split()) for command in commands} == expected


def test_a_benchmark_has_a_consumer_of_its_own(logins_of: Callable[..., int]) -> None:
    assert logins_of("bench", "-d", "300ms", "--rate", "50") == 2
