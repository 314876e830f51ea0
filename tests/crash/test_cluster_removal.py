"""`kill -9` while virtual clusters are deleted and the keys of one erased: all of it goes to the end by itself, nothing
is left of what was to go, and whoever stays has lost nothing."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from crash_load import ProducerLoad, check_log, read_all
from fixtures.cluster_remains import ranges_of, rows_of
from fixtures.secured import Secured
from fixtures.tenants import Estate, Tenant, log_in
from fixtures.waiting import eventually
from fixtures.wire import Wire, batch

from penstock.cli.audit import Runs
from penstock.keys.handlers import Action
from penstock.wire.api_keys import ApiKey as K
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import create_topics, offset_commit
from penstock.wire.messages.alter_cluster_keys import AlterClusterKeysRequest
from penstock.wire.messages.create_virtual_cluster import CreateVirtualClusterRequest
from penstock.wire.messages.delete_virtual_cluster import DeleteVirtualClusterRequest
from penstock.wire.messages.describe_cluster_keys import DescribeClusterKeysRequest
from penstock.wire.messages.describe_virtual_clusters import DescribeVirtualClustersRequest
from penstock.wire.messages.enter_cluster import EnterClusterRequest
from penstock.wire.messages.init_producer_id import InitProducerIdRequest
from penstock.wire.messages.sasl_authenticate import SaslAuthenticateRequest
from penstock.wire.messages.sasl_handshake import SaslHandshakeRequest

CRASHES = int(os.environ.get("PENSTOCK_CRASHES", "10"))
SMALL_STEPS = (str(Path(__file__).with_name("small_steps.py")),)
TOPICS, GROUPS, IDS = 40, 12, 8
GOING = ("goes-open", "goes-sealed")
ERASED_LATER = tuple(f"erased-later-{number}" for number in range(4))
"""Clusters whose keys are erased by a request that is not waited for, one before each of some crashes."""
UNDER_WAY_S = (0.02, 0.08, 0.08, 1.2)
"""How long a deletion may go on before a crash: some steps of it, or until there is nothing left and it is over."""
SETTINGS = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true", "super.users": "User:alice",
}  # fmt: skip
OUT_OF_MEMORY = frozenset(
    {
        "topic", "partition", "config", "txn", "group_", "group_offset", "scram_credential", "api_key",
        "service_account", "delegation_token", "quota", "acl", "cluster_keys", "data_key",
    }
)  # fmt: skip
"""Tables in which what stays must be as it was."""
PLACE = ("load", 0)


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[Secured]:
    """A broker where each tenant has a key of its own."""
    secured = Secured(
        tmp_path, settings=SETTINGS, token_key="the key of these tokens", arguments=("--client-metrics", "prometheus"),
        program=SMALL_STEPS,
    )  # fmt: skip
    secured.server.start()
    yield secured
    if secured.server.running:
        secured.server.kill()


class Facts:
    """What a virtual cluster is known by in the database."""

    def __init__(self, connection: sqlite3.Connection, name: str) -> None:
        ((self.cluster_id,),) = connection.execute("SELECT cluster_id FROM cluster WHERE name = ?", (name,)).fetchall()
        rows = connection.execute("SELECT partition_id FROM partition WHERE cluster_id = ?", (self.cluster_id,))
        self.partition_ids = {row[0] for row in rows}
        rows = connection.execute("SELECT master_key_id FROM cluster_keys WHERE cluster_id = ?", (self.cluster_id,))
        self.master_key_ids = [row[0] for row in rows]

    def rows(self, connection: sqlite3.Connection) -> dict[str, int]:
        """How many rows there are of it, by table."""
        return rows_of(connection, self.cluster_id, self.partition_ids)


def look(secured: Secured) -> closing[sqlite3.Connection]:
    """A copy of the database: looking must not change anything."""
    copy = sqlite3.connect(":memory:")
    with closing(sqlite3.connect(f"file:{secured.server.data_dir / 'metadata.db'}?mode=ro", uri=True)) as database:
        database.backup(copy)
    return closing(copy)


def marker_of(name: str) -> bytes:
    """What is in the records of a tenant, and nowhere else."""
    return name.encode() + b"/swordfish"


def fill(tenant: Tenant, estate: Estate) -> None:
    """One of everything, and so much of some things that they go in several steps."""
    estate.everything()
    wire = estate.wires[0]
    wanted = [
        create_topics.CreatableTopic(name=f"more-{number}", num_partitions=1, replication_factor=1)
        for number in range(TOPICS)
    ]
    made = wire.call(K.CREATE_TOPICS, 7, create_topics.CreateTopicsRequest(topics=wanted, timeout_ms=20_000))
    assert {topic.error_code for topic in made.topics} == {0}
    for number in range(0, TOPICS, 4):
        assert wire.produce(f"more-{number}", batch(marker_of(tenant.name) * 50)).error_code == 0
    part = offset_commit.OffsetCommitRequestPartition(partition_index=0, committed_offset=1, committed_metadata="")
    topic = offset_commit.OffsetCommitRequestTopic(name="more-0", partitions=[part])
    for number in range(GROUPS):
        request = offset_commit.OffsetCommitRequest(
            group_id=f"more-{number}", generation_id_or_member_epoch=-1, member_id="", topics=[topic]
        )
        assert wire.call(K.OFFSET_COMMIT, 8, request).topics[0].partitions[0].error_code == 0
    for number in range(IDS):
        begun = InitProducerIdRequest(transactional_id=f"more-{number}", transaction_timeout_ms=600_000)
        assert wire.call(K.INIT_PRODUCER_ID, 4, begun).error_code == 0


class Orders:
    """What an administrator wants done, and asks for until it is told once that it will be."""

    def __init__(self) -> None:
        self.left = [
            (K.ALTER_CLUSTER_KEYS, AlterClusterKeysRequest(name="erased", action=Action.ERASE)),
            *((K.DELETE_VIRTUAL_CLUSTER, DeleteVirtualClusterRequest(name=name)) for name in GOING),
        ]

    def send(self, secured: Secured) -> Wire:
        """Only ask: what becomes of it is not waited for."""
        admin = log_in(secured)
        for key, request in self.left:
            admin.send(key, 0, request)
        return admin

    def erase(self, secured: Secured, name: str) -> Wire:
        """The same, for one cluster more."""
        self.left.append((K.ALTER_CLUSTER_KEYS, AlterClusterKeysRequest(name=name, action=Action.ERASE)))
        key, request = self.left[-1]
        admin = log_in(secured)
        admin.send(key, 0, request)
        return admin

    def give(self, secured: Secured) -> None:
        """Ask, and hear."""
        with log_in(secured) as admin:
            while self.left:
                key, request = self.left[0]
                answer = admin.call(key, 0, request)
                told = (0, ErrorCode.POLICY_VIOLATION, ErrorCode.RESOURCE_NOT_FOUND)  # It goes, or is gone.
                assert answer.error_code in told, answer.error_message
                self.left.pop(0)


@pytest.mark.timeout(120 + 10 * CRASHES)
def test_what_is_deleted_goes_to_the_end_by_itself(secured: Secured, capsys: pytest.CaptureFixture[str]) -> None:
    server, chance = secured.server, random.Random("cluster removal")
    tenants = {name: Tenant(secured, name) for name in ("stays", *GOING, "erased", *ERASED_LATER)}
    with log_in(secured) as admin:
        for name in ("stays", "goes-sealed", "erased", *ERASED_LATER):
            answer = admin.call(K.ALTER_CLUSTER_KEYS, 0, AlterClusterKeysRequest(name=name, action=Action.ENCRYPT))
            assert answer.error_code == 0, answer.error_message
    estates = {name: Estate(tenant.connect) for name, tenant in tenants.items() if name not in ERASED_LATER}
    for name, estate in estates.items():
        fill(tenants[name], estate)
    seen = seen_by(tenants["stays"], estates["stays"])
    key_id, secret = tenants["stays"].key
    with tenants["stays"].connect() as wire:
        wire.create_topic(PLACE[0])
    for estate in estates.values():
        estate.close()
    server.kill()
    server.start()
    with look(secured) as connection:
        facts = {name: Facts(connection, name) for name in tenants}
        kept = facts["stays"].rows(connection)
    load = ProducerLoad(
        secured.at("SASL_PLAINTEXT"), "exact", [PLACE], idempotent=True,
        **{
            "security.protocol": "SASL_PLAINTEXT", "sasl.mechanisms": "PLAIN", "sasl.username": key_id,
            "sasl.password": secret,
        },
    )  # fmt: skip
    load.start()
    try:
        halves = crash_until_gone(secured, chance, [facts[name] for name in GOING], tenants["goes-open"].key)
        load.stop()
        load.join(timeout=60)
        assert not load.is_alive()
    finally:
        load.stop()
    check_gone(secured, facts, tenants)
    with tenants["stays"].connect() as wire:
        check_log(PLACE, read_all(wire, PLACE), [load])
    assert seen_by(tenants["stays"], estates["stays"]) == seen
    with look(secured) as connection:
        now = facts["stays"].rows(connection)
    assert {table: now.get(table) for table in OUT_OF_MEMORY} == {table: kept.get(table) for table in OUT_OF_MEMORY}
    check_keys(secured, facts, tenants["erased"], estates["erased"])
    check_told(secured)
    assert server.stop() == 0
    assert "Traceback" not in server.log_tail(limit=10**9)
    files = [file.read_bytes() for file in server.data_dir.rglob("*") if file.is_file()]
    assert not any(marker_of(name) in data for name in ("stays", "goes-sealed", "erased") for data in files)
    assert len(halves) >= 3, "crashes have hardly met a deletion half done"
    with capsys.disabled():
        print(f"\n{len(halves)} crashes met clusters that were gone in part; {load.acknowledged} records beside them")


def crash_until_gone(
    secured: Secured, chance: random.Random, going: list[Facts], key: tuple[str, str]
) -> list[dict[str, int]]:
    """Kill the process at instants of no choosing until clusters are gone; what was left of them, where that was
    something and not all. The key is one of theirs."""
    server, orders, halves, later = secured.server, Orders(), [], list(ERASED_LATER)
    with orders.send(secured):
        time.sleep(chance.uniform(0, 0.02))  # An instant of the requests, not something to wait for.
        server.kill()
    with look(secured) as connection:
        left = whole = [one.rows(connection) for one in going]
    for number in range(3 * CRASHES):
        server.spawn()
        if number % 4 == 3:
            time.sleep(chance.uniform(0.1, 0.8))  # Somewhere in the start.
        else:
            server.await_ready()
            orders.give(secured)
            if number == 0:
                check_refused(secured, key)
            if later:
                orders.erase(secured, later.pop()).close()
            if number % 4 == 1:
                await_a_step(secured, going, left)
            else:
                time.sleep(chance.uniform(0, chance.choice(UNDER_WAY_S)))
        server.kill()
        with look(secured) as connection:
            left = [one.rows(connection) for one in going]
        if is_nearly_gone(left) and number >= CRASHES:
            break
        halves += [rows for rows, all_rows in zip(left, whole, strict=True) if rows and rows.keys() < all_rows.keys()]
    server.start()
    orders.give(secured)
    return halves


def is_nearly_gone(left: list[dict[str, int]]) -> bool:
    """Whether nothing of the clusters is there but themselves."""
    return not any(rows.keys() - {"cluster", "cluster_limit"} for rows in left)


def await_a_step(secured: Secured, going: list[Facts], left: list[dict[str, int]]) -> None:
    """Until something more is gone, or nothing is left that could go: however fast or slow it goes here."""

    def went() -> bool:
        with look(secured) as connection:
            rows = [one.rows(connection) for one in going]
        return rows != left or is_nearly_gone(rows)

    eventually(went, every_s=0.005, what="a step of a deletion")


def check_refused(secured: Secured, key: tuple[str, str]) -> None:
    """A key of a cluster that goes lets nobody in."""
    with Wire(secured.at("SASL_PLAINTEXT")) as wire:
        assert wire.call(K.SASL_HANDSHAKE, 1, SaslHandshakeRequest(mechanism="PLAIN")).error_code == 0
        token = b"\0".join((b"", *(text.encode() for text in key)))
        answer = wire.call(K.SASL_AUTHENTICATE, 2, SaslAuthenticateRequest(auth_bytes=token))
        assert answer.error_code == ErrorCode.SASL_AUTHENTICATION_FAILED


def seen_by(tenant: Tenant, estate: Estate) -> object:
    """What a tenant finds of what it has."""
    things = estate.things
    with tenant.connect() as wire:
        names = sorted(topic.name for topic in wire.metadata(None).topics if topic.name != PLACE[0])
        return (
            names,
            [record.value for record in wire.fetch_records(things["topic"])],
            [record.value for record in wire.fetch_records("more-4")],
            wire.committed(things["group"], [(things["topic"], 0)]),
            wire.committed("more-1", [("more-0", 0)]),
        )


def check_gone(secured: Secured, facts: dict[str, Facts], tenants: dict[str, Tenant]) -> None:
    """Nothing is left of the clusters in rows, the log or objects; their names are free, and their keys let nobody
    in."""
    with log_in(secured) as admin:

        def names() -> set[str]:
            described = admin.call(K.DESCRIBE_VIRTUAL_CLUSTERS, 0, DescribeVirtualClustersRequest(names=None))
            return {cluster.name for cluster in described.clusters}

        eventually(lambda: names().isdisjoint(GOING), what="the clusters being gone", within_s=30)
        assert {"stays", "erased", "default", "platform"} <= names()
    partition_ids = set().union(*(facts[name].partition_ids for name in GOING))

    def left() -> list[object]:
        with look(secured) as connection:
            found: list[object] = [rows for name in GOING if (rows := facts[name].rows(connection))]
            dead = connection.execute("SELECT key FROM object WHERE live = 0").fetchall()
            return [*found, *ranges_of(connection, partition_ids), *dead]

    eventually(lambda: left() == [], what="nothing being left", within_s=30, every_s=0.3)
    with look(secured) as connection:
        metered = connection.execute(
            "SELECT COUNT(DISTINCT cluster_id) FROM usage WHERE cluster_id IN (?, ?)",
            [facts[name].cluster_id for name in GOING],
        )
        assert metered.fetchone() == (2,), "what was used is to be paid by who has gone, too"
    for tenant in (tenants[name] for name in GOING):
        check_refused(secured, tenant.key)
    with log_in(secured) as admin:
        for name in GOING:
            request = CreateVirtualClusterRequest(name=name, environment="default")
            assert admin.call(K.CREATE_VIRTUAL_CLUSTER, 0, request).error_code == 0
            with log_in(secured) as inside:
                assert inside.call(K.ENTER_CLUSTER, 0, EnterClusterRequest(name=name)).error_code == 0
                assert inside.metadata(None).topics == []


def check_keys(secured: Secured, facts: dict[str, Facts], tenant: Tenant, estate: Estate) -> None:
    """Master keys of what has gone are destroyed, that of what stays is not; what is erased is read by nobody."""

    def lines() -> dict[str, str]:
        text = (secured.server.data_dir / "keys" / "master-keys").read_text()
        return dict(line.split(" ") for line in text.splitlines() if not line.startswith("#"))

    with log_in(secured) as admin:

        def states() -> list[str]:
            wanted = ["erased", *ERASED_LATER]
            described = admin.call(K.DESCRIBE_CLUSTER_KEYS, 0, DescribeClusterKeysRequest(names=wanted))
            return [str(cluster.state) for cluster in described.clusters]

        all_erased = ["erased"] * (1 + len(ERASED_LATER))
        eventually(lambda: states() == all_erased, what="the keys being erased", within_s=30)
    found = lines()
    for name in ("goes-sealed", "erased", *ERASED_LATER):
        assert [found[key] for key in facts[name].master_key_ids] == ["-"]
    assert [len(found[key]) for key in facts["stays"].master_key_ids] == [44]
    assert set(found) == {key for one in facts.values() for key in one.master_key_ids}
    with tenant.connect() as wire:
        assert wire.fetch(estate.things["topic"]).error_code == ErrorCode.TOPIC_AUTHORIZATION_FAILED
    with look(secured) as connection:
        query = "SELECT COUNT(*) FROM data_key WHERE cluster_id = ?"
        assert connection.execute(query, (facts["erased"].cluster_id,)).fetchone() == (0,)


def check_told(secured: Secured) -> None:
    """The audit log says that it was cut short, and has no gaps else."""
    with log_in(secured) as admin:
        assert admin.call(K.ENTER_CLUSTER, 0, EnterClusterRequest(name="platform")).error_code == 0
        topic, offset, runs = "confluent-audit-log-events", 0, Runs()
        notes = set()
        while records := admin.fetch_records(topic, offset):
            offset = records[-1].offset + 1
            for event in (json.loads(record.value or b"") for record in records):
                notes.add((runs.missing_before(event) or "").partition(": ")[2])
    assert notes == {"", "the agent ended without a stop, and what it had heard last may be missing."}
