"""A Flink cluster of one job manager and one task manager, with a SQL Gateway; spoken to over the gateway's REST."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fixtures import programs, toolchains
from fixtures.processes import Program
from fixtures.waiting import eventually, free_ports

SOURCES = Path(__file__).parent / "flink"
START_TIMEOUT_S = 120
STATEMENT_TIMEOUT_S = 60


class Cluster:
    """Three processes, of which the task manager may be killed and started again."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        rpc, rest, gateway = free_ports(3)
        self._rest, self._gateway = f"http://127.0.0.1:{rest}", f"http://127.0.0.1:{gateway}"
        settings = _SETTINGS.format(rpc=rpc, rest=rest, gateway=gateway, directory=directory)
        (directory / "config.yaml").write_text(settings)
        class_path = f"{distribution()}/*:{programs.maven_jars(SOURCES / 'pom.xml')}/*"

        def program(name: str, main: str, *words: str) -> Program:
            command = programs.jvm(class_path, *_OPENED, main, "--configDir", str(directory), *words)
            environment = {"FLINK_CONF_DIR": str(directory)}
            return Program(command, directory / f"{name}.log", environment=environment)

        runtime = "org.apache.flink.runtime"
        self.job_manager = program("job-manager", f"{runtime}.entrypoint.StandaloneSessionClusterEntrypoint")
        self.task_manager = program("task-manager", f"{runtime}.taskexecutor.TaskManagerRunner")
        self.gateway = program("gateway", "org.apache.flink.table.gateway.SqlGateway")
        self._session = ""

    @contextmanager
    def running(self) -> Iterator[Cluster]:
        """The cluster while it runs; it is not ready yet."""
        with self.job_manager, self.task_manager, self.gateway:
            yield self

    def await_ready(self) -> None:
        """Wait until it takes statements and has a place to run them."""
        eventually(self._ready, within_s=START_TIMEOUT_S, what="Flink")
        self._session = self._ask(f"{self._gateway}/v1/sessions", {})["sessionHandle"]

    def _ready(self) -> bool:
        for program in (self.job_manager, self.task_manager, self.gateway):
            program.check()
        try:
            self._ask(f"{self._gateway}/v1/info")
            return bool(self._ask(f"{self._rest}/overview")["slots-total"])
        except OSError:
            return False

    def execute(self, statement: str) -> None:
        """Run a statement to its end, which for a job that goes on is its being submitted."""
        session = f"{self._gateway}/v1/sessions/{self._session}"
        handle = self._ask(f"{session}/statements", {"statement": statement})["operationHandle"]
        deadline = time.monotonic() + STATEMENT_TIMEOUT_S
        while True:
            status = self._ask(f"{session}/operations/{handle}/status")["status"]
            if status == "FINISHED":
                return
            if status == "ERROR" or time.monotonic() > deadline:
                self._ask(f"{session}/operations/{handle}/result/0")
                raise AssertionError(f"{status}: {statement}")
            time.sleep(0.1)

    def checkpoints(self) -> int:
        """How many checkpoints of the one job were completed."""
        (job,) = self._ask(f"{self._rest}/jobs")["jobs"]
        return int(self._ask(f"{self._rest}/jobs/{job['id']}/checkpoints")["counts"]["completed"])

    def job_is_running(self) -> bool:
        """Whether all its parts run; a job that has failed for good is an error."""
        (job,) = self._ask(f"{self._rest}/jobs")["jobs"]
        found = self._ask(f"{self._rest}/jobs/{job['id']}")
        assert found["state"] not in ("FAILED", "FAILING", "CANCELED"), self.task_manager.log()[-6000:]
        return all(vertex["status"] == "RUNNING" for vertex in found["vertices"])

    @staticmethod
    def _ask(url: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as refusal:
            if refusal.code == HTTPStatus.SERVICE_UNAVAILABLE:  # It answers already, and nobody is its leader yet.
                raise ConnectionError(url) from None
            raise AssertionError(refusal.read().decode(errors="replace")[-6000:]) from None


def distribution() -> Path:
    """The directory with Flink's jars, from the package that carries them for Python."""
    return toolchains.python_packages(SOURCES / "requirements.txt") / "pyflink" / "lib"


_OPENED = [
    f"--add-opens=java.base/{package}=ALL-UNNAMED"
    for package in ("java.lang", "java.net", "java.io", "java.nio", "java.text", "java.time", "java.util",
                    "java.util.concurrent", "java.util.concurrent.atomic", "java.util.concurrent.locks",
                    "java.lang.reflect", "sun.nio.ch")
]  # fmt: skip
"""What Flink's own scripts open; its serializers look into Java's classes."""

_SETTINGS = """
jobmanager:
  rpc: {{address: 127.0.0.1, port: {rpc}}}
  bind-host: 127.0.0.1
  memory: {{process: {{size: 600m}}}}
  execution: {{failover-strategy: region}}
taskmanager:
  host: 127.0.0.1
  bind-host: 127.0.0.1
  numberOfTaskSlots: 1
  cpu: {{cores: 1.0}}
  memory:
    framework: {{heap: {{size: 128m}}, off-heap: {{size: 64m}}}}
    task: {{heap: {{size: 128m}}, off-heap: {{size: 16m}}}}
    network: {{min: 32m, max: 32m}}
    managed: {{size: 32m}}
    jvm-metaspace: {{size: 192m}}
    jvm-overhead: {{min: 64m, max: 64m}}
blob: {{server: {{port: "0"}}}}
rest: {{address: 127.0.0.1, port: {rest}}}
sql-gateway: {{endpoint: {{rest: {{address: 127.0.0.1, port: {gateway}}}}}}}
parallelism: {{default: 1}}
heartbeat: {{interval: 500, timeout: 4000}}
execution:
  checkpointing: {{interval: 500ms, dir: "file://{directory}/checkpoints", storage: filesystem}}
restart-strategy: {{type: fixed-delay, fixed-delay: {{attempts: 1000, delay: 500ms}}}}
io: {{tmp: {{dirs: "{directory}"}}}}
"""
