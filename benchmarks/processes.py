"""Child processes that end with the harness, whatever becomes of it.

Each child leads a session of its own, so that Ctrl-C reaches the harness alone, which then ends its
children in order; and where util-linux has `setpriv`, the kernel kills them should the harness itself be killed.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

STOP_TIMEOUT_S = 60.0
WANTED_FILES = 65_536


class BenchmarkError(Exception):
    """A measurement could not be made; the message says why."""


def allow_many_files() -> None:
    """Thousands of connections and log files need more than the usual limit; children inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for soft, limit in ((WANTED_FILES, max(hard, WANTED_FILES)), (hard, hard)):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, limit))
            return


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def tied(command: Sequence[str]) -> list[str]:
    """The same command, killed by the kernel when we die. `setpriv` replaces itself, so the pid is the command's."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--", *command] if setpriv else list(command)


def run(command: Sequence[str], *, log: Path, timeout_s: float, cwd: Path | None = None) -> None:
    """Run a command to its end, its output in `log`."""
    with log.open("ab") as output:
        try:
            done = subprocess.run(
                command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=timeout_s, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BenchmarkError(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        raise BenchmarkError(f"{' '.join(command)} failed:\n{tail_of(log)}")


def tail_of(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


class Child:
    """One running process with its output in a file."""

    def __init__(self, command: Sequence[str], *, log: Path) -> None:
        self.log = log
        self.started_ns = time.time_ns()
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                tied(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        """Ask it to end, and after a minute make it."""
        if not self.running:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it and its descendants at once."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
