"""The command line against a running broker: the fixture's, or the one PENSTOCK_TEST_BOOTSTRAP names."""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_session import Session, promised_shape, shape_of
from click.testing import CliRunner
from fixtures.server import Server
from fixtures.waiting import eventually, free_ports
from fixtures.wire import Wire

from penstock.cli.main import cli
from penstock.wire.api_keys import ApiKey
from penstock.wire.messages import incremental_alter_configs as configs
from penstock.wire.messages import streams_group_heartbeat
from penstock.wire.messages.share_fetch import FetchPartition, FetchTopic, ShareFetchRequest
from penstock.wire.messages.share_group_heartbeat import ShareGroupHeartbeatRequest

NOT_TEXT = os.fsdecode(b"\xff")


@pytest.fixture(scope="module")
def session(request: pytest.FixtureRequest) -> Session:
    named = os.environ.get("PENSTOCK_TEST_BOOTSTRAP")
    return Session(named or request.getfixturevalue("broker").bootstrap)


@pytest.fixture
def topic(session: Session) -> Iterator[str]:
    """A topic of three partitions that is gone afterwards."""
    name = f"cli-{secrets.token_hex(4)}"
    session.run("topic", "create", name, "-p", "3")
    yield name
    session.run("topic", "delete", name, "--yes")


def test_a_topic_from_its_making_to_its_end(session: Session) -> None:
    name = f"cli-{secrets.token_hex(4)}"
    made = session.json("topic", "create", name, "-p", "2", "-c", "retention.ms=3600000")
    assert shape_of(made) == promised_shape("topic", "create")
    assert made[0]["name"] == name
    assert made[0]["partitions"] == 2

    listed = session.json("topic", "list")
    assert shape_of(listed) == promised_shape("topic", "list")
    assert [row["partitions"] for row in listed if row["name"] == name] == [2]

    described = session.json("topic", "describe", name)
    assert shape_of(described) == promised_shape("topic", "describe")
    assert described["records"] == 0
    assert [(config["name"], config["value"]) for config in described["configs"]] == [("retention.ms", "3600000")]

    grown = session.json("topic", "add-partitions", name, "--add", "1")
    assert shape_of(grown) == promised_shape("topic", "add-partitions")
    assert (grown["partitions_before"], grown["partitions"]) == (2, 3)

    deleted = session.json("topic", "delete", name, "--yes")
    assert shape_of(deleted) == promised_shape("topic", "delete")
    assert name not in [row["name"] for row in session.json("topic", "list")]


def test_what_goes_wrong_with_topics_is_said(session: Session, topic: str) -> None:
    assert "exists already" in session.run("topic", "create", topic, code=1).stderr
    assert session.json("topic", "create", topic, "--if-not-exists")[0]["created"] is False
    assert "does not exist" in session.run("topic", "describe", f"{topic}-not", code=1).stderr
    assert "does not exist" in session.run("topic", "delete", f"{topic}-not", "--yes", code=1).stderr
    assert "not a valid name" in session.run("topic", "create", "a b", code=1).stderr
    assert topic in session.run("topic", "alter", topic, "--set", "no.such.key=1", code=1).stderr
    assert topic in session.run("topic", "add-partitions", topic, "--total", "1", code=1).stderr
    assert "add --yes" in session.run("topic", "delete", topic, code=2).stderr


def test_several_topics_are_made_or_none(session: Session, topic: str) -> None:
    names = [f"{topic}-{number}" for number in range(2)]
    assert "exists already" in session.run("topic", "create", *names, topic, code=1).stderr
    assert not {*names} & {row["name"] for row in session.json("topic", "list")}
    made = session.json("topic", "create", *names, topic, names[0], "--if-not-exists", "-p", "2")
    assert [(row["name"], row["created"]) for row in made] == [(names[0], True), (names[1], True), (topic, False)]
    session.run("topic", "delete", *names, "--yes")


def test_trying_changes_nothing(session: Session, topic: str) -> None:
    session.run("produce", topic, "-p", "0", stdin="a\nb\n")
    other = f"{topic}-other"
    assert session.json("topic", "create", other, "--dry-run")[0]["created"] is False
    assert other not in [row["name"] for row in session.json("topic", "list")]
    assert session.json("topic", "delete", topic, "--dry-run")[0]["deleted"] is False
    assert session.json("topic", "add-partitions", topic, "--total", "9", "--dry-run")["changed"] is False
    assert session.json("topic", "alter", topic, "--set", "retention.ms=5000", "--dry-run")["changed"] is False
    assert session.json("topic", "trim", topic, "--before", "end", "--dry-run")["deleted"] is False
    described = session.json("topic", "describe", topic)
    assert described["configs"] == []
    assert len(described["partitions"]) == 3
    assert described["records"] == 2


def test_settings_are_shown_before_and_after(session: Session, topic: str) -> None:
    changed = session.json("topic", "alter", topic, "--set", "max.message.bytes=2000000")
    assert shape_of(changed) == promised_shape("topic", "alter")
    assert changed["configs"] == [{"name": "max.message.bytes", "before": "1048588", "after": "2000000"}]
    unset = session.json("topic", "alter", topic, "--unset", "max.message.bytes")
    assert unset["configs"] == [{"name": "max.message.bytes", "before": "2000000", "after": "1048588"}]


def test_records_come_back_as_they_were_written(session: Session, topic: str) -> None:
    report = session.json("produce", topic, "-K", ":", "-H", "source=test", stdin="a:1\nb:2\na:3\n")
    assert shape_of(report) == promised_shape("produce")
    assert report["records"] == 3
    records = session.records(topic)
    assert shape_of(records[0]) == promised_shape("consume")
    assert sorted((record["key"], record["value"]) for record in records) == [("a", "1"), ("a", "3"), ("b", "2")]
    assert all(record["headers"] == [{"name": "source", "value": "test"}] for record in records)
    # One key, one partition, in order.
    assert len({record["partition"] for record in records if record["key"] == "a"}) == 1
    assert [record["value"] for record in records if record["key"] == "a"] == ["1", "3"]


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_every_compression_comes_back(session: Session, topic: str, compression: str) -> None:
    lines = [f"record {number} {'x' * 50}" for number in range(500)]
    session.run("produce", topic, "-p", "1", "-z", compression, stdin="\n".join(lines))
    assert session.run("consume", topic).stdout.splitlines() == lines


@pytest.mark.parametrize("acks", ["all", "1", "0"])
def test_every_acknowledgement_works(session: Session, topic: str, acks: str) -> None:
    session.run("produce", topic, "--acks", acks, stdin="one\ntwo\n")
    assert sorted(session.run("consume", topic, "-F", "-n", "2", "--timeout", "10s").stdout.split()) == ["one", "two"]


def test_any_bytes_come_back(session: Session, topic: str) -> None:
    data = bytes(range(256))
    session.run(
        "produce", topic, "-f", "%k\\x00\\xff%v\\x00\\xfe\\xfd", stdin=b"k\x00\xff" + data[1:] + b"\x00\xfe\xfd"
    )
    assert session.run("consume", topic, "-f", "%v").stdout_bytes == data[1:]


@pytest.mark.parametrize("words", [(), ("--no-idempotent",), ("-z", "gzip")])
def test_batches_are_halved_until_their_topic_takes_them(session: Session, topic: str, words: tuple[str, ...]) -> None:
    session.run("topic", "alter", topic, "--set", "max.message.bytes=1500")
    lines = [f"{number} {secrets.token_hex(200)}" for number in range(300)]
    report = session.json("produce", topic, "-p", "0", *words, stdin="\n".join(lines))
    (written,) = report["partitions"]
    assert (written["records"], written["first_offset"], written["last_offset"]) == (300, 0, 299)
    assert report["bytes"] == sum(map(len, lines))
    assert session.run("consume", topic).stdout.splitlines() == lines
    session.run("produce", topic, "-p", "0", stdin="after\n")
    assert (
        "larger than max.message.bytes"
        in session.run("produce", topic, *words, stdin=secrets.token_hex(4500), code=1).stderr
    )


def test_null_is_not_empty(session: Session, topic: str) -> None:
    session.run("produce", topic, "-k", "key", stdin="\n")
    session.run("produce", topic, "-k", "key", "-Z", stdin="\n")
    assert [record["value"] for record in session.records(topic)] == ["", None]


def test_one_topic_is_the_input_of_another(session: Session, topic: str) -> None:
    session.run("produce", topic, "-f", "%T %k %v\\n", stdin="1000 a x\n2000 b y\n")
    copied = f"{topic}-copy"
    session.run("topic", "create", copied)
    session.run("produce", copied, "-f", "json", stdin=session.run("consume", topic, "-o", "json").stdout)
    kept = ("key", "value", "timestamp")
    assert sorted([record[name] for name in kept] for record in session.records(copied)) == [
        ["a", "x", "1970-01-01T00:00:01.000Z"],
        ["b", "y", "1970-01-01T00:00:02.000Z"],
    ]
    session.run("topic", "delete", copied, "--yes")


def test_reading_begins_and_ends_where_it_is_told(session: Session, topic: str) -> None:
    lines = "".join(f"{1_000 * number} v{number}\n" for number in range(10))
    session.run("produce", topic, "-p", "2", "-f", "%T %v\\n", stdin=lines)

    def read(*words: str) -> str:
        return "".join(session.run("consume", topic, *words).stdout.split())

    assert read() == "".join(f"v{number}" for number in range(10))
    assert read("-s", "8") == "v8v9"
    assert read("-s", "-3") == "v7v8v9"
    assert read("-s", "-3", "-n", "1") == "v7"
    assert read("-s", "@6500") == "v7v8v9"
    assert read("-s", "1970-01-01T00:00:09Z") == "v9"
    assert read("-s", "@2040-01-01") == ""
    assert read("-s", "end") == ""
    assert read("-p", "0,1") == ""
    assert read("-p", "2", "-n", "2", "-f", "%p:%o=%v;") == "2:0=v0;2:1=v1;"


def test_following_sees_what_comes_and_ends_quietly(session: Session, topic: str) -> None:
    session.run("produce", topic, stdin="before\n")
    follower = session.start("consume", topic, "--follow")
    assert follower.stdout is not None
    assert follower.stderr is not None
    try:
        assert follower.stdout.readline() == b"before\n"
        session.run("produce", topic, stdin="after\n")
        assert follower.stdout.readline() == b"after\n"
        follower.send_signal(signal.SIGINT)
        assert follower.wait(timeout=10) == 0
        assert follower.stderr.read().strip() == b""
    finally:
        follower.kill()
        follower.communicate()


def test_what_is_typed_is_written_at_once(session: Session, topic: str) -> None:
    writer = session.start("produce", topic)
    assert writer.stdin is not None
    try:
        writer.stdin.write(b"typed\n")
        writer.stdin.flush()
        assert session.run("consume", topic, "-F", "-n", "1").stdout == "typed\n"
        _, errors = writer.communicate(timeout=10)
        assert errors.startswith(b"1 record (5 B) to ")
    finally:
        writer.kill()
        writer.communicate()


def test_writing_where_nothing_is(session: Session, topic: str) -> None:
    assert f"{topic}[99]" in session.run("produce", topic, "-p", "99", stdin="x\n", code=1).stderr
    assert "cannot read" in session.run("produce", topic, "--file", "/no/such/file", code=1).stderr


@pytest.mark.parametrize(
    "words",
    [("topic", "describe", NOT_TEXT), ("produce", NOT_TEXT), ("group", "seek", "g", "--to", f"file:{sys.executable}")],
)
def test_what_is_no_text_is_said_to_be_none(session: Session, words: tuple[str, ...]) -> None:
    assert "text" in session.run(*words, stdin="", code=1).stderr


def test_keys_and_separators_may_be_any_bytes(session: Session, topic: str) -> None:
    session.run("produce", topic, "-k", NOT_TEXT, stdin=b"v\n")
    session.run("produce", topic, "-K", NOT_TEXT, stdin=b"k\xffw\n")
    assert [(one["key"], one["value"]) for one in session.records(topic)] == [("/w==", "v"), ("k", "w")]


def test_trimming(session: Session, topic: str) -> None:
    session.run("produce", topic, "-p", "0", stdin="a\nb\nc\n")
    session.run("produce", topic, "-p", "1", stdin="d\n")
    trimmed = session.json("topic", "trim", topic, "--before", "2", "-p", "0", "--yes")
    assert shape_of(trimmed) == promised_shape("topic", "trim")
    assert (trimmed["records"], trimmed["deleted"]) == (2, True)
    assert sorted(session.run("consume", topic).stdout.split()) == ["c", "d"]
    assert "ends at 3" in session.run("topic", "trim", topic, "--before", "9", "-p", "0", "--yes", code=2).stderr
    session.run("topic", "trim", topic, "--before", "end", "--yes")
    assert session.run("consume", topic).stdout == ""


def test_a_group_without_members(session: Session, topic: str, tmp_path: Path) -> None:
    group = f"{topic}-group"
    session.run("produce", topic, "-p", "0", stdin="a\nb\nc\n")
    tried = session.json("group", "seek", group, "--to", "-1", "-t", f"{topic}:0", "--dry-run")
    assert shape_of(tried) == promised_shape("group", "seek")
    assert tried["partitions"] == [{"topic": topic, "partition": 0, "before": None, "offset": 2}]
    assert "does not exist" in session.run("group", "lag", group, code=1).stderr

    session.run("group", "seek", group, "--to", "-1", "-t", f"{topic}:0")
    lag = session.json("group", "lag", group)
    assert shape_of(lag) == promised_shape("group", "lag")
    assert lag["lag"] == 1
    kept = tmp_path / "offsets.json"
    kept.write_text(json.dumps(lag))

    session.run("group", "seek", group, "--to", "end", "-t", f"{topic}:1", "-t", f"{topic}:2")
    assert len(session.json("group", "lag", group)["partitions"]) == 3
    moved = session.json("group", "seek", group, "--to", "start", "-t", f"{topic}:0")
    assert [(row["before"], row["offset"]) for row in moved["partitions"]] == [(2, 0)]
    assert session.json("group", "lag", group)["lag"] == 3
    session.run("group", "seek", group, "--to", f"file:{kept}")
    assert session.json("group", "lag", group)["lag"] == 1
    csv = tmp_path / "offsets.csv"
    csv.write_text(f"topic,partition,offset\n{topic},0,99\n")  # Beyond the end: moved to it.
    session.run("group", "seek", group, "--to", f"file:{csv}")
    assert session.json("group", "lag", group)["lag"] == 0

    listed = session.json("group", "list")
    assert shape_of(listed) == promised_shape("group", "list")
    assert [row["state"] for row in listed if row["group"] == group] == ["Empty"]
    deleted = session.json("group", "delete", group, "--yes")
    assert shape_of(deleted) == promised_shape("group", "delete")
    assert group not in [row["group"] for row in session.json("group", "list")]
    assert "does not exist" in session.run("group", "describe", group, code=1).stderr


def test_a_share_group(session: Session, topic: str) -> None:
    group = f"{topic}-share"
    session.run("produce", topic, stdin="one\ntwo\nthree\n")
    with Wire(session.bootstrap) as wire:
        resource = configs.AlterConfigsResource(
            resource_type=32, resource_name=group,
            configs=[configs.AlterableConfig(name="share.auto.offset.reset", config_operation=0, value="earliest")],
        )  # fmt: skip
        request = configs.IncrementalAlterConfigsRequest(resources=[resource])
        assert wire.call(ApiKey.INCREMENTAL_ALTER_CONFIGS, 1, request).responses[0].error_code == 0
        heartbeat = ShareGroupHeartbeatRequest(
            group_id=group, member_id="one", member_epoch=0, subscribed_topic_names=[topic]
        )
        assert wire.call(ApiKey.SHARE_GROUP_HEARTBEAT, 1, heartbeat).error_code == 0
        topic_id = wire.metadata([topic]).topics[0].topic_id
        fetch = ShareFetchRequest(
            group_id=group, member_id="one", max_bytes=1 << 20, max_records=10, batch_size=10,
            topics=[
                FetchTopic(topic_id=topic_id, partitions=[FetchPartition(partition_index=index) for index in range(3)])
            ],
        )  # fmt: skip
        assert wire.call(ApiKey.SHARE_FETCH, 2, fetch).responses
        described = session.json("group", "describe", group)
        assert shape_of(described) == promised_shape("group", "describe")
        assert (described["protocol_type"], described["members"][0]["assignment"]) == (
            "share", [{"topic": topic, "partitions": [0, 1, 2]}],
        )  # fmt: skip
        assert session.json("group", "lag", group)["lag"] == 3
        listed = [row for row in session.json("group", "list") if row["group"] == group]
        assert [(row["state"], row["type"]) for row in listed] == [("Stable", "share")]
        assert "Stop its consumers first" in session.run("group", "delete", group, "--yes", code=1).stderr
        gone = ShareGroupHeartbeatRequest(group_id=group, member_id="one", member_epoch=-1)
        assert wire.call(ApiKey.SHARE_GROUP_HEARTBEAT, 1, gone).error_code == 0
    assert session.json("group", "delete", group, "--yes")[0]["deleted"]
    assert "does not exist" in session.run("group", "describe", group, code=1).stderr


def test_a_streams_group(session: Session, topic: str) -> None:
    group = f"{topic}-streams"
    session.run("produce", topic, "-p", "0", stdin="one\ntwo\n")
    part = streams_group_heartbeat.Subtopology(
        subtopology_id="0", source_topics=[topic],
        state_changelog_topics=[streams_group_heartbeat.TopicInfo(name=f"{group}-changelog")],
    )  # fmt: skip
    with Wire(session.bootstrap) as wire:
        resource = configs.AlterConfigsResource(
            resource_type=32, resource_name=group,
            configs=[
                configs.AlterableConfig(name=f"streams.{name}", config_operation=0, value="0")
                for name in ("initial.rebalance.delay.ms", "assignment.interval.ms")
            ],
        )  # fmt: skip
        request = configs.IncrementalAlterConfigsRequest(resources=[resource])
        assert wire.call(ApiKey.INCREMENTAL_ALTER_CONFIGS, 1, request).responses[0].error_code == 0

        def heartbeat(epoch: int) -> int:
            joins = epoch == 0
            asked = streams_group_heartbeat.StreamsGroupHeartbeatRequest(
                group_id=group, member_id="one", member_epoch=epoch, active_tasks=[], standby_tasks=[],
                warmup_tasks=[], process_id="one", rebalance_timeout_ms=1_000 if joins else -1,
                topology=streams_group_heartbeat.Topology(subtopologies=[part]) if joins else None,
            )  # fmt: skip
            answer = wire.call(ApiKey.STREAMS_GROUP_HEARTBEAT, 1, asked)
            assert answer.error_code == 0, answer.error_message
            return int(answer.member_epoch)

        heartbeat(0)
        assert session.json("group", "describe", group)["state"] in ("NotReady", "Assigning")
        heartbeat(heartbeat(0))
        described = session.json("group", "describe", group)
        assert shape_of(described) == promised_shape("group", "describe")
        shown = (described["state"], described["protocol_type"], described["protocol"])
        assert shown == ("Stable", "streams", "sticky")
        assert described["members"][0]["assignment"] == [{"topic": topic, "partitions": [0, 1, 2]}]
        listed = [row for row in session.json("group", "list") if row["group"] == group]
        assert [(row["state"], row["type"]) for row in listed] == [("Stable", "streams")]
        assert "Stop its consumers first" in session.run("group", "delete", group, "--yes", code=1).stderr
        heartbeat(-1)
    session.run("group", "seek", group, "--to", "1", "-t", f"{topic}:0")
    assert session.json("group", "lag", group)["lag"] == 1
    assert session.json("group", "delete", group, "--yes")[0]["deleted"]
    assert "does not exist" in session.run("group", "describe", group, code=1).stderr


def test_a_group_with_a_member(session: Session, topic: str) -> None:
    confluent_kafka = pytest.importorskip("confluent_kafka")
    group = f"{topic}-live"
    session.run("produce", topic, "-p", "0", stdin="a\nb\n")
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": session.bootstrap,
            "group.id": group,
            "client.id": "reader",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([topic])
    message = consumer.poll(30)
    assert message is not None
    consumer.commit(message=message, asynchronous=False)
    described = session.json("group", "describe", group)
    assert shape_of(described) == promised_shape("group", "describe")
    assert described["state"] == "Stable"
    assert described["members"][0]["assignment"] == [{"topic": topic, "partitions": [0, 1, 2]}]
    lag = session.json("group", "lag", group, "-t", topic)
    assert [(row["committed"], row["lag"], row["client_id"]) for row in lag["partitions"]] == [
        (1, 1, "reader"),
        (None, None, "reader"),
        (None, None, "reader"),
    ]
    assert "Stop its consumers first" in session.run("group", "seek", group, "--to", "end", code=1).stderr
    assert "Stop its consumers first" in session.run("group", "delete", group, "--yes", code=1).stderr
    assert session.json("group", "seek", group, "--to", "end", "--dry-run")["partitions"][0]["offset"] == 2
    consumer.close()
    session.run("group", "delete", group, "--yes")


def test_consuming_as_a_member_of_a_group(session: Session, topic: str) -> None:
    group = f"{topic}-consumers"

    def read(*words: str) -> list[str]:
        return sorted(session.run("consume", topic, "-g", group, *words).stdout.split())

    session.run("produce", topic, "-p", "0", stdin="a\nb\nc\n")
    session.run("produce", topic, "-p", "2", stdin="d\n")
    assert read("-n", "2", "-f", "%v\\n") in (["a", "b"], ["a", "d"])  # What is not printed is not committed.
    assert session.json("group", "lag", group)["lag"] == 2
    assert len(read()) == 2
    assert session.json("group", "lag", group)["lag"] == 0
    assert read() == [], "all of it has been read"
    described = session.json("group", "describe", group)
    assert (described["state"], described["type"], described["members"]) == ("Empty", "consumer", [])
    assert "--partition does not go" in session.run("consume", topic, "-g", group, "-p", "0", code=2).stderr
    assert "does not exist" in session.run("consume", f"{topic}-not", "-g", group, code=1).stderr
    session.run("group", "delete", group, "--yes")


def test_members_share_the_partitions(session: Session, topic: str) -> None:
    group = f"{topic}-shared"
    first = session.start("consume", topic, "-g", group, "-F")
    second = session.start("consume", topic, "-g", group, "-F")
    try:
        eventually(lambda: _sizes_of_assignments(session, group) == [1, 2], what="a partition for each, and one more")
        for partition in range(3):
            session.run("produce", topic, "-p", str(partition), stdin=f"p{partition}\n")
        eventually(lambda: session.json("group", "lag", group)["lag"] == 0, what="all being committed")
        first.send_signal(signal.SIGINT)
        seen, errors = first.communicate(timeout=20)
        assert (first.returncode, errors.strip()) == (0, b"")
        eventually(lambda: _sizes_of_assignments(session, group) == [3], what="the other one having all")
        second.send_signal(signal.SIGINT)
        others, errors = second.communicate(timeout=20)
        assert (second.returncode, errors.strip()) == (0, b"")
        assert sorted((seen + others).split()) == [b"p0", b"p1", b"p2"], "each once"
        assert seen
        assert others
    finally:
        for process in (first, second):
            process.kill()
            process.communicate()


def _sizes_of_assignments(session: Session, group: str) -> list[int]:
    listed = {row["group"] for row in session.json("group", "list")}
    members = session.json("group", "describe", group)["members"] if group in listed else []
    return sorted(sum(len(topic["partitions"]) for topic in member["assignment"]) for member in members)


def test_quotas(session: Session) -> None:
    pair = ("--user", "alice", "--client-id", "app")
    (row,) = session.json("quota", "set", *pair, "producer_byte_rate=1MiB", "request_percentage=12.5")
    assert row == {
        "user": "alice", "client_id": "app", "ip": None, "producer_byte_rate": 1048576.0, "consumer_byte_rate": None,
        "request_percentage": 12.5, "controller_mutation_rate": None, "connection_creation_rate": None,
    }  # fmt: skip
    (default,) = session.json("quota", "set", "--default-ip", "connection_creation_rate=1000")
    assert (default["ip"], default["user"]) == ("<default>", None)
    assert session.json("quota", "list", "--user", "alice") == [row]
    assert session.json("quota", "list") == [row, default]
    (tried,) = session.json("quota", "set", "--user", "bob", "--dry-run", "consumer_byte_rate=5")
    assert tried["consumer_byte_rate"] == 5
    assert session.json("quota", "list", "--user", "bob") == []
    assert session.json("quota", "unset", *pair, "request_percentage", "-y")["removed"] == ["request_percentage"]
    assert session.json("quota", "unset", *pair, "-y")["removed"] == ["producer_byte_rate"]
    assert session.json("quota", "unset", *pair, "-y")["removed"] == []
    assert "alice" in session.run("quota", "set", "--user", "alice", "producer_byte_rate=5").output
    session.run("quota", "unset", "--user", "alice", "-y")
    session.run("quota", "unset", "--default-ip", "-y")
    assert "nobody is limited" in session.run("quota", "list").output
    for wrong, why in (
        (("set", "producer_byte_rate=5"), "whose quota"),
        (("set", "--user", "a", "no_such_key=5"), "cannot be limited"),
        (("set", "--user", "a", "request_percentage=lots"), "not a number"),
        (("set", "--user", "a", "--ip", "1.2.3.4", "producer_byte_rate=5"), "an address has quotas of its own"),
        (("set", "--user", "a", "--default-user", "producer_byte_rate=5"), "two quotas"),
    ):
        assert why in session.run("quota", *wrong, code=2).output
    refused = session.run("quota", "set", "--ip", "nowhere", "connection_creation_rate=5", code=1).output
    assert "not a valid IP" in refused


def test_cluster_info(session: Session) -> None:
    found = session.json("cluster", "info")
    promised = promised_shape("cluster", "info")
    assert {**promised, "features": None} == {**shape_of(found), "features": None}
    assert found["controller"] in [broker["id"] for broker in found["brokers"]]


def seen_by_the_doctor(directory: Path, *words: str) -> dict[str, dict[str, str]]:
    """What the doctor says, by what it looked at. The ports are none that anything has."""
    local = ("--kafka", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir", str(directory))
    result = CliRunner().invoke(cli, ("doctor", *local, *words, "-o", "json"))
    found = json.loads(result.stdout)
    assert result.exit_code == (found["status"] == "fail")
    return {check["name"]: check for check in found["checks"]}


def test_the_doctor_looks_at_a_cluster(session: Session, tmp_path: Path) -> None:
    cluster = session.json("cluster", "info")
    seen = seen_by_the_doctor(tmp_path, "-b", session.bootstrap)
    assert seen["cluster"]["found"] == f"{cluster['id']}, 1 broker"
    (broker,) = cluster["brokers"]
    assert seen[f"broker {broker['id']}"]["found"].startswith(f"{broker['host']}:{broker['port']}, answers in p50 ")
    assert "cluster" not in seen_by_the_doctor(tmp_path)
    lost = seen_by_the_doctor(tmp_path, "-b", "127.0.0.1:1")["cluster"]
    assert (lost["status"], lost["found"]) == ("fail", "cannot reach 127.0.0.1:1: connection refused")
    assert "--bootstrap" in lost["change"]


def test_the_doctor_finds_an_address_that_leads_nowhere(tmp_path: Path) -> None:
    (nowhere,) = free_ports(1)
    server = Server(tmp_path, arguments=("--advertise", f"127.0.0.1:{nowhere}"))
    server.start()
    try:
        told = seen_by_the_doctor(tmp_path, "-b", server.bootstrap)["broker 1"]
    finally:
        assert server.stop() == 0
    assert (told["status"], told["found"]) == ("fail", f"cannot reach 127.0.0.1:{nowhere}: connection refused")
    assert "penstock up --advertise" in told["change"]


def test_bench_measures_and_cleans_up(session: Session) -> None:
    report = session.json("bench", "-d", "1s", "--rate", "50", "-p", "2")
    assert shape_of(report) == {**promised_shape("bench"), "notes": None}
    produce, consume, latency = report["phases"]
    assert produce["records"] == consume["records"] > 0
    assert produce["p50_ms"] <= produce["p99_ms"] <= produce["max_ms"]
    assert latency["lost"] == 0
    assert latency["p50_ms"] > 0
    assert report["topic"] not in [row["name"] for row in session.json("topic", "list")]


def test_tables_are_for_people(session: Session, topic: str) -> None:
    session.run("produce", topic, "-p", "1", stdin="a\n")
    lines = session.run("topic", "describe", topic).stdout.splitlines()
    assert lines[0].split() == ["topic", topic]
    assert "PARTITION  START  END  RECORDS" in " ".join(lines)
    assert session.run("topic", "list").stdout.startswith("TOPIC")
    assert session.run("cluster", "info").stdout.startswith("cluster")
    assert "\x1b" not in "".join(lines)


def test_names_are_completed(session: Session, topic: str) -> None:
    environment = {"PENSTOCK_BOOTSTRAP": session.bootstrap, "_PENSTOCK_COMPLETE": "bash_complete"}
    from click.shell_completion import BashComplete

    completer = BashComplete(cli, {}, "penstock", "_PENSTOCK_COMPLETE")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        items = completer.get_completions(["topic", "describe"], topic[:-1])
    assert [item.value for item in items] == [topic]


def test_a_bench_that_is_broken_off_cleans_up(session: Session) -> None:
    def its_topics() -> list[str]:
        return [row["name"] for row in session.json("topic", "list") if row["name"].startswith("penstock-bench-")]

    running = session.start("bench", "-d", "60s")
    try:
        eventually(lambda: [name for name in its_topics() if session.json("topic", "describe", name)["records"]])
        running.send_signal(signal.SIGINT)  # Several requests are under way.
        assert running.wait(timeout=20) == -signal.SIGINT
        assert running.stderr is not None
        assert running.stderr.read().strip() == b""
    finally:
        running.kill()
        running.communicate()
    assert its_topics() == []
