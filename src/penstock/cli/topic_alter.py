"""`penstock topic alter`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from penstock.cli.completion import complete_topics
from penstock.cli.options import SETTING, asks_cluster, dry_run_option, settings_of
from penstock.cli.output import Column, Details, Result, Row, Section

if TYPE_CHECKING:
    from penstock.cli.kafka.client import Client


@click.command(epilog="JSON: {name, changed, configs: [{name, before, after}]}.")
@click.argument("name", metavar="TOPIC", shell_complete=complete_topics)
@click.option("-s", "--set", "changes", type=SETTING, multiple=True, help="A setting to change. May be repeated.")
@click.option("-u", "--unset", metavar="KEY", multiple=True, help="A setting to reset to its default. May be repeated.")
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
    from penstock.cli.kafka.configs import alter_topic_configs, topic_configs

    wanted = settings_of(changes, "--set")
    if not wanted and not unset:
        raise click.UsageError("nothing to change; give --set KEY=VALUE or --unset KEY")
    both = sorted(set(wanted) & set(unset))
    if both:
        raise click.UsageError(f"{both[0]} is both set and unset")
    before = topic_configs(client, name)
    alter_topic_configs(client, name, changed=wanted, unset=unset, dry_run=dry_run)
    after: dict[str, str | None] = {key: before[key].otherwise if key in before else None for key in unset}
    after.update(wanted)
    if not dry_run:
        seen = topic_configs(client, name)
        after = {key: seen[key].value if key in seen else None for key in after}
    rows: list[Row] = [
        {"name": key, "before": before[key].value if key in before else None, "after": value}
        for key, value in sorted(after.items())
    ]
    return Details(
        document={"name": name, "changed": not dry_run, "configs": rows},
        sections=[
            Section(
                key="configs",
                title="",
                columns=[Column("name", "setting"), Column("before", wraps=True), Column("after", wraps=True)],
            )
        ],
        footer="Nothing was changed." if dry_run else "",
    )
