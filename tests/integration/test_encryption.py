"""A cluster that is encrypted at rest, by the running process: killed, damaged, without its keys, erased."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cli_session import Session
from fixtures.server import Server
from fixtures.waiting import eventually
from fixtures.wire import Wire, batch

from penstock.keys.handlers import Action
from penstock.log.commits import unpack_entries
from penstock.log.wal_record import HEAD_BYTES, read_head, read_record
from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.alter_cluster_keys import AlterClusterKeysRequest
from penstock.wire.messages.create_virtual_cluster import CreateVirtualClusterRequest
from penstock.wire.messages.delete_virtual_cluster import DeleteVirtualClusterRequest
from penstock.wire.messages.describe_virtual_clusters import DescribeVirtualClustersRequest
from penstock.wire.messages.enter_cluster import EnterClusterRequest
from penstock.wire.messages.fetch import FetchPartition, FetchRequest, FetchTopic

MARKER = b"swordfish-of-the-tenant"
COUNT = 12
PAGE = 4096
SMALL = (str(Path(__file__).parents[1] / "crash" / "small_log.py"),)
"""With small files and a small tail, so that compaction runs."""


def value_of(number: int) -> bytes:
    return b"%06d" % number + MARKER * (1, 10, 5_000)[number % 3]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """One that was killed after it acknowledged `COUNT` batches."""
    server = Server(tmp_path, durability="disk", arguments=("--encrypt",))
    server.start()
    with Wire(server.bootstrap) as wire:
        wire.create_topic("t")
        for number in range(COUNT):
            assert wire.produce("t", batch(value_of(number), key=MARKER)).base_offset == number
    server.kill()
    yield server
    if server.running:
        server.kill()


def key_file(server: Server) -> Path:
    return server.data_dir / "keys" / "master-keys"


def check(wire: Wire, *, skipped: int = -1) -> None:
    for number in range(COUNT):
        if number != skipped:
            (record, *_) = wire.fetch_records("t", number, partition_max_bytes=1)
            assert (record.offset, record.value) == (number, value_of(number))


def spoil(server: Server, number: int) -> None:
    """Flip a bit of what the commit of one record has stored."""
    for slab in (server.data_dir / "slabs").iterdir():
        data, position = memoryview(slab.read_bytes()), 0
        while (head := read_head(data[position : position + HEAD_BYTES])) is not None:
            record = read_record(data[position:])
            if record is not None and int.from_bytes(record.bases) == number:
                (entry,) = unpack_entries(record.entries)
                assert entry.seal is not None
                at = position + entry.seal.start + 70
                with slab.open("r+b") as file:
                    file.seek(at)
                    file.write(bytes((data[at] ^ 16,)))
                return
            position += -(-head.object_bytes // PAGE) * PAGE
    raise AssertionError(f"the commit of record {number} was not found")


def outcome(answer: Any) -> ErrorCode:
    return ErrorCode(answer.error_code)


def test_what_was_acknowledged_survives_a_crash_and_is_readable_by_clients_only(server: Server) -> None:
    files = [file for file in server.data_dir.parent.rglob("*") if file.is_file()]
    assert {"metadata.db", "server.log"} <= {file.name for file in files}
    assert [file for file in files if MARKER in file.read_bytes()] == []
    spoil(server, 5)
    server.start()
    with Wire(server.bootstrap) as wire:
        assert outcome(wire.fetch("t", 5)) is ErrorCode.CORRUPT_MESSAGE
        check(wire, skipped=5)
        assert wire.produce("t", batch(b"still here")).base_offset == COUNT


def test_without_its_keys_a_cluster_answers_that_clients_try_again_until_they_are_back(server: Server) -> None:
    elsewhere = server.data_dir.parent / "elsewhere"
    key_file(server).rename(elsewhere)
    server.start()
    with Wire(server.bootstrap) as wire:
        assert outcome(wire.produce("t", batch(b"now"))) is ErrorCode.KAFKA_STORAGE_ERROR
        assert outcome(wire.fetch("t", 0)) is ErrorCode.KAFKA_STORAGE_ERROR
        elsewhere.rename(key_file(server))
        eventually(
            lambda: wire.produce("t", batch(b"now")).error_code == ErrorCode.NONE, within_s=30, what="the key is back"
        )
        check(wire)
    server.kill()
    key_file(server).chmod(0o644)
    server.spawn()
    eventually(lambda: not server.running, within_s=30, what="the server refusing to start")
    assert "chmod 600" in server.log_tail()
    assert server.exit_code() == 2


def alter(wire: Wire, name: str, action: Action) -> str:
    """Do something to a cluster's keys; their state."""
    answer = wire.call(ApiKey.ALTER_CLUSTER_KEYS, 0, AlterClusterKeysRequest(name=name, action=action))
    assert answer.error_code == 0, answer.error_message
    return str(answer.state)


def of_cluster(server: Server, name: str) -> Wire:
    """A connection that is in a cluster."""
    wire = Wire(server.bootstrap)
    assert wire.call(ApiKey.ENTER_CLUSTER, 0, EnterClusterRequest(name=name)).error_code == 0
    return wire


def in_session(wire: Wire, session_id: int, epoch: int, *, fetch_offset: int | None = None) -> Any:
    """A fetch of a session, which asks for a partition if an offset is given."""
    wanted = [] if fetch_offset is None else [FetchPartition(partition=0, fetch_offset=fetch_offset)]
    request = FetchRequest(
        max_wait_ms=0, min_bytes=1, session_id=session_id, session_epoch=epoch,
        topics=[FetchTopic(topic="t", partitions=wanted)] if wanted else [],
    )  # fmt: skip
    return wire.call(ApiKey.FETCH, 12, request)


def test_a_tenant_is_encrypted_gets_new_keys_and_is_erased_and_its_neighbour_is_not(tmp_path: Path) -> None:
    server = Server(tmp_path, durability="disk", program=SMALL)
    server.start()
    try:
        with Wire(server.bootstrap) as admin:
            made = admin.call(
                ApiKey.CREATE_VIRTUAL_CLUSTER, 0, CreateVirtualClusterRequest(name="acme", environment="default")
            )
            assert made.error_code == 0
            assert alter(admin, "acme", Action.ENCRYPT) == "on"
            admin.create_topic("t")
        for number in range(COUNT):
            with Wire(server.bootstrap) as neighbour, of_cluster(server, "acme") as tenant:
                if number == 0:
                    tenant.create_topic("t")
                if number == COUNT // 2:
                    assert alter(neighbour, "acme", Action.ROTATE) == "on"
                    assert alter(neighbour, "acme", Action.REWRAP) == "on"
                neighbour.produce("t", batch(b"open" + value_of(number).replace(MARKER, b"loudhailer")))
                assert tenant.produce("t", batch(value_of(number))).base_offset == number
        server.kill()
        assert [file for file in server.data_dir.rglob("*") if file.is_file() and MARKER in file.read_bytes()] == []
        server.start()
        with Wire(server.bootstrap) as neighbour, of_cluster(server, "acme") as tenant:
            check(tenant)
            idle = in_session(tenant, 0, 0, fetch_offset=COUNT)
            assert outcome(idle.responses[0].partitions[0]) is ErrorCode.NONE
            assert in_session(tenant, idle.session_id, 1).responses == []
            assert alter(neighbour, "acme", Action.ERASE) == "erased"
            told = in_session(tenant, idle.session_id, 2)
            assert outcome(told.responses[0].partitions[0]) is ErrorCode.TOPIC_AUTHORIZATION_FAILED
            for _ in range(2):
                assert outcome(tenant.fetch("t", 0)) is ErrorCode.TOPIC_AUTHORIZATION_FAILED
                refused = tenant.produce("t", batch(b"again"))
                assert outcome(refused) is ErrorCode.TOPIC_AUTHORIZATION_FAILED
                assert "erased" in refused.error_message
            assert len(neighbour.fetch_records("t", 0)) > 0
        assert "-" in {line.split(" ")[1] for line in key_file(server).read_text().splitlines() if line[0] != "#"}
        server.kill()
        server.start()
        with Wire(server.bootstrap) as neighbour, of_cluster(server, "acme") as tenant:
            assert outcome(tenant.fetch("t", 0)) is ErrorCode.TOPIC_AUTHORIZATION_FAILED
            assert neighbour.produce("t", batch(b"still here")).base_offset == COUNT
            again = neighbour.call(ApiKey.ALTER_CLUSTER_KEYS, 0, AlterClusterKeysRequest(name="acme", action=0))
            assert again.error_code == ErrorCode.INVALID_REQUEST
        assert server.stop() == 0
    finally:
        server.kill()


def names_of(wire: Wire) -> list[str]:
    """The names of all clusters, those that go too."""
    answer = wire.call(ApiKey.DESCRIBE_VIRTUAL_CLUSTERS, 0, DescribeVirtualClustersRequest(names=None))
    return [cluster.name for cluster in answer.clusters]


def test_a_deleted_cluster_is_gone_when_its_keys_are_destroyed(server: Server) -> None:
    server.start()
    with Wire(server.bootstrap) as admin:
        made = admin.call(
            ApiKey.CREATE_VIRTUAL_CLUSTER, 0, CreateVirtualClusterRequest(name="acme", environment="default")
        )
        assert made.error_code == 0
        assert alter(admin, "acme", Action.ENCRYPT) == "on"
        with of_cluster(server, "acme") as tenant:
            tenant.create_topic("t")
            assert tenant.produce("t", batch(b"theirs")).error_code == 0
        key_file(server).chmod(0o644)  # It is not used like that.
        deleted = admin.call(ApiKey.DELETE_VIRTUAL_CLUSTER, 0, DeleteVirtualClusterRequest(name="acme"))
        assert deleted.error_code == 0
        eventually(lambda: "still to be destroyed" in server.log_tail(), what="the log telling why it stays")
        assert "acme" in names_of(admin)
        refused = admin.call(ApiKey.ALTER_CLUSTER_KEYS, 0, AlterClusterKeysRequest(name="acme", action=Action.ENCRYPT))
        assert refused.error_code == ErrorCode.INVALID_REQUEST
    server.kill()
    key_file(server).chmod(0o600)
    server.start()
    with Wire(server.bootstrap) as admin:
        eventually(lambda: "acme" not in names_of(admin), what="the cluster being gone")
        check(admin)
    keys = [line.split(" ")[1] for line in key_file(server).read_text().splitlines() if line[0] != "#"]
    assert sorted(key == "-" for key in keys) == [False, True], "its neighbour's is there"
    with closing(sqlite3.connect(f"file:{server.data_dir / 'metadata.db'}?mode=ro", uri=True)) as database:
        for table in ("cluster_keys", "data_key"):
            assert database.execute(f"SELECT COUNT(*) FROM {table}").fetchall() == [(1,)], table


def test_a_new_master_key_where_a_data_key_is_damaged(server: Server) -> None:
    server.start()
    with Wire(server.bootstrap) as wire:
        alter(wire, "default", Action.ROTATE)
        assert wire.produce("t", batch(b"by the second key")).base_offset == COUNT
    server.kill()
    with closing(sqlite3.connect(server.data_dir / "metadata.db")) as database, database:
        ((damaged, wrapped),) = database.execute(
            "SELECT key_id, wrapped FROM data_key WHERE key_id NOT IN (SELECT current_key_id FROM cluster_keys)"
        ).fetchall()
        database.execute(
            "UPDATE data_key SET wrapped = ? WHERE key_id = ?", (wrapped[:-1] + bytes((wrapped[-1] ^ 1,)), damaged)
        )
    server.start()
    session = Session(server.bootstrap)
    (before,) = session.json("cluster", "keys")
    refused = session.run("cluster", "rotate-key", "default", "--master", code=1).output
    assert "1 of 2 data keys are wrapped by the new master key" in refused
    assert str(damaged) in refused
    (after,) = session.json("cluster", "keys")
    assert (after["state"], after["data_keys"]) == ("on", 2)
    assert after["master_key"] != before["master_key"]
    assert f"{before['master_key']} -" not in key_file(server).read_text(), "it is kept for the damaged one"
    with Wire(server.bootstrap) as wire:
        assert wire.produce("t", batch(b"on")).base_offset == COUNT + 1
        (record, *_) = wire.fetch_records("t", COUNT, partition_max_bytes=1)
        assert record.value == b"by the second key"
        assert outcome(wire.fetch("t", 0)) is ErrorCode.KAFKA_STORAGE_ERROR
