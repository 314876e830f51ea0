"""The thread that writes commits: what goes wrong on it is not mistaken for its end."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from fixtures.clocks import ManualClock

from penstock.agent.metadata import Metadata, commit_path_of
from penstock.base.errors import Unavailable
from penstock.base.randomness import SeededRandomness
from penstock.log.record_first import RecordFirstCommitPath
from penstock.log.registry import Registry
from penstock.metadata.sqlite import SqliteDatabase
from penstock.storage.memory import MemoryWal
from penstock.storage.wal import WalLocation


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    executor = ThreadPoolExecutor(1)
    yield executor
    executor.shutdown()


def path_on(executor: ThreadPoolExecutor) -> RecordFirstCommitPath:
    path = commit_path_of(
        Metadata(SqliteDatabase(None), life=1), MemoryWal(1 << 20), Registry(), clock=ManualClock(),
        randomness=SeededRandomness("wal thread"), seq=0, inline=False, executor=executor, shard_id=1, agent_id=1,
        on_commit=lambda commit: None,
    )  # fmt: skip
    assert isinstance(path, RecordFirstCommitPath)
    return path


def broken() -> WalLocation:
    raise RuntimeError("something after the write")


async def test_a_write_that_failed_may_have_happened(executor: ThreadPoolExecutor) -> None:
    """`Unavailable` would say that it has not."""
    with pytest.raises(RuntimeError, match="after the write"):
        await path_on(executor)._on_thread(broken)


async def test_a_write_that_was_not_begun_has_not_happened(executor: ThreadPoolExecutor) -> None:
    path = path_on(executor)
    executor.shutdown()
    with pytest.raises(Unavailable):
        await path._on_thread(broken)
