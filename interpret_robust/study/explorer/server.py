"""The page on this machine: HTTP on loopback, for whoever has the address with its token, and for nobody else."""

import hmac
import json
import secrets
import select
import socket
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from interpret_robust.core.errors import UserError
from interpret_robust.study.explorer import assets
from interpret_robust.study.explorer.explorer import Explorer
from interpret_robust.study.explorer.view import parse, read_whole

ADDRESS = "127.0.0.1"
HOSTS = (ADDRESS, "localhost")
"""Names under which the page may be asked for: another one is of a site that was rebound to this machine."""

MOST_BYTES = 10_000_000
"""Of a picture that is brought."""

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript"}


class BadRequestError(Exception):
    """What is wrong with a request: a status, and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Server(ThreadingHTTPServer):
    """A server of one explorer.

    Attributes:
        address: what a browser opens.
    """

    daemon_threads = True

    def __init__(self, explorer: Explorer, port: int = 0) -> None:
        self.explorer, self.token = explorer, secrets.token_urlsafe(24)
        super().__init__((ADDRESS, port), Handler)
        self.address = f"http://{ADDRESS}:{self.server_address[1]}/{self.token}/"

    def serve_until_interrupted(self) -> None:
        """Answer requests until Ctrl-C."""
        try:
            self.serve_forever(poll_interval=0.1)
        except KeyboardInterrupt:
            return


class Handler(BaseHTTPRequestHandler):
    """Answers one request. Nothing of a request is ever the name of a file."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "irt", ""
    timeout = 600

    def do_GET(self) -> None:
        """Answer with the page, or with what it asks for."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """Take a picture."""
        self._answer(self._post)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Write no log: addresses hold the token."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """Answer what is no HTTP with a sentence."""
        self.close_connection = True
        self._send(code, "text/plain", f"this request cannot be read ({message or code}).".encode())

    def _answer(self, respond: Callable[[str, dict[str, str]], None]) -> None:
        try:
            respond(*self._check())
        except BadRequestError as error:
            self._refuse(error.status, str(error))
        except UserError as error:
            self._refuse(400, str(error))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _refuse(self, status: int, sentence: str) -> None:
        self.close_connection = True
        self._send(status, "application/json", json.dumps({"error": sentence}).encode())

    def _check(self) -> tuple[str, dict[str, str]]:
        """Return what is asked for, and its fields. Raises BadRequestError for whoever may not ask."""
        if _host(f"//{self.headers.get('Host', '')}") not in HOSTS:
            raise BadRequestError(403, f"this page is for {ADDRESS} alone: open the address that irt printed.")
        origin = self.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != self.headers["Host"]:
            raise BadRequestError(403, "another site may not ask here.")
        address = urlsplit(self.path)
        token, _, name = address.path.removeprefix("/").partition("/")
        if not hmac.compare_digest(token.encode(), self.server.token.encode()):
            raise BadRequestError(403, "the token is missing or wrong: open the address that irt printed.")
        return name, dict(parse_qsl(address.query, keep_blank_values=True, max_num_fields=20))

    def _get(self, name: str, query: dict[str, str]) -> None:
        explorer = self.server.explorer
        if name in assets.ASSETS:
            self._send(200, KINDS[assets.ASSETS[name].rpartition(".")[2]], assets.read_asset(name).encode())
            return
        match name:
            case "setup":
                self._send(200, "application/json", json.dumps(explorer.setup()).encode())
            case "image":
                self._send(200, "application/json", json.dumps(explorer.image(query.get("image", ""))).encode())
            case "cells":
                self._stream(explorer.cells(self._view(query)))
            case "deletions":
                position = read_whole("position", query.get("position", ""))
                self._stream(explorer.deletions(self._view(query), position))
            case _:
                raise BadRequestError(404, "there is nothing of this name here.")

    def _view(self, query: dict[str, str]) -> Any:
        return parse(query, len(self.server.explorer.album.dataset.class_names))

    def _post(self, name: str, query: dict[str, str]) -> None:  # noqa: ARG002
        if name != "image":
            raise BadRequestError(404, "there is nothing of this name here.")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit() and len(length) < 15):
            raise BadRequestError(411, "the length of the picture is missing.")
        if int(length) > MOST_BYTES:
            raise BadRequestError(413, f"the picture has {int(length):,} bytes: at most {MOST_BYTES:,} are taken.")
        key = self.server.explorer.album.add(self.rfile.read(int(length)))
        self._send(200, "application/json", json.dumps({"image": key}).encode())

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self._end(body)

    def _end(self, body: bytes) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _stream(self, messages: Iterator[dict[str, Any]]) -> None:
        """Send messages as they come, a line of JSON each, until whoever asked has gone."""
        first = next(messages, None)  # raises what is wrong while an error can still be told
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self._end(b"")
        message = first
        while message is not None and not _is_gone(self.connection):
            self._chunk(json.dumps(message).encode() + b"\n")
            try:
                message = next(messages, None)
            except UserError as error:
                self._chunk(json.dumps({"error": str(error)}).encode() + b"\n")
                break
        self._chunk(b"")

    def _chunk(self, content: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(content), content))
        self.wfile.flush()


def _host(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def _is_gone(connection: socket.socket) -> bool:
    """Return whether the other side has closed its connection: the page asks for something newer."""
    readable, _, _ = select.select([connection], [], [], 0)
    return bool(readable) and connection.recv(1, socket.MSG_PEEK) == b""
