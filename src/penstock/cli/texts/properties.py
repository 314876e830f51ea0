"""Files that say how to connect, for this program and for Kafka's own clients."""

from __future__ import annotations

import os
from pathlib import Path

_MODULES = {"PLAIN": "plain.PlainLoginModule", "SCRAM-SHA-512": "scram.ScramLoginModule"}


def complaint_about(target: Path) -> str | None:
    """Why a file cannot be made. To be asked before there is a secret that could go nowhere else."""
    if target.exists():
        return f"{target} exists already: choose another file, or remove it"
    folder = target.absolute().parent
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        return f"nothing can be written to {folder}: choose another file"
    return None


def write_login(target: Path, mechanism: str, name: str, secret: str) -> None:
    """Write a `client.properties` that only its owner can read, from its first byte on."""
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    lines = (
        "# How to connect. If the authority is your own, add ssl.truststore.type=PEM and ssl.truststore.location=FILE.",
        "security.protocol=SASL_SSL",
        f"sasl.mechanism={mechanism}",
        f"sasl.jaas.config=org.apache.kafka.common.security.{_MODULES[mechanism]} required"
        f' username="{quoted}" password="{secret}";',
    )
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
