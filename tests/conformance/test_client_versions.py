"""Versions of clients that are still in use: the oldest Java client that Kafka 4 serves, and those up to the newest."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fixtures import programs, toolchains
from fixtures.programs import Outcome, outcomes

HERE = Path(__file__).parent
JAVA_SOURCES = HERE / "java_versions"
JAVA_VERSIONS = ("2.1.1", "2.8.2", "3.9.1", "4.4.0")
NEWEST = JAVA_VERSIONS[-1]
NEWEST_CHECKS = "|".join((
    "share consumer (accepts|reads|renews|that is closed).*",
    "consumer protocol: (one consumes|members join|static|regular|offsets in a transaction|admin).*",
    "offsets sent to a transaction", "a second producer fences the first", "a hanging transaction is aborted",
    "transactions are described and listed", "every kind of offset", "many topics are described in pages",
))  # fmt: skip
OLD_PYTHON = HERE / "python_versions"

pytestmark = pytest.mark.timeout(1200)  # Includes downloading with cold caches.


def _java(version: str) -> Path:
    return programs.maven_jars(JAVA_SOURCES / "pom.xml", kafka=version)


def test_java_versions(bootstrap: str, subtests: pytest.Subtests) -> None:
    """What they have in common. Two run at a time, as most of it is starting."""
    toolchains.require(programs.JDK, "java", "javac", "mvn")
    class_paths = {}
    for version in JAVA_VERSIONS:
        jars = _java(version)
        class_paths[version] = f"{programs.java_classes(JAVA_SOURCES, jars)}:{jars}/*"

    def checks(version: str) -> list[Outcome]:
        return list(outcomes(programs.jvm(class_paths[version], "AnyVersion", bootstrap, version)))

    with ThreadPoolExecutor(2) as pool:
        for version, found in zip(JAVA_VERSIONS, pool.map(checks, JAVA_VERSIONS), strict=True):
            for outcome in found:
                with subtests.test(f"{version}: {outcome.name}"):
                    assert outcome.error is None, outcome.error


def test_the_newest_java_client_in_new_groups_and_transactions(bootstrap: str, subtests: pytest.Subtests) -> None:
    """What older clients have not got, or do otherwise: checks of the Java suite, with another client in front of the
    one they were built with."""
    command = programs.java("Main", bootstrap, NEWEST_CHECKS)
    position = command.index("-cp") + 1
    jars = _java(NEWEST)
    assert (jars / f"kafka-clients-{NEWEST}.jar").exists()
    command[position] = f"{jars}/*:{command[position]}"
    found = list(outcomes(command))
    assert len(found) == 16, [outcome.name for outcome in found]
    for outcome in found:
        with subtests.test(outcome.name):
            assert outcome.error is None, outcome.error


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="kafka-python 2.0.2 does not run on Python 3.12 and newer")
def test_kafka_python_2(bootstrap: str, subtests: pytest.Subtests) -> None:
    packages = toolchains.python_packages(OLD_PYTHON / "requirements.txt")
    command = [sys.executable, OLD_PYTHON / "kafka_python_2.py", bootstrap]
    for outcome in outcomes(command, environment={"PYTHONPATH": str(packages)}):
        with subtests.test(outcome.name):
            assert outcome.error is None, outcome.error
