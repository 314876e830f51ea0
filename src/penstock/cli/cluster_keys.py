"""`penstock cluster keys|encrypt|rotate-key|erase`: encryption at rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from penstock.cli.completion import complete_clusters
from penstock.cli.options import asks_cluster, confirm, yes_option
from penstock.cli.output import Column, Listing, Notice, Result, Row, number
from penstock.cli.text_formats.times import iso, to_the_second

if TYPE_CHECKING:
    from penstock.cli.kafka.client import Client


@click.command(epilog="JSON: [{cluster, state, data_keys, master_key, current_since}].")
@asks_cluster
def keys(client: Client) -> Result:
    """List encrypted clusters and the state of their keys.

    on: what is written is encrypted. locked: the key service does not answer. erasing, erased: nothing can be read.
    """
    from penstock.cli.kafka.cluster_keys import describe_keys

    rows: list[Row] = [
        {
            "cluster": found.name,
            "state": found.state,
            "data_keys": found.data_keys,
            "master_key": found.master_key_id,
            "current_since": None if found.current_since_ms is None else iso(found.current_since_ms),
        }
        for found in describe_keys(client)
    ]
    columns = [
        Column("cluster"),
        Column("state"),
        number("data_keys", "data keys"),
        Column("master_key", "master key"),
        Column("current_since", "current since", to_the_second),
    ]
    return Listing(rows=rows, columns=columns, empty="No cluster is encrypted. See: penstock cluster encrypt NAME")


@click.command(epilog="JSON: {cluster, state}.")
@click.argument("name", metavar="NAME", shell_complete=complete_clusters)
@asks_cluster
def encrypt(client: Client, name: str) -> Result:
    """Encrypt what a cluster stores from now on.

    Cannot be undone. Data that is stored already is encrypted when compaction rewrites it.

    \b
    penstock cluster encrypt acme
    """
    from penstock.cli.kafka.cluster_keys import ENCRYPT, alter_keys

    state = alter_keys(client, name, ENCRYPT)
    return Notice(
        document={"cluster": name, "state": state}, sentence=f"What cluster {name} stores is encrypted from now on."
    )


@click.command("rotate-key", epilog="JSON: {cluster, state}.")
@click.argument("name", metavar="NAME", shell_complete=complete_clusters)
@click.option(
    "--master", is_flag=True, help="Wrap the data keys with a new master key instead, and destroy the old one."
)
@asks_cluster
def rotate_key(client: Client, name: str, master: bool) -> Result:
    """Switch a cluster to a new data key.

    The old key is kept for as long as anything is encrypted with it.

    \b
    penstock cluster rotate-key acme
    penstock cluster rotate-key acme --master
    """
    from penstock.cli.kafka.cluster_keys import REWRAP, ROTATE, alter_keys

    state = alter_keys(client, name, REWRAP if master else ROTATE)
    what = "master" if master else "data"
    return Notice(document={"cluster": name, "state": state}, sentence=f"Cluster {name} has a new {what} key.")


@click.command(epilog="JSON: {cluster, state}.")
@click.argument("name", metavar="NAME", shell_complete=complete_clusters)
@yes_option
@asks_cluster
def erase(client: Client, name: str, yes: bool) -> Result:
    """Make all encrypted data of a cluster unreadable, for good.

    Its keys are destroyed: nobody can ever read the data again, not even from backups.

    \b
    penstock cluster erase acme
    """
    from penstock.cli.kafka.cluster_keys import ERASE, alter_keys

    confirm(f"Destroy the keys of cluster {name}, and with them everything it has?", yes=yes)
    state = alter_keys(client, name, ERASE)
    sentence = f"Cluster {name} is erased."
    if state != "erased":
        sentence = f"Nothing of cluster {name} can be read any more. The key service is asked to destroy the key."
    return Notice(document={"cluster": name, "state": state}, sentence=sentence)
