"""Authorities of clients' certificates that vouch for one virtual cluster each.

What counts are the authorities that a client was verified by, the nearest of them first, be they roots or below one
that tenants share; not what a certificate calls its issuer, for whoever has an authority can make one that is called
like somebody else's. An authority is its name and its key (RFC 5280, section 6.1): it may have several certificates,
and its clients choose by which of them they are verified.
"""

from __future__ import annotations

import hashlib
import re
import ssl
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.base.errors import InvalidRequest
from penstock.base.lazy import lazy_import
from penstock.identity.failures import Denied

if TYPE_CHECKING:
    from cryptography import exceptions, x509
    from cryptography.hazmat.primitives import serialization
else:
    exceptions, x509 = lazy_import("cryptography.exceptions"), lazy_import("cryptography.x509")
    serialization = lazy_import("cryptography.hazmat.primitives.serialization")

MAX_REMEMBERED = 20_480
"""Of how many clients it is remembered who vouches for them: as many as OpenSSL remembers sessions of."""
_CERTIFICATE = r"(?s)-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----"
_DER = 2
"""OpenSSL's number of the encoding, as Python's `ssl` had it before it spoke of it."""


class Authorities:
    """Which cluster's authority stands behind a client. Raises `InvalidRequest` if one stands for several clusters."""

    def __init__(self, files: Sequence[tuple[str, Path]], others: Path | None) -> None:
        self._are_there = bool(files)
        self._clusters: dict[bytes, str] = {}
        self._others: frozenset[bytes] = frozenset()
        """Authorities that stand for no cluster."""
        self._seen: OrderedDict[bytes, str | None] = OrderedDict()
        """By certificates of clients, which cluster's authority stands behind them: a TLS session that is taken up
        again shows the certificate, and nothing of its chain."""
        for cluster, file in files:
            for authority in authorities_in(file):
                other = self._clusters.setdefault(authority, cluster)
                if other != cluster:
                    raise InvalidRequest(f"an authority in {file} belongs to two clusters, {other} and {cluster}")
        if files and others is not None:
            self._others = frozenset(authorities_in(others))

    def cluster_of(self, sock: ssl.SSLSocket) -> str | None:
        """The name of the cluster that a client's authority stands for; None if it stands for none. Raises `Denied`."""
        certificate = sock.getpeercert(binary_form=True)
        if not self._are_there or certificate is None:
            return None
        client, chain = _digest(certificate), verified_chain(sock)
        if chain:
            try:
                authorities = [_authority(certificate) for certificate in chain]
            except ValueError as problem:
                raise Denied("its certificate, or an authority of it, cannot be read") from problem
            vouching = map(self._clusters.get, authorities)
            found = next((cluster for cluster in vouching if cluster is not None), None)
            if found is None and authorities[-1] not in self._others:
                raise Denied("the cluster of the authority of its certificate is not known")
            self._seen[client] = found
        elif client not in self._seen:
            raise Denied("it resumes a TLS session whose certificate authority is not known any more")
        self._seen.move_to_end(client)
        while len(self._seen) > MAX_REMEMBERED:
            self._seen.popitem(last=False)
        return self._seen[client]


def authorities_in(file: Path) -> list[bytes]:
    """The authorities that a file has certificates of. Raises `InvalidRequest` if they cannot be read."""
    try:
        texts = re.findall(_CERTIFICATE, file.read_text("latin-1"))
        return [_authority(ssl.PEM_cert_to_DER_cert(text)) for text in texts]
    except (OSError, ValueError) as problem:
        raise InvalidRequest(f"the authorities in {file} cannot be read") from problem


def verified_chain(sock: ssl.SSLSocket) -> list[bytes]:
    """The certificates by which a client was verified (DER), its own first; none, if it takes up a session again."""
    public: Any = getattr(sock, "get_verified_chain", None)  # Since Python 3.13.
    if public is not None:
        return list(public())
    found: Any = sock._sslobj.get_verified_chain()  # type: ignore[attr-defined]
    return [certificate.public_bytes(_DER) for certificate in found or ()]


def _authority(certificate: bytes) -> bytes:
    """What is the same in all certificates of one authority. Raises `ValueError` if it cannot be read."""
    try:
        parsed = x509.load_der_x509_certificate(certificate)
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        key = parsed.public_key().public_bytes(serialization.Encoding.DER, form)
    except exceptions.UnsupportedAlgorithm as problem:
        raise ValueError(str(problem)) from problem
    return _digest(parsed.subject.public_bytes()) + _digest(key)


def _digest(certificate: bytes) -> bytes:
    return hashlib.sha256(certificate).digest()
