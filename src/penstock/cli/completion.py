"""`penstock completion`: scripts for shells, and completion of names that only the cluster knows."""

from __future__ import annotations

import click


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


def complete_topics(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Topics that begin so."""
    return _ask(ctx, incomplete, "topics")


def complete_groups(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Groups that begin so."""
    return _ask(ctx, incomplete, "groups")


def _ask(ctx: click.Context, incomplete: str, what: str) -> list[str]:
    from penstock.base.errors import PlatformError
    from penstock.cli.kafka.groups import list_groups
    from penstock.cli.options import ADDRESSES, DEFAULT_BOOTSTRAP, open_client

    # Whoever presses Tab gets names at once or nothing; never an error in the middle of a line.
    try:
        bootstrap = ADDRESSES.convert(ctx.params.get("bootstrap") or DEFAULT_BOOTSTRAP, None, ctx)
        with open_client(bootstrap, ctx.params.get("client_config"), 1.0, ctx.params.get("cluster")) as client:
            if what == "topics":
                names = [topic.name for topic in client.metadata(None).topics.values()]
            else:
                names = [group.group_id for group in list_groups(client)]
    except PlatformError:
        return []
    return sorted(name for name in names if name.startswith(incomplete))
