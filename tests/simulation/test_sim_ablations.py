"""Proof that the checkers can fail: each safeguard is switched off, and some seed must show it.

An ablation that is not noticed means that a bug of that kind would not be noticed either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest
import test_sim_log
from simulation import places
from simulation.seeds import Scenario, run
from simulation.world import World

from penstock.log import commits, reader, writer
from penstock.log.commit_path import EmbeddedCommitPath
from penstock.log.commits import Commit, CommitEntry
from penstock.storage.wal import Buffer, WalLocation

ENOUGH_SEEDS = 60
Ablation = Callable[[pytest.MonkeyPatch], None]


def no_look_up_of_lost_answers(patch: pytest.MonkeyPatch) -> None:
    async def nothing(*args: object) -> None:
        return None

    patch.setattr(EmbeddedCommitPath, "_look_up", nothing)


def no_judgement_of_producers(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(writer, "judge", lambda *args: None)


def no_waiting_for_the_first_batch(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(writer.Writer, "_await_again", lambda *args: None)


def producers_are_not_recovered(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(commits, "remember_batch", lambda *args: None)


def high_watermark_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    decide = writer.Writer._decide

    def hasty(self, partition, pending):
        share = decide(self, partition, pending)
        partition.next_offset = share.next_offset
        return share

    patch.setattr(writer.Writer, "_decide", hasty)


def acknowledged_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    async def hasty(
        self: EmbeddedCommitPath, body: memoryview, entries: Sequence[CommitEntry], heads: Sequence[int]
    ) -> Commit:
        attempt = self._attempt()
        self._database.submit(
            lambda connection: self._write(connection, attempt, body, entries, heads)
        ).add_done_callback(lambda done: done.exception())
        return self._done(attempt, WalLocation("memory/000000000000", 0, len(body)), entries, heads)

    patch.setattr(EmbeddedCommitPath, "commit", hasty)


def objects_are_not_durable_when_named(patch: pytest.MonkeyPatch) -> None:
    class LazyWal(places.FaultyWal):
        """Says that an object is stored, and stores it a moment later."""

        def append(self, body: Sequence[Buffer]) -> WalLocation:
            location = super().append(body)
            objects = self._inner._objects
            stored = objects.pop(location.key)
            asyncio.get_running_loop().call_later(0.005, objects.__setitem__, location.key, stored)
            return location

    patch.setattr(places, "FaultyWal", LazyWal)


def batches_are_cut(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reader, "_whole_batches", lambda view, max_bytes, *, at_least_one: view[:max_bytes])


LOG = test_sim_log.test_acknowledged_records_survive.scenario
ABLATIONS: list[tuple[Ablation, Scenario]] = [
    (no_look_up_of_lost_answers, LOG),
    (no_judgement_of_producers, LOG),
    (no_waiting_for_the_first_batch, LOG),
    (producers_are_not_recovered, LOG),
    (high_watermark_before_the_commit, LOG),
    (acknowledged_before_the_commit, LOG),
    (objects_are_not_durable_when_named, LOG),
    (batches_are_cut, LOG),
]


@pytest.mark.parametrize(("ablation", "scenario"), ABLATIONS, ids=[ablation.__name__ for ablation, _ in ABLATIONS])
def test_is_noticed(ablation: Ablation, scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    ablation(monkeypatch)
    assert first_failure(scenario) is not None, f"{ENOUGH_SEEDS} seeds did not show it"


def first_failure(scenario: Callable[[World], object]) -> BaseException | None:
    """What the first seed that fails fails with."""
    for seed in range(ENOUGH_SEEDS):
        try:
            run(scenario, seed)
        except Exception as failure:
            print(f"seed {seed}: {failure!r}")
            return failure
    return None
