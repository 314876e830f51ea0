"""How a client proves itself to a cluster, and the cluster to the client: read from the files that Kafka's clients use.

A Java `client.properties` (with PEM files), and the same in the words of librdkafka, are both understood, so that one
file serves this program and others. Secrets come from that file or from the environment, never from the command line,
where everybody on the machine could read them.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from pathlib import Path

from penstock.base.dataclasses import dataclass, field
from penstock.base.errors import InvalidRequest
from penstock.cli.kafka.failures import reason

PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS = ("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN", "OAUTHBEARER")
USER_VARIABLE, PASSWORD_VARIABLE, TOKEN_VARIABLE = "PENSTOCK_USER", "PENSTOCK_PASSWORD", "PENSTOCK_TOKEN"
_JAAS_OPTION = re.compile(r"""(\w+)\s*=\s*(?:"((?:\\.|[^"\\])*)"|'((?:\\.|[^'\\])*)'|([^\s;"']+))""")
_PEM_ONLY = ("ssl.truststore.location", "ssl.keystore.location")


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """What to show and what to ask for when connecting."""

    protocol: str = "PLAINTEXT"
    mechanism: str = "SCRAM-SHA-512"
    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    is_token_auth: bool = False
    """Whether user and password are the id and the HMAC of a delegation token."""
    ca: Path | None = None
    ca_text: str = ""
    """Authorities (PEM) beside those in the file `ca`."""
    certificate: Path | None = None
    key: Path | None = None
    key_password: str = field(default="", repr=False)
    checks_host: bool = True

    @property
    def uses_tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.protocol in ("SSL", "SASL_SSL")

    @property
    def uses_sasl(self) -> bool:
        """Whether the client has to prove itself by SASL."""
        return self.protocol in ("SASL_PLAINTEXT", "SASL_SSL")

    def context(self) -> ssl.SSLContext:
        """What TLS is spoken with. Raises `InvalidRequest` when a file is no good."""
        for path in (self.ca, self.certificate, self.key):
            if path is not None and not path.is_file():
                raise InvalidRequest(f"the client configuration names a file that does not exist: {path}")
        try:
            context = ssl.create_default_context(cafile=self.ca, cadata=self.ca_text or None)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.check_hostname = self.checks_host
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key, lambda: self.key_password)
        except OSError as error:
            raise InvalidRequest(
                f"the TLS files of the client cannot be used (PEM is expected): {reason(error)}"
            ) from error
        return context


PLAINTEXT = Security()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """What a configuration file says that this program uses."""

    security: Security = PLAINTEXT
    bootstrap: str | None = None


def read_config(path: Path | None, environment: Mapping[str, str]) -> ClientConfig:
    """The configuration in a file and in the environment. Raises `InvalidRequest`, never showing what it read."""
    properties: Mapping[str, str] = {}
    if path is not None:
        try:
            properties = parse_properties(path.read_text("utf-8"))
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise InvalidRequest(f"the client configuration {path} cannot be read: {why}") from error
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"the client configuration {path} is no text") from error
    return config_of(properties, environment, base=path.parent if path is not None else Path())


def parse_properties(text: str) -> dict[str, str]:
    """Read Java properties: `key=value` or `key: value`, lines continued by a backslash, comments with # and !."""
    properties: dict[str, str] = {}
    for line in re.sub(r"\\\r?\n\s*", "", text).splitlines():
        line = line.strip()
        if line and line[0] not in "#!":
            match = re.match(r"([^\s=:]+)\s*[=:\s]\s*(.*)", line)
            if match:
                properties[match[1]] = match[2].strip()
    return properties


def config_of(properties: Mapping[str, str], environment: Mapping[str, str], *, base: Path) -> ClientConfig:
    """What these properties mean."""
    jaas = _jaas(properties.get("sasl.jaas.config", ""))
    user = environment.get(USER_VARIABLE) or properties.get("sasl.username") or jaas.get("username", "")
    password = environment.get(PASSWORD_VARIABLE) or properties.get("sasl.password") or jaas.get("password", "")
    token = environment.get(TOKEN_VARIABLE) or properties.get("sasl.oauthbearer.token", "")
    mechanism = properties.get("sasl.mechanism") or properties.get("sasl.mechanisms")
    if not mechanism:
        mechanism = "OAUTHBEARER" if token and not user else Security().mechanism
    protocol = properties.get("security.protocol", "").upper()
    if not protocol:
        protocol = "SASL_SSL" if user or token else "PLAINTEXT"
    if protocol not in PROTOCOLS:
        raise InvalidRequest(f"security.protocol is one of {', '.join(PROTOCOLS)}, not {protocol!r}")
    if mechanism not in MECHANISMS:
        raise InvalidRequest(f"sasl.mechanism is one of {', '.join(MECHANISMS)}, not {mechanism!r}")
    for name in _PEM_ONLY:
        if properties.get(name, "").endswith((".jks", ".p12", ".pfx")):
            raise InvalidRequest(
                f"{name} has to be a PEM file: convert it with openssl pkcs12, or keytool -exportcert -rfc"
            )
    certificate = _path(properties, base, "ssl.certificate.location", "ssl.keystore.location")
    checks = properties.get("ssl.endpoint.identification.algorithm", "https").lower()
    security = Security(
        protocol=protocol, mechanism=mechanism, user=user, password=password, token=token,
        is_token_auth=jaas.get("tokenauth", "").lower() == "true",
        ca=_path(properties, base, "ssl.ca.location", "ssl.truststore.location"), ca_text=_pem(properties),
        certificate=certificate,
        key=_path(properties, base, "ssl.key.location"), key_password=properties.get("ssl.key.password", ""),
        checks_host=checks not in ("", "none"),
    )  # fmt: skip
    _check_complete(security)
    return ClientConfig(security=security, bootstrap=properties.get("bootstrap.servers") or None)


def _check_complete(security: Security) -> None:
    if not security.uses_sasl:
        return
    if security.mechanism == "OAUTHBEARER":
        if not security.token:
            raise InvalidRequest(f"there is no token: put it into {TOKEN_VARIABLE}")
    elif not security.user or not security.password:
        raise InvalidRequest(
            f"a user and a password are needed: sasl.username and sasl.password in --client-config, or {USER_VARIABLE}"
            f" and {PASSWORD_VARIABLE}"
        )


def _path(properties: Mapping[str, str], base: Path, *names: str) -> Path | None:
    for name in names:
        if properties.get(name):
            return base / Path(properties[name]).expanduser()
    return None


def _pem(properties: Mapping[str, str]) -> str:
    """Certificates in the file itself, where line feeds are written as `\\n`."""
    text = properties.get("ssl.truststore.certificates") or properties.get("ssl.ca.pem") or ""
    return text.replace("\\n", "\n")


def _jaas(text: str) -> dict[str, str]:
    """The options of a JAAS line."""
    options = {}
    for match in _JAAS_OPTION.finditer(text):
        quoted = match[2] if match[2] is not None else match[3]
        options[match[1]] = match[4] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
    return options
