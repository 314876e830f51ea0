"""A Kafka Connect worker in a process of its own, spoken to over its REST interface."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from fixtures import programs, toolchains
from fixtures.processes import Program
from fixtures.waiting import eventually, free_ports

SOURCES = Path(__file__).parent / "connect"
START_TIMEOUT_S = 120


class Worker:
    """One worker, and so a whole cluster, in distributed mode, with exactly-once sources."""

    def __init__(self, directory: Path, bootstrap: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (port,) = free_ports(1)
        self._url = f"http://127.0.0.1:{port}"
        settings = directory / "worker.properties"
        settings.write_text(_SETTINGS.format(bootstrap=bootstrap, url=self._url, plugins=plugins()))
        jars = programs.maven_jars(SOURCES / "worker.xml")
        command = programs.jvm(
            f"{jars}/*", "-Xmx512M", "org.apache.kafka.connect.cli.ConnectDistributed", str(settings)
        )  # fmt: skip
        self.program = Program(command, directory / "worker.log")

    def await_ready(self) -> None:
        """Wait until it is a member of its group and takes connectors."""
        eventually(self._ready, within_s=START_TIMEOUT_S, what="the Connect worker")

    def _ready(self) -> bool:
        self.program.check()
        try:
            return self.get("/connectors") == []
        except OSError:
            return False

    def await_rest(self) -> None:
        """Wait until one that was started again answers."""

        def answers() -> bool:
            self.program.check()
            try:
                return bool(self.get("/connectors"))
            except OSError:
                return False

        eventually(answers, within_s=START_TIMEOUT_S, what="the Connect worker's REST interface")

    def get(self, path: str) -> Any:
        """What a path answers."""
        with urllib.request.urlopen(self._url + path, timeout=30) as answer:
            return json.loads(answer.read())

    def create(self, name: str, settings: dict[str, str]) -> None:
        """Start a connector."""
        request = urllib.request.Request(
            f"{self._url}/connectors/{name}/config", json.dumps(settings).encode(),
            {"Content-Type": "application/json"}, method="PUT",
        )  # fmt: skip
        try:
            with urllib.request.urlopen(request, timeout=60):
                pass
        except urllib.error.HTTPError as refusal:
            raise AssertionError(refusal.read().decode()) from None

    def check(self) -> None:
        """Fail if a task has failed."""
        self.program.check()
        for name, found in self.get("/connectors?expand=status").items():
            for part in (found["status"]["connector"], *found["status"]["tasks"]):
                assert part["state"] != "FAILED", f"{name}: {part['trace']}"

    def tasks(self) -> int:
        """How many tasks are running."""
        connectors = self.get("/connectors?expand=status").values()
        return sum(task["state"] == "RUNNING" for found in connectors for task in found["status"]["tasks"])


def plugins() -> Path:
    """A directory with one directory for each plugin, as a worker wants it."""
    names = ("file", "debezium", "iceberg")
    jars = {name: programs.maven_jars(SOURCES / f"{name}.xml") for name in names}
    place = (
        toolchains.cache_directory("java") / f"plugins-{toolchains.fingerprint(*(SOURCES / f'{n}.xml' for n in names))}"
    )
    with toolchains.unbuilt("java", place / ".done") as is_needed:
        if is_needed:
            place.mkdir(exist_ok=True)
            for name in ("file", "iceberg"):
                (place / name).unlink(missing_ok=True)
                (place / name).symlink_to(jars[name])
            for archive in jars["debezium"].glob("*.tar.gz"):
                toolchains.build(place, "tar", "--extract", "--file", str(archive))
    return place


_SETTINGS = """
bootstrap.servers={bootstrap}
group.id=connect
listeners={url}
plugin.path={plugins}
plugin.discovery=service_load
exactly.once.source.support=enabled
key.converter=org.apache.kafka.connect.json.JsonConverter
value.converter=org.apache.kafka.connect.json.JsonConverter
consumer.isolation.level=read_committed
consumer.auto.offset.reset=earliest
config.storage.topic=connect-configs
config.storage.replication.factor=1
offset.storage.topic=connect-offsets
offset.storage.replication.factor=1
offset.storage.partitions=5
status.storage.topic=connect-status
status.storage.replication.factor=1
offset.flush.interval.ms=1000
scheduled.rebalance.max.delay.ms=0
session.timeout.ms=60000
heartbeat.interval.ms=20000
"""
"""A worker stops its tasks when its coordinator is away for as long as a heartbeat is, and Debezium then reads its
table again from the beginning. So that is longer here than a slow machine takes to start a broker."""
