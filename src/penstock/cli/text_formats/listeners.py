"""Listeners and what belongs to them, as they are written on the command line and in a configuration file.

On the command line `[NAME=]PROTOCOL://HOST:PORT`; everything else is in the file:

    listeners:
      - name: CLIENTS
        protocol: SASL_SSL
        listen: 0.0.0.0:9093
        advertise: kafka.example.com:9093
        mechanisms: [SCRAM-SHA-512, PLAIN]
    tls:
      certificate: server.pem
      key: server.key
    oauth:
      issuer: https://login.example.com
      audience: kafka

Paths are relative to the file. A listener may have a `tls` and an `oauth` of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from penstock.base.dataclasses import dataclass
from penstock.base.errors import InvalidRequest
from penstock.base.options import ListenerOptions, OAuthOptions, TlsOptions
from penstock.cli.text_formats.addresses import parse_address

LISTENER_NAMES = ("name", "protocol", "listen", "advertise", "mechanisms", "tls", "oauth", "sni-domain")
_TLS_PATHS = ("certificate", "key", "key-password-file", "client-ca")
_TLS_TEXTS = ("client-auth", "principal-mapping-rules", "cluster-mapping-rules")
TLS_NAMES = (*_TLS_PATHS, *_TLS_TEXTS, "cluster-ca")
_OAUTH_TEXTS = ("issuer", "audience", "jwks-url", "principal-claim", "cluster-claim")
OAUTH_NAMES = (*_OAUTH_TEXTS, "clusters", "ca")


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityConfig:
    """What a configuration file says."""

    listeners: tuple[ListenerOptions, ...] = ()
    tls: TlsOptions | None = None
    oauth: OAuthOptions | None = None
    delegation_token_key_file: Path | None = None


def parse_listener(text: str) -> ListenerOptions:
    """Read `[NAME=]PROTOCOL://HOST:PORT`. The name is that of the protocol if none is given, as in Kafka."""
    before, mark, place = text.partition("://")
    if not mark:
        raise InvalidRequest(
            f"{text!r} is not a listener; write [NAME=]PROTOCOL://HOST:PORT, such as SASL_SSL://0.0.0.0:9093"
        )
    name, equals, protocol = before.rpartition("=")
    address = parse_address(place)
    return ListenerOptions(
        name=name if equals else protocol, protocol=protocol.upper(), host=address.host, port=address.port
    )


def parse_advertised(text: str) -> tuple[str | None, tuple[str, int]]:
    """Read `[NAME=]HOST:PORT`."""
    name, equals, place = text.rpartition("=")
    address = parse_address(place)
    return (name if equals else None), (address.host, address.port)


def read_security(path: Path) -> SecurityConfig:
    """Read a configuration file. Raises `InvalidRequest` with what is wrong in it."""
    import yaml

    try:
        document = yaml.safe_load(path.read_text("utf-8")) or {}
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise InvalidRequest(f"the configuration {path} cannot be read: {why}") from error
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the configuration {path} is not UTF-8") from error
    except yaml.YAMLError as error:
        raise InvalidRequest(f"the configuration {path} is not YAML: {error}") from error
    try:
        return _config(document, path.parent)
    except InvalidRequest as error:
        raise InvalidRequest(f"{path}: {error}") from error


def _config(document: Any, base: Path) -> SecurityConfig:
    found = _mapping(document, "the file", ("listeners", "tls", "oauth", "delegation-tokens"))
    listeners = found.get("listeners", [])
    if not isinstance(listeners, Sequence) or isinstance(listeners, str):
        raise InvalidRequest("listeners must be a list")
    return SecurityConfig(
        listeners=tuple(_listener(entry, base) for entry in listeners),
        tls=_tls(found["tls"], base) if "tls" in found else None,
        oauth=_oauth(found["oauth"], base) if "oauth" in found else None,
        delegation_token_key_file=_token_key(found["delegation-tokens"], base)
        if "delegation-tokens" in found
        else None,
    )


def _listener(entry: Any, base: Path) -> ListenerOptions:
    found = _mapping(entry, "a listener", LISTENER_NAMES)
    protocol = _text(found, "protocol", "a listener").upper()
    address = parse_address(_text(found, "listen", "a listener"))
    advertised = parse_address(_text(found, "advertise", "a listener")) if "advertise" in found else None
    return ListenerOptions(
        name=str(found.get("name", protocol)), protocol=protocol, host=address.host, port=address.port,
        advertised=None if advertised is None else (advertised.host, advertised.port),
        mechanisms=tuple(mechanism.upper() for mechanism in _texts(found, "mechanisms")),
        tls=_tls(found["tls"], base) if "tls" in found else None,
        oauth=_oauth(found["oauth"], base) if "oauth" in found else None,
        sni_domain=_text(found, "sni-domain", "a listener") if "sni-domain" in found else None,
    )  # fmt: skip


def _tls(entry: Any, base: Path) -> TlsOptions:
    found = _mapping(entry, "tls", TLS_NAMES)
    _text(found, "certificate", "tls")
    paths = {_field(name): base / _text(found, name, "tls") for name in _TLS_PATHS if name in found}
    texts = {_field(name): _text(found, name, "tls") for name in _TLS_TEXTS if name in found}
    authorities = found.get("cluster-ca", {})
    if not isinstance(authorities, Mapping):
        raise InvalidRequest("cluster-ca of tls must be a mapping from names of clusters to files")
    cluster_ca = tuple((str(name), base / _text(authorities, name, "cluster-ca")) for name in authorities)
    return TlsOptions(**paths, **texts, cluster_ca=cluster_ca)  # type: ignore[arg-type]  # as the two tables say


def _oauth(entry: Any, base: Path) -> OAuthOptions:
    found = _mapping(entry, "oauth", OAUTH_NAMES)
    for name in ("issuer", "audience"):
        _text(found, name, "oauth")
    texts = {_field(name): _text(found, name, "oauth") for name in _OAUTH_TEXTS if name in found}
    return OAuthOptions(
        **texts, clusters=_texts(found, "clusters"), ca=base / _text(found, "ca", "oauth") if "ca" in found else None
    )


def _token_key(entry: Any, base: Path) -> Path | None:
    if entry is None:
        return None
    found = _mapping(entry, "delegation-tokens", ("key-file",))
    return base / _text(found, "key-file", "delegation-tokens")


def _mapping(value: Any, what: str, names: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"{what} must be a mapping with some of: {', '.join(names)}")
    for name in value:
        if name not in names:
            raise InvalidRequest(f"{what} has an unknown name {name!r}; known are {', '.join(names)}")
    return value


def _text(found: Mapping[str, Any], name: str, what: str) -> str:
    value = found.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidRequest(
            f"{what} needs {name}" if value is None else f"{name} of {what} must be a string, not {_kind_of(value)}"
        )
    return value


def _kind_of(value: Any) -> str:
    """What YAML has read: `9092` and `yes` are not strings, although they look like words."""
    names = {bool: "a boolean (quote it)", int: "a number (quote it)", float: "a number (quote it)", str: "empty"}
    return names.get(type(value), "a mapping" if isinstance(value, Mapping) else "a list")


def _texts(found: Mapping[str, Any], name: str) -> tuple[str, ...]:
    values = found.get(name, [])
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise InvalidRequest(f"{name} must be a list")
    return tuple(map(str, values))


def _field(name: str) -> str:
    return name.replace("-", "_")
