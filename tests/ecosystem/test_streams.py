"""Kafka Streams, exactly once: a word count whose client is killed, and whose broker is killed, while it runs.

Every change of a count is a record of its own, so whoever reads committed data must find each word's 1, 2, 3, ... to
the end, each once: a record processed twice, lost, or seen in part would leave a number out or repeat one.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from fixtures import programs, toolchains
from fixtures.processes import Program
from fixtures.server import Server
from fixtures.waiting import eventually
from fixtures.wire import Wire

from penstock.wire.api_keys import ApiKey
from penstock.wire.messages.list_groups import ListGroupsRequest

SOURCES = Path(__file__).parent / "streams"
WORDS = [f"word{number}" for number in range(40)]
LINES, WORDS_A_LINE = 12_000, 3
PARTITIONS = 3
WINDOW_MS = 10_000
PROTOCOLS = ["classic", "streams"]
"""Values of `group.protocol`."""
SESSION_TIMEOUT_MS = "6000"
"""After how long a client that was killed is taken out of its group."""
QUICK_SESSIONS = {
    "group.streams.min.session.timeout.ms": SESSION_TIMEOUT_MS, "group.streams.session.timeout.ms": SESSION_TIMEOUT_MS,
}  # fmt: skip

pytestmark = pytest.mark.timeout(1200)  # Includes downloading with cold caches.


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of its own, because it is killed. Its internal topics are trimmed as soon as they can be."""
    one = Server(tmp_path / "broker", durability="disk", settings=QUICK_SESSIONS)
    one.start()
    yield one
    one.kill()


@pytest.fixture
def word_count(server: Server, tmp_path: Path) -> Iterator[Callable[[str], Program]]:
    """Makes the application; its state survives when it is killed, as on a machine that goes on."""
    toolchains.require(programs.JDK, "java", "javac", "mvn")
    jars = programs.maven_jars(SOURCES / "pom.xml")
    classes = programs.java_classes(SOURCES, jars)
    made: list[Program] = []

    def make(protocol: str) -> Program:
        settings = {
            "application.id": "word-count",
            "bootstrap.servers": server.bootstrap,
            "group.protocol": protocol,
            "state.dir": str(tmp_path / "state"),
            "num.stream.threads": "2",
            "repartition.purge.interval.ms": "1000",
        }
        if protocol == "classic":
            settings["session.timeout.ms"] = SESSION_TIMEOUT_MS
        words = [f"{name}={value}" for name, value in settings.items()]
        made.append(Program(programs.jvm(f"{classes}:{jars}/*", "WordCount", *words), tmp_path / "streams.log"))
        return made[-1]

    yield make
    for program in made:
        program.kill()


class Counts:
    """What is committed of a topic of counts, read once and in order."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._consumer = Consumer({
            "bootstrap.servers": bootstrap, "group.id": "unused", "enable.auto.commit": False,
            "isolation.level": "read_committed", "log_level": 0,
        })  # fmt: skip
        self._consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
        self.of: dict[str, list[int]] = {}

    def total(self) -> int:
        """How many words have been counted by now."""
        for message in self._consumer.consume(5000, 0.2):
            if message.error() is None:
                self.of.setdefault(message.key().decode(), []).append(int(message.value()))
        return sum(map(len, self.of.values()))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_exactly_once_through_crashes(server: Server, word_count: Callable[[str], Program], protocol: str) -> None:
    with Wire(server.bootstrap) as wire:
        for topic in ("lines", "counts", "windows"):
            wire.create_topic(topic, partitions=PARTITIONS)
    producer = Producer({"bootstrap.servers": server.bootstrap, "enable.idempotence": True, "log_level": 0})
    counts, windows = Counts(server.bootstrap, "counts"), Counts(server.bootstrap, "windows")
    chance = random.Random("words")
    expected: Counter[str] = Counter()
    in_windows: Counter[str] = Counter()
    now_ms = int(time.time() * 1000)  # What is too old would be deleted.

    def lines(count: int) -> None:
        for _ in range(count):
            words = chance.choices(WORDS, k=WORDS_A_LINE)
            at_ms = now_ms - chance.randrange(60_000)
            producer.produce("lines", value=" ".join(words), timestamp=at_ms)
            expected.update(words)
            in_windows.update(f"{word}@{at_ms - at_ms % WINDOW_MS}" for word in words)

    streams = word_count(protocol)
    streams.start()
    lines(LINES // 3)
    producer.poll(0)

    def so_far(share: float) -> bool:
        streams.check()
        return counts.total() >= share * LINES * WORDS_A_LINE

    eventually(lambda: so_far(1 / 12), within_s=60, what="the first counts")
    streams.kill()
    lines(LINES // 3)
    producer.flush(30)
    streams.start()
    eventually(lambda: so_far(5 / 12), within_s=60, what="counts of the second client")
    lines(LINES // 3)
    server.kill()
    time.sleep(0.5)  # Long enough for the client to notice.
    server.start()
    assert producer.flush(60) == 0
    eventually(lambda: so_far(1), within_s=60, what="all counts")
    eventually(lambda: windows.total() >= LINES * WORDS_A_LINE, within_s=30, what="all counts of windows")
    with Wire(server.bootstrap) as wire:
        (group,) = wire.call(ApiKey.LIST_GROUPS, 5, ListGroupsRequest()).groups
        assert (group.group_id, group.group_type.lower(), group.group_state) == ("word-count", protocol, "Stable")
        repartition = "word-count-KSTREAM-AGGREGATE-STATE-STORE-0000000003-repartition"
        eventually(lambda: wire.list_offset(repartition, -2).offset > 0, what="trimming of what was processed")
    assert streams.stop() == 143
    for got, wanted in ((counts, expected), (windows, in_windows)):
        got.total()
        assert {key: sorted(values) for key, values in got.of.items()} == {
            key: list(range(1, count + 1)) for key, count in wanted.items()
        }
