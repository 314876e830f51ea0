"""What `make` says where it cannot go on."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
OLD_PYTHON = """#!/bin/sh
if [ "$1" = --version ]; then echo Python 3.9.18; fi
[ "$1" = --version ]
"""


def test_an_old_python_is_named_before_anything_is_installed(tmp_path: Path) -> None:
    shutil.copy(CHECKOUT / "Makefile", tmp_path)
    for name in ("requirements-dev.txt", "pyproject.toml", "src/penstock/_twin.pyx", "tools/build_twin.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    old = tmp_path / "python3"
    old.write_text(OLD_PYTHON)
    old.chmod(0o755)
    # Not as part of the make that runs the tests, which would have it say where it is.
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        ["make", "install", f"PYTHON={old}"], cwd=tmp_path, env=outside, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (
        2, f"Python >= 3.11 is needed; {old} is Python 3.9.18. Name another: make PYTHON=python3.12\n"
    )  # fmt: skip
    assert not (tmp_path / ".venv").exists()
