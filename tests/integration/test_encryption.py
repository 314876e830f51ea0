"""A cluster that is encrypted at rest, by the running process: killed, damaged, without its keys, erased."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fixtures.server import Server
from fixtures.waiting import eventually
from fixtures.wire import Wire, batch

from penstock.log.commits import unpack_entries
from penstock.log.wal_record import HEAD_BYTES, read_head, read_record
from penstock.wire.error_codes import ErrorCode

MARKER = b"swordfish-of-the-tenant"
COUNT = 12
PAGE = 4096


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
