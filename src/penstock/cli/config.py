"""`penstock config`: settings of topics, groups, brokers and client metrics subscriptions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from penstock.cli.completion import complete_groups, complete_topics
from penstock.cli.lazy import Lazy, LazyGroup
from penstock.cli.options import asks_cluster, changes_of, dry_run_option, setting_options
from penstock.cli.output import Column, Details, Listing, Result, Row, Section

if TYPE_CHECKING:
    from penstock.cli.kafka.client import Client
    from penstock.cli.kafka.configs import Resource

_SHAPE = "JSON: {type, name, "
_OPTIONS = ("topic", "group", "client_metrics")
_FIELDS = [Column("type"), Column("name")]


@click.group(
    cls=LazyGroup,
    sections={
        "Commands": {
            "list": Lazy("config:list_configured", "List groups and client metrics subscriptions that have settings."),
            "describe": Lazy("config:describe", "Show settings of a topic, a group, the brokers or a subscription."),
            "alter": Lazy("config:alter", "Change settings of a topic, a group, the brokers or a subscription."),
        }
    },
)
def config() -> None:
    """Settings of topics, groups, brokers and client metrics.

    \b
    penstock config alter --group orders --set consumer.session.timeout.ms=50000
    penstock config alter --broker --set log.retention.ms=86400000
    penstock config describe --broker
    """


def resource_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--topic`, `--group`, `--client-metrics` or `--broker`; the function gets a `resource`."""

    @click.option("--topic", metavar="NAME", help="A topic.", shell_complete=complete_topics)
    @click.option("--group", metavar="NAME", help="A group, of any type.", shell_complete=complete_groups)
    @click.option("--broker", is_flag=True, help="The defaults of the whole cluster: Kafka's broker settings.")
    @click.option("--client-metrics", metavar="NAME", help="A client metrics subscription (KIP-714).")
    @functools.wraps(function)
    def chosen(*args: Any, broker: bool, **kwargs: Any) -> Any:
        from penstock.cli.kafka.configs import NAMES, Resource

        kinds = {name.replace("-", "_"): kind for kind, name in NAMES.items()}
        named = {option: kwargs.pop(option) for option in _OPTIONS}
        given = [Resource(kinds[option], name) for option, name in named.items() if name is not None]
        if any(not resource.name for resource in given):
            raise click.UsageError("the name is empty")
        given += [Resource(kinds["broker"], "")] if broker else []
        if len(given) != 1:
            raise click.UsageError("whose settings? Give one of --topic, --group, --broker and --client-metrics")
        return function(*args, resource=given[0], **kwargs)

    return chosen


@click.command("list", epilog="JSON: [{type, name}].")
@asks_cluster
def list_configured(client: Client) -> Result:
    """List groups and client metrics subscriptions that have settings.

    For topics: penstock topic list.
    """
    from penstock.base.config_values import ConfigResource
    from penstock.cli.kafka.configs import NAMES, configured

    found = configured(client, (ConfigResource.CLIENT_METRICS, ConfigResource.GROUP))
    rows: list[Row] = [{"type": NAMES[resource.kind], "name": resource.name} for resource in found]
    return Listing(rows=rows, columns=_FIELDS, empty="No group or subscription has settings of its own.")


@click.command(
    epilog=f"{_SHAPE}configs: [{{name, value, default, source, read_only}}]}}. source: topic, group, client-metrics;"
    " cluster, broker (changed at run time); static (given at start); default. A secret is null."
)
@resource_option
@click.option("-a", "--all-configs", is_flag=True, help="Also show settings that are at their default.")
@asks_cluster
def describe(client: Client, resource: Resource, all_configs: bool) -> Result:
    """Show settings of a topic, a group, the brokers or a subscription.

    \b
    penstock config describe --group orders
    penstock config describe --broker --all-configs
    """
    from penstock.cli.kafka.configs import configs_of

    asked = resource if resource.name else resource._replace(name=_any_broker(client))
    rows: list[Row] = [
        {
            "name": found.name,
            "value": found.value,
            "default": found.otherwise,
            "source": found.source,
            "read_only": found.read_only,
        }
        for found in configs_of(client, asked).values()
        if all_configs or found.source != "default"
    ]
    columns = [
        Column("name", "setting"), Column("value", wraps=True), Column("default", wraps=True), Column("source", "from"),
    ]  # fmt: skip
    section = Section(key="configs", title="", columns=columns, empty="All settings have their defaults.")
    return Details(document={**_named(resource), "configs": rows}, fields=_FIELDS, sections=[section])


@click.command(epilog=f"{_SHAPE}changed, configs: [{{name, before, after}}]}}.")
@resource_option
@setting_options
@dry_run_option
@asks_cluster
def alter(
    client: Client, resource: Resource, changes: tuple[tuple[str, str], ...], unset: tuple[str, ...], dry_run: bool
) -> Result:
    """Change settings of a topic, a group, the brokers or a subscription.

    A group may be given settings before its first member joins. Which broker settings can be changed at run time is in
    the reference; they apply at once, on every agent.

    \b
    penstock config alter --group orders --set consumer.session.timeout.ms=50000
    penstock config alter --broker --set log.retention.ms=86400000 --dry-run
    penstock config alter --client-metrics latency --set metrics=org.apache.kafka.producer. --set interval.ms=30000
    """
    wanted = changes_of(changes, unset)
    described = resource if resource.name else resource._replace(name=_any_broker(client))
    return altered(client, resource, wanted, unset, dry_run=dry_run, described=described, named=_named(resource))


def altered(
    client: Client, resource: Resource, wanted: dict[str, str], unset: tuple[str, ...], *, dry_run: bool,
    described: Resource, named: Row,
) -> Details:  # fmt: skip
    """Change settings; what they were before, and are now. `described` is where they can be seen."""
    from penstock.cli.kafka.configs import alter_configs, configs_of

    before = configs_of(client, described)
    alter_configs(client, resource, changed=wanted, unset=unset, dry_run=dry_run)
    after: dict[str, str | None] = {key: before[key].otherwise if key in before else None for key in unset}
    after.update(wanted)
    if not dry_run:
        seen = configs_of(client, described)
        after = {key: seen[key].value if key in seen else None for key in after}
    rows: list[Row] = [
        {"name": key, "before": before[key].value if key in before else None, "after": value}
        for key, value in sorted(after.items())
    ]
    columns = [Column("name", "setting"), Column("before", wraps=True), Column("after", wraps=True)]
    return Details(
        document={**named, "changed": not dry_run, "configs": rows},
        sections=[Section(key="configs", title="", columns=columns)],
        footer="Nothing was changed." if dry_run else "",
    )


def _named(resource: Resource) -> Row:
    from penstock.cli.kafka.configs import NAMES

    return {"type": NAMES[resource.kind], "name": resource.name or None}


def _any_broker(client: Client) -> str:
    """Settings of the whole cluster are seen on each of its brokers."""
    return str(min(client.retry(lambda: client.metadata([])).brokers))
