"""Who is asking: what a request handler knows about the connection a request came from."""

from __future__ import annotations

from penstock.base.dataclasses import dataclass

PLATFORM_CLUSTER_ID = 0
"""The virtual cluster of the deployment itself: what it has to say of itself goes there."""
PLATFORM_CLUSTER_NAME = "platform"
AUDIT_TOPIC = "confluent-audit-log-events"
"""The topic of the audit log, which is in that cluster. Tools for Confluent's audit log look for this name."""

DEFAULT_CLUSTER_ID = 1
"""The virtual cluster of an embedded deployment."""
DEFAULT_CLUSTER_NAME = "default"

PERMANENT_CLUSTER_IDS = frozenset({PLATFORM_CLUSTER_ID, DEFAULT_CLUSTER_ID})
"""Those that are there from the beginning and stay: their administrators run the deployment."""

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
    """What the client said of itself when it asked which versions there are."""
    client_software_version: str | None = None
    listener_name: str = "PLAINTEXT"
    server_name: str | None = None
    """By which name the connection asked for its cluster, if it did: it is to come back by that one."""
    security_protocol: str = "PLAINTEXT"
    token_authenticated: bool = False
    """Whether a delegation token is what proved the principal."""
    is_platform_admin: bool = False
    """Whether it is an administrator of the platform, in whichever virtual cluster."""
    is_proven: bool = True
    """Whether it is settled who asks. Before, the virtual cluster is only where somebody wants to be."""
    api_version: int = 0
    connection_id: int = 0
