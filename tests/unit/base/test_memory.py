"""One number of memory, its parts, and how much a machine has."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from penstock.base.memory import DEFAULT_BYTES, LEAST_BYTES, MIB, MemoryBounds, machine_bytes


def test_the_parts_by_default_are_what_each_kind_says() -> None:
    assert MemoryBounds.of(DEFAULT_BYTES) == MemoryBounds()
    assert MemoryBounds().total_bytes == DEFAULT_BYTES


@pytest.mark.parametrize("total", [LEAST_BYTES, 200 * MIB + 7, DEFAULT_BYTES, 10 * DEFAULT_BYTES])
def test_the_parts_of_any_total_add_up_to_it(total: int) -> None:
    bounds = MemoryBounds.of(total)
    assert total - len(fields(MemoryBounds)) < bounds.total_bytes <= total
    assert dict(bounds.kinds())["pending"] == bounds.pending_bytes == total * 64 // 608
    assert bounds.huge_partial_bytes < bounds.partial_bytes
    assert 3 * bounds.tail_chunk_bytes <= bounds.tail_bytes, "recent batches need more than two pieces"
    assert bounds.pending_bytes >= 16 * MIB, "several flushes"


@pytest.fixture
def system(tmp_path: Path) -> Path:
    (tmp_path / "proc/self").mkdir(parents=True)
    return tmp_path


def give(root: Path, cgroup: str, limits: dict[str, str]) -> None:
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, text in limits.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")


@pytest.mark.parametrize(
    ("cgroup", "limits"),
    [
        pytest.param("0::/\n", {"memory.max": "4096"}, id="a container"),
        pytest.param(
            "0::/system.slice/penstock.service\n",
            {"system.slice/penstock.service/memory.max": "max", "system.slice/memory.max": "4096"},
            id="a service in a group that has less",
        ),
        pytest.param(
            "5:cpu,cpuacct:/\n4:memory:/docker/1\n", {"memory/docker/1/memory.limit_in_bytes": "4096"},
            id="the first version",
        ),
        pytest.param("0::/elsewhere\n", {"memory.max": "4096"}, id="a group that cannot be seen from inside"),
    ],
)  # fmt: skip
def test_a_container_has_what_it_may_have(system: Path, cgroup: str, limits: dict[str, str]) -> None:
    give(system, cgroup, limits)
    assert machine_bytes(system) == 4096


def test_without_limits_it_is_what_the_machine_has(system: Path) -> None:
    give(system, "0::/\n", {"memory.max": "max"})
    there = machine_bytes(system)
    assert there is not None
    assert there > 64 * MIB
    (system / "proc/self/cgroup").unlink()
    assert machine_bytes(system) == there
