"""Looks at ports: can we listen, and if not, who does. Who is read from /proc where there is one."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from penstock.cli.doctor.verdicts import Check, Holder, check, port_verdict
from penstock.cli.text_formats.addresses import Address

_LISTEN = "0A"


def port_check(option: str, address: Address, *, is_running: bool = False) -> Check:
    """Whether `up` can listen on an address; not to be expected if it runs already."""
    problem = listen_problem(address)
    if problem is None:
        return port_verdict(option, address.port, None, ours=False)
    if problem.errno != errno.EADDRINUSE:
        reason = (problem.strerror or str(problem)).lower()
        return check(
            f"port {address.port} ({option})", reason, fail=f"Listen elsewhere: penstock up --{option} HOST:PORT"
        )
    holder = holder_of(address.port)
    ours = holder.command == "penstock"
    return port_verdict(option, address.port, holder, ours=ours, is_running=is_running)


def listen_problem(address: Address) -> OSError | None:
    """Why one cannot listen there; None if one can."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)
            listener.listen(1)
    except OSError as error:
        return error
    return None


def holder_of(port: int) -> Holder:
    """The process that listens on a port, as far as we may see."""
    inodes = listening_inodes(port)
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                if _inode_of(descriptor) in inodes:
                    return holder_with(int(process.name))
    return Holder(pid=None, command="a process of another user")


def holder_with(pid: int) -> Holder:
    """The process of that number, as far as we may see; 0 if the number is not known."""
    if not pid:
        return Holder(pid=None, command="another process")
    try:
        return Holder(pid=pid, command=_command(Path("/proc") / str(pid)))
    except OSError:
        return Holder(pid=pid, command="a process")


def listening_inodes(port: int) -> set[str]:
    """Inodes of the sockets that listen on a port."""
    found: set[str] = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    found.add(fields[9])
    return found


def _inode_of(descriptor: Path) -> str | None:
    try:
        target = os.readlink(descriptor)
    except OSError:
        return None
    return target[len("socket:[") : -1] if target.startswith("socket:[") else None


def _command(process: Path) -> str:
    words = (process / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    return program_name([word for word in words if word])


def program_name(words: Sequence[str]) -> str:
    """What a command line runs; an interpreter is named by its script or module."""
    if not words:
        return "a process without a command line"
    name = Path(words[0]).name
    if not name.startswith("python"):
        return name
    if "-m" in words[:-1]:
        return words[words.index("-m") + 1]
    script = next((word for word in words[1:] if not word.startswith("-")), None)
    return name if script is None else Path(script).name
