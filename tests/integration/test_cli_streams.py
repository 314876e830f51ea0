"""What the command line does when its standard streams are not what they should be."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fixtures.server import Server

NEEDS_FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")


def run(*words: str, closed: tuple[int, ...] = (), **streams: object) -> subprocess.CompletedProcess[bytes]:
    given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    shut = "".join(f"os.close({number});" for number in closed)
    code = f"import os;{shut}os.execv({sys.executable!r}, [{sys.executable!r}, '-m', 'penstock', *{list(words)!r}])"
    return subprocess.run([sys.executable, "-c", code], timeout=30, check=False, **given)  # type: ignore[call-overload]


def is_one_sentence(stderr: bytes) -> bool:
    return stderr.startswith(b"error:") and len(stderr.splitlines()) == 1 and b"Traceback" not in stderr


@NEEDS_FULL
@pytest.mark.parametrize("words", [("version",), ("topic", "--help")])
def test_output_that_there_is_no_room_for_is_a_failure(words: tuple[str, ...]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = run(*words, stdout=full)
    assert done.returncode == 1
    assert is_one_sentence(done.stderr), done.stderr
    assert os.strerror(errno.ENOSPC).lower().encode() in done.stderr


@pytest.mark.parametrize("closed", [(0,), (1,), (0, 1, 2)])
def test_closed_streams_are_in_nobodys_way(closed: tuple[int, ...]) -> None:
    done = run("version", closed=closed)
    assert (done.returncode, done.stderr) == (0, b"")
    assert bool(done.stdout) is (1 not in closed)


@NEEDS_FULL
def test_a_server_whose_output_goes_nowhere_serves(tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.log_path = Path("/dev/full")
    server.start()
    try:
        assert server.stop() == 0
    finally:
        if server.running:
            server.kill()
