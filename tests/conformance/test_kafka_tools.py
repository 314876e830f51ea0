"""Kafka's own command-line tools, as an operator or a script runs them, but nearly all in one process."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaException, Producer
from fixtures import programs
from fixtures.kafka_tools import RUN_TIMEOUT_S, ToolRunner
from fixtures.streams_members import AT_ONCE, Member, set_config, topology
from fixtures.waiting import eventually
from fixtures.wire import Wire

pytestmark = pytest.mark.timeout(1200)  # Includes downloading with cold caches.

TOOLS = {
    "api-versions": "org.apache.kafka.tools.BrokerApiVersionsCommand",
    "client-metrics": "org.apache.kafka.tools.ClientMetricsCommand",
    "cluster": "org.apache.kafka.tools.ClusterTool",
    "configs": "kafka.admin.ConfigCommand",
    "console-consumer": "org.apache.kafka.tools.consumer.ConsoleConsumer",
    "console-producer": "org.apache.kafka.tools.ConsoleProducer",
    "consumer-groups": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
    "consumer-perf": "org.apache.kafka.tools.ConsumerPerformance",
    "delete-records": "org.apache.kafka.tools.DeleteRecordsCommand",
    "end-to-end": "org.apache.kafka.tools.EndToEndLatency",
    "features": "org.apache.kafka.tools.FeatureCommand",
    "get-offsets": "org.apache.kafka.tools.GetOffsetShell",
    "groups": "org.apache.kafka.tools.GroupsCommand",
    "leader-election": "org.apache.kafka.tools.LeaderElectionCommand",
    "log-dirs": "org.apache.kafka.tools.LogDirsCommand",
    "metadata-quorum": "org.apache.kafka.tools.MetadataQuorumCommand",
    "producer-perf": "org.apache.kafka.tools.ProducerPerformance",
    "reassign": "org.apache.kafka.tools.reassign.ReassignPartitionsCommand",
    "share-consumer-perf": "org.apache.kafka.tools.ShareConsumerPerformance",
    "share-groups": "org.apache.kafka.tools.consumer.group.ShareGroupCommand",
    "streams-groups": "org.apache.kafka.tools.streams.StreamsGroupCommand",
    "topics": "org.apache.kafka.tools.TopicCommand",
    "transactions": "org.apache.kafka.tools.TransactionsCommand",
    "verifiable-consumer": "org.apache.kafka.tools.VerifiableConsumer",
    "verifiable-producer": "org.apache.kafka.tools.VerifiableProducer",
}
BROKER_FIRST = ("features", "metadata-quorum", "transactions")
"""They want to know where the broker is before anything else."""
OWN_PROCESS = ("verifiable-consumer", "verifiable-producer")
"""They finish their work when Java ends."""

Tool = Callable[..., str]


@pytest.fixture
def tool(bootstrap: str, tools: ToolRunner) -> Tool:
    """Runs a tool against the broker; what it printed. It must exit with the expected code."""

    def run(name: str, *words: str, stdin: str = "", code: int = 0) -> str:
        where = ("--bootstrap-server", bootstrap)
        words = (*where, *words) if name in BROKER_FIRST else (*words, *where)
        if name in OWN_PROCESS:
            return _run_alone(name, *words)
        return tools.run(TOOLS[name], *words, stdin=stdin, code=code)

    return run


def _run_alone(name: str, *words: str) -> str:
    command = programs.kafka_tool(TOOLS[name], *words)
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=False)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def topic(tool: Tool, fresh_name: Callable[..., str]) -> str:
    """A topic of two partitions, made by the tool."""
    name = fresh_name()
    made = tool("topics", "--create", "--topic", name, "--partitions", "2", "--config", "retention.ms=600000")
    assert f"Created topic {name}" in made
    return name


def _produce(tool: Tool, topic: str, count: int) -> None:
    tool("producer-perf", "--topic", topic, "--num-records", str(count), "--record-size", "100", "--throughput", "-1")


def _end(tool: Tool, topic: str, time: int = -1) -> int:
    lines = tool("get-offsets", "--topic", topic, "--time", str(time)).split()
    return sum(int(line.rsplit(":", 1)[1]) for line in lines if line.startswith(f"{topic}:"))


def test_topics(tool: Tool, topic: str) -> None:
    assert topic in tool("topics", "--list").split()
    tool("topics", "--alter", "--topic", topic, "--partitions", "3")
    described = tool("topics", "--describe", "--topic", topic)
    assert "PartitionCount: 3" in described
    assert "retention.ms=600000" in described
    assert "already exists" in tool("topics", "--create", "--topic", topic, code=1)
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
    _produce(tool, topic, 3000)
    assert _end(tool, topic) == 3000
    printed = tool("consumer-perf", "--topic", topic, "--num-records", "3000", "--timeout", "30000")
    assert printed.strip().splitlines()[-1].split(", ")[4] == "3000"


def test_end_to_end_latency(bootstrap: str, fresh_name: Callable[..., str], tools: ToolRunner, tool: Tool) -> None:
    topic = fresh_name()
    tool("topics", "--create", "--topic", topic)
    printed = tools.run(TOOLS["end-to-end"], bootstrap, topic, "100", "all", "50")
    assert "Percentiles" in printed


def test_consumer_groups(tool: Tool, topic: str, fresh_name: Callable[..., str]) -> None:
    group = fresh_name("g")
    _produce(tool, topic, 100)
    tool("console-consumer", "--topic", topic, "--group", group, "--from-beginning", "--max-messages", "100")
    assert group in tool("consumer-groups", "--list")
    assert group in tool("groups", "--list")
    assert _offsets(tool("consumer-groups", "--describe", "--group", group), group, topic) == (100, 0)
    assert "Empty" in tool("consumer-groups", "--describe", "--group", group, "--state")
    tool("consumer-groups", "--reset-offsets", "--group", group, "--topic", topic, "--to-earliest", "--execute")
    assert _offsets(tool("consumer-groups", "--describe", "--group", group), group, topic) == (0, 100)
    tool("consumer-groups", "--delete-offsets", "--group", group, "--topic", f"{topic}:0")
    tool("consumer-groups", "--delete", "--group", group)
    assert group not in tool("consumer-groups", "--list")
    assert "GroupIdNotFoundException" in tool("consumer-groups", "--describe", "--group", group)


def _offsets(described: str, group: str, topic: str) -> tuple[int, int]:
    rows = [line.split() for line in described.splitlines() if line.startswith(group)]
    mine = [row for row in rows if topic in row]
    columns = [row.index(topic) for row in mine]
    current = sum(int(row[column + 2]) for row, column in zip(mine, columns, strict=True) if row[column + 2] != "-")
    lag = sum(int(row[-4]) for row in mine if row[-4] != "-")
    return current, lag


def test_delete_records(tool: Tool, topic: str, tmp_path: Path) -> None:
    _produce(tool, topic, 200)
    ends = {partition: _end(tool, f"{topic}") for partition in (0, 1)}
    assert ends[0] == 200
    wanted = [{"topic": topic, "partition": partition, "offset": -1} for partition in (0, 1)]
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"partitions": wanted, "version": 1}))
    assert tool("delete-records", "--offset-json-file", str(plan)).count("low_watermark") == 2
    assert _end(tool, topic, -2) == 200


def test_log_dirs(tool: Tool, topic: str) -> None:
    _produce(tool, topic, 100)
    printed = tool("log-dirs", "--describe", "--topic-list", topic)
    (line,) = [line for line in printed.splitlines() if line.startswith("{")]
    document: dict[str, Any] = json.loads(line)
    (broker,) = document["brokers"]
    found = {entry["partition"] for directory in broker["logDirs"] for entry in directory["partitions"]}
    assert found == {f"{topic}-0", f"{topic}-1"}


def test_leader_election(tool: Tool, topic: str) -> None:
    printed = tool("leader-election", "--election-type", "preferred", "--topic", topic, "--partition", "0")
    assert "Valid replica already elected" in printed


def test_reassignment(tool: Tool, topic: str, tmp_path: Path) -> None:
    listed = tool("cluster", "list-endpoints")
    node = int(listed.strip().splitlines()[-1].split()[0])
    plan = tmp_path / "plan.json"
    moves = [{"topic": topic, "partition": number, "replicas": [node]} for number in (0, 1)]
    plan.write_text(json.dumps({"version": 1, "partitions": moves}))
    assert "Successfully started" in tool("reassign", "--reassignment-json-file", str(plan), "--execute")
    verified = tool("reassign", "--reassignment-json-file", str(plan), "--verify")
    assert verified.count("is completed") == 2
    assert "No partition reassignments found" in tool("reassign", "--list")


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
    assert "Produce(0): 0 to 13 [usable: 13]" in tool("api-versions")


def test_features(tool: Tool) -> None:
    described = tool("features", "describe")
    assert "Feature: transaction.version" in described
    assert "FinalizedVersionLevel: 2" in described
    assert "transaction.version" in tool("features", "upgrade", "--feature", "transaction.version=2")
    assert "Could not" in tool("features", "downgrade", "--feature", "transaction.version=1", code=1)


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


def test_share_groups(tool: Tool, topic: str, fresh_name: Callable[..., str]) -> None:
    group = fresh_name("share")
    tool(
        "configs", "--alter", "--entity-type", "groups", "--entity-name", group, "--add-config",
        "share.auto.offset.reset=earliest",
    )  # fmt: skip
    _produce(tool, topic, 500)
    figures = tool("share-consumer-perf", "--topic", topic, "--group", group, "--num-records", "500")
    assert ", 500, " in figures, figures
    assert group in tool("share-groups", "--list").split()
    assert "Empty" in tool("share-groups", "--describe", "--group", group, "--state")
    assert "0" in tool("share-groups", "--describe", "--group", group)
    tool("share-groups", "--reset-offsets", "--group", group, "--topic", topic, "--to-earliest", "--execute")
    again = tool("share-consumer-perf", "--topic", topic, "--group", group, "--num-records", "500")
    assert ", 500, " in again, again
    tool("share-groups", "--delete-offsets", "--group", group, "--topic", topic)
    assert group in tool("share-groups", "--delete", "--group", group)
    assert group not in tool("share-groups", "--list").split()


def test_streams_groups(bootstrap: str, tool: Tool, topic: str, fresh_name: Callable[..., str]) -> None:
    """A member counts words; its group is looked at, moved and deleted, with the topics that were made for it."""
    group = fresh_name("app")
    _produce(tool, topic, 100)
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
    _produce(tool, topic, 100)
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
