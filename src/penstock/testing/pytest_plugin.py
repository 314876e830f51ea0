"""pytest fixtures: a broker for a test, or one for all of them. Loaded by pytest when penstock is installed.

    def test_orders(kafka_broker):
        producer = Producer({"bootstrap.servers": kafka_broker.bootstrap_servers})

Settings come from the fixture `kafka_broker_settings`, which a project overrides where it wants others, in its
conftest.py or in one module:

    @pytest.fixture(scope="session")
    def kafka_broker_settings():
        return {"num.partitions": 3, "auto.create.topics.enable": False}

This module is loaded by every run of pytest, so it imports nothing; the fixtures do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from penstock.testing.broker import Broker, Setting


@pytest.fixture(scope="session")
def kafka_broker_settings() -> Mapping[str, Setting]:
    """Kafka's broker settings for `kafka_broker` and `kafka_session_broker`; override it to change them."""
    return {}


@pytest.fixture
def kafka_broker(kafka_broker_settings: Mapping[str, Setting]) -> Iterator[Broker]:
    """A fresh Kafka broker in memory for one test; `kafka_broker.bootstrap_servers` is where it listens."""
    from penstock.testing.broker import Broker

    with Broker(settings=kafka_broker_settings) as broker:
        yield broker


@pytest.fixture(scope="session")
def kafka_session_broker(kafka_broker_settings: Mapping[str, Setting]) -> Iterator[Broker]:
    """One Kafka broker in memory for the whole session: cheaper, but tests must use topics of their own."""
    from penstock.testing.broker import Broker

    with Broker(settings=kafka_broker_settings) as broker:
        yield broker
