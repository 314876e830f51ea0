"""Install what the tests of other languages need and this machine lacks: Debian's packages, where that is allowed.

Allowed means: there is apt-get, and we are root or sudo asks for no password. Nothing that is there already is touched.
`PENSTOCK_INSTALL=no` forbids it. What cannot be installed is no failure here: the tests that need it say so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

PROGRAMS = {
    "default-jdk-headless": ("java", "javac"),
    "maven": ("mvn",),
    "golang-go": ("go",),
    "nodejs": ("node",),
    "npm": ("npm",),
    "kcat": ("kcat",),
}
INSTALL_TIMEOUT_S = 900


def missing() -> list[str]:
    """Debian packages of what is not here."""
    packages = [name for name, programs in PROGRAMS.items() if not all(map(shutil.which, programs))]
    installed = any(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or shutil.which("initdb")
    if not installed and find_spec("pgserver") is None:
        packages.append("postgresql")
    return packages


def command() -> list[str] | None:
    """How to call apt-get; None where it must not be called."""
    if os.environ.get("PENSTOCK_INSTALL") == "no" or shutil.which("apt-get") is None:
        return None
    if os.geteuid() == 0:
        return ["apt-get"]
    if (
        shutil.which("sudo")
        and subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode == 0
    ):
        return ["sudo", "-n", "env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]
    return None


def main() -> None:
    packages = missing()
    if not packages:
        return
    apt = command()
    if apt is None:
        print(f"not installed, and not ours to install: {' '.join(packages)}")
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run([*apt, "-qq", "update"], check=False, timeout=INSTALL_TIMEOUT_S, env=environment)
    for package in packages:  # One by one: what cannot be had must not keep the others away.
        print(f"installing {package}", flush=True)
        subprocess.run(
            [*apt, "-qq", "install", "--yes", "--no-install-recommends", package],
            check=False, timeout=INSTALL_TIMEOUT_S, env=environment, stdout=subprocess.DEVNULL,
        )  # fmt: skip


if __name__ == "__main__":
    main()
