"""Clients in Java, Go and JavaScript, unmodified. Each program runs all its checks; each check is a subtest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from fixtures import programs
from fixtures.programs import outcomes

pytestmark = pytest.mark.timeout(1200)  # Includes building with cold caches.


def _all_well(subtests: pytest.Subtests, command: Sequence[str | Path], directory: Path | None = None) -> None:
    for outcome in outcomes(command, directory=directory):
        with subtests.test(outcome.name):
            assert outcome.error is None, outcome.error


def test_java_clients(bootstrap: str, subtests: pytest.Subtests) -> None:
    _all_well(subtests, programs.java("Main", bootstrap))


@pytest.mark.parametrize("client", ["franz-go", "sarama", "kafka-go"])
def test_go_clients(bootstrap: str, subtests: pytest.Subtests, client: str) -> None:
    _all_well(subtests, [programs.go(), client, bootstrap])


def test_kafkajs(bootstrap: str, subtests: pytest.Subtests) -> None:
    _all_well(subtests, ["node", "checks.mjs", bootstrap], programs.node())
