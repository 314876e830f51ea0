"""`penstock group`: the group of commands, and its plain ones; seek has a file of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from penstock.cli.completion import complete_groups, complete_topics
from penstock.cli.lazy import Lazy, LazyGroup
from penstock.cli.options import asks_cluster, confirm, dry_run_option, yes_option
from penstock.cli.output import Column, Details, Json, Listing, Result, Row, Section, number, plain_text
from penstock.cli.text_formats.quantities import count_text, plural

if TYPE_CHECKING:
    from collections.abc import Iterable

    from penstock.cli.kafka.client import Client, TopicPartition
    from penstock.cli.kafka.groups import Committed, Member
    from penstock.cli.kafka.offsets import OffsetRange


@click.group(
    cls=LazyGroup,
    sections={
        "Commands": {
            "list": Lazy("group:list_groups", "List groups."),
            "describe": Lazy("group:describe", "Show a group's members and the partitions they have."),
            "lag": Lazy("group:lag", "Show how far behind a group is."),
            "seek": Lazy("group_seek:seek", "Move a group to other offsets."),
            "delete": Lazy("group:delete", "Delete groups and their offsets."),
        }
    },
)
def group() -> None:
    """Groups: members, lag and offsets."""


@click.command("list", epilog="JSON: [{group, state, type, protocol_type, coordinator}].")
@asks_cluster
def list_groups(client: Client) -> Result:
    """List groups."""
    from penstock.cli.kafka.groups import list_groups as listed

    rows: list[Row] = [
        {
            "group": group.group_id,
            "state": group.state,
            "type": group.kind,
            "protocol_type": group.protocol_type,
            "coordinator": group.coordinator,
        }
        for group in listed(client)
    ]
    columns = [
        Column("group"),
        Column("state", style=_state_style),
        Column("type"),
        Column("protocol_type", "protocol"),
        number("coordinator"),
    ]
    none = "No groups that you may see." if client.security.uses_sasl else "No groups yet."
    return Listing(rows=rows, columns=columns, empty=f"{none} They appear when a consumer joins one.")


@click.command(
    epilog="JSON: {group, state, type, protocol_type, protocol, coordinator, members: [{member_id, instance_id, "
    "client_id, host, assignment: [{topic, partitions}]}]}."
)
@click.argument("name", metavar="GROUP", shell_complete=complete_groups)
@asks_cluster
def describe(client: Client, name: str) -> Result:
    """Show a group's members and the partitions they have.

    \b
    penstock group describe billing
    """
    from penstock.cli.kafka.groups import describe_group

    found = describe_group(client, name)
    document: dict[str, Json] = {
        "group": found.group_id,
        "state": found.state,
        "type": found.kind,
        "protocol_type": found.protocol_type,
        "protocol": found.protocol,
        "coordinator": found.coordinator,
        "members": [
            {
                "member_id": member.member_id,
                "instance_id": member.instance_id,
                "client_id": member.client_id,
                "host": member.host,
                "assignment": _assignment(member.assignment),
            }
            for member in sorted(found.members, key=lambda member: member.member_id)
        ],
    }
    members = [
        Column("client_id", "client"),
        Column("host"),
        Column("assignment", show=_assignment_text, wraps=True),
        Column("instance_id", "instance", is_extra=True),
        Column("member_id", "member", wraps=True),
    ]
    return Details(
        document=document,
        fields=[
            Column("group"),
            Column("state"),
            Column("type"),
            Column("protocol_type", "protocol"),
            Column("protocol", "assignor"),
            Column("coordinator"),
        ],
        sections=[Section(key="members", title="", columns=members, empty="No members.")],
    )


@click.command(
    epilog="JSON: {group, state, lag, partitions: [{topic, partition, committed, start_offset, end_offset, lag, "
    "client_id, host, metadata}]}. committed and lag are null where nothing is committed. Of a share group, committed "
    "is where it begins, and lag leaves out what is done with after that."
)
@click.argument("name", metavar="GROUP", shell_complete=complete_groups)
@click.option(
    "-t", "--topic", "topics", metavar="TOPIC", multiple=True, help="Only this topic.", shell_complete=complete_topics
)
@asks_cluster
def lag(client: Client, name: str, topics: tuple[str, ...]) -> Result:
    """Show how far behind a group is.

    \b
    penstock group lag billing
    penstock group lag billing -t orders -o json
    """
    from penstock.cli.kafka.groups import describe_group, positions
    from penstock.cli.kafka.offsets import offset_ranges

    found = describe_group(client, name)
    committed = positions(client, found)
    readers = {where: member for member in found.members for where in member.assignment}
    wheres = sorted(where for where in {*committed, *readers} if not topics or where.topic in topics)
    topics_now = client.metadata({where.topic for where in wheres}).topics
    # A topic may have been deleted, or made again with fewer partitions, since the group committed.
    wheres = [
        where for where in wheres if where.topic in topics_now and where.partition in topics_now[where.topic].partitions
    ]
    kept = offset_ranges(client, wheres)
    rows = [_lag_row(where, kept[where], committed.get(where), readers.get(where)) for where in wheres]
    total = sum(int(str(row["lag"])) for row in rows if row["lag"] is not None)
    columns = [
        Column("topic"),
        number("partition"),
        number("committed"),
        number("end_offset", "end"),
        Column("lag", show=count_text, right=True, style=lambda value: "yellow" if value else "green"),
        Column("client_id", "client"),
        Column("host"),
    ]
    return Details(
        document={"group": name, "state": found.state, "lag": total, "partitions": rows},
        fields=[Column("group"), Column("state"), Column("lag", show=count_text)],
        sections=[Section(key="partitions", title="", columns=columns, empty="Nothing is committed or assigned.")],
    )


def _lag_row(where: TopicPartition, kept: OffsetRange, committed: Committed | None, reader: Member | None) -> Row:
    left = None
    if committed is not None:
        # Committed records may be deleted since: what is left to read begins at the start.
        left = max(0, kept.end - max(committed.offset, kept.start)) if committed.lag is None else committed.lag
    return {
        "topic": where.topic,
        "partition": where.partition,
        "committed": committed.offset if committed else None,
        "start_offset": kept.start,
        "end_offset": kept.end,
        "lag": left,
        "client_id": reader.client_id if reader else None,
        "host": reader.host if reader else None,
        "metadata": committed.metadata if committed else None,
    }


@click.command(epilog="JSON: [{group, state, partitions, deleted}]. partitions: how many have a committed offset.")
@click.argument("names", metavar="GROUP...", nargs=-1, required=True, shell_complete=complete_groups)
@yes_option
@dry_run_option
@asks_cluster
def delete(client: Client, names: tuple[str, ...], yes: bool, dry_run: bool) -> Result:
    """Delete groups and their offsets. Refused while a group has members.

    \b
    penstock group delete billing
    """
    from penstock.cli.kafka.groups import delete_groups, describe_group, positions

    wanted = tuple(dict.fromkeys(names))
    rows: list[Row] = [
        {
            "group": name,
            "state": (found := describe_group(client, name)).state,
            "partitions": len(positions(client, found)),
            "deleted": not dry_run,
        }
        for name in wanted
    ]
    if not dry_run:
        offsets = plural(sum(int(str(row["partitions"])) for row in rows), "committed offset")
        confirm(f"Delete {', '.join(wanted)} with {offsets}?", yes=yes)
        delete_groups(client, wanted)
    columns = [Column("group"), Column("state"), number("partitions"), Column("deleted")]
    return Listing(rows=rows, columns=columns, empty="")


def _assignment(partitions: Iterable[TopicPartition]) -> list[Json]:
    from penstock.cli.kafka.client import by_topic

    return [
        {"topic": topic, "partitions": [where.partition for where in assigned]}
        for topic, assigned in by_topic(partitions).items()
    ]


def _assignment_text(assignment: list[dict[str, Json]]) -> str:
    return " ".join(f"{entry['topic']}[{plain_text(entry['partitions'])}]" for entry in assignment) or "-"


def _state_style(state: Json) -> str:
    return {"Stable": "green", "Empty": "dim", "Dead": "dim"}.get(str(state), "yellow")
