"""`penstock user`: who may connect with a name and a password.

The first user is made in the data directory while nothing runs there; all others over the network by those who may.
A password is typed, read from standard input, or generated and written to a file that only its owner can read.
It is never an argument.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from penstock.base.context import DEFAULT_CLUSTER_NAME
from penstock.base.roles import ROLES, Scope, acls_of
from penstock.cli.completion import complete_users
from penstock.cli.errors import Misuse
from penstock.cli.lazy import Lazy, LazyGroup
from penstock.cli.login_file import LoginFile, login_file, write_options
from penstock.cli.options import (
    DIRECTORY,
    Parsed,
    asks_cluster,
    client_options,
    confirm,
    dry_run_option,
    output_option,
    require_known,
    yes_option,
)
from penstock.cli.output import Column, Listing, Notice, Result, Row, emit
from penstock.cli.up import parse_metadata_url

if TYPE_CHECKING:
    from penstock.cli.kafka.client import Client

NO_ROLE = "none"


@click.group(
    cls=LazyGroup,
    sections={
        "Commands": {
            "list": Lazy("user:list_users", "List users and the SASL mechanisms they can use."),
            "create": Lazy("user:create", "Create a user."),
            "password": Lazy("user:change_password", "Change a user's password."),
            "delete": Lazy("user:delete", "Delete users: they can no longer connect."),
        }
    },
)
def user() -> None:
    """Users and their passwords."""


@click.command("list", epilog="JSON: [{user, mechanisms, iterations}].")
@asks_cluster
def list_users(client: Client) -> Result:
    """List users and the SASL mechanisms they can use."""
    from penstock.cli.kafka.users import describe_users

    rows: list[Row] = [
        {"user": found.name, "mechanisms": list(found.mechanisms), "iterations": list(found.iterations)}
        for found in describe_users(client)
    ]
    columns = [Column("user"), Column("mechanisms", wraps=True), Column("iterations")]
    return Listing(rows=rows, columns=columns, empty="No users yet. Create one: penstock user create NAME")


def takes_password(function: Callable[..., Result]) -> Callable[..., None]:
    """Options of commands that set a password, here or in a data directory that nothing runs on."""

    @click.option(
        "--data-dir", type=DIRECTORY,
        help="Work on this data directory directly, while Penstock is not running.",
    )  # fmt: skip
    @click.option(
        "--metadata", "metadata_url", type=Parsed("URL", parse_metadata_url), hidden=True, envvar="PENSTOCK_METADATA",
        help="PostgreSQL that has the metadata of --data-dir.",
    )  # fmt: skip
    @write_options("Generate a password and write it to FILE, for --client-config and Kafka's --command-config.")
    @dry_run_option
    @client_options
    @output_option
    @functools.wraps(function)
    def body(client: Client, output_format: str, **kwargs: Any) -> None:
        emit(function(client, **kwargs), output_format)

    return body


@click.command(epilog="JSON: {user, created, file, role}.")
@click.argument("name", metavar="NAME")
@click.option(
    "--role", type=click.Choice([*ROLES, NO_ROLE]), show_default=False,
    help="The user's role, see penstock role.  [default: admin with --data-dir, else none]",
)  # fmt: skip
@takes_password
def create(
    client: Client, name: str, role: str | None, data_dir: Path | None, metadata_url: str | None, target: Path | None,
    ca: Path | None, dry_run: bool,
) -> Result:  # fmt: skip
    """Create a user.

    The password is typed, read from standard input, or generated and written to a file (--write). Create the first
    user with --data-dir, before `penstock up` is started; it may do everything.

    The file contains everything that a client needs: the password, the certificate authority and the address. It can be
    copied to other machines.

    \b
    penstock user create admin --data-dir /var/lib/penstock --write admin.properties --ca ca.pem
    penstock user create alice --role developer
    """
    from penstock.base.errors import InvalidRequest
    from penstock.cli.kafka.users import describe_users

    if data_dir is None and any(found.name == name for found in describe_users(client, [name])):
        raise InvalidRequest(f"user {name!r} exists already. To change its password: penstock user password {name}")
    if role is None:
        # Who can write to the data directory could do everything anyway.
        role = NO_ROLE if data_dir is None else "admin"
    file = login_file(client, target, ca, offline=data_dir is not None)
    login = name if dry_run else _set(client, name, data_dir, metadata_url, file, replace=False)
    if not dry_run:
        _grant(client, name, role, data_dir, metadata_url)
    document: Row = {
        "user": name, "created": not dry_run, "file": None if target is None else str(target),
        "role": None if role == NO_ROLE else role,
    }  # fmt: skip
    suffix = "" if role == NO_ROLE else f" with the role {role}"
    if dry_run:
        return Notice(document=document, sentence=f"Would create user {name}{suffix}.")
    # Where users have to log in, ACLs apply.
    hint = f" It has no rights yet: penstock role grant ROLE {name}" if role == NO_ROLE and _is_guarded(client) else ""
    return Notice(document=document, sentence=f"Created user {name}{suffix}.{_how(name, login, file)}{hint}")


def _grant(client: Client, name: str, role: str, data_dir: Path | None, metadata_url: str | None) -> None:
    if role == NO_ROLE:
        return
    rules = acls_of(ROLES[role], f"User:{name}", Scope())
    if data_dir is not None:
        from penstock.agent.offline import grant as grant_offline
        from penstock.base.options import UpOptions

        grant_offline(UpOptions(data_dir=data_dir, metadata_url=metadata_url), rules)
    else:
        from penstock.cli.kafka.acls import create_acls

        create_acls(client, rules)


@click.command("password", epilog="JSON: {user, changed, file}.")
@click.argument("name", metavar="NAME", shell_complete=complete_users)
@takes_password
def change_password(
    client: Client, name: str, data_dir: Path | None, metadata_url: str | None, target: Path | None, ca: Path | None,
    dry_run: bool,
) -> Result:  # fmt: skip
    """Change a user's password.

    Existing connections stay open. With --data-dir, this is also the way back in when nobody knows a password any more.

    \b
    penstock user password alice
    penstock user password admin --data-dir /var/lib/penstock --write new-admin.properties --ca ca.pem
    """
    from penstock.base.errors import InvalidRequest
    from penstock.cli.kafka.users import describe_users

    if data_dir is None and not any(found.name == name for found in describe_users(client, [name])):
        raise InvalidRequest(f"there is no user {name!r}. To create it: penstock user create {name}")
    file = login_file(client, target, ca, offline=data_dir is not None)
    login = name if dry_run else _set(client, name, data_dir, metadata_url, file, replace=True)
    document: Row = {"user": name, "changed": not dry_run, "file": None if target is None else str(target)}
    if dry_run:
        return Notice(document=document, sentence=f"Would change the password of user {name}.")
    return Notice(document=document, sentence=f"Changed the password of user {name}.{_how(name, login, file)}")


@click.command(epilog="JSON: [{user, deleted}].")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete_users)
@yes_option
@dry_run_option
@asks_cluster
def delete(client: Client, names: tuple[str, ...], yes: bool, dry_run: bool) -> Result:
    """Delete users: they can no longer connect.

    \b
    penstock user delete alice
    """
    from penstock.cli.kafka.users import delete_users, describe_users

    wanted = tuple(dict.fromkeys(names))
    found = {one.name: one for one in describe_users(client, wanted)}
    require_known(wanted, found, "user", "user list")
    if not dry_run:
        confirm(f"Delete {', '.join(wanted)}?", yes=yes)
        delete_users(client, [found[name] for name in wanted])
    rows: list[Row] = [{"user": name, "deleted": not dry_run} for name in wanted]
    return Listing(rows=rows, columns=[Column("user"), Column("deleted")], empty="")


def _set(
    client: Client, name: str, data_dir: Path | None, metadata_url: str | None, file: LoginFile | None, *, replace: bool
) -> str:  # fmt: skip
    """Give a user a password; the name that the user logs in by."""
    if data_dir is not None:
        from penstock.agent.offline import require_unused

        require_unused(data_dir)  # Before anybody types a password.
    password = _generated() if file is not None else _asked(name)
    if data_dir is not None:
        from penstock.agent.offline import set_password as set_offline
        from penstock.base.options import UpOptions

        set_offline(UpOptions(data_dir=data_dir, metadata_url=metadata_url), name, password, replace=replace)
        login = name
    else:
        from penstock.cli.kafka.users import set_password

        login = _login_name(client, name)
        set_password(client, name, password)
    if file is not None:
        file.write("SCRAM-SHA-512", login, password)
    return login


def _login_name(client: Client, name: str) -> str:
    """Users of other clusters than the default one name their cluster when they log in."""
    from penstock.cli.kafka.virtual_clusters import current_cluster

    cluster = current_cluster(client)
    return name if cluster is None or cluster.name == DEFAULT_CLUSTER_NAME else f"{name}@{cluster.name}"


def _asked(name: str) -> str:
    if sys.stdin.isatty():
        return str(click.prompt(f"Password of {name}", hide_input=True, confirmation_prompt=True, err=True))
    password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise Misuse("no password came on standard input. To have one generated: --write FILE")
    return password


def _generated() -> str:
    import base64

    from penstock.base.randomness import SystemRandomness

    return base64.urlsafe_b64encode(SystemRandomness().token(24)).decode("ascii")


def _is_guarded(client: Client) -> bool:
    return client.security.uses_sasl


def _how(name: str, login: str, file: LoginFile | None) -> str:
    """How the user connects."""
    named = "" if login == name else f" The name to log in by is {login}."
    return named if file is None else f"{named} {file.sentence}"
