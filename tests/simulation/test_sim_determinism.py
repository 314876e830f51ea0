"""The simulation is deterministic: a seed gives the same run in two processes, whatever their hash seeds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPLAY = Path(__file__).with_name("replay.py")
SEEDS = ("3", "8", "21")


def trace(module: str, scenario: str, hash_seed: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, str(REPLAY), module, scenario, *SEEDS]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.mark.parametrize(
    ("module", "scenario"),
    [
        ("test_sim_log", "test_acknowledged_records_survive"),
        ("test_sim_log", "test_acknowledged_records_survive_inline_commits"),
        ("test_sim_transactions", "test_transactions_are_all_or_nothing"),
    ],
)
def test_a_seed_decides_everything(module: str, scenario: str) -> None:
    first = trace(module, scenario, "0")
    assert first.count("\n") == len(SEEDS)
    assert trace(module, scenario, "4711") == first


def test_seeds_differ() -> None:
    lines = trace("test_sim_log", "test_acknowledged_records_survive", "0").splitlines()
    assert len({line.split()[-1] for line in lines}) == len(SEEDS)
