"""What `penstock up` was asked for: plain values, their shape checked by the caller, their meaning by the agent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from penstock.base.dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsOptions:
    """A listener's certificate, and what it asks of clients'."""

    certificate: Path
    """PEM: the server's certificate, followed by its chain."""
    key: Path | None = None
    """PEM: the private key. Default: in the file of the certificate."""
    key_password_file: Path | None = None
    """A file whose first line decrypts the private key."""
    client_ca: Path | None = None
    """PEM: the authorities whose client certificates are accepted."""
    client_auth: str = "none"
    """Kafka's `ssl.client.auth`: `none`, `requested` or `required`."""
    principal_mapping_rules: str = "DEFAULT"
    """Kafka's `ssl.principal.mapping.rules`: how a distinguished name becomes a principal."""
    cluster_mapping_rules: str | None = None
    """Rules of the same kind that turn a distinguished name into the name of a virtual cluster; `DEFAULT` stands for
    the cluster `default`, which is also where everybody is without rules. Only for listeners of protocol SSL."""
    cluster_ca: tuple[tuple[str, Path], ...] = ()
    """PEM files by virtual cluster: authorities whose client certificates are accepted as well, and belong to that
    cluster whatever they say. Only for listeners of protocol SSL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuthOptions:
    """The issuer whose tokens OAUTHBEARER accepts."""

    issuer: str
    """The `iss` of tokens; its OpenID configuration says where its keys are."""
    audience: str
    """The `aud` of tokens must be, or include, this."""
    jwks_url: str | None = None
    """Where the issuer's keys are. Default: where its OpenID configuration says."""
    principal_claim: str = "sub"
    """The claim that names the principal."""
    cluster_claim: str | None = None
    """The claim that names the virtual cluster that a token is for, or a list of several."""
    clusters: tuple[str, ...] = ()
    """The virtual clusters that tokens may open; `*` is every one but `default` and `platform`. Without a claim, each
    token opens all of these. Default: `*` with a claim, else the cluster `default`."""
    ca: Path | None = None
    """PEM: the authorities that the issuer's own certificate is checked with, read again for each request to it.
    Default: the system's."""

    @property
    def decides_clusters(self) -> bool:
        """Whether tokens say in which virtual cluster their holders are."""
        return self.cluster_claim is not None or bool(self.clusters)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerOptions:
    """One address that Kafka clients connect to."""

    name: str = "PLAINTEXT"
    host: str = "127.0.0.1"
    port: int = 9092
    protocol: str = "PLAINTEXT"
    """Kafka's security protocol: `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`."""
    advertised: tuple[str, int] | None = None
    """What clients are told to connect to; None is the address listened on."""
    mechanisms: tuple[str, ...] = ()
    """The SASL mechanisms that are offered. Default: all that the listener can offer safely."""
    tls: TlsOptions | None = None
    oauth: OAuthOptions | None = None
    """The issuer whose tokens are accepted here; None: that of `UpOptions`."""
    sni_domain: str | None = None
    """A client whose TLS server name is `CLUSTER.` followed by this must be of that virtual cluster, or is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions:
    """How to run one agent."""

    data_dir: Path | None = Path("penstock-data")
    """Where slabs, segments and the embedded database live; None keeps everything in memory."""
    kafka_host: str = "127.0.0.1"
    kafka_port: int = 9092
    http_host: str = "127.0.0.1"
    http_port: int = 8080
    durability: str = "disk"
    """`disk`: acknowledged means fsynced. `process`: acknowledged means handed to the operating system."""
    metadata_url: str | None = field(default=None, repr=False)
    """`postgresql://…`, which may contain a password; None is SQLite in the data directory."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Broker-wide Kafka settings by name, such as `num.partitions`, as text."""
    listeners: tuple[ListenerOptions, ...] = ()
    """Where Kafka clients connect; none given is one without credentials at `kafka_host` and `kafka_port`."""
    oauth: OAuthOptions | None = None
    """Whose tokens OAUTHBEARER accepts."""
    client_metrics: str | None = field(default=None, repr=False)
    """Where metrics that clients push go: the URL of an OTLP receiver, which may contain a password, or `prometheus`
    for the page of this agent's own; None does not ask for any."""
    encrypt: bool = False
    """Seal what the default cluster stores from now on. It stays sealed when this is not asked for any more."""
    master_key_file: Path | None = None
    """Where the master keys of encrypted clusters are; None is in the data directory."""
    give_up_commits_from: int | None = None
    """The number of a commit: go on without it and all that follow, if the disk has lost that one. None, or another
    number, refuses to start then."""
    delegation_token_key_file: Path | None = None
    """A file with the key that secrets of delegation tokens are made with; None is that there are no such tokens."""
