"""`penstock up`: read the options, hand them to the agent. Everything they mean is checked there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from penstock.base.collector import without_collector
from penstock.base.errors import InvalidRequest
from penstock.base.options import ListenerOptions, TlsOptions, UpOptions
from penstock.cli.errors import Misuse
from penstock.cli.options import ADDRESS, DIRECTORY, SETTING, Parsed, settings_of
from penstock.cli.text_formats.addresses import Address
from penstock.cli.text_formats.listeners import SecurityConfig, parse_advertised, parse_listener, read_security

LISTENER = Parsed("[NAME=]PROTOCOL://HOST:PORT", parse_listener)
ADVERTISED = Parsed("[NAME=]HOST:PORT", parse_advertised)
FILE = click.Path(dir_okay=False, path_type=Path)


def parse_metadata_url(text: str) -> str:
    """Read the place of the metadata. It is never shown: there may be a password in it."""
    if not text.startswith(("postgresql://", "postgres://")):
        raise InvalidRequest("that is not a place for metadata; write postgresql://USER@HOST/DATABASE")
    return text


@click.command()
@click.option(
    "--data-dir", type=DIRECTORY, default=Path("penstock-data"),
    help="The data directory; created if it does not exist.",
)  # fmt: skip
@click.option("--kafka", type=ADDRESS, default="127.0.0.1:9092", help="Where Kafka clients connect.")
@click.option("--http", type=ADDRESS, default="127.0.0.1:8080", help="Where /healthz, /readyz and /metrics are served.")
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
    help="PostgreSQL to keep metadata in. Pass a URL with a password in PENSTOCK_METADATA.",
)
@click.option(
    "--set", "settings", type=SETTING, multiple=True,
    help="A broker-wide Kafka setting, such as num.partitions=3. May be repeated.",
)  # fmt: skip
@click.option(
    "--advertise", type=ADVERTISED, multiple=True,
    help="The address that clients of a listener are told to connect to.  [default: the one listened on]",
)  # fmt: skip
@click.option(
    "--listener", "listeners", type=LISTENER, multiple=True,
    help="Where clients connect instead of --kafka, such as SASL_SSL://0.0.0.0:9093. May be repeated.",
)  # fmt: skip
@click.option("--tls-cert", type=FILE, help="The certificate of listeners with TLS, followed by its chain (PEM).")
@click.option("--tls-key", type=FILE, help="Its private key (PEM).  [default: in the file of --tls-cert]")
@click.option(
    "--tls-client-ca", type=FILE, help="Require client certificates signed by one of these authorities (PEM)."
)
@click.option(
    "--tls-cluster-rules", metavar="RULES",
    help="Which virtual cluster a client certificate opens: rules in the syntax of Kafka's mapping rules, such as"
    " 'RULE:^.*,O=([a-z0-9-]+)$/$1/'.  [default: the cluster default]",
)  # fmt: skip
@click.option(
    "--client-metrics",
    metavar="URL",
    envvar="PENSTOCK_CLIENT_METRICS",
    show_envvar=True,
    help="Accept metrics that clients push, and forward them to this OTLP receiver (http://HOST:4318/v1/metrics), or"
    " show them on /metrics (prometheus).",
)
@click.option("--encrypt", is_flag=True, help="Encrypt what is stored from now on. Cannot be undone.")
@click.option(
    "--master-key-file", type=FILE, envvar="PENSTOCK_MASTER_KEY_FILE", show_envvar=True,
    help="The file of master keys; created if it does not exist.  [default: in the data directory]",
)  # fmt: skip
@click.option(
    "--give-up-commits-from", metavar="COMMIT", type=click.IntRange(min=1),
    help="Start without this commit and those after it, which the disk has lost, where a start is refused for that"
    " reason. Copy the data directory before.",
)  # fmt: skip
@click.option("--config", type=FILE, help="Listeners, TLS and OAuth in a YAML file.")
@click.pass_context
def up(
    ctx: click.Context,
    data_dir: Path,
    kafka: Address,
    http: Address,
    durability: str,
    metadata_url: str | None,
    settings: tuple[tuple[str, str], ...],
    advertise: tuple[tuple[str | None, tuple[str, int]], ...],
    listeners: tuple[ListenerOptions, ...],
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    tls_cluster_rules: str | None,
    client_metrics: str | None,
    encrypt: bool,
    master_key_file: Path | None,
    give_up_commits_from: int | None,
    config: Path | None,
) -> None:
    """Run Penstock on this machine.

    One process, with its data in one directory. Ctrl-C stops it cleanly. Anything that speaks Kafka can connect.

    \b
    penstock up
    penstock up --data-dir /var/lib/penstock --set num.partitions=3
    penstock up --listener SASL_SSL://0.0.0.0:9093 --tls-cert server.pem --tls-key server.key
    """
    try:
        security = read_security(config) if config is not None else SecurityConfig()
        tls = _tls(security.tls, tls_cert, tls_key, tls_client_ca, tls_cluster_rules)
        is_asked_for = ctx.get_parameter_source("kafka") is not click.core.ParameterSource.DEFAULT
        given = [*security.listeners, *listeners]
        if is_asked_for or not given:
            given.insert(0, ListenerOptions(host=kafka.host, port=kafka.port))
        given = [replace(listener, tls=listener.tls or tls) for listener in given]
        options = UpOptions(
            data_dir=data_dir,
            kafka_host=kafka.host,
            kafka_port=kafka.port,
            http_host=http.host,
            http_port=http.port,
            durability=durability,
            metadata_url=metadata_url,
            settings=settings_of(settings, "--set"),
            listeners=_advertised(given, advertise),
            oauth=security.oauth,
            client_metrics=client_metrics,
            encrypt=encrypt,
            master_key_file=master_key_file,
            give_up_commits_from=give_up_commits_from,
            delegation_token_key_file=security.delegation_token_key_file,
        )
    except InvalidRequest as error:
        raise Misuse(str(error)) from error
    ctx.exit(_run(options))


def _run(options: UpOptions) -> int:
    with without_collector():
        from penstock.agent.main import check, run  # The whole agent: nothing else on the command line needs it.

    try:
        check(options)
    except InvalidRequest as error:
        raise Misuse(str(error)) from error
    return run(options)


def _tls(
    configured: TlsOptions | None, cert: Path | None, key: Path | None, client_ca: Path | None,
    cluster_rules: str | None,
) -> TlsOptions | None:  # fmt: skip
    """What the options say, over what the file says."""
    if cluster_rules is not None and client_ca is None:
        raise InvalidRequest("--tls-cluster-rules belong to certificates of clients: add --tls-client-ca")
    if cert is not None:
        auth = "required" if client_ca is not None else "none"
        return TlsOptions(
            certificate=cert, key=key, client_ca=client_ca, client_auth=auth, cluster_mapping_rules=cluster_rules
        )
    if key is not None or client_ca is not None:
        raise InvalidRequest("--tls-key and --tls-client-ca belong to a certificate: add --tls-cert")
    return configured


def _advertised(
    listeners: Sequence[ListenerOptions], advertise: Sequence[tuple[str | None, tuple[str, int]]]
) -> tuple[ListenerOptions, ...]:
    """Listeners with what their clients are told."""
    by_name = {listener.name: listener for listener in listeners}
    for name, address in advertise:
        if name is None and len(by_name) > 1:
            raise InvalidRequest(
                f"--advertise needs to say for which listener: --advertise NAME={address[0]}:{address[1]}"
            )
        if name is not None and name not in by_name:
            raise InvalidRequest(f"--advertise names a listener {name!r}; there are {', '.join(by_name)}")
        chosen = name if name is not None else next(iter(by_name))
        by_name[chosen] = replace(by_name[chosen], advertised=address)
    # Two of one name are complained about where all of them are checked.
    return tuple(by_name.get(listener.name, listener) for listener in listeners)
