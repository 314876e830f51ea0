"""`penstock acl`: who may do what, one rule at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from penstock.base.acls import CLUSTER_NAME, Acl, AclFilter, Operation, PatternType, Permission, ResourceType
from penstock.cli.completion import complete_principals
from penstock.cli.lazy import Lazy, LazyGroup
from penstock.cli.options import Parsed, asks_cluster, confirm, dry_run_option, yes_option
from penstock.cli.output import Column, Listing, Result, Row
from penstock.cli.text_formats.principals import parse_operation, parse_principal, shown
from penstock.cli.text_formats.quantities import plural

if TYPE_CHECKING:
    from penstock.cli.kafka.client import Client

Resource = tuple[ResourceType, str, PatternType]

PRINCIPAL = Parsed("PRINCIPAL", parse_principal)
OPERATION = Parsed("OPERATION", parse_operation)
_SHAPE = "{principal, host, permission, operation, resource_type, resource_name, pattern"
_COLUMNS = [
    Column("principal"), Column("permission"), Column("operation"), Column("resource_type", "on"),
    Column("resource_name", "name"), Column("pattern"), Column("host"),
]  # fmt: skip
_NAMED = (
    ("topic", ResourceType.TOPIC, "topic"), ("group", ResourceType.GROUP, "group"),
    ("transactional_id", ResourceType.TRANSACTIONAL_ID, "transactional id"), ("user", ResourceType.USER, "user"),
)  # fmt: skip


@click.group(
    cls=LazyGroup,
    sections={
        "Commands": {
            "list": Lazy("acl:list_acls", "List rules: all, or those about a principal, or about a resource."),
            "allow": Lazy("acl:allow", "Allow a principal to do something."),
            "deny": Lazy("acl:deny", "Forbid a principal to do something, whatever else allows it."),
            "remove": Lazy(
                "acl:remove",
                "Remove rules about a principal: all of them, or only those with these operations, on these resources.",
            ),
        }
    },
)
def acl() -> None:
    """ACL rules, one at a time. Roles are sets of rules: penstock role.

    \b
    penstock acl allow alice read --topic orders --group reports
    penstock acl allow loader write create --topic-prefix staging-
    penstock acl deny alice read --topic orders-secret
    """


def resource_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--topic`, `--topic-prefix`, …; the function gets `resources`."""

    @functools.wraps(function)
    def gathered(*args: Any, **kwargs: Any) -> Any:
        resources: list[Resource] = []
        for option, kind, _ in _NAMED:
            resources += [(kind, name, PatternType.LITERAL) for name in kwargs.pop(option)]
            resources += [(kind, name, PatternType.PREFIXED) for name in kwargs.pop(f"{option}_prefix")]
        if kwargs.pop("whole_cluster"):
            resources.append((ResourceType.CLUSTER, CLUSTER_NAME, PatternType.LITERAL))
        if any(not name for _, name, _ in resources):
            raise click.UsageError("a resource needs a name; '*' means all")
        return function(*args, resources=resources, **kwargs)

    gathered = click.option("--whole-cluster", is_flag=True, help="The cluster as a whole.")(gathered)
    for option, _, words in reversed(_NAMED):
        flag = f"--{option.replace('_', '-')}"
        gathered = click.option(
            f"{flag}-prefix", f"{option}_prefix", metavar="PREFIX", multiple=True,
            help=f"Every {words} with this prefix.",
        )(gathered)  # fmt: skip
        gathered = click.option(
            flag, option, metavar="NAME", multiple=True, help=f"A {words}; '*' means all of them."
        )(gathered)  # fmt: skip
    return gathered


host_option = click.option("--host", metavar="ADDRESS", default="*", help="Only from this address.")


@click.command("list", epilog=f"JSON: [{_SHAPE}}}].")
@click.option("-p", "--principal", type=PRINCIPAL, help="Only rules about this principal.")
@resource_options
@asks_cluster
def list_acls(client: Client, principal: str | None, resources: Sequence[Resource]) -> Result:
    """List rules: all, or those about a principal, or about a resource.

    For a resource given by name, every rule that applies to it is shown, those for prefixes and '*' included.

    \b
    penstock acl list --principal alice
    penstock acl list --topic orders
    """
    from penstock.cli.kafka.acls import describe_acls

    filters = [
        AclFilter(
            principal=principal, resource_type=kind, resource_name=name,
            pattern_type=PatternType.MATCH if pattern is PatternType.LITERAL else pattern,
        )
        for kind, name, pattern in resources
    ] or [AclFilter(principal=principal)]  # fmt: skip
    found = dict.fromkeys(acl for asked in filters for acl in describe_acls(client, asked))
    return Listing(rows=[_row(acl) for acl in found], columns=_COLUMNS, empty="No rules.")


def _changes(name: str, permission: Permission, help_text: str) -> click.Command:
    @click.command(name, epilog=f"JSON: [{_SHAPE}, created}}].", help=help_text)
    @click.argument("principal", type=PRINCIPAL, shell_complete=complete_principals)
    @click.argument("operations", type=OPERATION, nargs=-1, required=True)
    @resource_options
    @host_option
    @dry_run_option
    @asks_cluster
    def change(
        client: Client, principal: str, operations: Sequence[Operation], resources: Sequence[Resource], host: str,
        dry_run: bool,
    ) -> Result:  # fmt: skip
        from penstock.cli.kafka.acls import create_acls

        wanted = _acls(principal, operations, resources, host, permission)
        if not dry_run:
            create_acls(client, wanted)
        rows: list[Row] = [{**_row(acl), "created": not dry_run} for acl in wanted]
        return Listing(rows=rows, columns=[*_COLUMNS, Column("created")], empty="")

    return change


allow = _changes(
    "allow",
    Permission.ALLOW,
    """Allow a principal to do something.

    PRINCIPAL is a user's name, or '*' for everybody. OPERATIONS: read, write, create, delete, alter, describe,
    describe-configs, alter-configs, cluster-action, idempotent-write, all. Read, write, delete and alter imply
    describe.

    \b
    penstock acl allow alice read --topic orders --group reports
    penstock acl allow loader write create --topic-prefix staging-
    """,
)
deny = _changes(
    "deny",
    Permission.DENY,
    """Forbid a principal to do something, whatever else allows it.

    Denying read leaves describe allowed.

    \b
    penstock acl deny '*' read --topic orders-secret --host 10.0.0.7
    """,
)


@click.command(epilog=f"JSON: [{_SHAPE}, removed}}].")
@click.argument("principal", type=PRINCIPAL, shell_complete=complete_principals)
@click.argument("operations", type=OPERATION, nargs=-1)
@resource_options
@yes_option
@dry_run_option
@asks_cluster
def remove(
    client: Client, principal: str, operations: Sequence[Operation], resources: Sequence[Resource], yes: bool,
    dry_run: bool,
) -> Result:  # fmt: skip
    """Remove rules about a principal: all of them, or only those with these operations, on these resources.

    Given a resource, only rules for exactly that name or prefix are removed.

    \b
    penstock acl remove alice read --topic orders
    """
    from penstock.cli.kafka.acls import delete_acls, describe_acls

    found = [
        acl
        for acl in describe_acls(client, AclFilter(principal=principal))
        if (not operations or acl.operation in operations)
        and (not resources or (acl.resource_type, acl.resource_name, acl.pattern_type) in resources)
    ]
    if found and not dry_run:
        confirm(f"Remove {plural(len(found), 'rule')} about {principal}?", yes=yes)
        delete_acls(client, found)
    rows: list[Row] = [{**_row(acl), "removed": not dry_run} for acl in found]
    return Listing(rows=rows, columns=[*_COLUMNS, Column("removed")], empty="There is no such rule.")


def _acls(
    principal: str, operations: Sequence[Operation], resources: Sequence[Resource], host: str, permission: Permission
) -> list[Acl]:
    if not resources:
        raise click.UsageError("say on what: --topic, --group, --transactional-id, --whole-cluster, …")
    return [
        Acl(
            resource_type=kind, resource_name=name, pattern_type=pattern, principal=principal, host=host,
            operation=operation, permission=permission,
        )
        for kind, name, pattern in resources
        for operation in dict.fromkeys(operations)
    ]  # fmt: skip


def _row(acl: Acl) -> Row:
    return {
        "principal": acl.principal,
        "host": acl.host,
        "permission": acl.permission.name.lower(),
        "operation": shown(acl.operation),
        "resource_type": acl.resource_type.name.lower().replace("_", "-"),
        "resource_name": acl.resource_name,
        "pattern": acl.pattern_type.name.lower(),
    }
