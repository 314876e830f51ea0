"""A tenant who wants more than its limits: produces, asks and connects as fast as it is let.

    python -m benchmarks.neighbour HOST:PORT ROOT_PASSWORD_FILE

Makes a virtual cluster with limits and an API key, as the user `root`, says `standing` once its noise is up, and goes
on until it is killed. How much was let through is what the limits say; the rest waits.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from penstock.base.clock import SystemClock
from penstock.base.errors import PlatformError
from penstock.cli.kafka.client import Client
from penstock.cli.kafka.client_config import Security
from penstock.cli.kafka.connection import Connection
from penstock.cli.kafka.service_accounts import MadeKey, create_account, create_key
from penstock.cli.kafka.topics import create_topic
from penstock.cli.kafka.virtual_clusters import create_cluster, describe_clusters
from penstock.cli.text_formats.addresses import Address, parse_address
from penstock.wire.api_keys import ApiKey
from penstock.wire.messages.metadata import MetadataRequest, MetadataResponse
from penstock.wire.messages.produce import (
    PartitionProduceData,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
)
from penstock.wire.records import Record, build_batch

CLUSTER, TOPIC = "noisy", "noise"
LIMITS = {
    "bytes_in_rate": 4_000_000.0, "bytes_out_rate": 4_000_000.0, "request_rate": 400.0, "connection_rate": 10.0,
    "connections": 40.0,
}  # fmt: skip
PRODUCERS, ASKERS, STORMERS = 4, 4, 24
BATCH_BYTES = 64 * 1024


def key_of(address: Address, password: str) -> MadeKey:
    """A new key of the cluster, which is made if it is not there."""
    root = Security(protocol="SASL_PLAINTEXT", user="root", password=password)
    with Client([address], security=root) as admin:
        if not describe_clusters(admin, [CLUSTER]):
            create_cluster(admin, CLUSTER, environment="default", description="", limits=LIMITS)
            with Client([address], security=root, cluster=CLUSTER) as inside:
                create_account(inside, "noise", "")
                create_topic(inside, TOPIC, partitions=1, replication_factor=1, configs={})
        with Client([address], security=root, cluster=CLUSTER) as inside:
            return create_key(inside, "noise", "", None)


def main() -> int:
    # What it computes itself is another machine's matter: here it only gets what the others leave.
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    address = parse_address(sys.argv[1])
    key = key_of(address, Path(sys.argv[2]).read_text().strip())
    security = Security(protocol="SASL_PLAINTEXT", mechanism="PLAIN", user=key.key_id, password=key.secret)

    def connect() -> Connection:
        return Connection(address, client_id="noise", clock=SystemClock(), timeout_s=60.0, security=security)

    records = build_batch([Record(offset=0, timestamp=1_700_000_000_000, key=None, value=b"x" * BATCH_BYTES)])
    share = PartitionProduceData(index=0, records=records)
    produce = ProduceRequest(
        acks=-1, timeout_ms=30_000, topic_data=[TopicProduceData(name=TOPIC, partition_data=[share])]
    )

    def produces() -> None:
        connection = connect()
        while True:
            connection.call(ApiKey.PRODUCE, produce, ProduceResponse)

    def asks() -> None:
        connection = connect()
        while True:
            connection.call(ApiKey.METADATA, MetadataRequest(topics=None), MetadataResponse)

    def storms() -> None:
        while True:
            try:
                connect().close()
            except PlatformError:
                continue  # It was turned away, and is back at once.

    for work, count in ((produces, PRODUCERS), (asks, ASKERS), (storms, STORMERS)):
        for _ in range(count):
            threading.Thread(target=_until_killed, args=(work,), daemon=True).start()
    print("standing", flush=True)
    threading.Event().wait()
    return 0


def _until_killed(work: object) -> None:
    while True:
        try:
            work()  # type: ignore[operator]
        except PlatformError:
            continue


if __name__ == "__main__":
    sys.exit(main())
