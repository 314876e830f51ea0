"""Listeners as they are written in a file: what is understood, and what is refused before anything starts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from fixtures.documents import ROOT, blocks

from penstock.agent.listeners import Listener, listeners_of, needing_users
from penstock.base.errors import InvalidRequest
from penstock.base.options import OAuthOptions, UpOptions
from penstock.cli.text_formats.listeners import read_security

OAUTH = "{issuer: https://login.example.com, audience: kafka, %s}"
MUTUAL = "{certificate: s.pem, client-ca: ca.pem, client-auth: required, cluster-mapping-rules: '%s'}"


def listener(tmp_path: Path, *lines: str, more: str = "") -> Listener:
    """The only listener of a file, as an agent takes it."""
    file = tmp_path / "penstock.yaml"
    file.write_text("\n".join(["listeners:", "  - listen: 127.0.0.1:0", *(f"    {line}" for line in lines), more]))
    config = read_security(file)
    (found,) = listeners_of(UpOptions(listeners=config.listeners, oauth=config.oauth))
    return found


def test_an_issuer_of_everybody_and_one_of_a_listener(tmp_path: Path) -> None:
    everybody = "oauth: " + OAUTH % "cluster-claim: cluster, clusters: ['*', default]"
    found = listener(tmp_path, "protocol: SASL_PLAINTEXT", more=everybody)
    assert found.oauth == OAuthOptions(
        issuer="https://login.example.com", audience="kafka", cluster_claim="cluster", clusters=("*", "default")
    )
    assert "OAUTHBEARER" in found.mechanisms
    own = "oauth: {issuer: https://acme.example.com, audience: kafka, clusters: [acme]}"
    found = listener(tmp_path, "protocol: SASL_PLAINTEXT", own, more=everybody)
    assert found.oauth is not None
    assert (found.oauth.issuer, found.oauth.clusters) == ("https://acme.example.com", ("acme",))
    assert "OAUTHBEARER" in listener(tmp_path, "protocol: SASL_PLAINTEXT", own).mechanisms
    found = listener(tmp_path, "protocol: SASL_PLAINTEXT", "mechanisms: [PLAIN]", more=everybody)
    assert found.oauth is None


@pytest.mark.parametrize(
    ("oauth", "sentence"),
    [
        (OAUTH % "clusters: ['*']", "Add cluster-claim"),
        (OAUTH % "clusters: [Acme]", "is not a valid name"),
        (OAUTH % "clusters: acme", "clusters must be a list"),
        (OAUTH % "cluster-claim: [a]", "cluster-claim of oauth must be a string, not a list"),
        (OAUTH % "cluster: acme", "oauth has an unknown name 'cluster'"),
        ("{issuer: http://login.example.com, audience: kafka}", "need an https URL"),
    ],
)
def test_issuers_that_are_refused(tmp_path: Path, oauth: str, sentence: str) -> None:
    for lines, more in ((("protocol: SASL_PLAINTEXT",), f"oauth: {oauth}"),
                        (("protocol: SASL_PLAINTEXT", f"oauth: {oauth}"), "")):  # fmt: skip
        with pytest.raises(InvalidRequest, match=sentence):
            listener(tmp_path, *lines, more=more)


def test_rules_of_certificates_that_are_said_of_all_listeners(tmp_path: Path) -> None:
    file = tmp_path / "penstock.yaml"
    certificate = "certificate: s.pem, client-ca: ca.pem, client-auth: required"
    shared = f"tls: {{{certificate}, cluster-ca: {{acme: a.pem}}}}"
    text = "listeners:\n  - {protocol: SSL, listen: 127.0.0.1:0}\n  - {protocol: SASL_SSL, listen: 127.0.0.1:0%s}\n"

    def listeners(more: str) -> tuple[Listener, ...]:
        file.write_text(text % more + shared)
        config = read_security(file)
        return listeners_of(
            UpOptions(listeners=tuple(replace(given, tls=given.tls or config.tls) for given in config.listeners))
        )

    with pytest.raises(InvalidRequest, match="listener SASL_SSL has the protocol SASL_SSL"):
        listeners("")
    certificates, passwords = listeners(f", tls: {{{certificate}}}")
    assert certificates.tls is not None
    assert certificates.tls.cluster_ca
    assert passwords.tls is not None
    assert not passwords.tls.cluster_ca


def test_rules_of_certificates(tmp_path: Path) -> None:
    rules = r"RULE:^.*,O=([a-z0-9-]+)$/$1/"
    found = listener(tmp_path, "protocol: SSL", "sni-domain: kafka.example.com", f"tls: {MUTUAL % rules}")
    assert found.tls is not None
    assert found.tls.cluster_mapping_rules == rules
    authorities = "tls: {certificate: s.pem, client-auth: required, cluster-ca: {acme: a.pem, beta: /b.pem}}"
    found = listener(tmp_path, "protocol: SSL", "sni-domain: kafka.example.com", authorities)
    assert found.tls is not None
    assert found.tls.cluster_ca == (("acme", tmp_path / "a.pem"), ("beta", Path("/b.pem")))
    without = "tls: {certificate: s.pem, client-ca: ca.pem, client-auth: required}"
    assert listener(tmp_path, "protocol: SSL", without).sni_domain is None
    for lines, sentence in (
        (("protocol: SSL", "sni-domain: kafka.example.com", without), "SSL with cluster-ca"),
        (("protocol: PLAINTEXT", "sni-domain: kafka.example.com"), "does not authorize a client"),
        (("protocol: SSL", f"tls: {MUTUAL % 'RULE:('}"), "cluster mapping rules: cannot read"),
        (("protocol: SSL", "tls: {certificate: s.pem, cluster-mapping-rules: DEFAULT}"), "add client-auth"),
        (("protocol: SSL", "tls: {certificate: s.pem, cluster-ca: {acme: a.pem}}"), "add client-auth"),
        (("protocol: SSL", "tls: {certificate: s.pem, cluster-ca: a.pem}"), "names of clusters"),
        (("protocol: SSL", "tls: {certificate: s.pem, cluster-ca: {acme: }}"), "cluster-ca needs acme"),
        (("protocol: SSL", authorities.replace("acme", "Acme")), "is not a valid name"),
        (("protocol: SSL", "tls: {certificate: s.pem, client-auth: required}"), "add client-ca"),
        (("protocol: SASL_SSL", f"tls: {MUTUAL % 'DEFAULT'}"), "where credentials determine"),
        (("protocol: SASL_SSL", authorities), "a tls of its own without them"),
    ):  # fmt: skip
        with pytest.raises(InvalidRequest, match=sentence):
            listener(tmp_path, *lines)


def test_who_needs_users_before_it_is_opened() -> None:
    def opened(protocol: str, host: str, *mechanisms: str) -> Listener:
        return Listener(protocol=protocol, host=host, mechanisms=mechanisms)

    near = opened("SASL_PLAINTEXT", "127.0.0.1", "PLAIN")
    by_certificate, by_token = opened("SSL", "0.0.0.0"), opened("SASL_SSL", "0.0.0.0", "PLAIN", "OAUTHBEARER")
    by_password = opened("SASL_SSL", "::", "SCRAM-SHA-512")
    assert needing_users((near, by_certificate, by_token)) is None
    assert needing_users((near, by_certificate, by_password)) is by_password


def of_documents() -> list[dict[str, Any]]:
    """The configuration that the how-tos show, piece by piece."""
    return [
        yaml.safe_load(block)
        for name in ("secure", "tenants")
        for block in blocks((ROOT / "docs" / "how-to" / f"{name}.md").read_text(), "yaml")
    ]


@pytest.mark.parametrize("piece", of_documents(), ids=lambda piece: "-".join(piece))
def test_what_the_how_tos_show_is_accepted(tmp_path: Path, piece: dict[str, Any]) -> None:
    """What is shown without listeners, or without a certificate, is to be added to what has some."""
    tls = {"certificate": "server.pem", "key": "server.key"}
    listening = [{"protocol": "SASL_SSL", "listen": "0.0.0.0:9093"}]
    file = tmp_path / "penstock.yaml"
    file.write_text(yaml.safe_dump({"tls": tls, "listeners": listening} | piece))
    config = read_security(file)
    listeners = tuple(one if one.tls is not None else replace(one, tls=config.tls) for one in config.listeners)
    options = UpOptions(data_dir=tmp_path, listeners=listeners, oauth=config.oauth)
    found = listeners_of(options)
    assert len(found) == len(piece.get("listeners", listening))
    issuers = [listener.oauth for listener in found if listener.oauth is not None]
    assert bool(issuers) == ("oauth" in yaml.safe_dump(piece))
