"""The Go load client: building it, running it, and reading the server's account at its marks.

The client announces `mark begin` and `mark end` around its timed part and waits for a line in answer to each,
so that /proc is read at just these moments. `mark hold` says that a standing load is up.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from benchmarks.measuring.account import Account, between, read
from benchmarks.peers.server import Server
from benchmarks.processes import BenchmarkError, run, tied

SOURCE = Path(__file__).with_name("client")
BUILD_TIMEOUT_S = 900.0
TIMEOUT_S = 300.0
GRACE_S = 10.0

Option = str | int | float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What the client saw, and what the load cost."""

    seen: dict[str, float]
    account: Account


def build(cache: Path) -> Path:
    """Build the client with the modules its go.sum pins."""
    go = shutil.which("go")
    if go is None:
        raise BenchmarkError("the load client needs Go 1.26 or later on the PATH")
    program = cache / "client"
    run([go, "build", "-o", str(program), "."], cwd=SOURCE, log=cache / "build.log", timeout_s=BUILD_TIMEOUT_S)
    return program


class Client:
    """One run of the load client, ended when it takes too long."""

    def __init__(
        self, program: Path, server: Server, mode: str, options: Mapping[str, Option], timeout_s: float
    ) -> None:
        self._server, self._mode = server, mode
        settings = {"mode": mode, "broker": server.address, "timeout": f"{timeout_s}s", **options}
        if server.authority is not None:
            settings["ca"] = str(server.authority)
        arguments = [f"-{name.replace('_', '-')}={value}" for name, value in settings.items()]
        self._process = subprocess.Popen(
            tied([str(program), "-attended", *arguments]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._watch = threading.Timer(timeout_s + GRACE_S, self._process.kill)
        self._watch.daemon = True
        self._watch.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def measure(self, others: Sequence[int] = ()) -> Measured:
        """Let it run to its end and return its figures with the account between its marks.

        `others` are clients that keep a standing load up meanwhile.
        """
        clients = [self.pid, *others]
        self._expect("begin")
        first = read(self._server.pid, clients)
        self._go_on()
        self._expect("end")
        second = read(self._server.pid, clients)
        self._go_on()
        return Measured(seen=self.finish(), account=between(first, second))

    def await_standing(self) -> None:
        self._expect("hold")

    def finish(self) -> dict[str, float]:
        """Wait for its report."""
        with contextlib.suppress(OSError):
            self._go_on()
        for line in self._output():
            if line.startswith("{"):
                report: dict[str, float] = json.loads(line)
                return report
        raise self._failed()

    def kill(self) -> None:
        self._watch.cancel()
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _expect(self, mark: str) -> None:
        for line in self._output():
            if line.strip() == f"mark {mark}":
                return
        raise self._failed()

    def _output(self) -> IO[str]:
        assert self._process.stdout is not None
        return self._process.stdout

    def _go_on(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def _failed(self) -> BenchmarkError:
        assert self._process.stderr is not None
        lines = self._process.stderr.read().strip().splitlines()[-3:]
        reason = " / ".join(lines) or "it ended, or was ended for taking too long, without a word"
        return BenchmarkError(f"client {self._mode} against {self._server.place.variant.title}: {reason}")


@contextmanager
def running(
    program: Path, server: Server, mode: str, options: Mapping[str, Option], timeout_s: float = TIMEOUT_S
) -> Iterator[Client]:
    """A client that is ended on the way out, whatever happens."""
    client = Client(program, server, mode, options, timeout_s)
    try:
        yield client
    finally:
        client.kill()
