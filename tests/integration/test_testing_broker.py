"""The broker for other people's tests: quick, many at once, leaving nothing behind; and its pytest plugin."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic
from fixtures.wire import Wire, batch

from penstock.base.errors import InvalidRequest, Unavailable
from penstock.testing import Broker

READY_S = 0.5
FIRST_READY_S, FIRST_READY_COMPILATIONS = 0.35, 16
"""Seconds of the processor, or how often Python could compile its argparse meanwhile: 10 to 13 times is what it takes.
A processor that others use as well is slower at both."""
FIRST = """
import argparse, json, pathlib, sys, time

source = pathlib.Path(argparse.__file__).read_text()

def compilation_s():
    began = time.process_time()
    for _ in range(3):
        compile(source, "argparse", "exec")
    return (time.process_time() - began) / 3

before_s = compilation_s()
began = time.process_time()
from penstock.testing import Broker
with Broker():
    taken_s = time.process_time() - began
print(json.dumps([taken_s, (before_s + compilation_s()) / 2, sorted(sys.modules)]))
"""
FOR_OTHERS = {
    *("asyncpg", "click", "cramjam", "crc32c", "cryptography", "joserfc", "prometheus_client", "re2", "yaml"),
    *("ctypes", "difflib", "email", "importlib.metadata", "importlib.resources", "shutil", "tempfile"),
    *("urllib.request", "uuid", "zipfile"),
    *("penstock.agent.sasl", "penstock.agent.web", "penstock.audit.model", "penstock.authorization.guards"),
    *("penstock.groups.streams.transitions", "penstock.identity.service", "penstock.log.admin.topics"),
    *("penstock.log.shared_commit_path", "penstock.share.handlers", "penstock.storage.slabs"),
    *("penstock.telemetry.configs", "penstock.telemetry.handlers"),
    "penstock.wire.messages.metadata",
}
"""What a broker in memory, on one address that asks for nothing, has no use for before it is asked for something."""
MANY = 20
MANY_BYTES_EACH = 6 * 1024 * 1024


def test_records_go_in_and_come_out() -> None:
    with Broker() as kafka, Wire(kafka.bootstrap_servers) as wire:
        wire.create_topic("orders")
        assert wire.produce("orders", batch(b"one", b"two")).error_code == 0
        assert [record.value for record in wire.fetch_records("orders")] == [b"one", b"two"]


FORKED = """
import os, sys, time, warnings
from penstock.testing import Broker

warnings.simplefilter("ignore")  # A process with threads forks.
with Broker(data_dir=sys.argv[1]) as kafka:
    lingering = os.fork()
    if not lingering:
        time.sleep(60)
        os._exit(0)
    leaving = os.fork()
    if not leaving:
        kafka.stop()
        os._exit(0)
    assert os.waitpid(leaving, 0)[1] == 0
    import socket
    socket.create_connection((kafka.host, kafka.port), 5).close()
try:
    with Broker(data_dir=sys.argv[1], port=kafka.port):
        print("serves again")
finally:
    os.kill(lingering, 9)
    os.waitpid(lingering, 0)
"""


def test_processes_that_are_forked_off_neither_stop_it_nor_keep_what_it_had(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FORKED, tmp_path], capture_output=True, text=True, timeout=30)
    assert done.stdout == "serves again\n", done.stderr


async def test_a_loop_is_not_blocked_by_it() -> None:
    async with Broker() as first, Broker() as second:
        assert first.port != second.port
        _, writer = await asyncio.open_connection(first.host, first.port)
        writer.close()
        await writer.wait_closed()
    assert not first.running


def test_it_is_ready_at_once() -> None:
    with Broker():
        pass  # The first start of a process imports the program.
    taken_s = []
    for _ in range(3):  # The machine may have other things to do.
        began = time.monotonic()
        with Broker():
            taken_s.append(time.monotonic() - began)
    assert min(taken_s) < READY_S


def test_the_first_of_a_process_is_ready_soon_and_imports_what_it_needs() -> None:
    """In seconds of the processor: by the clock a machine may take any time."""
    first_of_a_process()  # Python compiles what nobody has imported yet.
    too_long = []
    while len(too_long) < 5:
        taken_s, compilation_s, modules = first_of_a_process()
        assert FOR_OTHERS.isdisjoint(modules)
        if taken_s < max(FIRST_READY_S, FIRST_READY_COMPILATIONS * compilation_s):
            return
        too_long.append((taken_s, compilation_s))
    pytest.fail(f"seconds it took, and seconds of a compilation: {too_long}")


def first_of_a_process() -> tuple[float, float, list[str]]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run([sys.executable, "-c", FIRST], env=environment, capture_output=True, check=True, timeout=60)
    taken_s, compilation_s, modules = json.loads(done.stdout)
    return taken_s, compilation_s, modules


def test_settings_are_those_of_kafka() -> None:
    with (
        Broker(settings={"num.partitions": 3, "auto.create.topics.enable": True}) as kafka,
        Wire(kafka.bootstrap_servers) as wire,
    ):
        wire.metadata(["made"], auto_create=True)
        assert len(wire.metadata(["made"]).topics[0].partitions) == 3
    with pytest.raises(InvalidRequest, match=r"num\.partitions"):
        Broker(settings={"num.partition": 3}).start()


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("users", [{}, {"alice": "of wonderland", "bob": "the builder"}])
def test_clients_prove_who_they_are_and_speak_tls(tls: bool, users: dict[str, str]) -> None:
    with Broker(tls=tls, users=users, settings={"super.users": "User:alice"}) as kafka:
        protocol = f"{'SASL_' if users else ''}{'SSL' if tls else 'PLAINTEXT'}"
        assert kafka.client_config()["security.protocol"] == protocol
        assert topics_made(kafka.client_config()) == {"orders": None}
        if users:
            assert topics_made(kafka.client_config("bob")) == {"orders": "TOPIC_AUTHORIZATION_FAILED"}
            with pytest.raises(KafkaException):
                topics_made(kafka.client_config() | {"sasl.password": "of oz"}, within_s=2)
        if tls:
            assert kafka.ca_file.exists()
            with pytest.raises(KafkaException):
                topics_made(kafka.client_config() | {"ssl.ca.location": ""}, within_s=2)
    with pytest.raises(InvalidRequest, match="certificate"):
        print(kafka.ca_file)


def topics_made(config: dict[str, str], within_s: float = 10) -> dict[str, str | None]:
    """What became of a topic that was to be created."""
    client = AdminClient(config | {"log_level": "0"})
    futures = client.create_topics([NewTopic("orders", 1, 1)], request_timeout=within_s, validate_only=True)
    outcomes: dict[str, str | None] = {}
    for name, future in futures.items():
        try:
            future.result(within_s + 5)
        except KafkaException as problem:
            if problem.args[0].code() < 0:
                raise
            outcomes[name] = problem.args[0].name()
        else:
            outcomes[name] = None
    return outcomes


def test_many_at_once_in_bounded_memory_leave_nothing_behind() -> None:
    with Broker():
        pass
    process = psutil.Process()
    gc.collect()  # What other tests have left may go at any time.
    threads, files, memory = threading.active_count(), process.num_fds(), process.memory_info().rss
    brokers = [Broker().start() for _ in range(MANY)]
    try:
        for broker in brokers:
            with Wire(broker.bootstrap_servers) as wire:
                wire.create_topic("t")
                assert wire.produce("t", batch(b"x" * 500_000)).base_offset == 0
        assert process.memory_info().rss - memory < MANY * MANY_BYTES_EACH
    finally:
        for broker in brokers:
            broker.stop()
    gc.collect()
    assert threading.active_count() == threads
    assert process.num_fds() <= files


@pytest.mark.parametrize("durability", ["process", "disk"])
def test_a_directory_keeps_what_was_written(tmp_path: Path, durability: str) -> None:
    broker = Broker(data_dir=tmp_path / "data", durability=durability)
    with broker, Wire(broker.bootstrap_servers) as wire:
        port = broker.port
        wire.create_topic("t")
        wire.produce("t", batch(b"kept"))
    with broker, Wire(broker.bootstrap_servers) as wire:
        assert broker.port == port
        assert [record.value for record in wire.fetch_records("t")] == [b"kept"]
    with Broker(data_dir=tmp_path / "data") as other, Wire(other.bootstrap_servers) as wire:
        assert wire.list_offset("t", -1).offset == 1


async def test_a_start_that_fails_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    threads = threading.active_count()
    with Broker(data_dir=tmp_path) as first:
        with pytest.raises(Unavailable, match="in use by another process"):
            Broker(data_dir=tmp_path).start()
        with pytest.raises(Unavailable, match="already in use"):
            async with Broker(port=first.port):
                pass
        with pytest.raises(InvalidRequest, match="already running"):
            first.start()
    assert threading.active_count() == threads
    with pytest.raises(InvalidRequest, match="disk or process"):
        Broker(durability="never")
    with pytest.raises(InvalidRequest, match="with block"):
        _ = Broker().bootstrap_servers


def test_stopping_twice_does_no_harm() -> None:
    broker = Broker().start()
    broker.stop()
    broker.stop()
    assert not broker.running


def test_importing_it_does_not_import_the_program() -> None:
    code = (
        "import sys, penstock.testing.pytest_plugin;"
        "print([name for name in sys.modules if name.startswith(('penstock.agent', 'penstock.log', 'asyncio'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


_MODULE = """
import socket
import pytest

@pytest.fixture(scope="session")
def kafka_broker_settings():
    return {"num.partitions": 2}

def test_one(kafka_broker):
    socket.create_connection((kafka_broker.host, kafka_broker.port)).close()

def test_session(kafka_session_broker, kafka_broker):
    assert kafka_session_broker.bootstrap_servers != kafka_broker.bootstrap_servers

def test_session_again(kafka_session_broker):
    socket.create_connection((kafka_session_broker.host, kafka_session_broker.port)).close()
"""


def test_pytest_finds_the_fixtures_by_itself(tmp_path: Path) -> None:
    (tmp_path / "test_program.py").write_text(_MODULE)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-W",
        "error",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:asyncio",
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert "3 passed" in done.stdout, done.stdout + done.stderr
