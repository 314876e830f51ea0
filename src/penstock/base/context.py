"""The context of a request: what a handler knows about the connection that it came from."""

from __future__ import annotations

from penstock.base.dataclasses import dataclass

PLATFORM_CLUSTER_ID = 0
"""The virtual cluster of the deployment itself, with the audit log."""
PLATFORM_CLUSTER_NAME = "platform"
AUDIT_TOPIC = "confluent-audit-log-events"
"""The topic of the audit log, which is in that cluster. Tools for Confluent's audit log look for this name."""

DEFAULT_CLUSTER_ID = 1
"""The virtual cluster of an embedded deployment."""
DEFAULT_CLUSTER_NAME = "default"

PERMANENT_CLUSTER_IDS = frozenset({PLATFORM_CLUSTER_ID, DEFAULT_CLUSTER_ID})
"""The virtual clusters that always exist. Their administrators are platform administrators."""

ANONYMOUS = "User:ANONYMOUS"
"""Kafka's principal of a connection without credentials."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestContext:
    """The caller of one request."""

    cluster_id: int = DEFAULT_CLUSTER_ID
    principal: str = ANONYMOUS
    client_id: str | None = None
    client_host: str = "127.0.0.1"
    client_port: int = 0
    client_software_name: str | None = None
    """From ApiVersions, as `client_software_version`."""
    client_software_version: str | None = None
    listener_name: str = "PLAINTEXT"
    server_name: str | None = None
    """The TLS server name by which the connection selected its cluster, if it did: clients reconnect with it."""
    security_protocol: str = "PLAINTEXT"
    token_authenticated: bool = False
    """Whether the credential was a delegation token."""
    is_platform_admin: bool = False
    """Whether a platform administrator has entered the virtual cluster."""
    is_proven: bool = True
    """Whether the connection has authenticated. Before that, the virtual cluster is only the requested one."""
    api_version: int = 0
    connection_id: int = 0
