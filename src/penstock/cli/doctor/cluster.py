"""Looks at a running cluster as its clients do: who answers, and is each broker where clients are told that it is?

A broker tells clients where to find it. An address that is good for the first contact and another one that leads
nowhere is the commonest thing to be wrong with a Kafka cluster.
"""

from __future__ import annotations

from collections.abc import Iterator

from penstock.base.clock import Clock
from penstock.base.errors import PlatformError
from penstock.cli.doctor.verdicts import Check, broker_verdict, check
from penstock.cli.kafka.client import Broker, Client
from penstock.cli.kafka.failures import Unreachable
from penstock.cli.text_formats.quantities import plural
from penstock.version import __version__
from penstock.wire.api_keys import ApiKey
from penstock.wire.messages.api_versions import ApiVersionsRequest, ApiVersionsResponse

ASKED = 50
"""How many answers are timed."""


def cluster_checks(client: Client) -> Iterator[Check]:
    """Everything about the cluster that a client finds."""
    try:
        cluster = client.metadata([])
    except PlatformError as problem:
        hint = "Start it, or say where it is and how to connect: --bootstrap, --client-config"
        yield check("cluster", problem.problem if isinstance(problem, Unreachable) else str(problem), fail=hint)
        return
    yield check("cluster", f"{cluster.cluster_id}, {plural(len(cluster.brokers), 'broker')}")
    for _, broker in sorted(cluster.brokers.items()):
        yield _broker_check(client, broker)


def _broker_check(client: Client, broker: Broker) -> Check:
    name = f"broker {broker.node_id}"
    try:
        return broker_verdict(name, str(broker.address), answer_latencies_ms(client, broker.node_id, client.clock))
    except Unreachable as problem:
        return check(
            name, problem.problem,
            fail="Clients are told this address. Give one that they reach: penstock up --advertise HOST:PORT",
        )  # fmt: skip
    except PlatformError as problem:
        return check(name, str(problem), fail="See what it logs")


def answer_latencies_ms(client: Client, node_id: int, clock: Clock) -> list[float]:
    """How long a broker takes for answers that need no work."""
    connection = client.node(node_id)
    request = ApiVersionsRequest(client_software_name="penstock", client_software_version=__version__)
    latencies: list[float] = []
    for _ in range(ASKED):
        started = clock.monotonic()
        connection.call(ApiKey.API_VERSIONS, request, ApiVersionsResponse)
        latencies.append((clock.monotonic() - started) * 1_000)
    return latencies
