"""The command line against a running broker: the fixture's, or the one PENSTOCK_TEST_BOOTSTRAP names."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import sys
from pathlib import Path

import pytest
from cli_session import Session, promised_shape, shape_of
from click.testing import CliRunner
from fixtures.server import Server
from fixtures.waiting import eventually, free_ports

from penstock.cli.main import cli

NOT_TEXT = os.fsdecode(b"\xff")


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
    assert "ends at 3" in session.run("topic", "trim", topic, "--before", "9", "-p", "0", "--yes", code=1).stderr
    session.run("topic", "trim", topic, "--before", "end", "--yes")
    assert session.run("consume", topic).stdout == ""


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


def test_a_bench_that_is_too_short_to_be_counted_says_so(session: Session) -> None:
    assert "The first 0.5 s of end to end are not counted" in session.run("bench", "-d", "200ms").stdout


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


def test_a_bench_whose_server_is_gone_names_what_it_leaves(tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.start()
    session = Session(server.bootstrap)

    def has_records() -> bool:
        names = [row["name"] for row in session.json("topic", "list")]
        return any(session.json("topic", "describe", name)["records"] for name in names)

    running = session.start("bench", "-d", "60s", "--timeout", "500ms")
    try:
        eventually(has_records, what="records in its topic")
        server.kill()
        _, told = running.communicate(timeout=30)
    finally:
        running.kill()
        running.communicate()
    assert re.search(rb"The topic (\S+) is left\. To delete it: penstock topic delete \1\nerror: .*refused", told), told
