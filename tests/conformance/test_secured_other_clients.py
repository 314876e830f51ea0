"""Clients in Java, Go and JavaScript and Kafka's own tools, unmodified, over TLS and with credentials.

The whole programs of checks run once more, each over another mechanism; what every protocol and mechanism needs of a
client is tried with Kafka's tools.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from fixtures import programs
from fixtures.kafka_tools import ToolRunner
from fixtures.programs import outcomes
from fixtures.secured import PASSWORD, USER, Secured

pytestmark = [
    pytest.mark.differs("the reference is not started with these listeners"),
    pytest.mark.timeout(1200),  # Includes building with cold caches.
]
CONFIGS = "kafka.admin.ConfigCommand"
PRODUCER, CONSUMER = "org.apache.kafka.tools.ProducerPerformance", "org.apache.kafka.tools.consumer.ConsoleConsumer"


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    secured = Secured(tmp_path_factory.mktemp("secured"), {"connections.max.reauth.ms": "3000"})
    secured.server.start()
    yield secured
    assert secured.server.stop() == 0


def _login(secured: Secured, mechanism: str) -> dict[str, str]:
    return {
        "CHECKS_CA": str(secured.authority.ca), "CHECKS_MECHANISM": mechanism, "CHECKS_USER": USER,
        "CHECKS_PASSWORD": PASSWORD,
    }  # fmt: skip


def _all_well(
    subtests: pytest.Subtests, command: Sequence[str | Path], environment: Mapping[str, str],
    directory: Path | None = None,
) -> None:  # fmt: skip
    for outcome in outcomes(command, directory=directory, environment=environment):
        with subtests.test(outcome.name):
            assert outcome.error is None, outcome.error


def test_java_clients(secured: Secured, subtests: pytest.Subtests) -> None:
    properties = secured.properties("SASL_SSL", "SCRAM-SHA-512")
    command = programs.java("Main", secured.at("SASL_SSL"))
    _all_well(subtests, command, {"CHECKS_PROPERTIES": str(properties)})


@pytest.mark.parametrize(("client", "mechanism"), [("franz-go", "SCRAM-SHA-256"), ("sarama", "PLAIN")])
def test_go_clients(secured: Secured, subtests: pytest.Subtests, client: str, mechanism: str) -> None:
    _all_well(subtests, [programs.go(), client, secured.at("SASL_SSL")], _login(secured, mechanism))


def test_kafkajs(secured: Secured, subtests: pytest.Subtests) -> None:
    login = _login(secured, "SCRAM-SHA-512")
    _all_well(subtests, ["node", "checks.mjs", secured.at("SASL_SSL")], login, programs.node())


@pytest.mark.parametrize(
    ("protocol", "mechanism"),
    [("SSL", ""), ("SASL_PLAINTEXT", "PLAIN"), ("SASL_PLAINTEXT", "SCRAM-SHA-256"), ("SASL_SSL", "PLAIN")],
)
def test_java_over_every_protocol(
    secured: Secured, tools: ToolRunner, fresh_name: Callable[..., str], protocol: str, mechanism: str
) -> None:
    more = {}
    if protocol == "SSL":
        keystore = secured.authority.keystore(*secured.authority.client("carol", unit="Robots"))
        more = {"ssl_keystore_type": "PEM", "ssl_keystore_location": str(keystore)}
    properties, topic = str(secured.properties(protocol, mechanism, **more)), fresh_name()
    where = ("--bootstrap-server", secured.at(protocol))
    sizes = ("--num-records", "500", "--record-size", "1000", "--throughput", "-1")
    tools.run(PRODUCER, "--topic", topic, *sizes, *where, "--command-config", properties)
    read = tools.run(
        CONSUMER, "--topic", topic, "--from-beginning", "--max-messages", "500", *where, "--command-config", properties
    )
    assert sum(len(line) == 1000 for line in read.splitlines()) == 500


def test_users_are_made_with_kafkas_own_tool(secured: Secured, tools: ToolRunner) -> None:
    admin = str(secured.properties("SASL_SSL", "SCRAM-SHA-512"))
    where = ("--bootstrap-server", secured.at("SASL_SSL"), "--command-config", admin, "--entity-type", "users")
    for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
        added = f"{mechanism}=[iterations=4096,password=of frank]"
        tools.run(CONFIGS, *where, "--alter", "--add-config", added, "--entity-name", "frank")
    described = tools.run(CONFIGS, *where, "--describe", "--entity-name", "frank")
    assert "SCRAM-SHA-256=iterations=4096" in described
    assert "SCRAM-SHA-512=iterations=4096" in described
    login = 'org.apache.kafka.common.security.scram.ScramLoginModule required username="frank" password="of frank";'
    frank = str(secured.properties("SASL_SSL", "SCRAM-SHA-256", sasl_jaas_config=login))
    topics = ("org.apache.kafka.tools.TopicCommand", "--list", "--bootstrap-server", secured.at("SASL_SSL"))
    tools.run(*topics, "--command-config", frank)
    tools.run(CONFIGS, *where, "--alter", "--delete-config", "SCRAM-SHA-256", "--entity-name", "frank")
    refused = tools.run(*topics, "--command-config", frank, code=1)
    assert "invalid credentials with SASL mechanism SCRAM-SHA-256" in refused
