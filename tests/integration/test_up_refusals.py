"""What `penstock up` says when it cannot start: one sentence with the cure, the right exit code, nothing damaged."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from fixtures.server import Server
from fixtures.waiting import free_ports
from fixtures.wire import Wire, batch

from penstock.storage.directory import FORMAT_VERSION


def refusal(data_dir: Path, *words: str, kafka: str | None = None, http: str | None = None, code: int = 1) -> str:
    """The one line that a start ends with."""
    ports = free_ports(2)
    command = [sys.executable, "-m", "penstock", "up", "--data-dir", str(data_dir)]
    command += ["--kafka", kafka or f"127.0.0.1:{ports[0]}", "--http", http or f"127.0.0.1:{ports[1]}", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A stopped server whose directory has one record in topic `t`."""
    server = with_a_record(Server(tmp_path))
    yield server
    if server.running:
        server.kill()


def with_a_record(server: Server) -> Server:
    """Start it, produce the record, and stop it."""
    server.start()
    with Wire(server.bootstrap) as wire:
        wire.create_topic("t")
        wire.produce("t", batch(b"kept"))
    assert server.stop() == 0
    return server


def check_kept(server: Server) -> None:
    with Wire(server.bootstrap) as wire:
        assert [record.value for record in wire.fetch_records("t")] == [b"kept"]


@pytest.mark.parametrize("which", ["kafka", "http"])
def test_a_port_that_is_taken(server: Server, which: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        line = refusal(server.data_dir, **{which: address})
    assert f"{address} is already in use" in line
    assert "choose another port" in line
    server.start()
    check_kept(server)


def test_a_directory_that_another_process_uses(server: Server) -> None:
    server.start()
    line = refusal(server.data_dir)
    assert f"in use by another process (pid {server.process.pid})" in line
    check_kept(server)
    server.kill()
    server.start()
    check_kept(server)


def test_an_address_that_others_can_reach(data: Path) -> None:
    for option in ("kafka", "http"):
        for address in ("0.0.0.0:9092", "[::]:9092", "example.org:9092"):
            line = refusal(data, code=2, **{option: address})
            assert f"{address.rpartition(':')[0].strip('[]')} can be reached from other machines" in line
            assert option == "http" or f"--listener SASL_SSL://{address} " in line
    assert not data.exists()


def test_an_address_that_others_can_reach_before_anybody_has_credentials(data: Path) -> None:
    """The cure that it names is one: it is typed here. The address is nobody's, so nothing is opened in earnest."""
    words = ("--listener", "SASL_PLAINTEXT://192.0.2.1:9092")
    command = [sys.executable, "-m", "penstock", "up", "--data-dir", str(data), "--http", "127.0.0.1:0", *words]

    def penstock(command: Sequence[str], code: int, typed: str = "") -> str:
        done = subprocess.run(command, input=typed, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code, done.stderr
        return done.stderr

    (line,) = penstock(command, 1).splitlines()
    assert line.startswith(
        "error: listener SASL_PLAINTEXT at 192.0.2.1 can be reached from other machines, and there is"
    )
    cure = line.rpartition(": penstock ")[2].split()
    assert cure == ["user", "create", "NAME", "--data-dir", str(data)]
    penstock([sys.executable, "-m", "penstock", *cure], 0, typed="a password\n")
    assert penstock(command, 1).startswith("error: cannot listen on 192.0.2.1:9092")


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("num.partitons=3", "did you mean num.partitions?"),
        ("num.partitions=many", "Invalid value many for configuration num.partitions"),
        ("num.partitions=0", "num.partitions"),
        ("group.max.session.timeout.ms=1", "must not exceed"),
        ("memory.max.bytes=1048576", "memory.max.bytes"),
        ("memory.max.bytes=1125899906842624", "is more than the"),
    ],
)
def test_a_setting_that_cannot_be(data: Path, setting: str, complaint: str) -> None:
    assert complaint in refusal(data, "--set", setting, code=2)
    assert not data.exists()


def test_a_place_for_metadata_is_not_shown(data: Path) -> None:
    told = refusal(data, "--metadata", "postgresql://me:hunter2@127.0.0.1:1/x")
    assert "PostgreSQL at 127.0.0.1:1, database x" in told
    assert "hunter2" not in told


def test_a_newer_directory(server: Server) -> None:
    file = server.data_dir / "format"
    before = file.read_text()
    file.write_text(json.dumps({**json.loads(before), "version": FORMAT_VERSION + 1}))
    assert "written by a newer release" in refusal(server.data_dir)
    file.write_text(before)
    server.start()
    check_kept(server)


def test_a_newer_database(server: Server) -> None:
    with sqlite3.connect(server.data_dir / "metadata.db") as database:
        database.execute("INSERT INTO migration (version, name, applied_ms) VALUES (9999, 'later', 0)")
    database.close()
    assert "Upgrade this program" in refusal(server.data_dir)
    with sqlite3.connect(server.data_dir / "metadata.db") as database:
        database.execute("DELETE FROM migration WHERE version = 9999")
    database.close()
    server.start()
    check_kept(server)


def test_damage_is_named(server: Server) -> None:
    (server.data_dir / "metadata.db").write_bytes(b"this is no database" * 1000)
    assert "Restore it from a backup" in refusal(server.data_dir)
    (server.data_dir / "format").write_text("?")
    assert "is damaged" in refusal(server.data_dir)
    (server.data_dir / "format").unlink()
    assert "has data but no format file" in refusal(server.data_dir)


@pytest.fixture
def durable(tmp_path: Path) -> Iterator[Server]:
    """A stopped server whose directory has one record in topic `t`, which survives a power cut."""
    server = with_a_record(Server(tmp_path, durability="disk"))
    yield server
    server.kill()


def test_metadata_that_is_gone_is_not_replaced(durable: Server) -> None:
    """With new metadata, everything in the directory would be deleted."""
    file = durable.data_dir / "metadata.db"
    content = file.read_bytes()
    file.unlink()
    assert f"has data, but {file} is missing. Restore" in refusal(durable.data_dir)
    assert not file.exists()
    file.touch()
    assert f"has data, but {file} is empty. Restore" in refusal(durable.data_dir)
    file.write_bytes(content)
    durable.start()
    check_kept(durable)


@pytest.mark.parametrize("left", [4096, -4096])
def test_metadata_that_was_cut_off_is_noticed(durable: Server, left: int) -> None:
    file = durable.data_dir / "metadata.db"
    os.truncate(file, left if left > 0 else file.stat().st_size + left)
    assert "Restore it from a backup" in refusal(durable.data_dir)


def test_metadata_whose_log_is_lost_is_noticed(tmp_path: Path) -> None:
    """Until the first stop, all of the metadata is in the log of SQLite."""
    server = Server(tmp_path, durability="disk")
    server.start()
    with Wire(server.bootstrap) as wire:
        wire.create_topic("t")
        wire.produce("t", batch(b"lost"))
    server.kill()
    (server.data_dir / "metadata.db-wal").unlink()
    assert "the metadata is empty, but the data directory has data" in refusal(server.data_dir)


def test_metadata_of_an_earlier_start_is_noticed(durable: Server) -> None:
    file = durable.data_dir / "metadata.db"
    earlier = file.read_bytes()
    durable.start()
    with Wire(durable.bootstrap) as wire:
        wire.produce("t", batch(b"later"))
    assert durable.stop() == 0
    latest = file.read_bytes()
    file.write_bytes(earlier)
    assert "is older than its data: it ends with start 1, the data with start 2" in refusal(durable.data_dir)
    file.write_bytes(latest)
    durable.start()
    with Wire(durable.bootstrap) as wire:
        assert [record.value for record in wire.fetch_records("t")] == [b"kept", b"later"]


def test_a_lock_that_somebody_has_deleted_still_locks(server: Server) -> None:
    server.start()
    (server.data_dir / "lock").unlink()
    assert "in use by another process (pid unknown)" in refusal(server.data_dir)
    check_kept(server)
    server.kill()
    server.start()
    check_kept(server)


def test_a_lost_slab_is_noticed(server: Server) -> None:
    for slab in (server.data_dir / "slabs").iterdir():
        slab.unlink()
    assert "is missing, but objects in it are in use" in refusal(server.data_dir)


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert "is not a directory" in refusal(file / "data")
    if os.geteuid() == 0:
        place = Path("/sys/penstock")  # Where even root may not write.
    else:
        place = tmp_path / "sealed"
        place.mkdir(mode=0o500)
    assert "not writable" in refusal(place)


class Losing:
    """A stopped server with six commits, the last three of which have no rows yet: a start reads their records."""

    def __init__(self, directory: Path) -> None:
        self.server = Server(directory, durability="disk")
        self.server.start()
        with Wire(self.server.bootstrap) as wire:
            wire.create_topic("t")
            for number in range(6):
                wire.produce("t", batch(b"%d" % number))
        assert self.server.stop() == 0
        with self.database() as database:
            rows = database.execute("SELECT wal_key, wal_offset, seq FROM wal_commit ORDER BY seq").fetchall()
            self.places = {seq: (self.slabs / key, offset) for key, offset, seq in rows}
            assert list(self.places)[-1] == 6
            database.execute("DELETE FROM wal_commit WHERE seq > 3")

    @property
    def slabs(self) -> Path:
        return self.server.data_dir / "slabs"

    @contextlib.contextmanager
    def database(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(self.server.data_dir / "metadata.db")) as database, database:
            yield database

    def damage(self, seq: int) -> bytes:
        """Let the disk lose a record; what was there."""
        path, offset = self.places[seq]
        with path.open("r+b") as file:
            file.seek(offset)
            found = file.read(16)
            file.seek(offset)
            file.write(b"lost by the disk")
        return found

    def restore(self, seq: int, found: bytes) -> None:
        """Put it back."""
        path, offset = self.places[seq]
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(found)

    def files(self) -> dict[str, str]:
        """The files of the directory, and what is in those of the log."""
        found = dict.fromkeys(os.listdir(self.server.data_dir), "")
        return found | {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in self.slabs.iterdir()}

    def start(self, *words: str) -> list[bytes | None]:
        """Start it; what is in the topic."""
        self.server = Server(self.server.data_dir.parent, durability="disk", arguments=words)
        self.server.start()
        with Wire(self.server.bootstrap) as wire:
            return [record.value for record in wire.fetch_records("t")]


@pytest.fixture
def losing(tmp_path: Path) -> Iterator[Losing]:
    losing = Losing(tmp_path)
    yield losing
    losing.server.kill()


def doctor(data_dir: Path, code: int) -> dict[str, dict[str, str]]:
    """What the doctor says of a directory, by what it looked at."""
    command = [sys.executable, "-m", "penstock", "doctor", "--data-dir", str(data_dir), "-o", "json"]
    command += ["--kafka", "127.0.0.1:0", "--http", "127.0.0.1:0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return {check["name"]: check for check in json.loads(done.stdout)["checks"]}


def test_a_log_with_a_gap_is_left_alone_until_somebody_gives_up_what_is_lost(losing: Losing) -> None:
    data_dir, before = losing.server.data_dir, losing.files()
    assert doctor(data_dir, 0)["commits"]["found"] == "complete"
    assert losing.files() == before
    found = losing.damage(4)
    before = losing.files()
    for words in ((), ("--give-up-commits-from", "5"), ()):
        line = refusal(data_dir, *words)
        assert "has lost 3 acknowledged commits: the record of commit 4 cannot be read" in line
        assert "--give-up-commits-from 4" in line
        assert losing.files() == before
    seen = doctor(data_dir, 1)["commits"]
    assert "the record of commit 4 cannot be read, although there are commits up to 6" in seen["found"]
    assert losing.files() == before
    losing.restore(4, found)
    assert losing.start() == [b"%d" % number for number in range(6)]
    losing.server.kill()
    assert doctor(data_dir, 0)["commits"]["found"] == "complete"


def test_whoever_gives_up_what_is_lost_goes_on_without(losing: Losing) -> None:
    losing.damage(5)
    kept = [b"%d" % number for number in range(4)]
    words = ("--give-up-commits-from", "5")
    assert losing.start(*words) == kept
    assert "penstock_wal_lost_commits 2.0" in losing.server.http_text("/metrics")
    assert "is given up" in losing.server.log_tail()
    with Wire(losing.server.bootstrap) as wire:
        wire.produce("t", batch(b"next"))
    assert losing.server.stop() == 0
    # Left in the command, it means nothing: the next loss is another one.
    assert losing.start(*words) == [*kept, b"next"]
    assert "penstock_wal_lost_commits 0.0" in losing.server.http_text("/metrics")


def test_a_row_of_a_commit_that_is_missing(losing: Losing) -> None:
    with losing.database() as database:
        database.execute("DELETE FROM wal_commit WHERE seq = 2")
    before = losing.files()
    assert "lost the row of commit 2, but not what came after it" in refusal(losing.server.data_dir)
    assert losing.files() == before
    assert doctor(losing.server.data_dir, 1)["commits"]["found"].startswith("the row of commit 2 is missing")


def test_a_configuration_that_is_not_there(data: Path) -> None:
    said = refusal(data, "--config", f"{data}/none.yaml", code=2)
    assert said == f"error: the configuration {data}/none.yaml cannot be read: no such file or directory"
