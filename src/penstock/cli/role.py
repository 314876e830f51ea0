"""`penstock role`: sets of rules by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock.base.acls import Acl, AclFilter
from penstock.base.roles import ROLES, Scope, acls_of, granted_roles
from penstock.cli.acl import PRINCIPAL, host_option
from penstock.cli.completion import complete_principals
from penstock.cli.lazy import Lazy, LazyGroup
from penstock.cli.options import DIRECTORY, asks_cluster, dry_run_option, output_option
from penstock.cli.output import Column, Listing, Notice, Result, Row, emit, number

if TYPE_CHECKING:
    from penstock.cli.kafka.client import Client

ROLE = click.Choice(list(ROLES))
prefix_option = click.option(
    "--prefix", metavar="PREFIX", help="Only for topics, groups and transactional ids with this prefix."
)


@click.group(
    cls=LazyGroup,
    sections={
        "Commands": {
            "list": Lazy("role:list_roles", "List roles and what they allow."),
            "members": Lazy("role:members", "List principals and their roles."),
            "grant": Lazy("role:grant", "Grant a role to a principal."),
            "revoke": Lazy("role:revoke", "Revoke a role from a principal."),
        }
    },
)
def role() -> None:
    """Roles: named sets of ACL rules.

    Granting a role adds its rules, which penstock acl and Kafka's own tools show.

    \b
    penstock role grant developer alice --prefix orders-
    penstock role grant metrics exporter
    """


@click.command("list", epilog="JSON: [{role, summary, rules}].")
@output_option
def list_roles(output_format: str) -> None:
    """List roles and what they allow."""
    rows: list[Row] = [
        {"role": role.name, "summary": role.summary, "rules": len(acls_of(role, "User:*", Scope()))}
        for role in ROLES.values()
    ]
    columns = [Column("role"), number("rules"), Column("summary", "allows", wraps=True)]
    emit(Listing(rows=rows, columns=columns, empty=""), output_format)


@click.command(epilog="JSON: [{principal, role, prefix, host}].")
@click.option("-p", "--principal", type=PRINCIPAL, help="Only roles of this principal.")
@asks_cluster
def members(client: Client, principal: str | None) -> Result:
    """List principals and their roles.

    Whoever has all rules of a role has the role. For other rules: penstock acl list.
    """
    from penstock.cli.kafka.acls import describe_acls

    rows: list[Row] = [
        {"principal": who, "role": role.name, "prefix": scope.prefix, "host": scope.host}
        for who, role, scope in granted_roles(describe_acls(client, AclFilter(principal=principal)))
    ]
    columns = [Column("principal"), Column("role"), Column("prefix"), Column("host")]
    return Listing(rows=rows, columns=columns, empty="Nobody has a role. To give one: penstock role grant")


@click.command(epilog="JSON: {principal, role, prefix, host, rules, granted}.")
@click.argument("name", metavar="ROLE", type=ROLE)
@click.argument("principal", type=PRINCIPAL, shell_complete=complete_principals)
@prefix_option
@host_option
@click.option(
    "--data-dir", type=DIRECTORY,
    help="Work on this data directory directly, while Penstock is not running.",
)  # fmt: skip
@dry_run_option
@asks_cluster
def grant(
    client: Client, name: str, principal: str, prefix: str | None, host: str, data_dir: Path | None, dry_run: bool
) -> Result:
    """Grant a role to a principal.

    With --data-dir, this is the way back in when nobody is allowed to grant roles any more.

    \b
    penstock role grant developer alice --prefix orders-
    penstock role grant admin alice --data-dir /var/lib/penstock
    """
    rules = _rules(name, principal, prefix, host)
    if not dry_run and data_dir is not None:
        from penstock.agent.offline import grant as grant_offline
        from penstock.base.options import UpOptions

        grant_offline(UpOptions(data_dir=data_dir), rules)
    elif not dry_run:
        from penstock.cli.kafka.acls import create_acls

        create_acls(client, rules)
    document = _document(name, principal, prefix, host, rules)
    verb = "would be" if dry_run else "is"
    return Notice(document={**document, "granted": not dry_run}, sentence=f"{principal} {verb} {name}{_where(prefix)}.")


@click.command(epilog="JSON: {principal, role, prefix, host, rules, revoked}.")
@click.argument("name", metavar="ROLE", type=ROLE)
@click.argument("principal", type=PRINCIPAL, shell_complete=complete_principals)
@prefix_option
@host_option
@dry_run_option
@asks_cluster
def revoke(client: Client, name: str, principal: str, prefix: str | None, host: str, dry_run: bool) -> Result:
    """Revoke a role from a principal.

    This also removes rules that the principal has by another role: grant that one again.

    \b
    penstock role revoke developer alice --prefix orders-
    """
    from penstock.base.errors import InvalidRequest
    from penstock.cli.kafka.acls import delete_acls, describe_acls

    rules = _rules(name, principal, prefix, host)
    present = set(describe_acls(client, AclFilter(principal=principal))).intersection(rules)
    if not present:
        raise InvalidRequest(f"{principal} is not {name}{_where(prefix)}. See: penstock role members")
    if not dry_run:
        delete_acls(client, sorted(present))
    document = _document(name, principal, prefix, host, sorted(present))
    verb = "would not be" if dry_run else "is not"
    return Notice(
        document={**document, "revoked": not dry_run}, sentence=f"{principal} {verb} {name}{_where(prefix)} any more."
    )


def _rules(name: str, principal: str, prefix: str | None, host: str) -> list[Acl]:
    if prefix == "":
        raise click.UsageError("--prefix needs letters; leave it out for everything")
    return acls_of(ROLES[name], principal, Scope(prefix=prefix, host=host))


def _document(name: str, principal: str, prefix: str | None, host: str, rules: Sequence[Acl]) -> Row:
    return {"principal": principal, "role": name, "prefix": prefix, "host": host, "rules": len(rules)}


def _where(prefix: str | None) -> str:
    return "" if prefix is None else f" for what begins with {prefix}"
