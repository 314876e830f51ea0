"""Getting a small document from the web, beside the loop: bounded in size and time, over TLS, without redirections."""

from __future__ import annotations

import asyncio
import ssl
import urllib.error
import urllib.request
from concurrent.futures import Executor
from http.client import HTTPException
from pathlib import Path
from typing import Any

from penstock.base.errors import InvalidRequest, Unavailable

TIMEOUT_S = 5.0
MAX_BYTES = 256 * 1024


class _NoRedirections(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Whoever is configured is asked, and nobody else."""


class Web:
    """Asks for documents."""

    def __init__(self, executor: Executor, ca: Path | None = None) -> None:
        self._executor = executor
        try:
            context = ssl.create_default_context(cafile=ca)
        except OSError as error:
            raise InvalidRequest(f"the authorities in {ca} cannot be read") from error
        self._opener = urllib.request.build_opener(_NoRedirections, urllib.request.HTTPSHandler(context=context))

    async def get(self, url: str) -> bytes:
        """A document. Raises `Unavailable`."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._get, url)

    def _get(self, url: str) -> bytes:
        try:
            with self._opener.open(url, timeout=TIMEOUT_S) as response:
                document: bytes = response.read(MAX_BYTES + 1)
        except (OSError, HTTPException, ValueError) as problem:
            raise Unavailable(f"{url} cannot be read: {getattr(problem, 'reason', problem)}") from problem
        if len(document) > MAX_BYTES:
            raise Unavailable(f"{url} is larger than {MAX_BYTES} bytes")
        return document
