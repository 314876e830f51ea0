"""`penstock`: the tree of commands, and how the process ends.

Exit codes: 0 done, 1 failed, 2 wrong usage. A reader that has seen enough (`| head`) ends a command quietly, and so
does Ctrl-C, of which the process then dies: a shell that runs commands in a loop stops only if one of them did.
"""

from __future__ import annotations

import io
import os
import signal
import sys

import click

from penstock.cli.errors import Failure, OutputClosed, WrongUsage, sentence_of
from penstock.cli.lazy import Lazy, LazyGroup
from penstock.version import __version__

_KAFKAS_NAMES = {"bootstrap-server": "bootstrap", "command-config": "client-config"}
"""What options are called by Kafka's own tools."""
SETTINGS = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 110,
    "show_default": True,
    "token_normalize_func": lambda name: _KAFKAS_NAMES.get(name, name),
}


@click.group(
    cls=LazyGroup,
    context_settings=SETTINGS,
    sections={
        "Run": {
            "up": Lazy("up:up", "Run Penstock on this machine."),
            "doctor": Lazy("doctor.command:doctor", "Check this machine and say what to change."),
            "bench": Lazy("bench.command:bench", "Measure a cluster: produce, consume, latency."),
        },
        "Data": {
            "topic": Lazy("topic:topic", "List, create, describe, alter, delete and trim topics."),
            "produce": Lazy("produce:produce", "Write records from standard input or a file."),
            "consume": Lazy("consume:consume", "Print records of topics."),
            "group": Lazy("group:group", "Groups: members, lag and offsets."),
            "transaction": Lazy("transaction:transaction", "Transactions: what is open, and since when."),
            "config": Lazy("config:config", "Settings of topics, groups, brokers and client metrics."),
            "quota": Lazy("quota:quota", "Quotas: limits of users, clients and addresses."),
        },
        "Tenants": {
            "env": Lazy("env:env", "Environments: sets of clusters."),
            "cluster": Lazy("cluster:cluster", "Virtual clusters: one for each tenant."),
        },
        "Access": {
            "user": Lazy("user:user", "Users and their passwords."),
            "role": Lazy("role:role", "Roles: named sets of ACL rules."),
            "acl": Lazy("acl:acl", "ACL rules, one at a time."),
            "service-account": Lazy("service_account:service_account", "Service accounts: identities of programs."),
            "api-key": Lazy("api_key:api_key", "API keys of service accounts."),
            "audit": Lazy("audit:audit", "The audit log: authentications, denials and changes."),
        },
        "This program": {
            "version": Lazy("version:version", "Print versions."),
            "completion": Lazy("completion:completion", "Print a shell completion script."),
        },
    },
)
@click.version_option(__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """Penstock: serverless Kafka that anyone can run.

    \b
    penstock up                                  run it here
    echo hello | penstock produce greetings      write a record
    penstock consume greetings                   read it back
    """


def main() -> int:
    """Run one command line; return the exit code."""
    _open_what_is_closed()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # What the locale has no letter for is no reason to print nothing.
    code = 0
    try:
        code = _run()
        sys.stdout.flush()
    except (BrokenPipeError, OutputClosed):
        _leave_unwritten()
        return 0
    except KeyboardInterrupt:
        return _interrupted()
    except OSError as error:
        if not code:  # Else it has been said.
            Failure(sentence_of(error)).show()
        _leave_unwritten()
        return 1
    return code


def _open_what_is_closed() -> None:
    """Have all three standard streams: a file or a socket that takes the place of one would be read and written."""
    for name, flags, mode in (("stdin", os.O_RDONLY, "r"), ("stdout", os.O_WRONLY, "w"), ("stderr", os.O_WRONLY, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, flags), mode))


def _leave_unwritten() -> None:
    """Python would complain about unwritten output at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _interrupted() -> int:
    """End as any program does that is interrupted."""
    _leave_unwritten()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)
    return 130  # Not reached where the signal is not blocked.


def _run() -> int:
    try:
        code = cli.main(prog_name="penstock", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.UsageError as error:
        WrongUsage(error).show()
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort as abort:
        if isinstance(abort.__cause__, KeyboardInterrupt):
            raise abort.__cause__ from None
        return 1
    return code if isinstance(code, int) else 0
