"""What every object store does, and what the local one does when a disk is full or a process died."""

from __future__ import annotations

import mmap
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.base.clock import SystemClock
from penstock.base.errors import InvalidRequest, Unavailable
from penstock.storage.local import PATHS_MAX, SENDING_MAX_FILES, LocalObjectStore
from penstock.storage.memory import MemoryObjectStore
from penstock.storage.object_store import ObjectStore, Piece
from penstock.storage.pieces import PIECE_MIN_BYTES, FilePiece
from penstock.storage.timed import TimedObjectStore

MIB = 1024 * 1024


@pytest.fixture(params=["memory", "local", "local-sync", "timed"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ObjectStore]:
    opened: ObjectStore
    if request.param == "memory":
        opened = MemoryObjectStore()
    elif request.param == "timed":
        opened = TimedObjectStore(LocalObjectStore(tmp_path / "objects", sync=False), SystemClock.monotonic)
    else:
        opened = LocalObjectStore(tmp_path / "objects", sync=request.param == "local-sync")
    yield opened
    opened.close()


def read(store: ObjectStore, key: str, start: int = 0, end: int | None = None) -> bytes:
    buffer = bytearray((store.size(key) if end is None else end) - start)
    count = store.read_into(key, start, memoryview(buffer))
    return bytes(buffer[:count])


def keys(store: ObjectStore, prefix: str = "") -> list[str]:
    return [info.key for info in store.list(prefix)]


def pattern(size_bytes: int, seed: int = 1) -> bytes:
    return (bytes(range(seed % 251, 251)) * (size_bytes // (251 - seed % 251) + 1))[:size_bytes]


def bytes_of(piece: Piece) -> bytes:
    return piece.load() if isinstance(piece, FilePiece) else bytes(piece)


# ---- whole objects ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size_bytes", [0, 1, 4095, 4096, 4097, 256 * 1024, 2 * MIB, 2 * MIB + 1, 5 * MIB + 123])
def test_what_is_put_is_read(store: ObjectStore, size_bytes: int) -> None:
    body = pattern(size_bytes)
    store.put("a/b/c", [body[: size_bytes // 3], memoryview(body)[size_bytes // 3 :], bytearray()])
    assert store.size("a/b/c") == size_bytes
    assert read(store, "a/b/c") == body
    for start, end in ((0, 1), (size_bytes // 2, size_bytes), (size_bytes - 1, size_bytes + 10), (size_bytes, 9**9)):
        if start >= 0:
            end = min(end, size_bytes + 10)
            assert read(store, "a/b/c", start, max(start, end)) == body[start:end]
    assert store.read_into("a/b/c", size_bytes + 5, memoryview(bytearray(5))) == 0


def test_aligned_memory_is_written_as_it_stands(store: ObjectStore) -> None:
    with mmap.mmap(-1, 3 * MIB) as memory:
        memory[:] = pattern(3 * MIB)
        with memoryview(memory) as view, view[: 2 * MIB] as whole, view[: MIB + 77] as odd:
            store.put("whole", [whole, odd, whole])
        assert read(store, "whole") == memory[: 2 * MIB] + memory[: MIB + 77] + memory[: 2 * MIB]


def test_a_repeated_put_replaces(store: ObjectStore) -> None:
    store.put("k", [b"first, and longer"])
    assert read(store, "k") == b"first, and longer"
    store.put("k", [b"second"])
    assert read(store, "k") == b"second"
    assert [(info.key, info.size_bytes) for info in store.list("")] == [("k", 6)]


def test_the_callers_buffer_is_its_own_again(store: ObjectStore) -> None:
    buffer = bytearray(b"before")
    writer = store.open_writer("k")
    writer.write(buffer)
    buffer[:] = b"after!"
    writer.commit()
    assert read(store, "k") == b"before"


def test_a_piece_is_what_a_read_returns(store: ObjectStore) -> None:
    body = pattern(MIB + 5)
    store.put("k", [body])
    assert read(store, "k") == body
    piece = store.piece("k", 1000, MIB - 2000)
    if piece is None:
        pytest.skip("this file system cannot be asked for what is in memory")
    store.delete(["k"])
    assert (len(piece), bytes_of(piece)) == (MIB - 2000, body[1000 : MIB - 1000])


def test_there_is_no_piece_of_what_is_not_there(store: ObjectStore) -> None:
    store.put("k", [pattern(MIB)])
    read(store, "k")
    assert store.piece("k", MIB - 100_000, 100_001) is None
    store.delete(["k"])
    assert store.piece("k", 0, MIB) is None
    assert store.piece("other", 0, MIB) is None


def test_what_is_there_at_once_is_what_a_read_returns(store: ObjectStore) -> None:
    body, buffer = pattern(MIB + 5), bytearray(MIB)
    store.put("k", [body])
    assert read(store, "k") == body
    count = store.read_cached("k", 1000, memoryview(buffer))
    if not count:
        pytest.skip("this file system cannot be asked for what is in memory")
    assert buffer[:count] == body[1000 : 1000 + count]
    assert store.read_cached("k", MIB, memoryview(buffer)) in {0, 5}
    assert store.read_cached("k", MIB + 5, memoryview(buffer)) == 0
    store.delete(["k"])
    assert store.read_cached("k", 0, memoryview(buffer)) == store.read_cached("other", 0, memoryview(buffer)) == 0


# ---- piece by piece --------------------------------------------------------------------------------------------


def test_an_object_is_seen_when_it_is_whole(store: ObjectStore) -> None:
    writer, given_up = store.open_writer("x/one"), store.open_writer("x/two")
    for number in range(40):
        writer.write(pattern(100_000 + number, number))
        given_up.write(b"nothing")
    assert keys(store) == []
    with pytest.raises(InvalidRequest):
        store.size("x/one")
    writer.commit()
    given_up.abort()
    given_up.abort()
    writer.abort()
    assert keys(store) == ["x/one"]
    assert read(store, "x/one") == b"".join(pattern(100_000 + number, number) for number in range(40))


def test_two_writers_of_one_key_do_not_mix(store: ObjectStore) -> None:
    one, other = store.open_writer("k"), store.open_writer("k")
    one.write(b"one")
    other.write(b"other")
    other.commit()
    one.commit()
    assert read(store, "k") == b"one"


# ---- keys, lists, deletes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    ["", "/a", "a/", "a//b", "../a", "a/../b", ".hidden", "a/.tmp", "a b", "a\0b", "ä", "x" * 513, "y" * 201 + "/z"],
)
def test_keys_that_could_lead_elsewhere_are_refused(store: ObjectStore, key: str) -> None:
    for call in (
        lambda: store.put(key, [b""]),
        lambda: store.open_writer(key),
        lambda: store.size(key),
        lambda: store.read_into(key, 0, memoryview(bytearray(1))),
        lambda: store.delete([key]),
    ):
        with pytest.raises(InvalidRequest):
            call()
    assert keys(store) == []


def test_lists_are_in_order_and_by_prefix(store: ObjectStore) -> None:
    names = ["b/1", "a/2", "a-b", "a/10", "a0", "c", "a/1/x"]
    for name in names:
        store.put(name, [name.encode()])
    assert keys(store) == sorted(names)
    assert keys(store, "a/1") == ["a/1/x", "a/10"]
    assert keys(store, "nothing") == []
    assert all(info.size_bytes == len(info.key) and info.modified_ms > 1.6e12 for info in store.list(""))


def test_deleting_is_safe_to_repeat(store: ObjectStore) -> None:
    store.put("a/1", [b"x"])
    store.put("a/2", [b"y"])
    store.delete(["a/1", "never", "a/1/deeper"])
    store.delete(["a/1"])
    assert keys(store) == ["a/2"]
    with pytest.raises(InvalidRequest, match="no object a/1"):
        store.read_into("a/1", 0, memoryview(bytearray(1)))
    with pytest.raises(InvalidRequest):
        store.read_into("a/2", -1, memoryview(bytearray(1)))
    store.put("a/1", [b"again"])
    assert read(store, "a/1") == b"again"


def test_threads_read_and_write_at_once(store: ObjectStore) -> None:
    wrong: list[str] = []

    def work(number: int) -> None:
        for turn in range(12):
            key, body = f"t{number}/{turn}", pattern(60_000 + turn, number)
            store.put(key, [body])
            if read(store, key) != body or f"t{number}/{turn}" not in keys(store, f"t{number}/"):
                wrong.append(key)
            store.delete([f"t{number}/{turn - 1}"] if turn else [])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert keys(store) == [f"t{number}/11" for number in range(6)]


# ---- limits ----------------------------------------------------------------------------------------------------


def test_memory_is_bounded() -> None:
    store = MemoryObjectStore(max_bytes=100)
    store.put("a", [bytes(80)])
    with pytest.raises(Unavailable, match="80 of at most 100"):
        store.put("b", [bytes(21)])
    store.put("a", [bytes(100)])
    store.delete(["a"])
    store.put("b", [bytes(100)])
    assert keys(store) == ["b"]


# ---- a directory -----------------------------------------------------------------------------------------------


def test_leftovers_of_a_process_that_died_are_swept(tmp_path: Path) -> None:
    first = LocalObjectStore(tmp_path, sync=False)
    first.put("kept", [b"kept"])
    writer = first.open_writer("half")
    writer.write(bytes(3 * MIB))
    assert list((tmp_path / ".tmp").iterdir())
    second = LocalObjectStore(tmp_path, sync=False)
    assert list((tmp_path / ".tmp").iterdir()) == []
    assert keys(second) == ["kept"]
    with pytest.raises(Unavailable):
        writer.commit()
    assert keys(second) == ["kept"]


def test_an_object_in_the_way_of_a_folder_is_explained(tmp_path: Path) -> None:
    store = LocalObjectStore(tmp_path, sync=True)
    store.put("a", [b"x"])
    with pytest.raises(InvalidRequest):
        store.put("a/b", [b"y"])
    store.put("c/d", [b"x"])
    with pytest.raises(InvalidRequest):
        store.put("c", [b"y"])
    assert list((tmp_path / ".tmp").iterdir()) == []
    assert keys(store) == ["a", "c/d"]


def test_a_read_goes_on_when_its_object_is_deleted(tmp_path: Path) -> None:
    store = LocalObjectStore(tmp_path, sync=False)
    store.put("k", [b"x" * 100])
    with store._readers.reading(tmp_path / "k") as descriptor:
        store.delete(["k"])
        assert os.pread(descriptor, 10, 0) == b"x" * 10
    with pytest.raises(InvalidRequest):
        store.size("k")


def test_a_piece_says_when_it_was_seen_in_memory(tmp_path: Path) -> None:
    for now, seen_at in ((None, None), (lambda: 17.0, 17.0)):
        store = LocalObjectStore(tmp_path, sync=False, now=now)
        store.put("k", [pattern(MIB)])
        read(store, "k")
        piece = store.piece("k", 0, MIB)
        if piece is None:
            pytest.skip("this file system cannot be asked for what is in memory")
        assert piece.seen_cached_at == seen_at


def test_pieces_of_many_objects(tmp_path: Path) -> None:
    store = LocalObjectStore(tmp_path, sync=False)
    for number in range(PATHS_MAX + 1):
        assert store.piece(f"none/{number}", 0, MIB) is None
    store.put("k", [pattern(MIB)])
    read(store, "k")
    assert len(store._sent_lately) <= PATHS_MAX


def test_clients_that_take_nothing_hold_few_files(tmp_path: Path) -> None:
    store = LocalObjectStore(tmp_path, sync=False)
    for number in range(SENDING_MAX_FILES + 2):
        store.put(f"{number}", [pattern(PIECE_MIN_BYTES)])
    held, before = [], len(os.listdir("/dev/fd"))
    for number in range(SENDING_MAX_FILES + 2):
        read(store, f"{number}")
        held.append([store.piece(f"{number}", 0, PIECE_MIN_BYTES) for _ in range(10)])
    if held[0][0] is None:
        pytest.skip("this file system cannot be asked for what is in memory")
    assert [None not in pieces for pieces in held] == [True] * SENDING_MAX_FILES + [False] * 2
    assert len(os.listdir("/dev/fd")) <= before + 64 + SENDING_MAX_FILES  # Readers keep some open as well.
    del held[:2]
    assert store.piece(f"{SENDING_MAX_FILES + 1}", 0, PIECE_MIN_BYTES) is not None
    store.close()


def test_a_piece_of_what_was_replaced_has_the_old_bytes(tmp_path: Path) -> None:
    store = LocalObjectStore(tmp_path, sync=False)
    for content in (b"old", b"new"):
        store.put("k", [content[:1] * PIECE_MIN_BYTES])
        read(store, "k")
        piece = store.piece("k", 0, PIECE_MIN_BYTES)
        if piece is None:
            pytest.skip("this file system cannot be asked for what is in memory")
        assert bytes_of(piece) == content[:1] * PIECE_MIN_BYTES
        if content == b"old":
            old = piece
    assert bytes_of(old) == b"o" * PIECE_MIN_BYTES


def test_an_unusable_directory_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable):
        LocalObjectStore(tmp_path / "file", sync=False)


@pytest.fixture
def file_size_limit() -> Iterator[int]:
    """Files of this process cannot grow further: the error of a disk that is full (RLIMIT_FSIZE)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 * MIB, before[1]))
    yield 4 * MIB
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("sync", [True, False])
def test_full_disk_leaves_nothing_behind(tmp_path: Path, file_size_limit: int, sync: bool) -> None:
    store = LocalObjectStore(tmp_path, sync=sync)
    store.put("small", [b"x"])
    for size_bytes in (file_size_limit + 1, 6 * MIB):
        with pytest.raises(Unavailable, match="full"):
            store.put("large", [pattern(size_bytes)])
    assert list((tmp_path / ".tmp").iterdir()) == []
    assert keys(store) == ["small"]
    store.put("fits", [pattern(2 * MIB)])
    assert read(store, "fits") == pattern(2 * MIB)


def test_full_tmpfs(tiny_disk: Path) -> None:
    store = LocalObjectStore(tiny_disk, sync=True)
    store.put("a", [pattern(2 * MIB)])
    with pytest.raises(Unavailable, match="full"):
        store.put("b", [pattern(8 * MIB)])
    assert list((tiny_disk / ".tmp").iterdir()) == []
    assert keys(store) == ["a"]
    store.delete(["a"])
    store.put("b", [pattern(6 * MIB)])
    assert read(store, "b") == pattern(6 * MIB)
    store.close()


KILLED = """
import os, sys
from pathlib import Path
from penstock.storage.local import PATHS_MAX, SENDING_MAX_FILES, LocalObjectStore
store = LocalObjectStore(Path(sys.argv[1]), sync=True)
for number in range(10**6):
    store.put(f"d{number % 7}/{number}", [b"%d" % number * 50_000])
    print(number, flush=True)
"""


def test_killed_process_leaves_whole_objects(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = [int(process.stdout.readline()) for _ in range(20)]
        process.kill()
        told += [int(line) for line in process.stdout]
    store = LocalObjectStore(tmp_path, sync=True)
    found = {int(info.key.split("/")[1]): info.size_bytes for info in store.list("")}
    assert set(told) <= set(found)
    assert found == {number: len(str(number)) * 50_000 for number in found}
    for number in found:
        assert read(store, f"d{number % 7}/{number}") == b"%d" % number * 50_000
