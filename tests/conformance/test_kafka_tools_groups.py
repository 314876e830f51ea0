"""Kafka's own command-line tools that look at groups: consumer groups of both protocols, share and streams groups."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Consumer
from fixtures.kafka_tools import Tool, produce
from fixtures.streams_members import AT_ONCE, Member, set_config, topology
from fixtures.waiting import eventually
from fixtures.wire import Wire

pytestmark = pytest.mark.timeout(1200)  # Includes downloading with cold caches.


@pytest.fixture
def topic(wire: Wire, fresh_name: Callable[..., str]) -> str:
    """A topic of two partitions."""
    name = fresh_name()
    wire.create_topic(name, partitions=2)
    return name


def test_consumer_groups(tool: Tool, topic: str, fresh_name: Callable[..., str]) -> None:
    group = fresh_name("g")
    produce(tool, topic, 100)
    tool("console-consumer", "--topic", topic, "--group", group, "--from-beginning", "--max-messages", "100")
    assert group in tool("consumer-groups", "--list")
    assert group in tool("groups", "--list")
    assert _offsets(tool("consumer-groups", "--describe", "--group", group), group, topic) == (100, 0)
    assert "Empty" in tool("consumer-groups", "--describe", "--group", group, "--state")
    listed = tool("consumer-groups", "--list", "--state", "Empty")
    assert any(line.split() == [group, "Empty"] for line in listed.splitlines())
    assert group in tool("consumer-groups", "--describe", "--all-groups")
    tool("consumer-groups", "--reset-offsets", "--group", group, "--topic", topic, "--to-earliest", "--execute")
    assert _offsets(tool("consumer-groups", "--describe", "--group", group), group, topic) == (0, 100)
    tool("consumer-groups", "--delete-offsets", "--group", group, "--topic", f"{topic}:0")
    tool("consumer-groups", "--delete", "--group", group)
    assert group not in tool("consumer-groups", "--list")
    assert "GroupIdNotFoundException" in tool("consumer-groups", "--describe", "--group", group)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_offsets_of_a_group_are_moved(
    bootstrap: str, wire: Wire, tool: Tool, tmp_path: Path, fresh_name: Callable[..., str], protocol: str
) -> None:
    """Every way of saying where to, for a group whose members have left."""
    topic, group = fresh_name(), fresh_name("g")
    wire.create_topic(topic)
    produce(tool, topic, 100)
    settings = {"bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest"}
    consumer = Consumer(settings | {"group.protocol": protocol, "enable.auto.commit": False, "log_level": 0})
    consumer.subscribe([topic])
    seen = consumer.consume(40, 30)
    assert len(seen) == 40
    consumer.commit(message=seen[-1], asynchronous=False)
    consumer.close()
    reset = ("--reset-offsets", "--group", group)

    def committed() -> int:
        return _offsets(tool("consumer-groups", "--describe", "--group", group), group, topic)[0]

    def move(*where: str) -> int:
        tool("consumer-groups", *reset, "--topic", topic, *where, "--execute")
        return committed()

    assert committed() == 40
    assert move("--to-offset", "30") == 30
    assert move("--shift-by", "5") == 35
    assert move("--shift-by", "-10") == 25
    assert move("--to-current") == 25
    assert move("--to-latest") == 100
    assert move("--by-duration", "PT1H") == 0
    assert move("--to-datetime", "2099-01-01T00:00:00.000") == 100
    assert move("--to-datetime", "2001-01-01T00:00:00.000") == 0
    assert move("--to-offset", "1000") == 100, "no farther than there is something"
    planned = tool("consumer-groups", *reset, "--topic", topic, "--to-offset", "7", "--dry-run", "--export")
    assert committed() == 100, "nothing was done"
    plan = tmp_path / "offsets.csv"
    plan.write_text("".join(f"{line}\n" for line in planned.splitlines() if topic in line))
    tool("consumer-groups", *reset, "--from-file", str(plan), "--execute")
    assert committed() == 7
    tool("consumer-groups", *reset, "--all-topics", "--to-earliest", "--execute")
    assert committed() == 0


def _offsets(described: str, group: str, topic: str) -> tuple[int, int]:
    rows = [line.split() for line in described.splitlines() if line.startswith(group)]
    mine = [row for row in rows if topic in row]
    columns = [row.index(topic) for row in mine]
    current = sum(int(row[column + 2]) for row, column in zip(mine, columns, strict=True) if row[column + 2] != "-")
    lag = sum(int(row[-4]) for row in mine if row[-4] != "-")
    return current, lag


def test_share_groups(tool: Tool, topic: str, fresh_name: Callable[..., str]) -> None:
    group = fresh_name("share")
    tool(
        "configs", "--alter", "--entity-type", "groups", "--entity-name", group, "--add-config",
        "share.auto.offset.reset=earliest",
    )  # fmt: skip
    produce(tool, topic, 500)
    figures = tool("share-consumer-perf-test", "--topic", topic, "--group", group, "--num-records", "500")
    assert ", 500, " in figures, figures
    assert group in tool("share-groups", "--list").split()
    assert "Empty" in tool("share-groups", "--describe", "--group", group, "--state")
    assert _share_offsets(tool, group, topic) == (500, 0)
    assert any(line.split() == [group, "Empty"] for line in tool("share-groups", "--list", "--state").splitlines())
    assert "Share" in next(line for line in tool("groups", "--list").splitlines() if group in line)
    tool("share-groups", "--reset-offsets", "--group", group, "--topic", topic, "--to-earliest", "--dry-run")
    assert _share_offsets(tool, group, topic) == (500, 0), "nothing was done"
    tool("share-groups", "--reset-offsets", "--group", group, "--topic", topic, "--to-earliest", "--execute")
    assert _share_offsets(tool, group, topic) == (0, 500)
    again = tool("share-consumer-perf-test", "--topic", topic, "--group", group, "--num-records", "500")
    assert ", 500, " in again, again
    tool("share-groups", "--delete-offsets", "--group", group, "--topic", topic)
    assert group in tool("share-groups", "--delete", "--group", group)
    assert group not in tool("share-groups", "--list").split()


def _share_offsets(tool: Tool, group: str, topic: str) -> tuple[int, int]:
    """Where the partitions of a group begin, and how much it has before it, as the tool shows them."""
    lines = [line.split() for line in tool("share-groups", "--describe", "--group", group).splitlines()]
    rows = [words for words in lines if words[:2] == [group, topic]]
    known = [tuple(int(word) for word in words[3:5]) for words in rows if "-" not in words[3:5]]
    assert rows
    return sum(start for start, _ in known), sum(lag for _, lag in known)


def test_share_consumers(tool: Tool, topic: str, fresh_name: Callable[..., str]) -> None:
    """On the console, and the verifiable one, which takes on where that one ended."""
    group = fresh_name("share")
    of_group = ("--entity-type", "groups", "--entity-name", group)
    tool("configs", "--alter", *of_group, "--add-config", "share.auto.offset.reset=earliest")
    lines = "".join(f"line {number}\n" for number in range(20))
    tool("console-producer", "--topic", topic, stdin=lines)
    printed = tool("console-share-consumer", "--topic", topic, "--group", group, "--max-messages", "20")
    assert sorted(line for line in printed.splitlines() if line.startswith("line")) == sorted(lines.splitlines())
    produce(tool, topic, 100)
    got = tool("verifiable-share-consumer", "--topic", topic, "--group-id", group, "--max-messages", "100")
    events = [json.loads(line) for line in got.splitlines() if line.startswith("{")]
    assert sum(event["count"] for event in events if event["name"] == "offsets_acknowledged") >= 100


def test_a_streams_application_is_reset(
    bootstrap: str, wire: Wire, tool: Tool, topic: str, fresh_name: Callable[..., str]
) -> None:
    """Of a classic one: its group goes back to the beginning, and what it had made for itself is deleted."""
    application = fresh_name("app")
    changelog = f"{application}-store-changelog"
    wire.create_topic(changelog)
    produce(tool, topic, 100)
    tool("console-consumer", "--topic", topic, "--group", application, "--from-beginning", "--max-messages", "100")
    words = ("--application-id", application, "--input-topics", topic, "--force")
    tool("streams-application-reset", *words, "--dry-run")
    assert changelog in tool("topics", "--list").split()
    tool("streams-application-reset", *words)
    assert changelog not in tool("topics", "--list").split()
    described = tool("consumer-groups", "--describe", "--group", application)
    assert _offsets(described, application, topic) == (0, 100)


def test_streams_groups(bootstrap: str, tool: Tool, topic: str, fresh_name: Callable[..., str]) -> None:
    """A member counts words; its group is looked at, moved and deleted, with the topics that were made for it."""
    group = fresh_name("app")
    produce(tool, topic, 100)
    with Wire(bootstrap) as wire:
        set_config(wire, group, AT_ONCE)
        member = Member(wire, group, "counting", topology(topic, application=group))
        member.beat()
        member.settle(4)
        assert member.commit(topic, 0, 7) == 0
        assert group in tool("streams-groups", "--list").split()
        assert "STABLE" in tool("streams-groups", "--list", "--state").upper()
        assert "Stable" in tool("streams-groups", "--describe", "--group", group, "--state")
        assert "counting" in tool("streams-groups", "--describe", "--group", group, "--members", "--verbose")
        offsets = [line.split() for line in tool("streams-groups", "--describe", "--group", group).splitlines()]
        assert any(words[:3] == [group, topic, "0"] for words in offsets), offsets
        move = ("--reset-offsets", "--group", group, "--input-topic", topic, "--to-earliest", "--execute")
        assert "the current state is Stable" in tool("streams-groups", *move)
        assert member.beat(member_epoch=-1).error_code == 0
    tool("streams-groups", *move)
    tool("streams-groups", "--delete-offsets", "--group", group, "--input-topic", topic)
    assert group in tool("streams-groups", "--delete", "--group", group, "--delete-all-internal-topics")
    assert group not in tool("streams-groups", "--list").split()
    assert group not in tool("topics", "--list"), "what it had made is gone"


def test_consumer_groups_of_the_consumer_protocol(
    bootstrap: str, tool: Tool, topic: str, fresh_name: Callable[..., str]
) -> None:
    """Members are seen with epochs and assignments while they are there; the group is configured and deleted."""
    group = fresh_name("g")
    produce(tool, topic, 100)
    settings = {"bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest"}
    consumer = Consumer(settings | {"group.protocol": "consumer", "client.id": "watched"})
    consumer.subscribe([topic])

    def assigned() -> bool:
        consumer.poll(0.1)
        return len(consumer.assignment()) == 2

    eventually(assigned, what="both partitions", within_s=30)
    assert "Consumer" in next(line for line in tool("groups", "--list").splitlines() if group in line)
    members = tool("consumer-groups", "--describe", "--group", group, "--members", "--verbose")
    assert "watched" in members
    assert f"{topic}:0,1" in members.replace(" ", "")
    state = tool("consumer-groups", "--describe", "--group", group, "--state", "--verbose")
    assert "Stable" in state
    assert "uniform" in state
    of_group = ("--entity-type", "groups", "--entity-name", group)
    tool("configs", "--alter", *of_group, "--add-config", "consumer.session.timeout.ms=50000")
    assert "consumer.session.timeout.ms=50000" in tool("configs", "--describe", *of_group)
    consumer.close()
    eventually(lambda: "Empty" in tool("consumer-groups", "--describe", "--group", group, "--state"), within_s=60)
    tool("consumer-groups", "--delete", "--group", group)
    assert group not in tool("consumer-groups", "--list")
