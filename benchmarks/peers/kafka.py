"""Apache Kafka: one KRaft node on loopback, its jars from Maven Central, settings and JVM flags as it ships.

What departs from its shipped `server.properties` is only what one node needs (replication factors of 1)
and where it listens and writes. The heap is the 1 GiB of its own start script.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.processes import BenchmarkError, Child, run

from .certificate import Certificate, make_certificate
from .server import Place, Server

POM = Path(__file__).with_name("pom.xml")
VERSION = POM.read_text().partition("<kafka.version>")[2].partition("<")[0]
CLUSTER_ID = "MkU3OEVBNTcwNTJENDM2Qk"
INSTALL_TIMEOUT_S = 900.0
FORMAT_TIMEOUT_S = 60.0
STARTED = b"Kafka Server started"

# What kafka-run-class.sh passes.
JVM_FLAGS = (
    "-Xmx1G",
    "-Xms1G",
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-XX:MaxInlineLevel=15",
    "-Djava.awt.headless=true",
)

SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "inter.broker.listener.name": "PLAINTEXT",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "num.network.threads": "3",
    "num.io.threads": "8",
    "socket.send.buffer.bytes": "102400",
    "socket.receive.buffer.bytes": "102400",
    "socket.request.max.bytes": "104857600",
    "num.partitions": "1",
    "num.recovery.threads.per.data.dir": "2",
    "offsets.topic.replication.factor": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "log.retention.hours": "168",
    "log.segment.bytes": "1073741824",
    "log.retention.check.interval.ms": "300000",
}

LOGGING = """<Configuration status="WARN"><Appenders><Console name="C" target="SYSTEM_ERR">
<PatternLayout pattern="[%d] %p %m (%c)%n"/></Console></Appenders>
<Loggers><Root level="INFO"><AppenderRef ref="C"/></Root></Loggers></Configuration>
"""


class Kafka:
    """Apache Kafka with settings of its own, and flags of its JVM, on top of the shipped ones."""

    def __init__(
        self, cache: Path, extra: Mapping[str, str] | None = None, *, tls: bool = False, flags: Sequence[str] = ()
    ) -> None:
        self._jars = cache / "kafka-jars"
        self._cache = cache
        self._extra = dict(extra or {})
        self._tls = tls
        self._flags = flags

    def install(self) -> None:
        done = self._jars / ".complete"
        if done.exists() and done.read_text() == POM.read_text():
            return
        maven = shutil.which("mvn")
        if maven is None or shutil.which(_java()) is None:
            raise BenchmarkError(
                "Apache Kafka needs a JDK of at least 17 and Maven (Debian: default-jdk-headless maven)"
            )
        shutil.rmtree(self._jars, ignore_errors=True)
        goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={self._jars}"]
        run([maven, "-B", "-q", "-f", str(POM), *goal], log=self._cache / "maven.log", timeout_s=INSTALL_TIMEOUT_S)
        done.write_text(POM.read_text())

    def start(self, place: Place) -> Server:
        begun_ns = time.time_ns()
        data, properties, log = place.directory / "data", place.directory / "server.properties", place.directory / "log"
        place.directory.mkdir(parents=True, exist_ok=True)
        (place.directory / "log4j2.xml").write_text(LOGGING)
        settings = {**SETTINGS, **_listeners(place), "log.dirs": str(data), **self._extra}
        authority = None
        if self._tls:
            certificate = make_certificate(place.directory)
            authority = certificate.path
            settings |= _by_tls(place, certificate)
        properties.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        log.unlink(missing_ok=True)
        java = [_java(), f"-Dlog4j2.configurationFile={place.directory / 'log4j2.xml'}", "-cp", f"{self._jars}/*"]
        if not (data / "meta.properties").exists():
            formatting = ["kafka.tools.StorageTool", "format", "--standalone", "-t", CLUSTER_ID, "-c", str(properties)]
            run([*java, *formatting], log=place.directory / "format.log", timeout_s=FORMAT_TIMEOUT_S)
        child = Child([java[0], *JVM_FLAGS, *self._flags, *java[1:], "kafka.Kafka", str(properties)], log=log)
        return Server(
            place=place, child=child, started_ns=begun_ns, answers=lambda: STARTED in log.read_bytes(),
            authority=authority,
        )  # fmt: skip


def _java() -> str:
    home = os.environ.get("JAVA_HOME")
    return f"{home}/bin/java" if home else "java"


def _listeners(place: Place) -> dict[str, str]:
    controller = f"127.0.0.1:{place.side_port}"
    listeners = f"PLAINTEXT://{place.address},CONTROLLER://{controller}"
    return {
        "listeners": listeners,
        "advertised.listeners": listeners,
        "controller.quorum.bootstrap.servers": controller,
    }


def _by_tls(place: Place, certificate: Certificate) -> dict[str, str]:
    """The listener of clients with TLS, and everything else as it was."""
    return {
        "listeners": f"SSL://{place.address},CONTROLLER://127.0.0.1:{place.side_port}",
        "advertised.listeners": f"SSL://{place.address},CONTROLLER://127.0.0.1:{place.side_port}",
        "inter.broker.listener.name": "SSL",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,SSL:SSL",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(certificate.with_key),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(certificate.path),
    }
