"""The data directory: one owner, a format that is understood, and sentences for whoever cannot have it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.base.errors import CorruptData, InvalidRequest, Unavailable
from penstock.base.randomness import SeededRandomness
from penstock.metadata.sqlite_engine import connect
from penstock.storage import directory
from penstock.storage.directory import DataDirectory


def test_a_new_directory_is_made_and_keeps_its_identity(tmp_path: Path) -> None:
    opened = DataDirectory.open(tmp_path / "a" / "b", randomness=SeededRandomness("1"))
    assert opened.slabs.is_dir()
    assert opened.segments.is_dir()
    assert opened.database == tmp_path / "a" / "b" / "metadata.db"
    assert len(opened.cluster_id) == 22
    opened.close()
    opened.close()
    again = DataDirectory.open(tmp_path / "a" / "b", randomness=SeededRandomness("2"))
    assert again.cluster_id == opened.cluster_id
    again.close()
    assert not (tmp_path / "a" / "b" / "format.tmp").exists()


def test_names_of_new_folders_are_made_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    sync = directory.sync_directory
    monkeypatch.setattr(directory, "sync_directory", lambda path: (synced.append(path), sync(path)))
    DataDirectory.open(tmp_path / "a" / "b").close()
    assert set(synced) == {tmp_path, tmp_path / "a", tmp_path / "a" / "b"}
    synced.clear()
    DataDirectory.open(tmp_path / "a" / "b").close()
    assert synced == [tmp_path / "a" / "b"]


def test_a_new_directory_is_for_nobody_else(tmp_path: Path) -> None:
    DataDirectory.open(tmp_path / "data", randomness=SeededRandomness("1")).close()
    assert (tmp_path / "data").stat().st_mode & 0o077 == 0
    # In a directory that others may look into, too, nobody else reads what proves who users are.
    connection = connect(tmp_path / "metadata.db", durability="disk")
    connection.execute("CREATE TABLE one (two)")
    files = list(tmp_path.glob("metadata.db*"))
    assert len(files) == 3
    assert [file for file in files if file.stat().st_mode & 0o077] == []
    connection.close()
    open_to_all = tmp_path / "open"
    open_to_all.mkdir(mode=0o755)
    DataDirectory.open(open_to_all, randomness=SeededRandomness("1")).close()
    for inside in ("slabs", "segments"):
        assert (open_to_all / inside).stat().st_mode & 0o077 == 0, "nor records"


def test_two_owners_are_one_too_many(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from penstock.storage.directory import DataDirectory;"
        "d = DataDirectory.open(Path(sys.argv[1])); print('open', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "open\n"
        with pytest.raises(Unavailable, match=rf"in use by another process \(pid {owner.pid}\)"):
            DataDirectory.open(tmp_path)
        owner.kill()
        owner.wait()
        DataDirectory.open(tmp_path).close()


def test_within_a_process_too(tmp_path: Path) -> None:
    first = DataDirectory.open(tmp_path)
    with pytest.raises(Unavailable, match=f"pid {os.getpid()}"):
        DataDirectory.open(tmp_path)
    first.close()
    DataDirectory.open(tmp_path).close()


def test_newer_formats_are_refused_and_not_touched(tmp_path: Path) -> None:
    DataDirectory.open(tmp_path).close()
    text = json.dumps({"version": 2, "cluster_id": "x", "something": "new"})
    (tmp_path / "format").write_text(text)
    with pytest.raises(InvalidRequest, match="newer release"):
        DataDirectory.open(tmp_path)
    assert (tmp_path / "format").read_text() == text


def test_data_without_its_format_file_is_refused(tmp_path: Path) -> None:
    DataDirectory.open(tmp_path).close()
    (tmp_path / "metadata.db").write_bytes(b"data")
    (tmp_path / "format").unlink()
    with pytest.raises(CorruptData, match="no format file"):
        DataDirectory.open(tmp_path)
    assert not (tmp_path / "format").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": "one"}', '{"version": 1}', "\x00\xff"])
def test_damaged_format_files_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "format").write_text(text)
    with pytest.raises(CorruptData, match="damaged"):
        DataDirectory.open(tmp_path)


def test_half_made_format_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "format.tmp").write_text('{"vers')
    DataDirectory.open(tmp_path).close()
    assert json.loads((tmp_path / "format").read_text())["version"] == directory.FORMAT_VERSION


def test_a_file_in_the_way_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(Unavailable, match="is not a directory"):
            DataDirectory.open(path)


def test_a_directory_of_somebody_else_is_explained(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path\n"
        "from penstock.storage.directory import DataDirectory\n"
        "from penstock.base.errors import Unavailable\n"
        "if os.getuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: DataDirectory.open(Path(sys.argv[1]))\n"
        "except Unavailable as refusal: print(refusal)\n"
    )
    place = tmp_path / "place"
    place.mkdir(mode=0o555)
    for path in (place, place / "new"):
        done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
        assert "is not writable for this user" in done.stdout, done.stderr
    place.chmod(0o755)


def test_a_disk_that_is_nearly_full_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "MIN_FREE_BYTES", 2**62)
    with pytest.raises(Unavailable, match="MiB left"):
        DataDirectory.open(tmp_path)
    monkeypatch.undo()
    DataDirectory.open(tmp_path).close()


def test_a_directory_stays_with_what_keeps_its_metadata(tmp_path: Path) -> None:
    DataDirectory.open(tmp_path / "here").close()
    with pytest.raises(InvalidRequest, match="Leave --metadata out"):
        DataDirectory.open(tmp_path / "here", metadata="postgresql")
    DataDirectory.open(tmp_path / "there", metadata="postgresql").close()
    DataDirectory.open(tmp_path / "there", metadata="postgresql").close()
    with pytest.raises(InvalidRequest, match="with --metadata"):
        DataDirectory.open(tmp_path / "there")
    (tmp_path / "there" / "format").unlink()
    with pytest.raises(CorruptData, match="no format file"):
        DataDirectory.open(tmp_path / "there", metadata="postgresql")
