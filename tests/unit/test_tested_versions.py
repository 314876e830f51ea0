"""What is said to be tested is what is tested: the versions in docs/reference/ecosystem.md are those that tests use."""

from __future__ import annotations

import importlib.metadata
import json
import re
from pathlib import Path

from fixtures.documents import ROOT
from fixtures.kafka_tools import TOOLS

PAGE = (ROOT / "docs" / "reference" / "ecosystem.md").read_text()
DEVELOPMENT = ROOT / "requirements-dev.txt"
"""What the tests themselves run with."""
CONFORMANCE, ECOSYSTEM = ROOT / "tests" / "conformance", ROOT / "tests" / "ecosystem"
ELSEWHERE = {
    "acls": "tests/integration/test_cli_access.py",
    "delegation-tokens": "conformance/test_delegation_tokens.py",
}
"""Tools that are tested with users who log in."""


def section(title: str) -> str:
    """What is below a heading."""
    return PAGE.split(f"\n## {title}\n")[1].partition("\n## ")[0]


def told(title: str) -> list[tuple[str, str]]:
    """The first two columns of a section's table, without what software is part of."""
    cells = [[cell.strip(" –") for cell in line.split("|")[1:3]] for line in section(title).splitlines() if "|" in line]
    return [(name, version) for name, version in cells[2:]]


def pinned(requirements: Path, package: str) -> str:
    """The version of a Python package."""
    (version,) = re.findall(rf"^{re.escape(package)}==([\w.]+)", requirements.read_text(), re.MULTILINE)
    assert requirements != DEVELOPMENT or importlib.metadata.version(package) == version
    return str(version)


def artifact(pom: Path, name: str) -> str:
    """The version of a Java library."""
    found = re.findall(rf"<artifactId>{name}</artifactId><version>([^<]+)</version>", pom.read_text())
    assert len(found) == 1, (pom, name)
    return str(found[0])


def module(path: str) -> str:
    """The version of a Go module."""
    (version,) = re.findall(rf"^\t{re.escape(path)} v(\S+)$", (CONFORMANCE / "go" / "go.mod").read_text(), re.MULTILINE)
    return str(version)


def java_versions() -> str:
    text = (CONFORMANCE / "test_client_versions.py").read_text()
    (found,) = re.findall(r"^JAVA_VERSIONS = \((.*)\)$", text, re.MULTILINE)
    return str(found).replace('"', "")


def test_clients() -> None:
    assert told("Clients") == [
        ("Java", artifact(CONFORMANCE / "java" / "pom.xml", "kafka-tools")),
        ("Java", java_versions()),
        ("librdkafka (confluent-kafka)", pinned(DEVELOPMENT, "confluent-kafka")),
        ("franz-go", module("github.com/twmb/franz-go")),
        ("sarama", f"{module('github.com/IBM/sarama')}, at its default version and its newest"),
        ("kafka-go", module("github.com/segmentio/kafka-go")),
        ("KafkaJS", json.loads((CONFORMANCE / "node" / "package.json").read_text())["dependencies"]["kafkajs"]),
        ("kafka-python", pinned(DEVELOPMENT, "kafka-python")),
        ("kafka-python", pinned(CONFORMANCE / "python_versions" / "requirements.txt", "kafka-python")),
        ("aiokafka", pinned(DEVELOPMENT, "aiokafka")),
    ]


def test_software() -> None:
    connect, flink = ECOSYSTEM / "connect", ECOSYSTEM / "flink"
    connector = artifact(flink / "pom.xml", "flink-sql-connector-kafka")
    assert told("Software that lives on Kafka") == [
        ("Kafka Streams", artifact(ECOSYSTEM / "streams" / "pom.xml", "kafka-streams")),
        ("Kafka Connect", artifact(connect / "worker.xml", "connect-runtime")),
        ("Debezium PostgreSQL", artifact(connect / "debezium.xml", "debezium-connector-postgres")),
        ("file sink", artifact(connect / "file.xml", "connect-file")),
        ("Debezium JDBC sink", artifact(connect / "debezium.xml", "debezium-connector-jdbc")),
        ("Iceberg sink", artifact(connect / "iceberg.xml", "iceberg-kafka-connect")),
        ("Flink SQL", f"{pinned(flink / 'requirements.txt', 'apache-flink-libraries')}, connector {connector}"),
    ]


def test_command_line_tools() -> None:
    said = section("Command-line tools")
    version = artifact(CONFORMANCE / "java" / "pom.xml", "kafka-tools")
    assert f"Kafka {version}'s" in said
    assert set(re.findall(r"`kafka-([a-z0-9-]+)`", said)) == {*TOOLS, *ELSEWHERE}
    tests = "".join(path.read_text() for path in sorted(CONFORMANCE.glob("test_kafka_tools*.py")))
    assert [name for name in TOOLS if f'"{name}"' not in tests] == []
