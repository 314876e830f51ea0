"""`--write FILE`: a `client.properties` with which somebody else connects as the command that wrote it did."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from penstock.base.dataclasses import dataclass
from penstock.cli.errors import Misuse
from penstock.cli.text_formats.client_properties import Login, certificates_in, complaint_about, write_login

if TYPE_CHECKING:
    from penstock.cli.kafka.client import Client


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginFile:
    """Where to write what. Made before there is a secret, so that nothing can be in the way of writing that."""

    target: Path
    protocol: str
    bootstrap: str
    authorities: str

    def write(self, mechanism: str, name: str, secret: str) -> None:
        """Write it."""
        login = Login(
            mechanism=mechanism, name=name, secret=secret, protocol=self.protocol, bootstrap=self.bootstrap,
            authorities=self.authorities,
        )  # fmt: skip
        write_login(self.target, login)

    @property
    def sentence(self) -> str:
        """What to say of it."""
        return f"How to connect is in {self.target}; nobody else can read it."


def write_options(what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`--write` and `--ca`."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        function = click.option(
            "--ca", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
            help="With --write: the authority that has signed the server's certificate (PEM), to be copied into FILE."
            "  [default: the one of --client-config]",
        )(function)  # fmt: skip
        return click.option(
            "--write", "target", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help=what
        )(function)

    return add


def login_file(client: Client, target: Path | None, ca: Path | None, *, offline: bool = False) -> LoginFile | None:
    """What the options ask for; None without --write. Raises `Misuse` if the file cannot be written."""
    if target is None:
        if ca is not None:
            raise Misuse("--ca is copied into the file of --write: add that")
        return None
    if (wrong := complaint_about(target)) is not None:
        raise Misuse(wrong)
    security = client.security
    # Over a connection without credentials one does not learn where those with credentials are taken.
    is_alike = security.uses_sasl and not offline
    return LoginFile(
        target=target,
        protocol=security.protocol if is_alike else "SASL_SSL",
        bootstrap=",".join(map(str, client.bootstrap)) if is_alike or (offline and _is_told("bootstrap")) else "",
        authorities=security.ca_text if ca is None and security.ca is None else _authorities(ca or security.ca),
    )


def _is_told(option: str) -> bool:
    return click.get_current_context().get_parameter_source(option) is not click.core.ParameterSource.DEFAULT


def _authorities(file: Path | None) -> str:
    assert file is not None
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = (error.strerror or str(error)).lower() if isinstance(error, OSError) else "it is not text (PEM)"
        raise Misuse(f"the authority in {file} cannot be read: {why}") from error
    if not certificates_in(text):
        raise Misuse(f"there is no certificate in {file} (PEM is expected)")
    return text
