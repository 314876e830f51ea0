"""What every write-ahead log does, and what the one on a disk does when space is short or a process died."""

from __future__ import annotations

import errno
import mmap
import random
import resource
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fixtures.waiting import eventually

from penstock.base.errors import CorruptData, InvalidRequest, OutcomeUnknown, PlatformError, Unavailable
from penstock.storage.kernel_writes import DEPTH, Ended, KernelWrites
from penstock.storage.memory import MemoryWal
from penstock.storage.slabs import SlabWal
from penstock.storage.wal import WalLocation, WalStore

MIB = 1024 * 1024
SLAB = 256 * 1024
PAGE = 4096


def slabs(directory: Path, **options) -> SlabWal:
    return SlabWal(directory, **{"durability": "process", "slab_bytes": SLAB, **options})


KINDS: dict[str, Callable[[Path], WalStore]] = {
    "memory": lambda path: MemoryWal(64 * MIB),
    "disk": lambda path: SlabWal(path, durability="disk"),
    "disk-small-slabs": lambda path: slabs(path, durability="disk"),
    "disk-page-cache": lambda path: slabs(path, durability="disk", direct_io=False),
    "process": lambda path: SlabWal(path, durability="process"),
    "process-small-slabs": lambda path: slabs(path),
    "process-page-cache": lambda path: slabs(path, direct_io=False),
}


@pytest.fixture(params=KINDS)
def wal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[WalStore]:
    opened = KINDS[request.param](tmp_path / "slabs")
    opened.recover([])
    yield opened
    opened.close()


def pattern(size_bytes: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size_bytes)


def whole(wal: WalStore, location: WalLocation) -> bytes:
    return bytes(wal.read(location, 0, location.length))


@pytest.fixture
def kernel() -> Iterator[KernelWrites]:
    opened = KernelWrites.open()
    if opened is None:
        pytest.skip("this system carries out no writes for others")
    yield opened
    opened.close()


# ---- every log -------------------------------------------------------------------------------------------------


def test_what_is_appended_is_read(wal: WalStore) -> None:
    sizes = [1, 61, PAGE - 1, PAGE, PAGE + 1, 100_000, SLAB, SLAB + 1, 3 * SLAB + 5, 2]
    bodies = [pattern(size, size) for size in sizes]
    locations = [wal.append([body[: len(body) // 2], memoryview(body)[len(body) // 2 :]]) for body in bodies]
    assert [location.length for location in locations] == sizes
    assert len({(location.key, location.offset) for location in locations}) == len(sizes)
    for body, location in zip(bodies, locations, strict=True):
        assert whole(wal, location) == body
        middle = len(body) // 2
        assert bytes(wal.read(location, middle, len(body))) == body[middle:]
        assert bytes(wal.read(location, middle, middle)) == b""


def test_aligned_memory_is_written_as_it_stands(wal: WalStore) -> None:
    with mmap.mmap(-1, SLAB) as memory:
        memory[:] = pattern(SLAB)
        with memoryview(memory) as view, view[:PAGE] as page, view[: 10 * PAGE] as pages:
            first, second = wal.append([page]), wal.append([pages])
            both = wal.append([pages, page])
        assert whole(wal, first) == memory[:PAGE]
        assert whole(wal, second) == memory[: 10 * PAGE]
        assert whole(wal, both) == memory[: 10 * PAGE] + memory[:PAGE]


def test_the_callers_buffer_is_its_own_again(wal: WalStore) -> None:
    buffer = bytearray(b"before")
    location = wal.append([buffer])
    buffer[:] = b"after!"
    assert whole(wal, location) == b"before"


def test_what_is_not_there_is_refused(wal: WalStore) -> None:
    with pytest.raises(InvalidRequest):
        wal.append([])
    with pytest.raises(InvalidRequest):
        wal.append([b"", b""])
    location = wal.append([b"hello"])
    for start, end in ((-1, 2), (3, 2), (0, 6)):
        with pytest.raises(InvalidRequest):
            wal.read(location, start, end)
    for other in (WalLocation("nowhere", 0, 5), WalLocation(location.key, 2**40, 5), WalLocation("../x", 0, 5)):
        with pytest.raises(InvalidRequest):
            wal.read(other, 0, 5)


def test_released_twice_is_released_once(wal: WalStore) -> None:
    first, second = wal.append([b"first"]), wal.append([b"second"])
    wal.release([first, first])
    wal.release([first, WalLocation("nowhere", 0, 1)])
    assert whole(wal, second) == b"second"
    third = wal.append([b"third"])
    assert whole(wal, second) == b"second"
    assert whole(wal, third) == b"third"


def test_appending_and_releasing_for_long(wal: WalStore) -> None:
    """More goes through than fits; what is alive stays as it is."""
    choices, alive = random.Random(7), {}
    for number in range(600):
        body = pattern(choices.choice((10, 5_000, 60_000, 120_000)), number)
        alive[wal.append([body])] = body
        if len(alive) > 12:
            gone = choices.sample(list(alive), 6)
            wal.release(gone)
            for location in gone:
                del alive[location]
        if number % 10 == 0:
            location = choices.choice(list(alive))
            assert whole(wal, location) == alive[location]
    for location, body in alive.items():
        assert whole(wal, location) == body


def test_recovery_keeps_exactly_what_lives(wal: WalStore) -> None:
    bodies = {wal.append([body]): body for body in (pattern(3_000 + number, number) for number in range(30))}
    alive = dict(list(bodies.items())[::3])
    wal.recover(alive)
    assert all(whole(wal, location) == body for location, body in alive.items())
    for number in range(30):
        body = pattern(10_000, number)
        alive[wal.append([body])] = body
    assert all(whole(wal, location) == body for location, body in alive.items())
    with pytest.raises(CorruptData):
        wal.recover([WalLocation("000777.slab", 0, 10)])


def test_readers_beside_an_appender(wal: WalStore) -> None:
    """A reader gets the bytes of its object, or is told that it was released; never another's."""
    alive: list[tuple[WalLocation, bytes]] = []
    wrong: list[object] = []
    stop = threading.Event()

    def read() -> None:
        choices = random.Random(threading.get_ident())
        while not stop.is_set():
            try:
                location, body = choices.choice(alive)
            except IndexError:
                continue
            try:
                if whole(wal, location) != body:
                    wrong.append(location)
            except InvalidRequest:
                continue
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(400):
            body = number.to_bytes(4, "big") * 8_000
            alive.append((wal.append([body]), body))
            if len(alive) > 20:
                wal.release([alive.pop(0)[0]])
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_closing_twice_does_no_harm(wal: WalStore) -> None:
    wal.append([b"x"])
    wal.close()


# ---- in memory -------------------------------------------------------------------------------------------------


def test_memory_is_bounded() -> None:
    wal = MemoryWal(100)
    first = wal.append([bytes(80)])
    with pytest.raises(Unavailable, match="80 of at most 100"):
        wal.append([bytes(21)])
    wal.release([first])
    wal.append([bytes(100)])


# ---- on a disk -------------------------------------------------------------------------------------------------


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_released_slabs_are_used_again_under_new_names(tmp_path: Path) -> None:
    wal = slabs(tmp_path, max_slabs=3)
    wal.recover([])
    half, seen = SLAB // 2, set()
    first = wal.append([pattern(half, 0)])
    waiting = [first, wal.append([pattern(half, 1)])]
    for number in range(40):
        location = wal.append([pattern(half, number)])
        seen.add(location.key)
        waiting.append(location)
        wal.release([waiting.pop(0)])
        assert whole(wal, location) == pattern(half, number)
    assert len(seen) >= 20
    assert wal.stats().slabs <= 3
    with pytest.raises(InvalidRequest):
        wal.read(first, 0, 10)
    wal.close()


def test_full_log_says_so_and_goes_on_after_a_release(tmp_path: Path) -> None:
    wal = slabs(tmp_path, max_slabs=2)
    wal.recover([])
    locations = [wal.append([pattern(SLAB, number)]) for number in range(2)]
    with pytest.raises(Unavailable, match="compaction"):
        wal.append([b"x"])
    assert whole(wal, locations[0]) == pattern(SLAB, 0)
    wal.release(locations[:1])
    assert whole(wal, wal.append([b"x"])) == b"x"
    assert whole(wal, locations[1]) == pattern(SLAB, 1)
    wal.close()


@pytest.mark.parametrize("durability", ["disk", "process"])
def test_restart_continues_behind_what_lives(tmp_path: Path, durability: str) -> None:
    first = slabs(tmp_path, durability=durability)
    first.recover([])
    alive = {first.append([pattern(30_000, number)]): pattern(30_000, number) for number in range(20)}
    lost = first.append([b"never committed"])
    first.close()
    for turn in range(3):
        wal = slabs(tmp_path, durability=durability)
        wal.recover(alive)
        assert all(whole(wal, location) == body for location, body in alive.items())
        new = wal.append([pattern(5_000, 100 + turn)])
        if turn == 0:
            assert (new.key, new.offset) == (lost.key, lost.offset)
        alive[new] = pattern(5_000, 100 + turn)
        wal.close()


def test_leftovers_are_free_space_only_after_recovery(tmp_path: Path) -> None:
    first = slabs(tmp_path)
    first.recover([])
    kept = first.append([pattern(SLAB, 1)])
    for number in range(2, 7):
        first.append([pattern(SLAB, number)])
    first.close()
    (tmp_path / "README").write_text("not a slab")
    before = names(tmp_path)
    second = slabs(tmp_path)
    assert names(tmp_path) == before
    assert whole(second, kept) == pattern(SLAB, 1)
    second.recover([kept])
    assert second.stats().live_bytes == SLAB
    assert len(names(tmp_path)) < len(before)
    assert whole(second, kept) == pattern(SLAB, 1)
    second.close()


def test_missing_and_short_slabs_are_damage(tmp_path: Path) -> None:
    first = slabs(tmp_path)
    first.recover([])
    location = first.append([b"x" * 10_000])
    first.close()
    path = tmp_path / location.key
    body = path.read_bytes()
    path.write_bytes(body[:PAGE])
    with pytest.raises(CorruptData, match="cannot hold"):
        slabs(tmp_path).recover([location])
    path.unlink()
    with pytest.raises(CorruptData, match="missing"):
        slabs(tmp_path).recover([location])


def test_other_slab_sizes_are_read_and_go_away(tmp_path: Path) -> None:
    first = slabs(tmp_path, slab_bytes=SLAB)
    first.recover([])
    old = first.append([b"old" * 1000])
    first.close()
    second = slabs(tmp_path, slab_bytes=2 * SLAB)
    second.recover([old])
    for number in range(10):
        second.append([pattern(SLAB, number)])
    assert whole(second, old) == b"old" * 1000
    second.release([old])
    second.append([pattern(2 * SLAB)])
    assert old.key not in names(tmp_path)
    second.close()


def test_a_wrong_durability_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="perhaps"):
        SlabWal(tmp_path, durability="perhaps")


@pytest.mark.parametrize("durability", ["disk", "process"])
def test_full_disk_loses_nothing_and_recovers(tiny_disk: Path, durability: str) -> None:
    wal = SlabWal(tiny_disk / "slabs", durability=durability, slab_bytes=MIB)
    wal.recover([])
    alive: dict[WalLocation, bytes] = {}

    def fill() -> None:
        for number in range(100):
            body = pattern(300_000, number)
            alive[wal.append([body])] = body

    with pytest.raises(Unavailable, match="full"):
        fill()
    assert len(alive) >= 15
    for _ in range(3):
        with pytest.raises(Unavailable, match="full"):
            wal.append([pattern(300_000)])
    assert all(whole(wal, location) == body for location, body in alive.items())
    gone = list(alive)[:12]
    wal.release(gone)
    for location in gone:
        del alive[location]
    for number in range(6):
        body = pattern(300_000, 1000 + number)
        alive[wal.append([body])] = body
    assert all(whole(wal, location) == body for location, body in alive.items())
    wal.close()
    again = SlabWal(tiny_disk / "slabs", durability=durability, slab_bytes=MIB)
    again.recover(alive)
    assert all(whole(again, location) == body for location, body in alive.items())
    again.close()


@pytest.mark.parametrize("durability", ["disk", "process"])
def test_files_that_cannot_grow(tmp_path: Path, durability: str) -> None:
    """The error of a disk that is full, on a file system with blocks and direct I/O (RLIMIT_FSIZE)."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    wal = SlabWal(tmp_path, durability=durability, slab_bytes=MIB)
    wal.recover([])
    first = wal.append([pattern(1000)])
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (MIB // 2, before[1]))
        with pytest.raises(Unavailable, match="full"):
            wal.append([pattern(700_000)])
        with pytest.raises(Unavailable, match="full"):
            wal.append([pattern(2 * MIB)])
        small = wal.append([pattern(2000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    large = wal.append([pattern(2 * MIB)])
    assert [whole(wal, location) for location in (first, small, large)] == [
        pattern(1000), pattern(2000), pattern(2 * MIB),
    ]  # fmt: skip
    wal.close()


KILLED = """
import random, sys
from pathlib import Path
from penstock.storage.slabs import SlabWal
wal = SlabWal(Path(sys.argv[1]), durability=sys.argv[2], slab_bytes=262144)
wal.recover([])
for number in range(10**6):
    size = random.Random(number).choice((10, 5000, 100000, 300000))
    location = wal.append([random.Random(number).randbytes(size)])
    print(number, location.key, location.offset, location.length, flush=True)
    if number > 30:
        break
print("end", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("durability", ["disk", "process"])
def test_killed_process_leaves_what_it_acknowledged(tmp_path: Path, durability: str) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path), durability]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = []
        while (line := process.stdout.readline()) != "end\n":
            lines.append(line.split())
            if len(lines) == 25:
                break
        process.kill()
    told = {int(line[0]): WalLocation(line[1], int(line[2]), int(line[3])) for line in lines}
    wal = slabs(tmp_path, durability=durability)
    wal.recover(told.values())
    for number, location in told.items():
        expected = random.Random(number).choice((10, 5000, 100000, 300000))
        assert whole(wal, location) == random.Random(number).randbytes(expected)
    wal.append([pattern(100_000)])
    wal.close()


# ---- on a disk, by the kernel ----------------------------------------------------------------------------------


Outcome = WalLocation | PlatformError | None


class Lying(KernelWrites):
    """Writes, and says that something else came of it."""

    lie: int | None = None

    def begin(self, fd: int, body: memoryview, offset: int, ended: Ended) -> bool:
        return super().begin(fd, body, offset, lambda result: ended(result if self.lie is None else self.lie))


def pages(count: int, seed: int = 1) -> memoryview:
    memory = memoryview(mmap.mmap(-1, count * PAGE))
    memory[:] = pattern(count * PAGE, seed)
    return memory


def begin(log: SlabWal, body: memoryview, told: list[Outcome]) -> None:
    """Begin a write; one that runs into blocks that are just being zeroed is not begun."""
    eventually(lambda: log.begin(body, told.append), every_s=0.001, what="a write without waiting")


def outcomes(kernel: KernelWrites, told: list[Outcome], count: int) -> list[Outcome]:
    while len(told) < count:
        assert select.select([kernel], [], [], 30)[0], "nothing was heard of a write"
        kernel.reap()
    return told


def with_first(directory: Path, kernel: KernelWrites, durability: str) -> SlabWal:
    """A log with a slab: none is made where nobody may wait."""
    log = slabs(directory, durability=durability, kernel_writes=kernel)
    log.recover([])
    assert not log.begin(pages(64), lambda outcome: None)
    log.append((b"first",))
    return log


@pytest.mark.parametrize("durability", ["disk", "process"])
def test_the_kernel_writes_what_append_would(tmp_path: Path, kernel: KernelWrites, durability: str) -> None:
    told: list[Outcome] = []
    log = slabs(tmp_path / "slabs", durability=durability, slab_bytes=4 * MIB, kernel_writes=kernel)
    log.recover([])
    located = [log.append((b"first",))]
    bodies = [pages(64, seed) for seed in range(DEPTH + 1)]
    for body in bodies[:DEPTH]:
        begin(log, body, told)
    assert not log.begin(bodies[DEPTH], told.append), "no more than so many are under way"
    found = [outcome for outcome in outcomes(kernel, told, DEPTH) if isinstance(outcome, WalLocation)]
    located += sorted(found, key=lambda location: location.offset)
    located.append(log.append((bodies[DEPTH],)))
    assert [whole(log, location) for location in located] == [b"first", *map(bytes, bodies)]
    assert len({(location.key, location.offset // PAGE) for location in located}) == DEPTH + 2
    assert log.stats().live_bytes == 5 + (DEPTH + 1) * 64 * PAGE
    log.close()
    log = slabs(tmp_path / "slabs", durability=durability, slab_bytes=4 * MIB)
    log.recover(located)
    assert [whole(log, location) for location in located] == [b"first", *map(bytes, bodies)]
    log.close()


def test_only_what_nobody_waits_for_is_begun(tmp_path: Path, kernel: KernelWrites) -> None:
    log = with_first(tmp_path, kernel, "disk")
    told: list[Outcome] = []
    assert not log.begin(pages(2)[1:], told.append), "it lies anywhere"
    assert not log.begin(memoryview(pattern(PAGE)), told.append)
    assert not log.begin(pages(SLAB // PAGE), told.append), "it does not fit in"
    begin(log, pages(SLAB // PAGE - 1), told)
    outcomes(kernel, told, 1)
    assert not log.begin(pages(1), told.append)
    located = log.append((pages(1),))
    assert whole(log, located) == bytes(pages(1))
    log.close()
    assert log.begin(pages(1), told.append) is False


def test_small_objects_that_nobody_syncs_go_through_the_page_cache(tmp_path: Path, kernel: KernelWrites) -> None:
    log = with_first(tmp_path, kernel, "process")
    assert not log.begin(pages(1), lambda outcome: None)
    log.close()


@pytest.mark.parametrize("lie", [-errno.EIO, -errno.ENOSPC, PAGE, 0])
def test_a_write_that_failed_may_have_left_something(tmp_path: Path, lie: int) -> None:
    kernel = Lying.open()
    if kernel is None:
        pytest.skip("this system carries out no writes for others")
    assert isinstance(kernel, Lying)
    log = with_first(tmp_path, kernel, "disk")
    kernel.lie = lie
    told: list[Outcome] = []
    begin(log, pages(2), told)
    (outcome,) = outcomes(kernel, told, 1)
    assert isinstance(outcome, OutcomeUnknown)
    kernel.lie = None
    assert not log.begin(pages(2), told.append), "its slab is not trusted any more"
    following = log.append((pages(2),))
    assert whole(log, following) == bytes(pages(2))
    assert following.key != "000001.slab"
    begin(log, pages(2, 3), told)
    outcomes(kernel, told, 2)
    kernel.close()
    log.close()


def test_who_refuses_such_writes_is_not_asked_again(tmp_path: Path) -> None:
    kernel = Lying.open()
    if kernel is None:
        pytest.skip("this system carries out no writes for others")
    assert isinstance(kernel, Lying)
    log = with_first(tmp_path, kernel, "disk")
    kernel.lie = -errno.EINVAL
    told: list[Outcome] = []
    begin(log, pages(2), told)
    assert outcomes(kernel, told, 1) == [None]
    log.append((pages(2),))
    assert not log.begin(pages(2), told.append)
    kernel.close()
    log.close()


def test_closing_waits_for_what_is_under_way(tmp_path: Path, kernel: KernelWrites) -> None:
    log = with_first(tmp_path, kernel, "disk")
    told: list[Outcome] = []
    begin(log, pages(32, 5), told)
    kernel.close()
    assert not log.begin(pages(1), told.append)
    log.close()
    kernel.close()
    assert not told
    assert (tmp_path / "000001.slab").read_bytes()[PAGE : 33 * PAGE] == bytes(pages(32, 5))
