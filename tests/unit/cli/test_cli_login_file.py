"""Files with which somebody connects: what is written can be read again, by itself."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from click.testing import CliRunner

from penstock.cli.kafka.client_config import config_of, parse_properties
from penstock.cli.main import cli
from penstock.cli.text_formats.client_properties import Login, certificates_in, login_lines
from penstock.testing.certificates import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


def java_properties(lines: list[str]) -> dict[str, str]:
    """As `java.util.Properties` reads them: a backslash at the end continues a line, `\\n` is a line feed."""
    text = "\n".join(lines).replace("\\\n", "")
    pairs = (line.split("=", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: value.replace("\\n", "\n") for name, value in pairs}


def test_a_login_is_read_as_it_was_written(authority: Authority) -> None:
    text = authority.ca.read_text()
    login = Login(
        mechanism="SCRAM-SHA-512", name="bob@acme", secret="s3cret", bootstrap="kafka.example.com:9093",
        authorities=f"Our authority:\n{text}\nand once more\n{text}",
    )  # fmt: skip
    lines = login_lines(login)
    read = config_of(parse_properties("\n".join(lines)), {}, base=Path("/nowhere"))
    assert read.bootstrap == "kafka.example.com:9093"
    security = read.security
    assert (security.protocol, security.mechanism) == ("SASL_SSL", "SCRAM-SHA-512")
    assert (security.user, security.password, security.ca) == ("bob@acme", "s3cret", None)
    assert certificates_in(security.ca_text) == certificates_in(text) * 2
    (found,) = security.context().get_ca_certs()
    assert found == ssl.create_default_context(cafile=authority.ca).get_ca_certs()[0]
    assert certificates_in(java_properties(lines)["ssl.truststore.certificates"]) == certificates_in(text) * 2


@pytest.mark.parametrize(("protocol", "has_hint"), [("SASL_SSL", True), ("SASL_PLAINTEXT", False)])
def test_without_an_authority_the_file_says_where_one_goes(protocol: str, has_hint: bool) -> None:
    lines = login_lines(Login(mechanism="PLAIN", name="key", secret="secret", protocol=protocol))
    assert any("ssl.truststore.location" in line for line in lines) is has_hint
    read = config_of(parse_properties("\n".join(lines)), {}, base=Path())
    assert (read.bootstrap, read.security.user, read.security.ca_text) == (None, "key", "")


def test_the_first_user_gets_the_authority_and_the_address(authority: Authority, tmp_path: Path) -> None:
    file = tmp_path / "admin.properties"
    words = ["user", "create", "admin", "--data-dir", str(tmp_path / "data"), "--write", str(file)]
    done = CliRunner().invoke(cli, [*words, "--ca", str(authority.ca), "-b", "kafka.example.com:9093"])
    assert done.exit_code == 0, done.output
    read = config_of(parse_properties(file.read_text()), {}, base=Path())
    assert (read.bootstrap, read.security.user) == ("kafka.example.com:9093", "admin")
    assert read.security.context().get_ca_certs()
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--write", "admin.properties", "--ca", "none.pem"], "none.pem cannot be read"),
        (["--write", "admin.properties", "--ca", "empty.pem"], "there is no certificate in empty.pem"),
        (["--ca", "empty.pem"], "--ca is copied into the file of --write"),
        (["--write", "empty.pem"], "exists already"),
    ],
)
def test_nothing_is_created_if_the_file_cannot_be_written(
    words: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.pem").touch()
    done = CliRunner().invoke(cli, ["user", "create", "admin", "--data-dir", "data", *words])
    assert (done.exit_code, sentence in done.output) == (2, True), done.output
    assert not (tmp_path / "data").exists()


def test_a_token_alone_says_which_mechanism() -> None:
    read = config_of({}, {"PENSTOCK_TOKEN": "a.b.c"}, base=Path()).security
    assert (read.protocol, read.mechanism, read.token) == ("SASL_SSL", "OAUTHBEARER", "a.b.c")
