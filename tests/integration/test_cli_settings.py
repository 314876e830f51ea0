"""`penstock config` and `penstock transaction` against a running broker."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
from cli_session import Session, promised_shape, shape_of
from fixtures.server import Server


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    server = Server(tmp_path_factory.mktemp("settings"), settings={"num.partitions": "2"})
    server.start()
    yield Session(server.bootstrap)
    assert server.stop() == 0


def values(document: dict[str, list[dict[str, str]]]) -> dict[str, tuple[str, str]]:
    """Settings and where they come from."""
    return {config["name"]: (config["value"], config["source"]) for config in document["configs"]}


def test_settings_of_a_group_before_it_has_members(session: Session) -> None:
    tried = session.json("config", "alter", "--group", "g", "--set", "consumer.session.timeout.ms=50000", "--dry-run")
    assert shape_of(tried) == promised_shape("config", "alter")
    assert tried["changed"] is False
    assert session.json("config", "describe", "--group", "g")["configs"] == []
    changed = session.json("config", "alter", "--group", "g", "--set", "consumer.session.timeout.ms=50000")
    assert changed["configs"] == [{"name": "consumer.session.timeout.ms", "before": "45000", "after": "50000"}]
    described = session.json("config", "describe", "--group", "g")
    assert shape_of(described) == promised_shape("config", "describe")
    assert values(described) == {"consumer.session.timeout.ms": ("50000", "group")}
    listed = session.json("config", "list")
    assert shape_of(listed) == promised_shape("config", "list")
    assert {"type": "group", "name": "g"} in listed
    unset = session.json("config", "alter", "--group", "g", "--unset", "consumer.session.timeout.ms")
    assert unset["configs"] == [{"name": "consumer.session.timeout.ms", "before": "50000", "after": "45000"}]
    assert {"type": "group", "name": "g"} not in session.json("config", "list")


def test_settings_of_the_broker(session: Session) -> None:
    started_with = session.json("config", "describe", "--broker")
    assert values(started_with)["num.partitions"] == ("2", "static")
    changed = session.json("config", "alter", "--broker", "--set", "log.retention.ms=60000")
    assert [row["after"] for row in changed["configs"]] == ["60000"]
    assert values(session.json("config", "describe", "--broker"))["log.retention.ms"] == ("60000", "cluster")
    everything = session.json("config", "describe", "--broker", "-a")["configs"]
    read_only = {row["name"]: row["read_only"] for row in everything}
    assert (read_only["num.partitions"], read_only["log.retention.ms"]) == (True, False)
    session.run("config", "alter", "--broker", "--unset", "log.retention.ms")
    assert "log.retention.ms" not in values(session.json("config", "describe", "--broker"))
    assert "Cannot" in session.run("config", "alter", "--broker", "--set", "num.partitions=3", code=1).stderr


def test_settings_of_a_topic_and_of_a_subscription(session: Session) -> None:
    session.run("topic", "create", "t")
    session.run("config", "alter", "--topic", "t", "--set", "retention.ms=1000")
    assert values(session.json("config", "describe", "--topic", "t")) == {"retention.ms": ("1000", "topic")}
    session.run("config", "alter", "--client-metrics", "m", "--set", "interval.ms=30000")
    assert {"type": "client-metrics", "name": "m"} in session.json("config", "list")
    assert values(session.json("config", "describe", "--client-metrics", "m"))["interval.ms"][0] == "30000"


@pytest.mark.parametrize(
    ("words", "sentence", "code"),
    [
        (("describe",), "whose settings?", 2),
        (("describe", "--group", "g", "--broker"), "whose settings?", 2),
        (("describe", "--group", ""), "the name is empty", 2),
        (("alter", "--group", "g"), "nothing to change", 2),
        (("describe", "--topic", "no-such-topic"), "topic 'no-such-topic' does not exist", 1),
        (("alter", "--group", "g", "--set", "no.such.key=1"), "no.such.key", 1),
    ],
)
def test_what_is_wrong_with_settings_is_said(
    session: Session, words: tuple[str, ...], sentence: str, code: int
) -> None:
    assert sentence in " ".join(session.run("config", *words, code=code).output.split())


def test_a_transaction_is_found_and_aborted(session: Session) -> None:
    confluent_kafka = pytest.importorskip("confluent_kafka")
    name, topic = f"relay-{secrets.token_hex(4)}", f"t-{secrets.token_hex(4)}"
    session.run("topic", "create", topic)
    assert session.run("transaction", "list").output == "No transactions.\n"
    producer = confluent_kafka.Producer({"bootstrap.servers": session.bootstrap, "transactional.id": name})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic, value="pending", partition=1)
    producer.flush(30)

    (listed,) = session.json("transaction", "list")
    assert shape_of(listed) == shape_of(promised_shape("transaction", "list")[0])
    assert (listed["transactional_id"], listed["state"], listed["partitions"]) == (name, "Ongoing", 1)
    assert session.json("transaction", "list", "--open-for", "1h") == []
    assert session.json("transaction", "list", "--state", "Empty") == []
    described = session.json("transaction", "describe", name)
    assert shape_of(described) == promised_shape("transaction", "describe")
    assert described["partitions"] == [{"topic": topic, "partition": 1}]
    assert session.run("consume", topic, "--committed").output == ""

    tried = session.json("transaction", "abort", name, "--dry-run")
    assert shape_of(tried) == promised_shape("transaction", "abort")
    assert session.json("transaction", "describe", name)["state"] == "Ongoing"
    assert "add --yes" in session.run("transaction", "abort", name, code=2).stderr
    assert session.json("transaction", "abort", name, "--yes")["aborted"]
    assert session.json("transaction", "describe", name)["started_at"] is None
    with pytest.raises(confluent_kafka.KafkaException):
        producer.commit_transaction(30)
    session.run("produce", topic, "-p", "1", stdin="after\n")
    assert session.run("consume", topic, "--committed").output == "after\n"
    assert "has no open transaction" in session.run("transaction", "abort", name, "--yes", code=1).stderr
    assert "does not exist" in session.run("transaction", "describe", "no-such-id", code=1).stderr


def test_a_setting_of_the_start_is_not_changed_later(session: Session) -> None:
    told = session.run("config", "alter", "--broker", "--set", "num.partitions=2", code=1).stderr
    assert told.endswith("They are set at the start: penstock up --set num.partitions=VALUE\n")
