"""pytest fixtures: a broker for a test, or one for all of them. Loaded by pytest when penstock is installed.

    def test_orders(kafka_broker):
        producer = Producer({"bootstrap.servers": kafka_broker.bootstrap_servers})

Settings come from the fixture `kafka_broker_settings`. Override it in conftest.py, or in a single module:

    @pytest.fixture(scope="session")
    def kafka_broker_settings():
        return {"num.partitions": 3, "auto.create.topics.enable": False}

Every run of pytest loads this module, so it imports nothing of Penstock; the fixtures do.
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
    """A fresh Kafka broker, in memory, for one test. Connect to `kafka_broker.bootstrap_servers`."""
    from penstock.testing.broker import Broker

    with Broker(settings=kafka_broker_settings) as broker:
        yield broker


@pytest.fixture(scope="session")
def kafka_session_broker(kafka_broker_settings: Mapping[str, Setting]) -> Iterator[Broker]:
    """One Kafka broker, in memory, for the whole session: faster, but each test must use topics of its own."""
    from penstock.testing.broker import Broker

    with Broker(settings=kafka_broker_settings) as broker:
        yield broker
