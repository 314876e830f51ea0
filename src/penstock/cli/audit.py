"""`penstock audit`: who came in, who was refused what, and what was changed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TextIO

import click

from penstock.base.context import AUDIT_TOPIC, PLATFORM_CLUSTER_NAME
from penstock.base.dataclasses import dataclass
from penstock.base.errors import InvalidRequest
from penstock.cli.errors import Failure
from penstock.cli.lazy import Lazy, LazyGroup
from penstock.cli.options import Parsed, WholeNumber, client_options, output_option
from penstock.cli.output import is_terminal, printable, yaml_text
from penstock.cli.text_formats.positions import Position, Start, parse_position
from penstock.cli.text_formats.principals import parse_principal
from penstock.wire.error_codes import ErrorCode

if TYPE_CHECKING:
    from penstock.cli.kafka.client import Client
    from penstock.cli.kafka.fetching import Reader

_WAIT_MS = 500
_WIDTHS = {"time": 24, "outcome": 8, "principal": 18, "address": 15, "method": 24}
_COLOURS = {"denied": "31", "failed": "31", "lost": "33"}

Event = Mapping[str, Any]


@click.group(
    cls=LazyGroup, sections={"Commands": {"tail": Lazy("audit:tail", "Print events of the audit log.")}}
)  # fmt: skip
def audit() -> None:
    """The audit log: authentications, denials and changes.

    On by default if any listener asks for credentials. Events are CloudEvents with Confluent's field names, in the
    topic confluent-audit-log-events of the cluster platform; platform administrators need no --cluster to read it.
    """


@click.command(epilog="JSON: one CloudEvent per line, as it is in the log; its fields are in the reference.")
@click.option("-f", "-F", "--follow", is_flag=True, help="Wait for more instead of stopping at the end.")
@click.option("--denied", is_flag=True, help="Only denials and failed authentications.")
@click.option(
    "--principal", metavar="NAME", type=Parsed("NAME", parse_principal),
    help="Only this principal, or somebody who claimed to be it.",
)  # fmt: skip
@click.option("--since", metavar="TIME", default="1h", help="Where to begin: an age such as 15m, a time, or start.")
@click.option("-n", "--count", metavar="N", type=WholeNumber(min=1), help="Stop after so many events.")
@output_option
@client_options
def tail(
    client: Client, follow: bool, denied: bool, principal: str | None, since: str, count: int | None,
    output_format: str,
) -> None:  # fmt: skip
    """Print events of the audit log.

    \b
    penstock audit tail                       what happened in the last hour
    penstock audit tail -f --denied           what is refused, as it happens
    penstock audit tail --principal alice --since 2026-01-31T12:00Z -o json

    Gaps in the numbering, and events that a crash may have lost, are reported on standard error.
    """
    events = _whole(_events(_reader(client, since, follow=follow)))
    picked = (event for event in events if _is_picked(event, denied=denied, principal=principal))
    try:
        _print(picked, _printer(output_format, sys.stdout), sys.stdout, count=count)
    except KeyboardInterrupt:
        if not follow:
            raise


def _reader(client: Client, since: str, *, follow: bool) -> Reader:
    from penstock.cli.kafka.client import TopicPartition
    from penstock.cli.kafka.failures import BrokerError
    from penstock.cli.kafka.fetching import Reader
    from penstock.cli.kafka.offsets import offset_ranges, resolve

    position = _position(since, client.clock.now_ms())
    client.set_default_cluster(PLATFORM_CLUSTER_NAME)
    try:
        topic = client.retry(lambda: client.metadata([AUDIT_TOPIC]).topic(AUDIT_TOPIC))
    except BrokerError as error:
        if error.code == ErrorCode.CLUSTER_AUTHORIZATION_FAILED:
            raise Failure(
                "the audit log is for platform administrators: penstock up --set 'super.users=User:NAME'"
            ) from error
        if error.code != ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
            raise
        raise Failure(
            "there is no audit log: it is off, or no event has been logged yet. It is on if a listener requires"
            " credentials, or with penstock up --set audit.enable=true"
        ) from error
    kept = offset_ranges(client, [TopicPartition(AUDIT_TOPIC, number) for number in topic.partitions])
    ends = None if follow else {where: extent.end for where, extent in kept.items()}
    return Reader(client, resolve(client, position, kept), ends=ends)


def _position(since: str, now_ms: int) -> Position:
    if since == "start":
        return Start()
    try:
        return parse_position(f"@{since}", now_ms=now_ms)
    except InvalidRequest as error:
        raise click.BadParameter(str(error), param_hint="--since") from error


def _events(reader: Reader) -> Iterator[Event | None]:
    """Events as they come; None where there are no more for now."""
    while reader.open:
        for _, record in reader.poll(_WAIT_MS):
            event = _event_of(record.value)
            if event is not None:
                yield event
        yield None


def _event_of(value: bytes | None) -> Event | None:
    """The event in a record; what somebody else has put there is passed over."""
    try:
        event = json.loads(value or b"")
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("data"), dict) else None


def _whole(events: Iterator[Event | None]) -> Iterator[Event | None]:
    """The same events, and a word on standard error where some are missing."""
    runs = Runs()
    for event in events:
        missing = None if event is None else runs.missing_before(event)
        if missing is not None:
            click.echo(missing, err=True)
        yield event


class Runs:
    """Who has read events, in their order, knows by their numbers what was not among them."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[str, int, bool]] = {}
        """By agent, its last event: of which run, with which number, and whether it was the end of the run."""

    def missing_before(self, event: Event) -> str | None:
        """What is missing between the event before of the same agent and this one."""
        agent, run, text = (str(event.get(name, "")) for name in ("agent", "run", "sequence"))
        if not (run and text.isdecimal()):
            return None
        number, is_end = int(text), str(event.get("type", "")).endswith("/end")
        known = self._last.get(agent)
        if known is None or known[0] != run:
            self._last[agent] = run, number, is_end
            return None if known is None else _between(event, number - 1, known[2])
        # An event that was appended twice has the number of one that was there before.
        self._last[agent] = run, max(number, known[1]), is_end or known[2]
        return _between(event, number - known[1] - 1, True)


def _between(event: Event, missing: int, is_ended: bool) -> str | None:
    what = []
    if not is_ended:
        what.append("the agent ended without a stop, and what it had heard last may be missing")
    if missing > 0:
        what.append(f"{missing} event{'s are' if missing > 1 else ' is'} missing")
    return f"Before {event.get('time', '')}: {'; '.join(what)}." if what else None


def _print(
    events: Iterator[Event | None], show: Callable[[Event], str], out: TextIO, *, count: int | None
) -> None:  # fmt: skip
    printed = 0
    for event in events:
        if event is None:
            out.flush()
            continue
        out.write(show(event))
        printed += 1
        if printed == count:
            break
    out.flush()


def _is_picked(event: Event | None, *, denied: bool, principal: str | None) -> bool:
    if event is None:
        return True
    summary = summary_of(event)
    if denied and summary.outcome not in ("denied", "lost"):
        return False
    return principal is None or principal in (summary.principal, f"User:{summary.identifier}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """An event in a line."""

    time: str
    outcome: str
    principal: str
    identifier: str
    address: str
    method: str
    what: str


def summary_of(event: Event) -> Summary:
    """What a person wants to know first. Fields that are not there are empty."""
    data = _part(event, "data")
    caller, decision, result = (_part(data, key) for key in ("authenticationInfo", "authorizationInfo", "result"))
    kind = str(event.get("type", "")).rpartition("/")[2]
    resource = str(data.get("resourceName", "")).partition("/kafka=")[2].partition("/")[2] or "cluster"
    what = resource
    if decision:
        what = f"{decision.get('operation')} {resource}"
    elif kind == "authentication":
        what = str(_part(caller, "metadata").get("mechanism", ""))
    if result.get("message"):
        what += f": {result['message']}"
    return Summary(
        time=str(event.get("time", "")),
        outcome=_outcome(kind, decision, result),
        principal=str(caller.get("principal", "")),
        identifier=str(_part(caller, "metadata").get("identifier", "")),
        address=str(_part(data, "requestMetadata").get("client_address", "")),
        method=str(data.get("methodName", "")),
        what=what,
    )


def _part(of: Event, key: str) -> Event:
    part = of.get(key)
    return part if isinstance(part, dict) else {}


def _outcome(kind: str, decision: Event, result: Event) -> str:
    if kind == "loss":
        return "lost"
    if decision:
        return "allowed" if decision.get("granted") else "denied"
    if result.get("status") == "SUCCESS":
        return "done" if kind in ("request", "end") else "allowed"
    if kind == "authentication":
        return "denied"
    return "unknown" if result.get("status") == "UNKNOWN" else "failed"


def _printer(output_format: str, stream: TextIO) -> Callable[[Event], str]:
    match output_format:
        case "json":
            return lambda event: json.dumps(event, ensure_ascii=False) + "\n"
        case "yaml":
            return lambda event: "---\n" + yaml_text(event)
    headings = [name.upper().ljust(width) for name, width in _WIDTHS.items()]
    heading = "  ".join((*headings, "WHAT")) + "\n"
    colours = is_terminal(stream)

    def line(event: Event) -> str:
        nonlocal heading
        before, heading = heading, ""
        return before + _line(summary_of(event), colours=colours)

    return line


def _line(summary: Summary, *, colours: bool) -> str:
    principal = summary.principal
    if principal.startswith("None:"):
        principal = f"({summary.identifier or 'unknown'})"  # Who it was is not proven.
    texts = {
        "time": summary.time, "outcome": summary.outcome, "principal": printable(principal),
        "address": summary.address, "method": summary.method.removeprefix("kafka."),
    }  # fmt: skip
    cells = [texts[name].ljust(width) for name, width in _WIDTHS.items()]
    colour = _COLOURS.get(summary.outcome)
    if colours and colour is not None:
        cells[1] = f"\x1b[{colour}m{cells[1]}\x1b[0m"
    return "  ".join((*cells, printable(summary.what))).rstrip() + "\n"
