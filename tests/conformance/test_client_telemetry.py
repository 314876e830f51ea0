"""Clients that push their metrics (KIP-714): on the wire, and a Java producer, to a receiver and onto the page."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from fixtures import programs
from fixtures.server import Server
from fixtures.waiting import eventually
from fixtures.wire import Wire

from penstock.telemetry import otlp
from penstock.wire.api_keys import ApiKey
from penstock.wire.compression import Compression, compress
from penstock.wire.error_codes import ErrorCode
from penstock.wire.messages.api_versions import ApiVersionsRequest
from penstock.wire.messages.get_telemetry_subscriptions import GetTelemetrySubscriptionsRequest
from penstock.wire.messages.incremental_alter_configs import (
    AlterableConfig,
    AlterConfigsResource,
    IncrementalAlterConfigsRequest,
)
from penstock.wire.messages.push_telemetry import PushTelemetryRequest

CLIENT_METRICS = 16
GET, PUSH = ApiKey.GET_TELEMETRY_SUBSCRIPTIONS, ApiKey.PUSH_TELEMETRY
INTERVAL_MS = 200
pytestmark = pytest.mark.timeout(600)


class Receiver:
    """An OTLP receiver over HTTP."""

    def __init__(self) -> None:
        bodies = self.bodies = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.headers["Content-Type"] == "application/x-protobuf"
                bodies.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/metrics"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def names(self) -> set[str]:
        return {point.name for _, body in self.bodies for point in otlp.points(body)}


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture(scope="module")
def forwarding(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[Server]:
    yield from running(tmp_path_factory.mktemp("forwarding"), receiver.url)


@pytest.fixture(scope="module")
def showing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from running(tmp_path_factory.mktemp("showing"), "prometheus")


def running(directory: Path, sink: str) -> Iterator[Server]:
    server = Server(
        directory, environment={"PENSTOCK_CLIENT_METRICS": sink}, settings={"telemetry.max.bytes": "10000"}
    )  # fmt: skip
    server.start()
    with Wire(server.bootstrap) as wire:
        subscribe(wire, "everything", metrics="*", interval=str(INTERVAL_MS), match="client_id=pushes.*")
    yield server
    assert server.stop() == 0


def subscribe(wire: Wire, name: str, **settings: str) -> None:
    configs = [
        AlterableConfig(name={"interval": "interval.ms"}.get(key, key), config_operation=0, value=value)
        for key, value in settings.items()
    ]
    resource = AlterConfigsResource(resource_type=CLIENT_METRICS, resource_name=name, configs=configs)
    request = IncrementalAlterConfigsRequest(resources=[resource])
    assert wire.call(ApiKey.INCREMENTAL_ALTER_CONFIGS, 1, request).responses[0].error_code == 0


def payload(name: str, value: float) -> bytes:
    number = bytes((4 << 3 | 1,)) + otlp._DOUBLE.pack(value)
    metric = otlp._field(1, name.encode()) + otlp._field(5, otlp._field(1, number))
    return otlp._field(1, otlp._field(2, otlp._field(2, metric)))


def pushed(wire: Wire, instance: bytes, subscription: int, data: bytes, **options: object) -> int:
    request = PushTelemetryRequest(
        **{"client_instance_id": instance, "subscription_id": subscription, "metrics": data, **options}
    )
    return int(wire.call(PUSH, 0, request).error_code)


def test_only_where_there_is_somewhere_to_go(wire: Wire, forwarding: Server) -> None:
    def served(client: Wire) -> set[int]:
        request = ApiVersionsRequest(client_software_name="test", client_software_version="1")
        return {each.api_key for each in client.call(ApiKey.API_VERSIONS, 4, request).api_keys}

    assert not {GET, PUSH} & served(wire)
    with Wire(forwarding.bootstrap) as client:
        assert {GET, PUSH} <= served(client)


@pytest.mark.parametrize("kind", list(Compression))
def test_metrics_are_handed_on(forwarding: Server, receiver: Receiver, kind: Compression) -> None:
    with Wire(forwarding.bootstrap, client_id=f"pushes-{kind.name}") as wire:
        found = wire.call(GET, 0, GetTelemetrySubscriptionsRequest())
        assert found.error_code == 0
        assert found.client_instance_id != bytes(16)
        assert (list(found.requested_metrics), found.push_interval_ms) == (["*"], INTERVAL_MS)
        assert (found.telemetry_max_bytes, found.delta_temporality) == (10_000, True)
        assert sorted(found.accepted_compression_types) == [1, 2, 3, 4]
        name = f"org.apache.kafka.test.{kind.name.lower()}"
        data = compress(payload(name, 4.5), kind)
        assert pushed(wire, found.client_instance_id, found.subscription_id, data, compression_type=kind) == 0
        eventually(lambda: name in receiver.names(), what="the metrics at the receiver")
        assert receiver.bodies[0][0] == "/v1/metrics"


def test_what_is_refused(forwarding: Server) -> None:
    with Wire(forwarding.bootstrap, client_id="pushes-wrongly") as wire:
        found = wire.call(GET, 0, GetTelemetrySubscriptionsRequest())
        instance, subscription = found.client_instance_id, found.subscription_id
        again = wire.call(GET, 0, GetTelemetrySubscriptionsRequest(client_instance_id=instance))
        assert again.error_code == ErrorCode.THROTTLING_QUOTA_EXCEEDED
        good = payload("m", 1.0)
        assert pushed(wire, bytes(16), subscription, good) == ErrorCode.INVALID_REQUEST
        assert pushed(wire, instance, subscription + 1, good) == ErrorCode.UNKNOWN_SUBSCRIPTION_ID
        found = wire.call(GET, 0, GetTelemetrySubscriptionsRequest(client_instance_id=instance))
        assert (found.error_code, found.subscription_id) == (0, subscription)
        assert pushed(wire, instance, subscription, good) == 0
        assert pushed(wire, instance, subscription, good) == ErrorCode.THROTTLING_QUOTA_EXCEEDED

        def after_a_while(data: bytes, **options: object) -> int:
            return int(
                eventually(
                    lambda: code if (code := pushed(wire, instance, subscription, data, **options)) != 89 else None,
                    what="its turn",
                )
            )

        assert after_a_while(good, compression_type=9) == ErrorCode.UNSUPPORTED_COMPRESSION_TYPE
        assert after_a_while(bytes(10_001)) == ErrorCode.TELEMETRY_TOO_LARGE
        assert after_a_while(b"\x0a\xff\x01no") == ErrorCode.INVALID_RECORD
        assert after_a_while(b"not zstd", compression_type=4) == ErrorCode.INVALID_RECORD
        bomb = compress(bytes(64 << 20), Compression.ZSTD)
        assert len(bomb) < 10_000
        assert after_a_while(bomb, compression_type=4) == ErrorCode.INVALID_RECORD
        assert pushed(wire, instance, subscription, good, terminating=True) == 0
        assert pushed(wire, instance, subscription, good) == ErrorCode.INVALID_REQUEST


def test_who_nobody_asks_for_anything_is_told_so(forwarding: Server) -> None:
    with Wire(forwarding.bootstrap, client_id="another") as wire:
        found = wire.call(GET, 0, GetTelemetrySubscriptionsRequest())
        assert (found.error_code, list(found.requested_metrics), found.push_interval_ms) == (0, [], 300_000)


def test_metrics_are_shown_on_the_page(showing: Server) -> None:
    with Wire(showing.bootstrap, client_id="pushes-to-the-page") as wire:
        found = wire.call(GET, 0, GetTelemetrySubscriptionsRequest())
        assert not found.delta_temporality
        assert pushed(wire, found.client_instance_id, found.subscription_id, payload("my.metric", 7.25)) == 0
        (line,) = [line for line in showing.http_text("/metrics").splitlines() if line.startswith("client_my_metric{")]
        assert 'client_id="pushes-to-the-page"' in line
        assert line.endswith(" 7.25")


@pytest.mark.parametrize("kind", ["forwarding", "showing"])
def test_a_java_producer_pushes_its_metrics(
    kind: str, request: pytest.FixtureRequest, receiver: Receiver, tmp_path: Path
) -> None:
    server: Server = request.getfixturevalue(kind)
    with Wire(server.bootstrap) as wire:
        wire.create_topic(f"java-{kind}")
    config = tmp_path / "producer.properties"
    config.write_text("client.id=pushes-from-java\n")
    command = programs.kafka_tool(
        "org.apache.kafka.tools.ProducerPerformance", "--bootstrap-server", server.bootstrap, "--topic", f"java-{kind}",
        "--num-records", "300", "--record-size", "100", "--throughput", "100", "--command-config", str(config),
    )  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    if kind == "forwarding":
        wanted = "org.apache.kafka.producer.connection.creation.total"
        eventually(lambda: wanted in receiver.names(), what="the producer's metrics")
    else:
        page = server.http_text("/metrics")
        assert "client_org_apache_kafka_producer_" in page, page[-3000:]
