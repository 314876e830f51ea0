"""`penstock up`: read the options, hand them to the agent. Everything they mean is checked there."""

from __future__ import annotations

from pathlib import Path

import click

from penstock.base.errors import InvalidRequest
from penstock.base.options import UpOptions
from penstock.cli.lazy import Misuse
from penstock.cli.options import ADDRESS, SETTING, Parsed, settings_of
from penstock.cli.texts.addresses import Address


def parse_metadata_url(text: str) -> str:
    """Read the place of the metadata. It is never shown: there may be a password in it."""
    if not text.startswith(("postgresql://", "postgres://")):
        raise InvalidRequest("that is not a place for metadata; write postgresql://USER@HOST/DATABASE")
    return text


@click.command()
@click.option(
    "--data-dir", type=click.Path(file_okay=False, path_type=Path), default=Path("penstock-data"),
    help="Where the data is kept; made if it is not there.",
)  # fmt: skip
@click.option("--kafka", type=ADDRESS, default="127.0.0.1:9092", help="Where Kafka clients connect.")
@click.option("--http", type=ADDRESS, default="127.0.0.1:8080", help="Where /healthz, /readyz and /metrics are.")
@click.option(
    "--durability", type=click.Choice(["disk", "process"]), default="disk",
    help="What an acknowledgement means: on disk (fsynced), or handed to the operating system.",
)  # fmt: skip
@click.option(
    "--metadata",
    "metadata_url",
    type=Parsed("URL", parse_metadata_url),
    hidden=True,
    envvar="PENSTOCK_METADATA",
    help="PostgreSQL to keep metadata in. A password is better given in PENSTOCK_METADATA.",
)
@click.option(
    "--set", "settings", type=SETTING, multiple=True,
    help="A broker-wide Kafka setting, such as num.partitions=3. May be repeated.",
)  # fmt: skip
@click.option("--advertise", type=ADDRESS, help="What clients are told.  [default: the address of --kafka]")
@click.pass_context
def up(
    ctx: click.Context,
    data_dir: Path,
    kafka: Address,
    http: Address,
    durability: str,
    metadata_url: str | None,
    settings: tuple[tuple[str, str], ...],
    advertise: Address | None,
) -> None:
    """Run Penstock on this machine.

    One process, data in one directory. Stops cleanly on Ctrl-C. Anything that speaks Kafka can connect.
    """
    options = UpOptions(
        data_dir=data_dir,
        kafka_host=kafka.host,
        kafka_port=kafka.port,
        http_host=http.host,
        http_port=http.port,
        durability=durability,
        metadata_url=metadata_url,
        settings=settings_of(settings, "--set"),
        advertised=None if advertise is None else (advertise.host, advertise.port),
    )
    from penstock.agent.main import check, run  # The whole agent: nothing else on the command line needs it.

    try:
        check(options)
    except InvalidRequest as error:
        raise Misuse(str(error)) from error
    ctx.exit(run(options))
