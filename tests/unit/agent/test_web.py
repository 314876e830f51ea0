"""Documents of an issuer whose certificate, and the authority it leads to, are replaced while it runs; and what takes
metrics, but speaks another protocol."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from penstock.agent.web import HttpsClient, OtlpClient
from penstock.base.errors import InvalidRequest, Unavailable
from penstock.testing.certificates import Authority


class Handler(BaseHTTPRequestHandler):
    """Answers anything."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""


class Https:
    """A server whose certificate can be replaced."""

    def __init__(self) -> None:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"https://localhost:{self.server.server_port}/"
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.socket = self._context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def serve(self, authority: Authority) -> None:
        """Have a certificate of this authority from now on."""
        self._context.load_cert_chain(*authority.server())


@pytest.fixture
def https() -> Iterator[Https]:
    https = Https()
    yield https
    https.server.shutdown()
    https.server.server_close()


async def test_other_authorities_count_without_a_restart_and_broken_ones_do_not(
    tmp_path: Path, https: Https, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = Authority(tmp_path / "old"), Authority(tmp_path / "new")
    ca = tmp_path / "ca.pem"
    ca.write_bytes(old.ca.read_bytes())
    https.serve(old)
    with ThreadPoolExecutor(1) as executor:
        web = HttpsClient(executor, ca)
        assert await web.get(https.url) == b"{}"
        https.serve(new)
        with pytest.raises(Unavailable):
            await web.get(https.url)
        ca.write_bytes(old.ca.read_bytes() + new.ca.read_bytes())
        assert await web.get(https.url) == b"{}"
        for broken in (b"-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n", b"", None):
            ca.unlink() if broken is None else ca.write_bytes(broken)
            assert await web.get(https.url) == b"{}", "the former ones stay in use"
            assert caplog.text.count("the former authorities stay in use") == 1
            caplog.clear()
        with pytest.raises(InvalidRequest):
            HttpsClient(executor, ca)


async def test_metrics_that_are_answered_in_another_protocol_were_not_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as executor:

        def answer() -> None:
            with server.accept()[0] as client:
                client.recv(4096)
                client.sendall(b"220 mail.example ESMTP\r\n")

        threading.Thread(target=answer, daemon=True).start()
        client = OtlpClient(urlsplit(f"http://127.0.0.1:{server.getsockname()[1]}"), executor)
        with pytest.raises(OSError, match="in HTTP"):
            await client.post(b"metrics")
