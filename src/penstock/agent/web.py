"""The web, beside the loop: small documents are got, metrics are posted; bounded in time, without redirections.

Imported by those who are told to go there (`base/lazy.py`).
"""

from __future__ import annotations

import asyncio
import base64
import logging
import ssl
import urllib.error
import urllib.request
from concurrent.futures import Executor
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote

from penstock.base.errors import InvalidRequest, Unavailable

TIMEOUT_S = 5.0
MAX_BYTES = 256 * 1024
_log = logging.getLogger(__name__)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Whoever is configured is asked, and nobody else."""


class HttpsClient:
    """Asks for documents. The authorities are read anew for each, so that a changed file counts; while it cannot be
    read, the former ones stay in use."""

    def __init__(self, executor: Executor, ca: Path | None = None) -> None:
        self._executor, self._ca = executor, ca
        self._context = self._read()

    async def get(self, url: str) -> bytes:
        """A document. Raises `Unavailable`."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._get, url)

    def _read(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self._ca)
        except OSError as error:
            raise InvalidRequest(f"the authorities in {self._ca} cannot be read") from error

    def _get(self, url: str) -> bytes:
        try:
            self._context = self._read()
        except InvalidRequest as problem:
            _log.error("the former authorities stay in use: %s", problem)
        handler = urllib.request.HTTPSHandler(context=self._context)
        try:
            with urllib.request.build_opener(_NoRedirects, handler).open(url, timeout=TIMEOUT_S) as response:
                document: bytes = response.read(MAX_BYTES + 1)
        except (OSError, HTTPException, ValueError) as problem:
            raise Unavailable(f"{url} cannot be read: {getattr(problem, 'reason', problem)}") from problem
        if len(document) > MAX_BYTES:
            raise Unavailable(f"{url} is larger than {MAX_BYTES} bytes")
        return document


class OtlpClient:
    """One OTLP receiver over HTTP."""

    def __init__(self, url: SplitResult, executor: Executor) -> None:
        self._executor = executor
        self._headers = {"Content-Type": "application/x-protobuf"}
        if url.username is not None:
            secret = f"{unquote(url.username)}:{unquote(url.password or '')}"
            self._headers["Authorization"] = "Basic " + base64.b64encode(secret.encode()).decode("ascii")
        self._url = url._replace(netloc=url.netloc.rpartition("@")[2], path=url.path or "/v1/metrics").geturl()
        self._opener = urllib.request.build_opener(_NoRedirects)

    async def post(self, body: bytes) -> None:
        """Send metrics; raise `OSError` when they were not taken."""
        await asyncio.get_running_loop().run_in_executor(self._executor, self._post, body)

    def _post(self, body: bytes) -> None:
        request = urllib.request.Request(self._url, data=body, headers=self._headers, method="POST")
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as response:
                response.read(1)
        except urllib.error.HTTPError as refusal:
            with refusal:
                raise OSError(f"the receiver answered {refusal.code} {refusal.reason}") from None
        except (HTTPException, ValueError) as problem:
            raise OSError(f"the receiver did not answer in HTTP: {problem}") from None
