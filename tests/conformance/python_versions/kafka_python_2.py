"""Checks of kafka-python 2.0.2, which asks for the oldest versions of everything; one JSON object per line and check.

kafka_python_2.py BOOTSTRAP
"""

from __future__ import annotations

import json
import sys
import time
import traceback
import uuid
from collections.abc import Callable

import kafka
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, NewPartitions, NewTopic
from kafka.errors import TopicAlreadyExistsError
from kafka.structs import OffsetAndMetadata

BOOTSTRAP = sys.argv[1]
WAIT_S = 30
VALUES = [b"value %d" % number for number in range(200)]


def fresh(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def topic(partitions: int = 1) -> str:
    name = fresh("old-python")
    admin = KafkaAdminClient(bootstrap_servers=BOOTSTRAP)
    admin.create_topics([NewTopic(name, partitions, 1, topic_configs={"retention.ms": "600000"})])
    admin.close()
    return name


def produce(name: str, **settings: object) -> None:
    producer = KafkaProducer(bootstrap_servers=BOOTSTRAP, **settings)
    sent = [producer.send(name, value, key=b"key", partition=0, headers=[("a", b"1")]) for value in VALUES]
    producer.flush(WAIT_S)
    if settings.get("acks") != 0:
        assert [one.get(WAIT_S).offset for one in sent] == list(range(len(VALUES)))
    producer.close()


def take(consumer: KafkaConsumer, count: int) -> list[bytes]:
    found: list[bytes] = []
    deadline = time.monotonic() + WAIT_S
    while len(found) < count and time.monotonic() < deadline:
        for records in consumer.poll(200, max_records=count - len(found)).values():
            found += [record.value for record in records]
    return found


def round_trip(**settings: object) -> None:
    name = topic()
    produce(name, **settings)
    consumer = KafkaConsumer(bootstrap_servers=BOOTSTRAP, auto_offset_reset="earliest")
    consumer.assign([TopicPartition(name, 0)])
    assert take(consumer, len(VALUES)) == VALUES
    consumer.close()


def topics() -> None:
    name = topic(2)
    admin = KafkaAdminClient(bootstrap_servers=BOOTSTRAP)
    try:
        admin.create_topics([NewTopic(name, 1, 1)])
    except TopicAlreadyExistsError:
        pass
    else:
        raise AssertionError("it was created twice")
    admin.create_partitions({name: NewPartitions(3)})
    (described,) = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
    settings = {entry[0]: entry[1] for entry in described.resources[0][4]}
    assert settings["retention.ms"] == "600000", settings
    assert len(admin.describe_topics([name])[0]["partitions"]) == 3
    admin.delete_topics([name])
    admin.close()


def group() -> None:
    name, member = topic(), fresh("group")
    produce(name)
    settings = {
        "bootstrap_servers": BOOTSTRAP, "group_id": member, "auto_offset_reset": "earliest",
        "enable_auto_commit": False,
    }  # fmt: skip
    consumer = KafkaConsumer(name, **settings)
    assert take(consumer, 50) == VALUES[:50]
    consumer.commit({TopicPartition(name, 0): OffsetAndMetadata(50, "")})
    consumer.close()
    consumer = KafkaConsumer(name, **settings)
    assert take(consumer, 150) == VALUES[50:]
    assert consumer.committed(TopicPartition(name, 0)) == 50
    consumer.close()
    admin = KafkaAdminClient(bootstrap_servers=BOOTSTRAP)
    assert (member, "consumer") in admin.list_consumer_groups()
    admin.close()


def times() -> None:
    name, start_ms = topic(), int(time.time() * 1000) - 60_000
    producer = KafkaProducer(bootstrap_servers=BOOTSTRAP)
    for number in range(10):
        producer.send(name, b"x", timestamp_ms=start_ms + number * 1000)
    producer.flush(WAIT_S)
    producer.close()
    consumer, place = KafkaConsumer(bootstrap_servers=BOOTSTRAP), TopicPartition(name, 0)
    assert consumer.offsets_for_times({place: start_ms + 4500})[place].offset == 5
    assert (consumer.beginning_offsets([place])[place], consumer.end_offsets([place])[place]) == (0, 10)
    consumer.close()


def report(name: str, check: Callable[[], None]) -> None:
    began, error = time.monotonic(), None
    try:
        check()
    except Exception:
        error = traceback.format_exc()
    print(json.dumps({"name": name, "error": error, "seconds": time.monotonic() - began}))


def main() -> None:
    assert kafka.__version__ == "2.0.2"
    report("topics", topics)
    report("defaults", round_trip)
    report("compression gzip", lambda: round_trip(compression_type="gzip"))
    for acks in (0, 1, "all"):
        report(f"acks {acks}", lambda acks=acks: round_trip(acks=acks))
    report("group commits and resumes", group)
    report("offsets for times", times)


if __name__ == "__main__":
    main()
