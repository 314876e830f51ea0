"""What can go wrong between us and a cluster, each in one sentence that ends in what to do about it."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Mapping

from penstock.base.errors import PlatformError
from penstock.wire.error_codes import ErrorCode

LOCAL = ("127.0.0.1", "localhost", "::1")
"""Names of this machine."""
_WRONG_NAME, _NOT_YET_VALID, _EXPIRED = 62, 9, 10
"""OpenSSL's numbers for a certificate of another host, and for one that is out of date."""
_CLIENT_CERTIFICATE_ALERTS = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it requires a client certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not trust the client certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the client certificate has expired",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not accept the client certificate",
}
"""How OpenSSL names what a server has against the client's certificate, or the lack of one."""
RETRIABLE = frozenset(
    {
        ErrorCode.LEADER_NOT_AVAILABLE,
        ErrorCode.NOT_LEADER_OR_FOLLOWER,
        ErrorCode.REQUEST_TIMED_OUT,
        ErrorCode.BROKER_NOT_AVAILABLE,
        ErrorCode.REPLICA_NOT_AVAILABLE,
        ErrorCode.NETWORK_EXCEPTION,
        ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode.COORDINATOR_NOT_AVAILABLE,
        ErrorCode.NOT_COORDINATOR,
        ErrorCode.NOT_ENOUGH_REPLICAS,
        ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        ErrorCode.NOT_CONTROLLER,
        ErrorCode.FENCED_LEADER_EPOCH,
        ErrorCode.UNKNOWN_LEADER_EPOCH,
        ErrorCode.OFFSET_NOT_AVAILABLE,
        ErrorCode.KAFKA_STORAGE_ERROR,
        ErrorCode.UNSTABLE_OFFSET_COMMIT,
        ErrorCode.THROTTLING_QUOTA_EXCEEDED,
        ErrorCode.CONCURRENT_TRANSACTIONS,
    }
)
"""After these a command tries again; unlike Kafka's clients, not where something does not exist."""

_GRANT = "An administrator can grant it: penstock role grant, or penstock acl allow"
_SENTENCES: Mapping[int, str] = {
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION: "does not exist. See: penstock topic list",
    ErrorCode.UNKNOWN_TOPIC_ID: "does not exist any more. See: penstock topic list",
    ErrorCode.OFFSET_OUT_OF_RANGE: "this offset is not kept. See: penstock topic describe",
    ErrorCode.TOPIC_ALREADY_EXISTS: "exists already. To accept that, add --if-not-exists",
    ErrorCode.INVALID_TOPIC_EXCEPTION: "is not a valid name: use letters, digits, '.', '_' and '-', 249 at most",
    ErrorCode.MESSAGE_TOO_LARGE: "a record is larger than max.message.bytes. Raise it: penstock topic alter",
    ErrorCode.INVALID_PARTITIONS: "this number of partitions is not possible",
    ErrorCode.INVALID_REPLICATION_FACTOR: "there are not enough brokers for that replication factor",
    ErrorCode.INVALID_GROUP_ID: "is not a valid group id",
    ErrorCode.GROUP_ID_NOT_FOUND: "does not exist. See: penstock group list",
    ErrorCode.NON_EMPTY_GROUP: "has members. Stop its consumers first",
    ErrorCode.UNKNOWN_MEMBER_ID: "has members. Stop its consumers first",
    ErrorCode.TOPIC_DELETION_DISABLED: "the cluster does not allow topics to be deleted (delete.topic.enable=false)",
    ErrorCode.TOPIC_AUTHORIZATION_FAILED: f"you are not allowed to do this with the topic. {_GRANT}",
    ErrorCode.GROUP_AUTHORIZATION_FAILED: f"you are not allowed to do this with the group. {_GRANT}",
    ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: f"you are not allowed to do this with it. {_GRANT}",
    ErrorCode.CLUSTER_AUTHORIZATION_FAILED: f"you are not allowed to do this on the cluster. {_GRANT}",
    ErrorCode.TRANSACTIONAL_ID_NOT_FOUND: "does not exist. See: penstock transaction list",
    ErrorCode.SECURITY_DISABLED: "they are off, and whoever can connect may do everything. They are on if a listener"
    " requires credentials, or with penstock up --set"
    " authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    ErrorCode.INVALID_RECORD: "the broker refused a record. A compacted topic needs keys (-k, -K or %k)",
    ErrorCode.NOT_LEADER_OR_FOLLOWER: "has no leader now. Try again later",
    ErrorCode.LEADER_NOT_AVAILABLE: "has no leader now. Try again later",
    ErrorCode.COORDINATOR_NOT_AVAILABLE: "has no coordinator now. Try again later",
    ErrorCode.NOT_ENOUGH_REPLICAS: "has fewer replicas in sync than min.insync.replicas asks for",
    ErrorCode.REQUEST_TIMED_OUT: "the broker did not finish in time. Whether it did the work is not known",
    ErrorCode.UNSUPPORTED_COMPRESSION_TYPE: "the broker cannot take this compression. Try another --compression",
}

_PREDICATES = ("does ", "exists ", "has ", "is ")
"""Sentences that begin so say something of what the error is about."""


def code_name(code: int) -> str:
    """Kafka's name of an error code."""
    try:
        return ErrorCode(code).name
    except ValueError:
        return f"error {code}"


class BrokerError(PlatformError):
    """A broker answered with an error code."""

    def __init__(self, code: int, about: str, detail: str | None = None) -> None:
        self.code, self.about, self.detail = code, about, detail
        # Our sentence says what to do where we know one; otherwise what the broker said is the best there is.
        sentence = _SENTENCES.get(code) or detail or f"the broker answered {code_name(code)}"
        if detail and code in _BROKER_KNOWS_BETTER and detail != _SAYS_NO_MORE.get(code):
            sentence = detail
        if code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION and about.startswith("partition "):
            sentence = "does not exist. See: penstock topic describe"
        colon = "" if sentence.startswith(_PREDICATES) else ":"
        super().__init__(f"{about}{colon} {sentence}" if about else sentence)

    @property
    def is_retriable(self) -> bool:
        """Whether asking again can help."""
        return self.code in RETRIABLE


_BROKER_KNOWS_BETTER = frozenset(
    {
        ErrorCode.INVALID_PARTITIONS,
        ErrorCode.INVALID_CONFIG,
        ErrorCode.POLICY_VIOLATION,
        ErrorCode.INVALID_RECORD,
        ErrorCode.CLUSTER_AUTHORIZATION_FAILED,
    }
)
_SAYS_NO_MORE: Mapping[int, str] = {ErrorCode.CLUSTER_AUTHORIZATION_FAILED: "Cluster authorization failed."}
"""What brokers say where there is nothing to be said beside the code."""


def check(code: int, about: str, detail: str | None = None) -> None:
    """Raise what an error code means; nothing for success."""
    if code != ErrorCode.NONE:
        raise BrokerError(code, about, detail)


class Unreachable(PlatformError):
    """No connection could be made; `hint` is what to do about it, if the problem does not say so itself."""

    def __init__(self, problem: str, hint: str = "") -> None:
        super().__init__(f"{problem}. {hint}" if hint else problem)
        self.problem, self.hint = problem, hint


class ConnectionLost(PlatformError):
    """A connection ended, or stayed silent, before an answer. Whether the request was done is not known."""


class RequestRefused(ConnectionLost):
    """The broker closed the connection instead of answering the first request: it wants credentials, most likely."""


class AuthenticationFailed(PlatformError):
    """The cluster does not believe who we are, or we do not believe it."""


class Unsupported(PlatformError):
    """The broker does not speak a version that we speak."""


def _alert_of(error: ssl.SSLError) -> str:
    """OpenSSL's name of what went wrong; empty where it has none."""
    return getattr(error, "reason", None) or ""


def hint(error: OSError, host: str) -> str:
    """What to do about a first connection that failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code == _WRONG_NAME:
            return "Connect to one of the names that are in it"
        if error.verify_code == _EXPIRED:
            return "Renew the certificate of the server, and check this machine's clock"
        if error.verify_code == _NOT_YET_VALID:
            return "Check this machine's clock"
        return "If it is signed by an authority of your own, name that in --client-config: ssl.ca.location=FILE"
    if isinstance(error, ssl.SSLError) and _alert_of(error) in _CLIENT_CERTIFICATE_ALERTS:
        return "Name one in --client-config: ssl.certificate.location=FILE and ssl.key.location=FILE"
    if isinstance(error, ssl.SSLError):
        return "Check the port, and security.protocol in --client-config: is it a listener with TLS?"
    if isinstance(error, socket.gaierror):
        return "Check the address: --bootstrap HOST:PORT"
    if host in LOCAL:
        return "Is it running? Try: penstock up"
    return "Is it running, and can it be reached from here? Check the address: --bootstrap HOST:PORT"


def reason(error: OSError) -> str:
    """Why a connection failed, in words."""
    if isinstance(error, socket.gaierror):
        return "the name cannot be resolved"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, ssl.SSLError) and _alert_of(error) in _CLIENT_CERTIFICATE_ALERTS:
        return _CLIENT_CERTIFICATE_ALERTS[_alert_of(error)]
    if isinstance(error, ssl.SSLEOFError):
        return "TLS failed (connection closed by the other side)"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({(error.reason or 'unknown').replace('_', ' ').lower()})"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    match error.errno:
        case errno.ECONNREFUSED:
            return "connection refused"
        case errno.EHOSTUNREACH | errno.ENETUNREACH:
            return "no route to host"
        case errno.ECONNRESET | errno.EPIPE:
            return "connection closed by the other side"
        case _:
            return (error.strerror or str(error) or type(error).__name__).lower()
