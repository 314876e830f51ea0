"""Kafka's own command-line tools, as an operator or a script runs them, but nearly all in one process."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaException, Producer
from fixtures.kafka_tools import TOOLS, Tool, ToolRunner, produce
from fixtures.waiting import eventually

pytestmark = pytest.mark.timeout(1200)  # Includes downloading with cold caches.


@pytest.fixture
def topic(tool: Tool, fresh_name: Callable[..., str]) -> str:
    """A topic of two partitions, made by the tool."""
    name = fresh_name()
    made = tool("topics", "--create", "--topic", name, "--partitions", "2", "--config", "retention.ms=600000")
    assert f"Created topic {name}" in made
    return name


def _end(tool: Tool, topic: str, time: int = -1) -> int:
    lines = tool("get-offsets", "--topic", topic, "--time", str(time)).split()
    return sum(int(line.rsplit(":", 1)[1]) for line in lines if line.startswith(f"{topic}:"))


def test_topics(tool: Tool, topic: str) -> None:
    assert topic in tool("topics", "--list").split()
    tool("topics", "--alter", "--topic", topic, "--partitions", "3")
    described = tool("topics", "--describe", "--topic", topic)
    assert "PartitionCount: 3" in described
    assert "retention.ms=600000" in described
    assert topic in tool("topics", "--list", "--topic", f"{topic[:6]}.*").split()
    assert topic in tool("topics", "--describe", "--topics-with-overrides")
    assert topic not in tool("topics", "--describe", "--unavailable-partitions")
    (topic_id,) = [word for before, word in pairwise(described.split()) if before == "TopicId:"]
    assert f"Topic: {topic}" in tool("topics", "--describe", "--topic-id", topic_id)
    assert "already exists" in tool("topics", "--create", "--topic", topic, code=1)
    tool("topics", "--create", "--topic", topic, "--if-not-exists")
    assert "already has 3 partition" in tool("topics", "--alter", "--topic", topic, "--partitions", "3", code=1)
    assert topic not in tool("topics", "--describe", "--under-replicated-partitions")
    tool("topics", "--delete", "--topic", topic)
    eventually(lambda: topic not in tool("topics", "--list").split(), what="the topic being gone")


def test_topic_settings(tool: Tool, topic: str) -> None:
    of_topic = ("--entity-type", "topics", "--entity-name", topic)
    tool("configs", "--alter", *of_topic, "--add-config", "retention.ms=5000,cleanup.policy=[compact,delete]")
    described = tool("configs", "--describe", *of_topic)
    assert "retention.ms=5000" in described
    assert "cleanup.policy=compact,delete" in described
    tool("configs", "--alter", *of_topic, "--delete-config", "retention.ms")
    assert "retention.ms=" not in tool("configs", "--describe", *of_topic)
    assert "max.message.bytes=1048588" in tool("configs", "--describe", *of_topic, "--all")


def test_broker_settings(tool: Tool) -> None:
    assert "auto.create.topics.enable=true" in tool("configs", "--describe", "--entity-type", "brokers", "--all")


def test_settings_of_all_brokers(tool: Tool) -> None:
    of_all = ("--entity-type", "brokers", "--entity-default")
    tool("configs", "--alter", *of_all, "--add-config", "log.retention.ms=700000000")
    assert "log.retention.ms=700000000" in tool("configs", "--describe", *of_all)
    tool("configs", "--alter", *of_all, "--delete-config", "log.retention.ms")
    assert "log.retention.ms" not in tool("configs", "--describe", *of_all)


def test_users(tool: Tool, fresh_name: Callable[..., str]) -> None:
    user = ("--entity-type", "users", "--entity-name", fresh_name("u"))
    tool("configs", "--alter", *user, "--add-config", "SCRAM-SHA-256=[iterations=8192,password=secret]")
    assert "SCRAM-SHA-256=iterations=8192" in tool("configs", "--describe", *user)
    tool("configs", "--alter", *user, "--delete-config", "SCRAM-SHA-256")
    assert "SCRAM" not in tool("configs", "--describe", *user)


def test_console(tool: Tool, topic: str) -> None:
    lines = "".join(f"key{number}:value{number}\n" for number in range(10))
    keyed = ("--reader-property", "parse.key=true", "--reader-property", "key.separator=:")
    tool("console-producer", "--topic", topic, *keyed, stdin=lines)
    printed = tool(
        "console-consumer", "--topic", topic, "--from-beginning", "--max-messages", "10", "--timeout-ms", "30000",
        "--formatter-property", "print.key=true", "--formatter-property", "key.separator=:",
    )  # fmt: skip
    got = [line for line in printed.splitlines() if line.startswith("key")]
    assert sorted(got) == sorted(lines.split())


def test_performance_tools(tool: Tool, topic: str) -> None:
    produce(tool, topic, 3000)
    assert _end(tool, topic) == 3000
    printed = tool("consumer-perf-test", "--topic", topic, "--num-records", "3000", "--timeout", "30000")
    assert printed.strip().splitlines()[-1].split(", ")[4] == "3000"


def test_transactions_of_the_producer_performance_tool(tool: Tool, topic: str, fresh_name: Callable[..., str]) -> None:
    tool(
        "producer-perf-test", "--topic", topic, "--num-records", "2000", "--record-size", "100", "--throughput", "4000",
        "--transactional-id", fresh_name("perf"), "--transaction-duration-ms", "50",
    )  # fmt: skip
    committed = ("--command-property", "isolation.level=read_committed", "--timeout-ms", "30000")
    printed = tool("console-consumer", "--topic", topic, "--from-beginning", "--max-messages", "2000", *committed)
    assert "Processed a total of 2000 messages" in printed
    assert _end(tool, topic) > 2001, "more than one transaction, each with its marker"


def test_offsets(tool: Tool, topic: str) -> None:
    """Every kind of time that can be asked about, of topics chosen in every way."""
    produce(tool, topic, 100)
    assert [_end(tool, topic, time) for time in (-1, -2, -4)] == [100, 0, 0]
    assert _end(tool, topic, 1) == 0, "the first record after that time"
    assert 0 <= _end(tool, topic, -3) < 100, "the record with the latest time"
    assert f"{topic}:0:-1" not in tool("get-offsets", "--topic", topic, "--time", "-5"), "nothing is in another tier"
    lines = {line for line in tool("get-offsets", "--topic-partitions", f"{topic}:0-1").split() if topic in line}
    assert {line.rsplit(":", 1)[0] for line in lines} == {f"{topic}:0"}
    assert tool("get-offsets", "--topic", topic, "--partitions", "1").split()[-1].startswith(f"{topic}:1:")
    assert topic in tool("get-offsets", "--exclude-internal-topics")


def test_end_to_end_latency(bootstrap: str, fresh_name: Callable[..., str], tools: ToolRunner, tool: Tool) -> None:
    topic = fresh_name()
    tool("topics", "--create", "--topic", topic)
    printed = tools.run(TOOLS["e2e-latency"], bootstrap, topic, "100", "all", "50")
    assert "Percentiles" in printed


def test_delete_records(tool: Tool, topic: str, tmp_path: Path) -> None:
    produce(tool, topic, 200)
    assert _end(tool, topic) == 200
    plan = tmp_path / "plan.json"

    def delete(*offsets: int) -> str:
        wanted = [{"topic": topic, "partition": number, "offset": offset} for number, offset in enumerate(offsets)]
        plan.write_text(json.dumps({"partitions": wanted, "version": 1}))
        return tool("delete-records", "--offset-json-file", str(plan))

    full = next(number for number in (0, 1) if f"{topic}:{number}:0" not in tool("get-offsets", "--topic", topic))
    some = [0, 0]
    some[full] = 5
    assert f"{topic}-{full}\tlow_watermark: 5" in delete(*some)
    assert _end(tool, topic, -2) == 5
    assert delete(-1, -1).count("low_watermark") == 2
    assert _end(tool, topic, -2) == 200
    some[full] = 500
    assert "OffsetOutOfRangeException" in delete(*some)


def test_log_dirs(tool: Tool, topic: str) -> None:
    produce(tool, topic, 100)
    printed = tool("log-dirs", "--describe", "--topic-list", topic)
    (line,) = [line for line in printed.splitlines() if line.startswith("{")]
    document: dict[str, Any] = json.loads(line)
    (broker,) = document["brokers"]
    assert [directory["error"] for directory in broker["logDirs"]] == [None]
    sizes = {entry["partition"]: entry["size"] for entry in broker["logDirs"][0]["partitions"]}
    assert set(sizes) == {f"{topic}-0", f"{topic}-1"}
    assert sum(sizes.values()) > 100 * 100, "what was written"


def test_leader_election(tool: Tool, topic: str, tmp_path: Path) -> None:
    printed = tool("leader-election", "--election-type", "preferred", "--topic", topic, "--partition", "0")
    assert "Valid replica already elected" in printed
    places = tmp_path / "places.json"
    places.write_text(json.dumps({"partitions": [{"topic": topic, "partition": number} for number in (0, 1)]}))
    printed = tool("leader-election", "--election-type", "unclean", "--path-to-json-file", str(places))
    assert f"{topic}-0" in printed
    assert f"{topic}-1" in printed
    tool("leader-election", "--election-type", "preferred", "--all-topic-partitions")
    there = ("--topic", f"{topic}-gone", "--partition", "0")
    assert "UnknownTopicOrPartition" in tool("leader-election", "--election-type", "preferred", *there, code=1)


def test_reassignment(tool: Tool, topic: str, tmp_path: Path) -> None:
    listed = tool("cluster", "list-endpoints")
    node = int(listed.strip().splitlines()[-1].split()[0])
    plan = tmp_path / "plan.json"
    moves = [{"topic": topic, "partition": number, "replicas": [node]} for number in (0, 1)]
    plan.write_text(json.dumps({"version": 1, "partitions": moves}))
    topics = tmp_path / "topics.json"
    topics.write_text(json.dumps({"topics": [{"topic": topic}], "version": 1}))
    generated = tool(
        "reassign-partitions", "--topics-to-move-json-file", str(topics), "--broker-list", str(node), "--generate"
    )
    proposed = json.loads(generated.strip().splitlines()[-1])["partitions"]
    assert {(one["topic"], one["partition"], *one["replicas"]) for one in proposed} == {
        (topic, 0, node), (topic, 1, node),
    }  # fmt: skip
    assert "Successfully started" in tool("reassign-partitions", "--reassignment-json-file", str(plan), "--execute")
    verified = tool("reassign-partitions", "--reassignment-json-file", str(plan), "--verify")
    assert verified.count("is completed") == 2
    assert "No partition reassignments found" in tool("reassign-partitions", "--list")
    assert "None of the specified" in tool("reassign-partitions", "--reassignment-json-file", str(plan), "--cancel")
    plan.write_text(json.dumps({"version": 1, "partitions": [{**moves[0], "replicas": [node + 7]}]}))
    assert "Unknown broker id" in tool(
        "reassign-partitions", "--reassignment-json-file", str(plan), "--execute", code=1
    )


def test_verifiable_clients(tool: Tool, topic: str, fresh_name: Callable[..., str]) -> None:
    sent = tool("verifiable-producer", "--topic", topic, "--max-messages", "500", "--throughput", "-1")
    acknowledged = [line for line in sent.splitlines() if '"producer_send_success"' in line]
    assert len(acknowledged) == 500
    got = tool("verifiable-consumer", "--topic", topic, "--group-id", fresh_name("g"), "--max-messages", "500")
    events = [json.loads(line) for line in got.splitlines() if line.startswith("{")]
    assert sum(event["count"] for event in events if event["name"] == "records_consumed") == 500
    commits = [event for event in events if event["name"] == "offsets_committed"]
    assert commits
    assert all(event["success"] for event in commits)


def test_cluster(tool: Tool) -> None:
    assert "Cluster ID: " in tool("cluster", "cluster-id")
    assert "Produce(0): 0 to 13 [usable: 13]" in tool("broker-api-versions")


def test_features(tool: Tool) -> None:
    described = tool("features", "describe")
    assert "Feature: transaction.version" in described
    assert "FinalizedVersionLevel: 2" in described
    assert "transaction.version" in tool("features", "upgrade", "--feature", "transaction.version=2")
    assert "Could not" in tool("features", "downgrade", "--feature", "transaction.version=1", code=1)
    assert "Could not" in tool("features", "disable", "--feature", "group.version", code=1)
    assert "group.version" in tool("features", "upgrade", "--feature", "group.version=1", "--dry-run")


def test_metadata_quorum(tool: Tool) -> None:
    status = tool("metadata-quorum", "describe", "--status")
    assert "LeaderId:" in status
    assert "MaxFollowerLag:" in status
    replication = tool("metadata-quorum", "describe", "--replication")
    assert replication.count("Leader") >= 1


def test_client_metrics(tool: Tool, fresh_name: Callable[..., str]) -> None:
    name = fresh_name("metrics")
    tool("client-metrics", "--alter", "--name", name, "--metrics", "org.apache.kafka.", "--interval", "10000")
    assert name in tool("client-metrics", "--list").split()
    described = tool("client-metrics", "--describe", "--name", name)
    assert "interval.ms=10000" in described
    assert "metrics=org.apache.kafka." in described
    tool("client-metrics", "--delete", "--name", name)
    assert name not in tool("client-metrics", "--list").split()


def test_quotas(tool: Tool, fresh_name: Callable[..., str]) -> None:
    user, client = fresh_name("u"), fresh_name("c")
    pair = ("--entity-type", "users", "--entity-name", user, "--entity-type", "clients", "--entity-name", client)
    tool("configs", "--alter", *pair, "--add-config", "producer_byte_rate=1048576,request_percentage=12.5")
    described = tool("configs", "--describe", *pair)
    assert "producer_byte_rate=1048576.0" in described
    assert "request_percentage=12.5" in described
    of_user = ("--entity-type", "users", "--entity-name", user)
    tool("configs", "--alter", *of_user, "--add-config", "consumer_byte_rate=2048")
    assert "consumer_byte_rate=2048.0" in tool("configs", "--describe", *of_user)
    tool("configs", "--alter", *of_user, "--delete-config", "consumer_byte_rate")
    tool("configs", "--alter", *pair, "--delete-config", "producer_byte_rate,request_percentage")
    assert "producer_byte_rate" not in tool("configs", "--describe", *pair)
    for default in ("clients", "ips"):
        of_all = ("--entity-type", default, "--entity-default")
        key = "consumer_byte_rate" if default == "clients" else "connection_creation_rate"
        tool("configs", "--alter", *of_all, "--add-config", f"{key}=1000000000")
        assert f"{key}=1.0E9" in tool("configs", "--describe", *of_all)
        tool("configs", "--alter", *of_all, "--delete-config", key)
    refused = tool("configs", "--alter", *pair, "--add-config", "producer_byte_rate=-1", code=1)
    assert "must be greater than 0" in refused


def test_transactions(bootstrap: str, tool: Tool, topic: str, fresh_name: Callable[..., str]) -> None:
    """One that is open is found, looked at, aborted in a partition and ended as a whole; its producer is told."""
    label = fresh_name("txn")
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": label, "log_level": 0})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic, value="open", partition=0)
    producer.flush(30)
    (row,) = [line.split() for line in tool("transactions", "list").splitlines() if line.startswith(label)]
    assert row[3] == "Ongoing"
    assert f"{topic}-0" in tool("transactions", "describe", "--transactional-id", label)
    place = ("--topic", topic, "--partition", "0")
    (found,) = [line.split() for line in tool("transactions", "describe-producers", *place).splitlines()[1:]]
    assert found[0] == row[2]
    assert found[-1] == "0", "where the transaction began"
    assert label not in tool("transactions", "find-hanging", "--topic", topic)
    tool("transactions", "abort", *place, "--start-offset", "0")
    (found,) = [line.split() for line in tool("transactions", "describe-producers", *place).splitlines()[1:]]
    assert found[-1] == "None"
    assert _end(tool, topic) == 2, "the record and the marker"
    tool("transactions", "forceTerminateTransaction", "--transactionalId", label)
    with pytest.raises(KafkaException):
        producer.commit_transaction(30)
    (row,) = [line.split() for line in tool("transactions", "list").splitlines() if line.startswith(label)]
    assert row[3] in ("CompleteAbort", "Empty")
