"""`penstock transaction`: transactional ids and their transactions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from penstock.cli.completion import complete_transactional_ids
from penstock.cli.lazy import Lazy, LazyGroup
from penstock.cli.options import DURATION_MS, asks_cluster, confirm, dry_run_option, yes_option
from penstock.cli.output import Column, Details, Json, Listing, Notice, Result, Row, Section, number
from penstock.cli.text_formats.times import duration_text, iso

if TYPE_CHECKING:
    from penstock.cli.kafka.client import Client
    from penstock.cli.kafka.transactions import Transaction

STATES = ("Empty", "Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit", "CompleteAbort")
_FIELDS = "transactional_id, state, producer_id, producer_epoch, timeout_ms, started_at, open_ms, coordinator"
_OPEN = Column("open_ms", "open for", duration_text, right=True)


@click.group(
    cls=LazyGroup,
    sections={
        "Commands": {
            "list": Lazy("transaction:list_all", "List transactional ids and their transactions."),
            "describe": Lazy("transaction:describe", "Show a transaction and the partitions it has written to."),
            "abort": Lazy("transaction:abort", "Abort the open transaction of a transactional id."),
        }
    },
)
def transaction() -> None:
    """Transactions: what is open, and since when."""


@click.command("list", epilog=f"JSON: [{{{_FIELDS}, partitions}}]. started_at and open_ms: null if none is open.")
@click.option("--state", "states", type=click.Choice(STATES), multiple=True, help="Only in this state.")
@click.option(
    "--open-for", "longer_than_ms", type=DURATION_MS, help="Only those that have been open for longer, such as 1m."
)
@asks_cluster
def list_all(client: Client, states: tuple[str, ...], longer_than_ms: int | None) -> Result:
    """List transactional ids and their transactions.

    An open transaction holds back consumers that read committed records only, and retention.

    \b
    penstock transaction list --open-for 1m
    """
    from penstock.cli.kafka.transactions import list_transactions

    found = list_transactions(client, states=states, longer_than_ms=-1 if longer_than_ms is None else longer_than_ms)
    rows = [{**_row(one, client.clock.now_ms()), "partitions": len(one.partitions)} for one in found]
    columns = [
        Column("transactional_id"), Column("state"), _OPEN, number("timeout_ms", "timeout", duration_text),
        number("partitions"), number("producer_id"),
    ]  # fmt: skip
    return Listing(rows=rows, columns=columns, empty="No transactions.")


@click.command(epilog=f"JSON: {{{_FIELDS}, partitions: [{{topic, partition}}]}}.")
@click.argument("name", metavar="TRANSACTIONAL_ID", shell_complete=complete_transactional_ids)
@asks_cluster
def describe(client: Client, name: str) -> Result:
    """Show a transaction and the partitions it has written to.

    \b
    penstock transaction describe orders-relay-1
    """
    from penstock.cli.kafka.transactions import describe_transaction

    found = describe_transaction(client, name)
    partitions: list[Json] = [{"topic": where.topic, "partition": where.partition} for where in found.partitions]
    fields = [
        Column("transactional_id"), Column("state"), Column("started_at"), _OPEN,
        Column("timeout_ms", "timeout", duration_text), Column("producer_id"), Column("producer_epoch"),
        Column("coordinator"),
    ]  # fmt: skip
    section = Section(key="partitions", title="", columns=[Column("topic"), number("partition")])
    return Details(
        document={**_row(found, client.clock.now_ms()), "partitions": partitions}, fields=fields, sections=[section]
    )


@click.command(epilog="JSON: {transactional_id, state, partitions, aborted}. state: before it was aborted.")
@click.argument("name", metavar="TRANSACTIONAL_ID", shell_complete=complete_transactional_ids)
@yes_option
@dry_run_option
@asks_cluster
def abort(client: Client, name: str, yes: bool, dry_run: bool) -> Result:
    """Abort the open transaction of a transactional id.

    Its producer is fenced: it gets an error with its next request, and has to be started again. Needs the right to
    write with the transactional id.

    \b
    penstock transaction abort orders-relay-1
    """
    from penstock.base.errors import InvalidRequest
    from penstock.cli.kafka.transactions import describe_transaction, fence

    found = describe_transaction(client, name)
    if found.started_ms is None:
        raise InvalidRequest(f"transactional id {name!r} has no open transaction: it is {found.state}")
    if not dry_run:
        confirm(f"Abort the transaction of {name}, and fence its producer?", yes=yes)
        fence(client, name)
    document: Row = {
        "transactional_id": name, "state": found.state, "partitions": len(found.partitions), "aborted": not dry_run,
    }  # fmt: skip
    what = "Would abort" if dry_run else "Aborted"
    opened = duration_text(client.clock.now_ms() - found.started_ms)
    return Notice(document=document, sentence=f"{what} the transaction of {name}, which was open for {opened}.")


def _row(found: Transaction, now_ms: int) -> dict[str, Json]:
    return {
        "transactional_id": found.transactional_id,
        "state": found.state,
        "producer_id": found.producer_id,
        "producer_epoch": found.producer_epoch,
        "timeout_ms": found.timeout_ms,
        "started_at": iso(found.started_ms),
        "open_ms": None if found.started_ms is None else max(0, now_ms - found.started_ms),
        "coordinator": found.coordinator,
    }
