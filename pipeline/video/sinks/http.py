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
import ipaddress
import math
import secrets
import socket
import threading
from dataclasses import dataclass
from time import perf_counter
from typing import Any
from urllib.parse import quote

from calibration.cityscapes import CLASS_NAMES
from pipeline.errors import SinkError, UsageError
from pipeline.video.draw import Painter, colour_of
from pipeline.video.metrics import StreamStats
from pipeline.video.sinks.base import TOKEN_VARIABLE
from pipeline.video.sinks.http_requests import Handler, Server
from pipeline.video.sinks.mjpeg import Channel, MjpegSink
from pipeline.video.sinks.prometheus import Exposition

MAX_CONNECTIONS = 32
"""More at once are answered 503: every viewer costs bandwidth and a thread."""

MAX_SCRAPES = 4
"""The same for ``/metrics``, apart: an alarm must not fall silent because many look on."""

LONGEST_PORT = 5
"""Digits of 65535."""

LEAST_TOKEN = 16
"""Shorter tokens can be guessed."""


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
    # int() refuses thousands of digits with an error of its own.
    if not port.isdecimal() or len(port) > LONGEST_PORT or int(port) > 65535:
        raise UsageError(f"--http '{text}' is not PORT or HOST:PORT, such as 8080 or 0.0.0.0:8080")
    return Address(host or "127.0.0.1", int(port))


def check_token(token: str) -> None:
    """Refuse a token that cannot be used.

    Raises:
        UsageError: it is too short, or no text that a URL or header could carry.
    """
    try:
        token.encode()
    except UnicodeEncodeError as error:  # the environment's other bytes come as lone surrogates
        raise UsageError(
            f"{TOKEN_VARIABLE} is not UTF-8; set it to plain letters and digits, or leave it out "
            "and a token is made up"
        ) from error
    if len(token) < LEAST_TOKEN:
        raise UsageError(
            f"{TOKEN_VARIABLE} must have at least {LEAST_TOKEN} characters: shorter ones can "
            "be guessed; without it a token is made up"
        )


class VideoServer:
    """The HTTP server of one run.

    Args:
        address: where to listen; port 0 picks a free one.
        token: what viewers must know; ``None`` makes one up where one is required.
        engine: facts on the engine to show, plain JSON values.

    Raises:
        UsageError: a token that is too short or no text.
        SinkError: the address cannot be listened on.
    """

    def __init__(self, address: Address, *, token: str | None, engine: dict[str, Any]) -> None:
        self._made_up = token is None
        if token is not None:
            check_token(token)
        elif not address.loopback:
            token = secrets.token_urlsafe(24)
        self.token = token
        self.hosts = frozenset({"localhost", "127.0.0.1", "::1", address.host.lower()})
        self.session = secrets.token_urlsafe(24)
        self._engine = engine
        self._painters: list[Painter] = []
        self._stats: list[StreamStats] = []
        self.channels: list[Channel] = []
        self._exposition = Exposition(self._stats)
        self._began = perf_counter()
        self.connections: set[socket.socket] = set()
        self.slots = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self.scrapes = threading.BoundedSemaphore(MAX_SCRAPES)
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        server = type("Server", (Server,), {"address_family": family})
        try:
            self._server: Server = server((address.host, address.port), Handler)
        except OSError as error:
            raise SinkError(
                f"--http {address.host}:{address.port}: {error.strerror or error}"
            ) from error
        self._server.site = self
        self.port: int = self._server.server_address[1]
        self._host = address.host
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="http", daemon=True
        )
        self._thread.start()

    @property
    def printed_url(self) -> str:
        """``url`` for terminals and logs: with the token only where it was made up."""
        return self.url if self._made_up else self.url.partition("?")[0]

    @property
    def url(self) -> str:
        """What to open in a browser, with the token where one is needed."""
        host = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(  # noqa: S104  # compared, not bound
            self._host, f"[{self._host}]" if ":" in self._host else self._host
        )
        query = f"/?token={quote(self.token, safe='')}" if self.token else "/"
        return f"http://{host}:{self.port}{query}"

    def add(self, stats: StreamStats, painter: Painter) -> MjpegSink:
        """A sink for one more stream."""
        channel = Channel()
        self.channels.append(channel)
        self._stats.append(stats)
        self._painters.append(painter)
        return MjpegSink(channel)

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
                    {"name": CLASS_NAMES[c], "color": _css(colour_of(c))} for c in painter.present
                ],
            }
            for stats, painter in zip(self._stats, self._painters, strict=True)
        ]
        return {"engine": self._engine, "uptime_s": _number(now - self._began), "streams": streams}


def _number(value: float) -> float | None:
    return round(value, 3) if math.isfinite(value) else None


def _css(bgr: tuple[int, int, int]) -> str:
    return f"#{bgr[2]:02x}{bgr[1]:02x}{bgr[0]:02x}"
