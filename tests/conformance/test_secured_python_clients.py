"""The Python clients, unmodified, over every security protocol and mechanism."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fixtures.secured import PASSWORD, USER, Secured

pytestmark = pytest.mark.differs("the reference is not started with these listeners")
MECHANISMS = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
WAYS = [("SSL", "")] + [
    (protocol, mechanism) for protocol in ("SASL_PLAINTEXT", "SASL_SSL") for mechanism in MECHANISMS
]


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    secured = Secured(tmp_path_factory.mktemp("secured"))
    secured.certificates = secured.authority.client("carol", unit="Robots")
    secured.server.start()
    yield secured
    assert secured.server.stop() == 0


def _librdkafka(secured: Secured, protocol: str, mechanism: str, password: str = PASSWORD) -> dict[str, Any]:
    config: dict[str, Any] = {"bootstrap.servers": secured.at(protocol), "security.protocol": protocol}
    if protocol.endswith("SSL"):
        config["ssl.ca.location"] = str(secured.authority.ca)
    if protocol == "SSL":
        certificate, key = secured.certificates
        config |= {"ssl.certificate.location": str(certificate), "ssl.key.location": str(key)}
    if mechanism:
        config |= {"sasl.mechanism": mechanism, "sasl.username": USER, "sasl.password": password}
    return config


@pytest.mark.parametrize(("protocol", "mechanism"), WAYS)
def test_librdkafka(secured: Secured, fresh_name: Callable[..., str], protocol: str, mechanism: str) -> None:
    from confluent_kafka import Consumer, Producer

    topic, config = fresh_name(), _librdkafka(secured, protocol, mechanism)
    producer = Producer(config)
    for number in range(100):
        producer.produce(topic, b"%d" % number)
    assert producer.flush(30) == 0
    consumer = Consumer({**config, "group.id": topic, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    found = []
    while len(found) < 100:
        messages = consumer.consume(100, timeout=30)
        assert messages, "nothing came"
        assert all(message.error() is None for message in messages)
        found += [message.value() for message in messages]
    consumer.close()
    assert found == [b"%d" % number for number in range(100)]


def test_librdkafka_with_a_wrong_password(secured: Secured) -> None:
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.admin import AdminClient

    errors: list[Any] = []
    config = {**_librdkafka(secured, "SASL_SSL", "SCRAM-SHA-512", "wrong"), "error_cb": errors.append}
    admin = AdminClient(config)
    with pytest.raises(KafkaException):
        admin.list_topics(timeout=3)
    admin.poll(1)
    assert KafkaError._AUTHENTICATION in [error.code() for error in errors]


def _kafka_python(secured: Secured, protocol: str, mechanism: str) -> dict[str, Any]:
    config: dict[str, Any] = {"bootstrap_servers": secured.at(protocol), "security_protocol": protocol}
    if protocol.endswith("SSL"):
        config["ssl_cafile"] = str(secured.authority.ca)
    if protocol == "SSL":
        certificate, key = secured.certificates
        config |= {"ssl_certfile": str(certificate), "ssl_keyfile": str(key)}
    if mechanism:
        config |= {"sasl_mechanism": mechanism, "sasl_plain_username": USER, "sasl_plain_password": PASSWORD}
    return config


@pytest.mark.parametrize(("protocol", "mechanism"), WAYS)
def test_kafka_python(secured: Secured, fresh_name: Callable[..., str], protocol: str, mechanism: str) -> None:
    from kafka import KafkaConsumer, KafkaProducer

    topic, config = fresh_name(), _kafka_python(secured, protocol, mechanism)
    producer = KafkaProducer(**config)
    for number in range(20):
        producer.send(topic, b"%d" % number)
    producer.flush(30)
    producer.close()
    consumer = KafkaConsumer(topic, **config, auto_offset_reset="earliest", consumer_timeout_ms=30_000)
    found = [next(consumer).value for _ in range(20)]
    consumer.close()
    assert found == [b"%d" % number for number in range(20)]


@pytest.mark.parametrize(("protocol", "mechanism"), WAYS)
async def test_aiokafka(secured: Secured, fresh_name: Callable[..., str], protocol: str, mechanism: str) -> None:
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

    topic = fresh_name()
    config: dict[str, Any] = {"bootstrap_servers": secured.at(protocol), "security_protocol": protocol}
    if protocol.endswith("SSL"):
        config["ssl_context"] = secured.context(*(secured.certificates if protocol == "SSL" else ()))
    if mechanism:
        config |= {"sasl_mechanism": mechanism, "sasl_plain_username": USER, "sasl_plain_password": PASSWORD}
    async with AIOKafkaProducer(**config) as producer:
        for number in range(20):
            await producer.send_and_wait(topic, b"%d" % number)
    async with AIOKafkaConsumer(topic, **config, auto_offset_reset="earliest") as consumer:
        found = [(await consumer.getone()).value for _ in range(20)]
    assert found == [b"%d" % number for number in range(20)]
