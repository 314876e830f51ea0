"""`penstock up` as an operator meets it: a full disk, signals under load, what it prints and what HTTP says."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures.raw_client import ConnectionClosed
from fixtures.server import Server
from fixtures.waiting import eventually
from fixtures.wire import Wire, batch

from penstock.wire.api_keys import ApiKey
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages import incremental_alter_configs as alter

STOP_S = 5.0
VALUE_BYTES = 400_000


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path, durability="disk")
    yield server
    if server.running:
        server.kill()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, with little room."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(wire: Wire, *, refusals: int) -> int:
    """Produce until the disk is full and was so for a while; how many records were acknowledged.

    Compaction may find some room in between.
    """
    count = 0
    while refusals:
        answer = wire.produce("t", batch(b"%06d" % count * (VALUE_BYTES // 6)))
        if answer.error_code:
            assert answer.error_code == ErrorCode.KAFKA_STORAGE_ERROR  # Clients try again.
            assert "full" in answer.error_message
            refusals -= 1
        else:
            assert answer.base_offset == count
            count += 1
    return count


def take_the_rest(disk: Path) -> None:
    """Leave no page free; the server may take or free some meanwhile, so it is tried and not reckoned."""
    with contextlib.suppress(OSError), (disk / "rest").open("ab", buffering=0) as rest:
        while True:
            rest.write(bytes(4096))


def alter_retention(wire: Wire, milliseconds: int) -> None:
    change = alter.AlterableConfig(name="retention.ms", config_operation=0, value=str(milliseconds))
    topic = alter.AlterConfigsResource(resource_type=2, resource_name="t", configs=[change])
    answer = wire.call(ApiKey.INCREMENTAL_ALTER_CONFIGS, 1, alter.IncrementalAlterConfigsRequest(resources=[topic]))
    assert answer.responses[0].error_code == 0, answer.responses[0].error_message


def check_records(wire: Wire, count: int) -> None:
    offset = 0
    while offset < count:
        records = wire.fetch_records("t", offset)
        assert records
        for record in records:
            assert record.offset == offset
            assert record.value == b"%06d" % offset * (VALUE_BYTES // 6)
            offset += 1


def test_a_disk_that_fills_up_and_empties_again(small_disk: Path) -> None:
    server = Server(small_disk / "server", durability="disk")
    server.log_path = small_disk.parent / "server.log"
    server.start()
    try:
        with Wire(server.bootstrap) as wire, Wire(server.bootstrap) as reader:
            wire.create_topic("t")
            count = fill(wire, refusals=40)
            assert count > 50
            check_records(reader, count)
            assert server.http_status("/healthz") == 200
            text = server.log_path.read_text()
            assert 1 <= text.count("a flush failed") <= 3 + text.count("flushes succeed again"), text
            assert "Traceback" not in text, text

            alter_retention(wire, 86_400_000)  # There is room for what makes room.
            take_the_rest(small_disk)

            server.kill()  # A crash on a full disk, and a start without any room.
            take_the_rest(small_disk)
            server.spawn()
            assert eventually(server.exit_code) == 1
            assert "Free some space" in server.log_tail()

            subprocess.run(["mount", "-o", "remount,size=400m", str(small_disk)], check=True)
            server.start()
        with Wire(server.bootstrap) as wire:
            assert wire.list_offset("t", -1).offset == count
            assert wire.produce("t", batch(b"%06d" % count * (VALUE_BYTES // 6))).base_offset == count
            check_records(wire, count + 1)
        assert server.stop() == 0
    finally:
        if server.running:
            server.kill()


def test_a_limit_that_goes_and_comes(server: Server) -> None:
    """The process may write nothing at all for a while: fetches go on, and afterwards everything does."""
    server.start()
    with Wire(server.bootstrap) as wire:
        wire.create_topic("t")
        for number in range(3):
            wire.produce("t", batch(b"%06d" % number * (VALUE_BYTES // 6)))
        limit = server.process.rlimit(resource.RLIMIT_FSIZE)
        server.process.rlimit(resource.RLIMIT_FSIZE, (0, limit[1]))
        for _ in range(5):
            answer = wire.produce("t", batch(b"refused"))
            assert answer.error_code == ErrorCode.KAFKA_STORAGE_ERROR
        check_records(wire, 3)
        server.process.rlimit(resource.RLIMIT_FSIZE, limit)
        assert wire.produce("t", batch(b"%06d" % 3 * (VALUE_BYTES // 6))).base_offset == 3
        server.kill()
        server.start()
    with Wire(server.bootstrap) as wire:
        check_records(wire, 4)


def test_a_stop_while_nothing_can_be_written(small_disk: Path) -> None:
    server = Server(small_disk / "server", durability="disk")
    server.log_path = small_disk.parent / "server.log"
    server.start()
    try:
        with Wire(server.bootstrap) as wire:
            wire.create_topic("t")
            count = fill(wire, refusals=5)
            take_the_rest(small_disk)
            began = time.monotonic()
            assert server.stop() == 0, server.log_tail()
            assert time.monotonic() - began < STOP_S
        assert "Traceback" not in server.log_path.read_text()
        subprocess.run(["mount", "-o", "remount,size=400m", str(small_disk)], check=True)
        server.start()
        with Wire(server.bootstrap) as wire:
            check_records(wire, count)
    finally:
        server.kill()


class Load(threading.Thread):
    """A producer that goes on until its connection ends, and counts what was acknowledged in order."""

    def __init__(self, server: Server, topic: str) -> None:
        super().__init__()
        self.acknowledged = 0
        self.told = False
        self._topic = topic
        self._wire = Wire(server.bootstrap)
        self._wire.create_topic(topic)

    def run(self) -> None:
        sent = 0
        try:
            with self._wire as wire:
                while True:
                    while sent < self.acknowledged + 5:
                        wire.send_produce(self._topic, batch(b"%d" % sent))
                        sent += 1
                    answer = wire.receive(0, 9).responses[0].partition_responses[0]
                    assert (answer.error_code, answer.base_offset) == (0, self.acknowledged)
                    self.acknowledged += 1
        except (ConnectionClosed, ConnectionError):
            self.told = True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_under_load_loses_nothing(server: Server, number: signal.Signals) -> None:
    server.start()
    loads = [Load(server, f"t{which}") for which in range(8)]
    for load in loads:
        load.start()
    eventually(lambda: min(load.acknowledged for load in loads) > 50, what="some load")
    began = time.monotonic()
    server.process.send_signal(number)
    assert eventually(lambda: not server.running, within_s=STOP_S)
    assert time.monotonic() - began < STOP_S
    assert server.exit_code() == 0, server.log_tail()
    for load in loads:
        load.join(timeout=10)
        assert load.told, "the client was left waiting"
    assert "Traceback" not in server.log_tail()
    server.start()
    with Wire(server.bootstrap) as wire:
        for which, load in enumerate(loads):
            end = wire.list_offset(f"t{which}", -1).offset
            assert load.acknowledged <= end <= load.acknowledged + 5
            values = [record.value for record in wire.fetch_records(f"t{which}", max_bytes=8 << 20)]
            assert values == [b"%d" % position for position in range(len(values))]
    assert server.stop() == 0


def test_a_second_signal_ends_at_once(server: Server) -> None:
    server.start()
    with Wire(server.bootstrap) as wire, Wire(server.bootstrap) as unread:
        wire.create_topic("t")
        for _ in range(4):
            wire.produce("t", batch(b"x" * 900_000))
        for _ in range(20):  # A client that takes none of its answers makes the stop wait for it.
            unread.send_fetch("t", max_bytes=8 << 20, partition_max_bytes=8 << 20)
        eventually(lambda: "stopping" not in server.log_tail())
        server.process.send_signal(signal.SIGINT)
        eventually(lambda: "stopping" in server.log_tail(), every_s=0.01)
        began = time.monotonic()
        server.process.send_signal(signal.SIGINT)
        assert eventually(lambda: not server.running, every_s=0.01)
        assert time.monotonic() - began < 1
    assert server.exit_code() == 1
    assert "stopped at once" in server.log_tail()


def test_what_is_printed(server: Server) -> None:
    server.start()
    eventually(lambda: "Next" in server.log_tail())
    assert server.stop() == 0
    lines = server.log_tail().splitlines()
    assert [line.split()[0] for line in lines] == ["Kafka", "HTTP", "Data", "Next", "stopping:"]
    assert server.bootstrap in lines[0]
    assert str(server.data_dir) in lines[2]
    assert f"consume greetings -b {server.bootstrap}" in lines[3]


def test_what_http_says(server: Server) -> None:
    server.start()
    with Wire(server.bootstrap) as wire:
        wire.create_topic("t")
        wire.produce("t", batch(b"one", b"two"))
        assert server.http_status("/healthz") == 200
        assert server.http_status("/readyz") == 200
        assert server.http_status("/nothing") == 404
        page = server.http_text("/metrics")
    assert 'penstock_requests_total{api="produce"} 1.0' in page
    assert "penstock_batches_total 1.0" in page
    assert "penstock_connections 1.0" in page
    shown = dict(re.findall(r"^(penstock_wal_\w*bytes) (.*)$", page, re.MULTILINE))
    assert 0 < float(shown["penstock_wal_bytes"]) < float(shown["penstock_wal_limit_bytes"])
    assert "process_resident_memory_bytes" in page
