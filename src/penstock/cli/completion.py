"""`penstock completion`: scripts for shells, and completion of names that only the cluster knows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from penstock.cli.kafka.client import Client

_PATIENCE_S = 1.0


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a shell completion script.

    \b
    bash   penstock completion bash > ~/.local/share/bash-completion/completions/penstock
    zsh    penstock completion zsh > "${fpath[1]}/_penstock"
    fish   penstock completion fish > ~/.config/fish/completions/penstock.fish
    """
    from click.shell_completion import get_completion_class

    script = get_completion_class(shell)
    assert script is not None
    click.echo(script(ctx.find_root().command, {}, "penstock", "_PENSTOCK_COMPLETE").source())


def _names_of(ask: Callable[[Client], Iterable[str]]) -> Callable[..., list[str]]:
    """Completes by the names that a cluster has."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        from penstock.base.errors import PlatformError
        from penstock.cli.options import ADDRESSES, DEFAULT_BOOTSTRAP, open_client

        # Whoever presses Tab gets names at once or nothing; never an error in the middle of a line.
        try:
            bootstrap = ADDRESSES.convert(ctx.params.get("bootstrap") or DEFAULT_BOOTSTRAP, None, ctx)
            config, cluster = ctx.params.get("client_config"), ctx.params.get("cluster")
            with open_client(bootstrap, config, _PATIENCE_S, cluster, ctx) as client:
                # What a shell would take for more than a name is none: groups are called whatever clients like.
                return sorted({name for name in ask(client) if name.startswith(incomplete) and name.isprintable()})
        except PlatformError:
            return []

    return complete


def _topics(client: Client) -> Iterable[str]:
    return client.metadata(None).topics


def _groups(client: Client) -> Iterable[str]:
    from penstock.cli.kafka.groups import list_groups

    return (group.group_id for group in list_groups(client))


def _clusters(client: Client) -> Iterable[str]:
    from penstock.cli.kafka.virtual_clusters import describe_clusters

    return (cluster.name for cluster in describe_clusters(client))


def _environments(client: Client) -> Iterable[str]:
    from penstock.cli.kafka.virtual_clusters import describe_environments

    return (environment.name for environment in describe_environments(client))


def _users(client: Client) -> Iterable[str]:
    from penstock.cli.kafka.users import describe_users

    return (user.name for user in describe_users(client))


def _accounts(client: Client) -> Iterable[str]:
    from penstock.cli.kafka.service_accounts import describe_accounts

    return (account.name for account in describe_accounts(client))


def _api_keys(client: Client) -> Iterable[str]:
    from penstock.cli.kafka.service_accounts import describe_accounts

    return (key.key_id for account in describe_accounts(client) for key in account.keys)


def _transactional_ids(client: Client) -> Iterable[str]:
    from penstock.cli.kafka.transactions import list_transactions

    return (found.transactional_id for found in list_transactions(client))


complete_topics = _names_of(_topics)
complete_groups = _names_of(_groups)
complete_clusters = _names_of(_clusters)
complete_environments = _names_of(_environments)
complete_users = _names_of(_users)
complete_accounts = _names_of(_accounts)
complete_api_keys = _names_of(_api_keys)
complete_transactional_ids = _names_of(_transactional_ids)
complete_principals = _names_of(lambda client: (*_users(client), *_accounts(client)))
