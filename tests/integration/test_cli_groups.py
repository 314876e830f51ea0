"""Groups of every type from the command line."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from cli_session import Session, promised_shape, shape_of
from fixtures.waiting import eventually
from fixtures.wire import Wire

from penstock.wire.api_keys import ApiKey
from penstock.wire.messages import incremental_alter_configs as configs
from penstock.wire.messages import streams_group_heartbeat
from penstock.wire.messages.share_fetch import FetchPartition, FetchTopic, ShareFetchRequest
from penstock.wire.messages.share_group_heartbeat import ShareGroupHeartbeatRequest


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
