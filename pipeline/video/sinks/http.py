"""The picture, its legend and its figures in a browser; Prometheus' ``/metrics`` beside them.

    /                     the page
    /streams/0.mjpg       the first stream, as a multipart MJPEG
    /streams/0.jpg        its newest picture
    /status.json          figures and legend of every stream
    /metrics              for Prometheus

Served on the loopback address alone unless told otherwise. Beyond it a token is required: in the
URL's query, which the page trades for a cookie, or as ``Authorization: Bearer``. The connection is
not encrypted; put a TLS proxy before it on a network that is not yours.
"""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import json
import math
import secrets
import select
import socket
import threading
from dataclasses import dataclass
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from time import perf_counter
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pipeline.errors import SinkError, UsageError
from pipeline.video.draw import Painter, Style
from pipeline.video.metrics import StreamStats
from pipeline.video.sinks.mjpeg import Channel, MjpegSink
from pipeline.video.sinks.prometheus import CONTENT_TYPE, Exposition

MAX_CONNECTIONS = 32
"""More at once are answered 503: every viewer costs bandwidth and a thread."""

LEAST_TOKEN = 16
"""Shorter tokens can be guessed."""

_SILENCE = 10.0
"""Seconds a peer may take to send its request or to take a picture."""

_REPEAT = 2.0
"""Seconds without a new picture after which a viewer is sent the last one again."""

_COOKIE = "repmlp_edge"

_ASSETS = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'self'; "
    "script-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True)
class Address:
    """Where to listen."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_address(text: str) -> Address:
    """``8080``, ``0.0.0.0:8080`` or ``[::1]:8080``; without a host it is the loopback address.

    Raises:
        UsageError: anything else.
    """
    host, _colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"--http '{text}' is not PORT or HOST:PORT, such as 8080 or 0.0.0.0:8080")
    return Address(host or "127.0.0.1", int(port))


class VideoServer:
    """The HTTP server of one run.

    Args:
        address: where to listen; port 0 picks a free one.
        token: what viewers must know; ``None`` makes one up where one is required.
        style: for the legend's names and colours.
        engine: facts on the engine to show, plain JSON values.

    Raises:
        UsageError: a token that is too short.
        SinkError: the address cannot be listened on.
    """

    def __init__(
        self, address: Address, *, token: str | None, style: Style, engine: dict[str, Any]
    ) -> None:
        if token is not None and len(token) < LEAST_TOKEN:
            raise UsageError(f"the HTTP token must have at least {LEAST_TOKEN} characters")
        if token is None and not address.loopback:
            token = secrets.token_urlsafe(24)
        self.token = token
        self.loopback = address.loopback
        self.session = secrets.token_urlsafe(24)
        self._style = style
        self._engine = engine
        self._painters: list[Painter] = []
        self._stats: list[StreamStats] = []
        self.channels: list[Channel] = []
        self._exposition = Exposition(self._stats)
        self._began = perf_counter()
        self.connections: set[socket.socket] = set()
        self.slots = threading.BoundedSemaphore(MAX_CONNECTIONS)
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        server = type("Server", (_Server,), {"address_family": family})
        try:
            self._server: _Server = server((address.host, address.port), _Handler)
        except OSError as error:
            raise SinkError(
                f"--http {address.host}:{address.port}: {error.strerror or error}"
            ) from error
        self._server.owner = self
        self.port: int = self._server.server_address[1]
        self._host = address.host
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="http", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """What to open in a browser, with the token where one is needed."""
        host = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(  # noqa: S104  # compared, not bound
            self._host, f"[{self._host}]" if ":" in self._host else self._host
        )
        query = f"/?token={self.token}" if self.token else "/"
        return f"http://{host}:{self.port}{query}"

    def add(self, stats: StreamStats, painter: Painter) -> MjpegSink:
        """A sink for one more stream."""
        channel = Channel()
        self.channels.append(channel)
        self._stats.append(stats)
        self._painters.append(painter)
        return MjpegSink(
            channel, f"{self.url.partition('?')[0]}streams/{len(self.channels) - 1}.mjpg"
        )

    def close(self) -> None:
        """Send every viewer away and stop listening. Safe to call twice."""
        for channel in self.channels:
            channel.close()
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self.connections):
            with contextlib.suppress(OSError):  # it has just ended by itself
                connection.shutdown(socket.SHUT_RD)
        self._thread.join(1.0)

    def metrics(self) -> bytes:
        """Prometheus' text."""
        return self._exposition.render()

    def status(self) -> dict[str, Any]:
        """What the page shows beside the pictures."""
        now = perf_counter()
        streams = [
            {
                "name": stats.source,
                "frames": stats.shown,
                "fps": _number(stats.rate.value(now)),
                "latency_ms": _number(stats.recent_latency * 1e3),
                "latency_p95_ms": _number(stats.latency.quantile(0.95) * 1e3),
                "dropped": stats.dropped,
                "decode_errors": stats.decode_errors,
                "reconnects": stats.reconnects,
                "away_s": _number(stats.away_for(now)),
                "classes": [
                    {"name": self._style.names[c], "color": _css(self._style.colour(c))}
                    for c in painter.present
                ],
            }
            for stats, painter in zip(self._stats, self._painters, strict=True)
        ]
        return {"engine": self._engine, "uptime_s": _number(now - self._began), "streams": streams}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    owner: VideoServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A viewer that leaves in the middle of a picture is no event."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "repmlp-edge"
    sys_version = ""
    timeout = _SILENCE
    server: _Server

    def setup(self) -> None:
        """Have the connection known, so that it can be ended."""
        super().setup()
        self.server.owner.connections.add(self.connection)

    def finish(self) -> None:
        """Forget it."""
        self.server.owner.connections.discard(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
        """Nothing is printed: the library never prints, and the query may hold the token."""

    def do_GET(self) -> None:
        """Answer a request."""
        owner = self.server.owner
        if not owner.slots.acquire(blocking=False):
            self._text(HTTPStatus.SERVICE_UNAVAILABLE, "too many viewers")
            return
        try:
            self._route(owner)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            self.close_connection = True  # the viewer left
        finally:
            owner.slots.release()

    do_HEAD = do_GET  # noqa: N815  # the base class looks for this name

    def _route(self, owner: VideoServer) -> None:
        parts = urlsplit(self.path)
        if not self._allowed(owner, parts.query):
            return
        path = parts.path
        if path in _ASSETS:
            name, kind = _ASSETS[path]
            body = (files("pipeline.video") / "templates" / name).read_bytes()
            self._send(HTTPStatus.OK, kind, body)
        elif path == "/status.json":
            self._send(HTTPStatus.OK, "application/json", json.dumps(owner.status()).encode())
        elif path == "/metrics":
            self._send(HTTPStatus.OK, CONTENT_TYPE, owner.metrics())
        elif (channel := _channel(owner, path, ".mjpg")) is not None:
            self._stream(channel)
        elif (channel := _channel(owner, path, ".jpg")) is not None:
            self._picture(channel)
        else:
            self._text(HTTPStatus.NOT_FOUND, "there is nothing here")

    def _allowed(self, owner: VideoServer, query: str) -> bool:
        """Whether the peer may go on; otherwise it has its answer."""
        if owner.token is None:
            # A web site could point its own name at our loopback address and read the pictures.
            if _host_only(self.headers.get("Host", "")) in ("localhost", "127.0.0.1", "::1"):
                return True
            self._text(HTTPStatus.FORBIDDEN, "reach this page as localhost")
            return False
        given = parse_qs(query).get("token", [""])[0]
        if _same(given, owner.token):
            # The token goes out of the address bar and the history.
            self._begin(HTTPStatus.SEE_OTHER, "text/plain", 0, {
                "Location": urlsplit(self.path).path,
                "Set-Cookie": f"{_COOKIE}={owner.session}; HttpOnly; SameSite=Strict; Path=/",
            })  # fmt: skip
            return False
        scheme, _space, bearer = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and _same(bearer.strip(), owner.token):
            return True
        if _same(_cookie(self.headers.get("Cookie", "")), owner.session):
            return True
        self._text(
            HTTPStatus.UNAUTHORIZED, "open the address that the runner printed, with its token",
            {"WWW-Authenticate": 'Bearer realm="repmlp-edge"'},
        )  # fmt: skip
        return False

    def _stream(self, channel: Channel) -> None:
        self._begin(
            HTTPStatus.OK, "multipart/x-mixed-replace; boundary=frame", None,
            {"Connection": "close"},
        )  # fmt: skip
        self.close_connection = True
        if self.command == "HEAD":
            return
        with channel.viewer():
            seen, picture = 0, b""
            while not channel.closed:
                found = channel.newer_than(seen, _REPEAT)
                if found is not None:
                    seen, picture = found
                elif self._left():
                    return
                if picture:
                    self._part(picture)
            self.wfile.write(b"--frame--\r\n")

    def _part(self, picture: bytes) -> None:
        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
        self.wfile.write(head.encode())
        self.wfile.write(picture)
        self.wfile.write(b"\r\n")

    def _left(self) -> bool:
        """Whether the viewer has closed its end."""
        readable = select.select([self.connection], [], [], 0)[0]
        return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)

    def _picture(self, channel: Channel) -> None:
        with channel.viewer():
            found = channel.newer_than(0, 2.0)
        if found is None:
            self._text(HTTPStatus.SERVICE_UNAVAILABLE, "there is no picture yet")
        else:
            self._send(HTTPStatus.OK, "image/jpeg", found[1])

    def _text(self, status: HTTPStatus, text: str, headers: dict[str, str] | None = None) -> None:
        self._send(status, "text/plain; charset=utf-8", f"{text}\n".encode(), headers)

    def _send(
        self, status: HTTPStatus, kind: str, body: bytes, headers: dict[str, str] | None = None
    ) -> None:
        self._begin(status, kind, len(body), headers)
        if self.command != "HEAD":
            self.wfile.write(body)

    def _begin(
        self,
        status: HTTPStatus,
        kind: str,
        length: int | None,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in (_HEADERS | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()


def _same(given: str, expected: str) -> bool:
    """Compare secrets in a time that tells nothing of where they differ."""
    return hmac.compare_digest(given.encode(), expected.encode())


def _cookie(header: str) -> str:
    try:
        morsel = SimpleCookie(header).get(_COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel is not None else ""


def _host_only(header: str) -> str:
    """The Host header without its port, IPv6 brackets removed."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].lower()


def _channel(owner: VideoServer, path: str, ending: str) -> Channel | None:
    number = path.removeprefix("/streams/").removesuffix(ending)
    if path != f"/streams/{number}{ending}" or not number.isdecimal() or len(number) > 4:
        return None
    return owner.channels[int(number)] if int(number) < len(owner.channels) else None


def _number(value: float) -> float | None:
    return round(value, 3) if math.isfinite(value) else None


def _css(bgr: tuple[int, int, int]) -> str:
    return f"#{bgr[2]:02x}{bgr[1]:02x}{bgr[0]:02x}"
