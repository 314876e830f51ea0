"""Where Kafka clients connect, under which name, and what is asked of them there.

Nothing that can be reached from another machine is served without credentials, and no password crosses a network in
clear text: a process that was told to do either does not start. Nor does one that others reach before anybody could
have credentials.
"""

from __future__ import annotations

import errno
import socket
from collections import Counter
from collections.abc import Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

from penstock.base.dataclasses import dataclass
from penstock.base.errors import InvalidRequest, Unavailable
from penstock.base.options import ListenerOptions, OAuthOptions, TlsOptions, UpOptions
from penstock.clusters.transitions import check_name
from penstock.identity.cluster_selection import EVERY_TENANT
from penstock.identity.principal_mapping import parse_rules

PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS = ("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN", "OAUTHBEARER")
"""The SASL mechanisms there are, the best of those with passwords first: clients without an opinion take the first."""
_SECRET_ITSELF_IS_SENT = frozenset({"PLAIN", "OAUTHBEARER"})
_CLIENT_AUTH = ("none", "requested", "required")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """One address and the rules of those who connect to it."""

    name: str = "PLAINTEXT"
    protocol: str = "PLAINTEXT"
    host: str = "127.0.0.1"
    port: int = 0
    advertised: tuple[str, int] | None = None
    mechanisms: tuple[str, ...] = ()
    tls: TlsOptions | None = None
    oauth: OAuthOptions | None = None
    sni_domain: str | None = None

    @property
    def uses_tls(self) -> bool:
        """Whether clients have to speak TLS."""
        return self.protocol in ("SSL", "SASL_SSL")

    @property
    def uses_sasl(self) -> bool:
        """Whether clients have to prove who they are before anything else."""
        return self.protocol in ("SASL_PLAINTEXT", "SASL_SSL")

    @property
    def asks_for_credentials(self) -> bool:
        """Whether clients prove who they are here."""
        return self.uses_sasl or (self.uses_tls and self.tls is not None and self.tls.client_auth != "none")


def listeners_of(options: UpOptions) -> tuple[Listener, ...]:
    """The listeners that were asked for. Raises `InvalidRequest`, with the cure, when they contradict or are unsafe."""
    given = options.listeners or (ListenerOptions(host=options.kafka_host, port=options.kafka_port),)
    _check_together(given)
    if options.oauth is not None:
        _check_oauth(options.oauth)
    if not is_loopback(options.http_host):
        raise InvalidRequest(
            f"--http {options.http_host} can be reached from other machines, and asks for no credentials."
            " Listen on 127.0.0.1, behind a proxy that authenticates."
        )
    return tuple(_listener(listener, options) for listener in given)


def _check_together(given: Sequence[ListenerOptions]) -> None:
    for name, count in Counter(listener.name for listener in given).items():
        if count > 1:
            raise InvalidRequest(f"there are {count} listeners named {name}: each needs a name of its own")
    for (host, port), count in Counter((listener.host, listener.port) for listener in given).items():
        if count > 1 and port:
            raise InvalidRequest(f"{count} listeners want {host}:{port}: each needs an address of its own")


def _listener(given: ListenerOptions, options: UpOptions) -> Listener:
    if given.protocol not in PROTOCOLS:
        raise InvalidRequest(f"{given.protocol!r} is not a security protocol; use one of {', '.join(PROTOCOLS)}")
    mechanisms: tuple[str, ...] = ()
    if given.protocol.startswith("SASL"):
        mechanisms = given.mechanisms or _default_mechanisms(given, options)
    elif given.mechanisms:
        raise InvalidRequest(f"listener {given.name} has SASL mechanisms, but its protocol is {given.protocol}")
    listener = Listener(
        name=given.name, protocol=given.protocol, host=given.host, port=given.port, advertised=given.advertised,
        mechanisms=mechanisms, tls=given.tls if given.protocol.endswith("SSL") else None, sni_domain=given.sni_domain,
        oauth=(given.oauth or options.oauth) if "OAUTHBEARER" in mechanisms else None,
    )  # fmt: skip
    _check_mechanisms(listener)
    _check_tls(listener)
    if listener.sni_domain is not None and not _proves_clusters(listener):
        raise InvalidRequest(
            f"listener {given.name} has an sni-domain, but a server name alone does not authorize a client. Use"
            " SASL_SSL, where credentials of that cluster are required, or SSL with cluster-ca or"
            " cluster-mapping-rules, where a certificate of that cluster is required"
        )
    if not is_loopback(given.host):
        _refuse_open_door(listener)
    return listener


def _default_mechanisms(given: ListenerOptions, options: UpOptions) -> tuple[str, ...]:
    safe = given.protocol == "SASL_SSL" or is_loopback(given.host)
    return tuple(
        mechanism
        for mechanism in MECHANISMS
        if (safe or mechanism not in _SECRET_ITSELF_IS_SENT)
        and (mechanism != "OAUTHBEARER" or given.oauth or options.oauth)
    )


def _proves_clusters(listener: Listener) -> bool:
    """Whether clients have to prove that they are of the cluster that they ask for by a server name."""
    tls = listener.tls
    by_certificate = tls is not None and (tls.cluster_mapping_rules is not None or bool(tls.cluster_ca))
    return listener.protocol == "SASL_SSL" or (listener.protocol == "SSL" and by_certificate)


def _check_mechanisms(listener: Listener) -> None:
    for mechanism in listener.mechanisms:
        if mechanism not in MECHANISMS:
            raise InvalidRequest(f"{mechanism!r} is not a SASL mechanism; use one of {', '.join(MECHANISMS)}")
    if listener.oauth is not None:
        _check_oauth(listener.oauth)
    elif "OAUTHBEARER" in listener.mechanisms:
        raise InvalidRequest(
            f"listener {listener.name} offers OAUTHBEARER, but no issuer of tokens is configured: add oauth with issuer"
            " and audience to the configuration file"
        )


def _check_tls(listener: Listener) -> None:
    tls = listener.tls
    if not listener.uses_tls:
        return
    if tls is None:
        raise InvalidRequest(f"listener {listener.name} uses TLS and needs a certificate: add --tls-cert and --tls-key")
    if tls.client_auth not in _CLIENT_AUTH:
        raise InvalidRequest(f"client-auth is one of {', '.join(_CLIENT_AUTH)}, not {tls.client_auth!r}")
    if tls.client_auth != "none" and tls.client_ca is None and not tls.cluster_ca:
        raise InvalidRequest(
            f"listener {listener.name} asks clients for certificates: add client-ca, the authorities that may sign them"
        )
    if tls.cluster_mapping_rules is not None:
        parse_rules(tls.cluster_mapping_rules, "cluster mapping rules")
    for name, _ in tls.cluster_ca:
        check_name(name)
    if tls.cluster_mapping_rules is None and not tls.cluster_ca:
        return
    if listener.uses_sasl:
        raise InvalidRequest(
            f"listener {listener.name} has the protocol {listener.protocol}, where credentials determine the cluster"
            " of a client: cluster-ca and cluster-mapping-rules (--tls-cluster-rules) would have no effect. In the"
            " configuration file, give it a tls of its own without them; or use SSL, where certificates determine it"
        )
    if tls.client_auth == "none":
        raise InvalidRequest(
            f"listener {listener.name} maps client certificates to clusters, but asks no client for a certificate: add"
            " client-auth"
        )


def _check_oauth(oauth: OAuthOptions) -> None:
    for url in (oauth.issuer, oauth.jwks_url):
        parts = urlsplit(url or oauth.issuer)
        if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
            raise InvalidRequest(f"the issuer of tokens and its keys need an https URL, not {url}")
    if EVERY_TENANT in oauth.clusters and oauth.cluster_claim is None:
        raise InvalidRequest(
            f"with {EVERY_TENANT!r} in clusters of oauth, each token of {oauth.issuer} would open every cluster. Add"
            " cluster-claim, the claim that names the cluster of a token, or list the clusters"
        )
    for name in oauth.clusters:
        if name != EVERY_TENANT:
            check_name(name)


def _refuse_open_door(listener: Listener) -> None:
    reached = f"listener {listener.name} at {listener.host} can be reached from other machines"
    if listener.protocol == "PLAINTEXT":
        host = f"[{listener.host}]" if ":" in listener.host else listener.host
        raise InvalidRequest(
            f"{reached} and asks for no credentials. Listen on 127.0.0.1, or use SASL_SSL:"
            f" --listener SASL_SSL://{host}:{listener.port} --tls-cert FILE --tls-key FILE"
        )
    if listener.protocol == "SSL" and listener.tls is not None and listener.tls.client_auth != "required":
        raise InvalidRequest(
            f"{reached} and asks for no credentials. Require certificates of clients (client-auth: required), or use"
            " SASL_SSL"
        )
    sent = sorted(_SECRET_ITSELF_IS_SENT.intersection(listener.mechanisms))
    if listener.protocol == "SASL_PLAINTEXT" and sent:
        raise InvalidRequest(
            f"{reached} without TLS, where {' and '.join(sent)} would send the secret in clear text. Use SASL_SSL, or"
            " offer only SCRAM-SHA-512"
        )


def needing_users(listeners: Sequence[Listener]) -> Listener | None:
    """One that other machines reach, where nobody gets in but by a password or a key that is kept here."""
    return next(
        (
            listener
            for listener in listeners
            if listener.uses_sasl and "OAUTHBEARER" not in listener.mechanisms and not is_loopback(listener.host)
        ),
        None,
    )


def is_loopback(host: str) -> bool:
    """Whether an address stays on this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def listening_socket(host: str, port: int) -> socket.socket:
    """A bound socket; raise `Unavailable` with the cure when the address is taken or not of this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setblocking(False)
        sock.bind((host, port))
    except OSError as problem:
        sock.close()
        if problem.errno == errno.EADDRINUSE:
            raise Unavailable(
                f"{host}:{port} is already in use by another program: penstock doctor says which. Stop it, or choose"
                " another port: --kafka, --listener, --http."
            ) from problem
        raise Unavailable(f"cannot listen on {host}:{port}: {problem.strerror or problem}") from problem
    return sock
