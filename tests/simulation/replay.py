"""Run one seed of one scenario and print the checksum of everything that happened.

python tests/simulation/replay.py test_sim_log test_acknowledged_records_survive 17
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    sys.path[:0] = [str(here), str(here.parent)]
    from simulation.seeds import run

    module, name, *seeds = sys.argv[1:]
    scenario = getattr(importlib.import_module(module), name).scenario
    for seed in seeds:
        world = run(scenario, int(seed))
        print(f"{seed} {world.loop.steps} {world.loop.trace:08x}")
