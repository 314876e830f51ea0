"""A command authenticates once where one connection is enough: counted where the logins arrive."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
from cli_session import Session
from fixtures.secured import Secured

LINES = b"k:v\nk:w\n"


def _logins(secured: Secured) -> int:
    page = secured.server.http_text("/metrics")
    found = re.search(r"^penstock_authentications_total (\d+)\.0$", page, re.MULTILINE)
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
        ("service-account create robot", "api-key create robot", "api-key list"),
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


@pytest.mark.parametrize(
    ("listener", "properties", "message"),
    [
        ("SASL_PLAINTEXT", ("PLAINTEXT",), "If it requires credentials, add them to --client-config FILE"),
        ("SASL_SSL", ("SSL",), "If it requires credentials, add them to --client-config FILE, with security.protocol"),
        ("SASL_SSL", ("SASL_PLAINTEXT", "PLAIN"), "Is it a listener of protocol SASL_PLAINTEXT?"),
        ("SASL_PLAINTEXT", ("SASL_SSL", "PLAIN"), "is it a listener with TLS?"),
        ("SSL", ("SSL",), "it requires a client certificate. Name one in --client-config: ssl.certificate.location"),
    ],
)
def test_a_connection_of_another_kind_is_explained_at_once(
    secured: Secured, listener: str, properties: tuple[str, ...], message: str
) -> None:
    login, begun = secured.properties(*properties), time.monotonic()
    words = ("topic", "list", "--client-config", str(login), "--timeout", "50s")
    assert message in Session(secured.at(listener)).run(*words, code=1).stderr
    assert time.monotonic() - begun < 20
