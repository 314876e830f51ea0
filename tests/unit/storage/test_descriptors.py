"""A bounded table of open files."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from penstock.storage.descriptors import DescriptorTable


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / str(number) for number in range(10)]
    for number, path in enumerate(paths):
        path.write_text(str(number))
    return paths


def opened() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_files_stay_open_up_to_a_limit(files: list[Path]) -> None:
    before, table = opened(), DescriptorTable(limit=3)
    for _ in range(3):
        for number, path in enumerate(files):
            with table.reading(path) as descriptor:
                assert os.pread(descriptor, 10, 0) == str(number).encode()
    assert opened() == before + 3
    with table.reading(files[-1]) as first, table.reading(files[-1]) as second:
        assert first == second
    table.close()
    assert opened() == before


def test_a_file_in_use_is_closed_by_its_last_reader(files: list[Path]) -> None:
    before, table = opened(), DescriptorTable(limit=1)
    with table.reading(files[0]) as first:
        with table.reading(files[0]) as again, table.reading(files[1]):
            table.discard(files[0])
            files[0].unlink()
            assert os.pread(again, 1, 0) == b"0"
        assert os.pread(first, 1, 0) == b"0"
        with pytest.raises(FileNotFoundError), table.reading(files[0]):
            pass
        table.close()
        assert os.pread(first, 1, 0) == b"0"
    assert opened() == before
    table.discard(files[0])


def test_a_file_may_be_read_only_if_it_is_open(files: list[Path]) -> None:
    before, table = opened(), DescriptorTable(limit=1)
    with table.reading_if_open(files[0]) as descriptor:
        assert descriptor is None
    with table.reading(files[0]):
        pass
    with table.reading_if_open(files[0]) as descriptor:
        with table.reading(files[1]), table.reading_if_open(files[0]) as again:
            assert again is None, "it makes room for another one"
        assert descriptor is not None
        assert os.pread(descriptor, 1, 0) == b"0"
    table.close()
    assert opened() == before


def test_a_discarded_name_is_opened_anew(files: list[Path]) -> None:
    table = DescriptorTable()
    with table.reading(files[0]):
        pass
    files[1].rename(files[0])
    with table.reading(files[0]) as descriptor:
        assert os.pread(descriptor, 1, 0) == b"0"
    table.discard(files[0])
    with table.reading(files[0]) as descriptor:
        assert os.pread(descriptor, 1, 0) == b"1"
    table.close()


def test_threads_share_it(files: list[Path]) -> None:
    before, table, wrong = opened(), DescriptorTable(limit=2), []

    def work() -> None:
        for turn in range(300):
            number = turn % 10
            with table.reading(files[number]) as descriptor:
                if os.pread(descriptor, 10, 0) != str(number).encode():
                    wrong.append(number)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    table.close()
    assert wrong == []
    assert opened() == before
