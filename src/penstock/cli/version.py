"""`penstock version`."""

from __future__ import annotations

import platform
import sys

import click

from penstock.base import twins
from penstock.cli.options import output_option
from penstock.cli.output import Column, Details, emit
from penstock.version import __version__


@click.command(epilog="JSON: {penstock, python, sqlite, system, twin}, all strings.")
@output_option
def version(output_format: str) -> None:
    """Print versions."""
    import sqlite3

    document = {
        "penstock": __version__,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "system": f"{sys.platform} {platform.machine()}",
        "twin": twins.why_not() or "in use",
    }
    emit(Details(document=document, fields=[Column(key) for key in document]), output_format)
