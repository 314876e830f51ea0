"""`penstock topic alter`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from penstock.cli.completion import complete_topics
from penstock.cli.config import altered
from penstock.cli.options import asks_cluster, changes_of, dry_run_option, setting_options
from penstock.cli.output import Result

if TYPE_CHECKING:
    from penstock.cli.kafka.client import Client


@click.command(epilog="JSON: {name, changed, configs: [{name, before, after}]}.")
@click.argument("name", metavar="TOPIC", shell_complete=complete_topics)
@setting_options
@dry_run_option
@asks_cluster
def alter(
    client: Client, name: str, changes: tuple[tuple[str, str], ...], unset: tuple[str, ...], dry_run: bool
) -> Result:
    """Change settings of a topic.

    \b
    penstock topic alter orders --set retention.ms=86400000
    penstock topic alter orders --unset retention.ms
    """
    from penstock.base.config_values import ConfigResource
    from penstock.cli.kafka.configs import Resource

    topic = Resource(ConfigResource.TOPIC, name)
    wanted = changes_of(changes, unset)
    return altered(client, topic, wanted, unset, dry_run=dry_run, described=topic, named={"name": name})
