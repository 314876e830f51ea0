"""A copy of the data directory is a backup, if it is one of a moment: of a process that has stopped, or of files that
nobody writes to meanwhile, as in a snapshot of their file system."""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_session import Session
from fixtures.raw_client import ConnectionClosed
from fixtures.server import Server
from fixtures.waiting import eventually
from fixtures.wire import Wire, batch


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "server", durability="disk")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def restored(tmp_path: Path) -> Iterator[Server]:
    """Where a backup is brought back to: another machine, as it were."""
    server = Server(tmp_path / "restored", durability="disk")
    yield server
    server.kill()


def test_a_copy_of_a_stopped_one_has_everything(server: Server, restored: Server) -> None:
    at = Session(server.bootstrap)
    at.run("topic", "create", "orders", "-p", "2", "-c", "retention.ms=3600000")
    at.run("produce", "orders", "-p", "1", stdin="one\ntwo\nthree\n")
    at.run("group", "seek", "billing", "--to", "2", "-t", "orders:1")
    at.run("user", "create", "alice", stdin="a password\n")
    cluster = at.json("cluster", "info")
    assert server.stop() == 0
    shutil.copytree(server.data_dir, restored.data_dir)
    server.start()
    at.run("produce", "orders", "-p", "1", stdin="later\n")

    restored.start()
    there = Session(restored.bootstrap)
    assert there.json("cluster", "info")["id"] == cluster["id"]
    assert there.run("consume", "orders").stdout.splitlines() == ["one", "two", "three"]
    (lag,) = there.json("group", "lag", "billing", "-t", "orders")["partitions"]
    assert (lag["partition"], lag["committed"], lag["lag"]) == (1, 2, 1)
    assert [user["user"] for user in there.json("user", "list")] == ["alice"]
    (retention,) = there.json("topic", "describe", "orders")["configs"]
    assert (retention["name"], retention["value"]) == ("retention.ms", "3600000")
    assert there.json("produce", "orders", "-p", "1", stdin="on\n")["partitions"][0]["first_offset"] == 3
    assert restored.stop() == 0


def test_a_snapshot_of_a_running_one_has_all_that_was_acknowledged(server: Server, restored: Server) -> None:
    load = Load(server)
    load.start()
    eventually(lambda: load.acknowledged > 200, what="some load")
    server.process.send_signal(signal.SIGSTOP)  # Nobody writes from now on, and nobody is told anything.
    acknowledged = load.acknowledged
    shutil.copytree(server.data_dir, restored.data_dir)
    server.process.send_signal(signal.SIGCONT)
    server.kill()
    load.join(timeout=10)

    restored.start()
    with Wire(restored.bootstrap) as wire:
        end = wire.list_offset("t", -1).offset
        assert end >= acknowledged > 200
        offset = 0
        while offset < end:
            records = wire.fetch_records("t", offset, max_bytes=8 << 20)
            assert [record.value for record in records] == [b"%d" % at for at in range(offset, offset + len(records))]
            offset += len(records)
    assert restored.stop() == 0


class Load(threading.Thread):
    """A producer that sends one record after the other, until it is hung up on."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.acknowledged = 0
        self._wire = Wire(server.bootstrap)
        self._wire.create_topic("t")

    def run(self) -> None:
        try:
            with self._wire as wire:
                while wire.produce("t", batch(b"%d" % self.acknowledged)).error_code == 0:
                    self.acknowledged += 1
        except (ConnectionClosed, OSError):
            pass
