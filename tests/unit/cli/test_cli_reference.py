"""The page about the command line says what the command line does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_the_reference_is_what_would_be_generated() -> None:
    program = ROOT / "tools" / "generate_cli_reference.py"
    subprocess.run([sys.executable, str(program), "--check"], check=True, timeout=60)
