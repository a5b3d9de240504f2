"""The requests the video server answers: pages, pictures, figures, and who may have them."""

from __future__ import annotations

import hmac
import io
import json
import select
import socket
import threading
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from time import perf_counter
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from pipeline.video.sinks.http_room import Room
from pipeline.video.sinks.mjpeg import Channel
from pipeline.video.sinks.prometheus import CONTENT_TYPE

_SILENCE = 10.0
"""Seconds a peer may take to send its request or to take a picture."""

MAX_OPEN = 64
"""Connections at once, asked over or not. There is room for all that are answered and for some that
are told that there are too many; but nobody who only connects can use up the process's files and
threads, or keep others out: see ``Room``."""

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


class Site(Protocol):
    """What there is to serve.

    Attributes:
        token: what a viewer must know; ``None`` where only this machine can reach the server.
        hosts: the names by which it may be asked for where no token is needed.
        session: the cookie that the token is traded for.
        channels: the streams' pictures.
        slots: taken by each request while it is answered.
        scrapes: the same for ``/metrics``: viewers, who stay, leave it room.
        connections: those that are open.
    """

    token: str | None
    hosts: frozenset[str]
    session: str
    channels: list[Channel]
    slots: threading.BoundedSemaphore
    scrapes: threading.BoundedSemaphore
    connections: set[socket.socket]

    def metrics(self) -> bytes:
        """Prometheus' text."""

    def status(self) -> dict[str, Any]:
        """What the page shows beside the pictures, plain JSON values."""


class Server(ThreadingHTTPServer):
    """A thread for each connection; none of them outlives the process."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    site: Site

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.room = Room(MAX_OPEN)
        super().__init__(*arguments, **options)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection on a thread of its own, or close it where there is no room."""
        if not self.room.enter(request):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread could be started; the base class closes the connection
            self.room.leave(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection to its end."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.room.leave(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A viewer that leaves in the middle of a picture is no event."""


class _Arrivals(io.RawIOBase):
    """What a peer sends, by a deadline for all of it: a socket's timeout begins anew at each byte.

    Args:
        connection: read from; its timeout is ``allowed`` again whenever nothing is being read.
        allowed: seconds from ``begin`` until reading ends in ``TimeoutError``.
    """

    def __init__(self, connection: socket.socket, allowed: float) -> None:
        self._connection = connection
        self._allowed = allowed
        self._until = 0.0

    def begin(self) -> None:
        """The deadline's time runs from now."""
        self._until = perf_counter() + self._allowed

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """What has come, at least a byte; 0 at the end."""
        left = self._until - perf_counter()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        try:
            return self._connection.recv_into(buffer)
        finally:
            self._connection.settimeout(self._allowed)


class Handler(BaseHTTPRequestHandler):
    """Answers one connection's requests."""

    protocol_version = "HTTP/1.1"
    server_version = "repmlp-edge"
    sys_version = ""
    timeout = _SILENCE
    server: Server
    _asked = False

    def setup(self) -> None:
        """Have the connection known, so that it can be ended."""
        super().setup()
        self.rfile.close()
        self._arrivals = _Arrivals(self.connection, self.timeout)
        self.rfile = io.BufferedReader(self._arrivals)
        self.server.site.connections.add(self.connection)

    def handle_one_request(self) -> None:
        """Read a request and answer it; one whose head is not there in time ends the connection."""
        self._arrivals.begin()
        self.server.room.idle(self.connection, asked=self._asked)
        super().handle_one_request()

    def finish(self) -> None:
        """Forget it."""
        self.server.site.connections.discard(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
        """Nothing is printed: the library never prints, and the query may hold the token."""

    def do_GET(self) -> None:
        """Answer a request."""
        self._asked = True
        self.server.room.busy(self.connection)
        site = self.server.site
        scraping = urlsplit(self.path).path == "/metrics"
        slots = site.scrapes if scraping else site.slots
        if not slots.acquire(blocking=False):
            who = "scrapes at once" if scraping else "viewers"
            self._text(HTTPStatus.SERVICE_UNAVAILABLE, f"too many {who}")
            return
        try:
            self._route(site)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            self.close_connection = True  # the viewer left
        finally:
            slots.release()

    do_HEAD = do_GET  # noqa: N815  # the base class looks for this name

    def _route(self, site: Site) -> None:
        parts = urlsplit(self.path)
        if not self._allowed(site, parts.query):
            return
        path = parts.path
        if path in _ASSETS:
            name, kind = _ASSETS[path]
            body = (files("pipeline.video") / "templates" / name).read_bytes()
            self._send(HTTPStatus.OK, kind, body)
        elif path == "/status.json":
            self._send(HTTPStatus.OK, "application/json", json.dumps(site.status()).encode())
        elif path == "/metrics":
            self._send(HTTPStatus.OK, CONTENT_TYPE, site.metrics())
        elif (channel := _channel(site, path, ".mjpg")) is not None:
            self._stream(channel)
        elif (channel := _channel(site, path, ".jpg")) is not None:
            self._picture(channel)
        else:
            self._text(HTTPStatus.NOT_FOUND, "there is nothing here")

    def _allowed(self, site: Site, query: str) -> bool:
        """Whether the peer may go on; otherwise it has its answer."""
        if site.token is None:
            # A web site could point its own name at our loopback address and read the pictures.
            if _host_only(self.headers.get("Host", "")) in site.hosts:
                return True
            self._text(HTTPStatus.FORBIDDEN, "reach this page as localhost")
            return False
        given = parse_qs(query).get("token", [""])[0]
        if _same(given, site.token):
            # The token goes out of the address bar and the history.
            self._begin(HTTPStatus.SEE_OTHER, "text/plain", 0, {
                "Location": urlsplit(self.path).path,
                "Set-Cookie": f"{_COOKIE}={site.session}; HttpOnly; SameSite=Strict; Path=/",
            })  # fmt: skip
            return False
        scheme, _space, bearer = self.headers.get("Authorization", "").partition(" ")
        # http.server reads headers as Latin-1, whatever bytes were sent.
        bearer = bearer.strip().encode("latin-1", "replace").decode(errors="replace")
        if scheme.lower() == "bearer" and _same(bearer, site.token):
            return True
        if _same(_cookie(self.headers.get("Cookie", "")), site.session):
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


def _channel(site: Site, path: str, ending: str) -> Channel | None:
    number = path.removeprefix("/streams/").removesuffix(ending)
    if path != f"/streams/{number}{ending}" or not number.isdecimal() or len(number) > 4:
        return None
    return site.channels[int(number)] if int(number) < len(site.channels) else None
