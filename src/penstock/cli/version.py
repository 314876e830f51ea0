"""`penstock version`: of this program and what it runs on, and, if asked, of a cluster."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock.base import twins
from penstock.cli.options import ADDRESSES, client_config_option, open_client, output_option
from penstock.cli.output import Column, Details, Json, Section, emit, number
from penstock.version import __version__

if TYPE_CHECKING:
    from penstock.cli.kafka.client import Client
    from penstock.cli.text_formats.addresses import Address

CLUSTER_TIMEOUT_S = 5.0


@click.command(
    epilog="JSON: {penstock, python, sqlite, system, twin}, all strings; with --bootstrap also {cluster, software, "
    "apis, features: [{name, level}]}."
)
@click.option(
    "-b", "--bootstrap", type=ADDRESSES,
    help="Also describe this cluster: its id, its software and its feature levels.",
)  # fmt: skip
@client_config_option
@output_option
def version(bootstrap: Sequence[Address] | None, client_config: Path | None, output_format: str) -> None:
    """Print versions.

    \b
    penstock version
    penstock version -b kafka.example.com:9093
    """
    import sqlite3

    document: dict[str, Json] = {
        "penstock": __version__,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "system": f"{sys.platform} {platform.machine()}",
        "twin": twins.why_not() or "in use",
    }
    sections: list[Section] = []
    if bootstrap is not None:
        with open_client(bootstrap, client_config, CLUSTER_TIMEOUT_S) as client:
            document |= _of_cluster(client)
        sections = [Section(key="features", title="", columns=[Column("name", "feature"), number("level")])]
    fields = [Column(key) for key in document if key != "features"]
    emit(Details(document=document, fields=fields, sections=sections), output_format)


def _of_cluster(client: Client) -> dict[str, Json]:
    """What a cluster says of itself. Which release it is no protocol of Kafka's tells; its features are."""
    from penstock.wire.api_keys import FIRST_OWN_API

    told = client.any_node().features
    is_ours = any(api.api_key >= FIRST_OWN_API for api in told.api_keys)
    return {
        "cluster": client.metadata([]).cluster_id,
        "software": "Penstock" if is_ours else "not Penstock",
        "apis": sum(api.api_key < FIRST_OWN_API for api in told.api_keys),
        "features": [
            {"name": feature.name, "level": feature.max_version_level}
            for feature in sorted(told.finalized_features, key=lambda feature: feature.name)
        ],
    }
