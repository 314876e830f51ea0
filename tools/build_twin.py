"""Compile the twin of the hot functions (src/penstock/_twin.pyx), if this machine can.

Everything works without it, so whatever is missing ends in one line and success. What is built belongs to this
checkout and this Python, and is not committed. `PENSTOCK_PURE=1` leaves it unused.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src" / "penstock" / "_twin.pyx"


class Impossible(Exception):
    """Why there is no twin, in words for whoever sets up."""


def main() -> int:
    target = SOURCE.with_suffix(sysconfig.get_config_var("EXT_SUFFIX") or ".so")
    try:
        build(target)
    except Impossible as why:
        target.unlink(missing_ok=True)
        print(f"== no compiled twin of the hot path, Python does it all: {why}")
    else:
        print("== the hot path has its compiled twin")
    return 0


def build(target: Path) -> None:
    """From source to extension module."""
    headers = sysconfig.get_path("include")
    if not (Path(headers) / "Python.h").exists():
        raise Impossible("Python's headers are not installed (Debian: python3-dev)")
    linker = shlex.split(sysconfig.get_config_var("LDSHARED") or "")
    if not linker:
        raise Impossible("this Python does not say how extensions are linked")
    flags = shlex.split(sysconfig.get_config_var("CCSHARED") or "-fPIC")
    with tempfile.TemporaryDirectory() as scratch:
        code, built = Path(scratch) / "_twin.c", Path(scratch) / target.name
        run([sys.executable, "-m", "cython", "-3", str(SOURCE), "-o", str(code)], "Cython")
        run([*linker, "-O2", "-g0", "-w", *flags, f"-I{headers}", str(code), "-o", str(built)], "the C compiler")
        fresh = target.with_suffix(".new")
        fresh.write_bytes(built.read_bytes())
        fresh.replace(target)  # Whoever runs it now keeps what they have.


def run(command: list[str], what: str) -> None:
    """Run a tool; raise `Impossible` if it is not there or does not manage."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise Impossible(f"{what} ({command[0]}): {problem}") from problem
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise Impossible(f"{what} failed: {lines[-1] if lines else 'without a word'}")


if __name__ == "__main__":
    sys.exit(main())
