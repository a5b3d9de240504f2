"""Who may see what the HTTP server has: tokens, cookies, and the names it may be asked for by."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import threading
from time import perf_counter

import pytest

from pipeline.errors import UsageError
from pipeline.video.sinks import http_requests
from pipeline.video.sinks.http import Address, VideoServer
from pipeline.video.sinks.http_requests import Handler
from tests.pipeline.video.fakes import wait_until
from tests.pipeline.video.test_http import ANYWHERE, TOKEN, Headers, add_stream, ask, serve


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"},
     {"Cookie": f"repmlp_edge={TOKEN}"}, {"Cookie": "repmlp_edge=;;=="}],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/streams/0.mjpg", "/status.json", "/metrics", "/?token=x"])
def test_without_the_token_nothing_is_shown(path: str, headers: Headers) -> None:
    with serve(ANYWHERE, TOKEN) as server:
        add_stream(server)
        status, _headers, body = ask(server, path, headers)
        assert status == 401
        assert TOKEN.encode() not in body


def test_token_opens_and_is_traded_for_a_cookie() -> None:
    with serve(ANYWHERE, TOKEN) as server:
        bearer = ask(server, "/status.json", {"Authorization": f"Bearer {TOKEN}"})
        assert bearer[0] == 200
        status, headers, _body = ask(server, f"/?token={TOKEN}")
        assert (status, headers["Location"]) == (303, "/")
        cookie = headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert TOKEN not in cookie
        assert ask(server, "/", {"Cookie": cookie.partition(";")[0]})[0] == 200


def test_a_token_may_hold_any_characters() -> None:
    token = "gehört-nur-uns-日本"  # noqa: S105  nobody's
    with serve(ANYWHERE, token) as server:
        sent = f"Bearer {token}".encode().decode("latin-1")  # as curl sends it
        assert ask(server, "/status.json", {"Authorization": sent})[0] == 200
        assert ask(server, "/status.json", {"Authorization": sent[:-1]})[0] == 401


def test_beyond_loopback_a_token_is_made_up_where_none_is_given() -> None:
    with serve(ANYWHERE) as server:
        assert server.token is not None
        assert len(server.token) >= 32
        assert server.token in server.url
        assert server.printed_url == server.url
    with serve() as server:
        assert server.token is None


def test_short_token_is_refused() -> None:
    with pytest.raises(UsageError, match="REPMLP_EDGE_HTTP_TOKEN must have at least 16"):
        VideoServer(Address("127.0.0.1", 0), token=TOKEN[:15], engine={})


def test_token_that_is_no_text_is_refused() -> None:
    """Bytes of the environment that are no UTF-8 come as lone surrogates, which no URL takes."""
    token = TOKEN + os.fsdecode(b"\xff")
    with pytest.raises(UsageError, match="REPMLP_EDGE_HTTP_TOKEN is not UTF-8"):
        VideoServer(Address("127.0.0.1", 0), token=token, engine={})


def test_other_names_for_loopback_are_refused() -> None:
    """A page elsewhere may point its name at 127.0.0.1 (DNS rebinding); its Host gives it away."""
    with serve() as server:
        assert ask(server, "/", {"Host": "evil.example"})[0] == 403
        assert ask(server, "/", {"Host": f"localhost:{server.port}"})[0] == 200
        assert ask(server, "/", {"Host": "[::1]:80"})[0] == 200


def test_own_address_is_accepted_as_host() -> None:
    with serve("127.0.0.2") as server:
        for host, expected in ((f"127.0.0.2:{server.port}", 200), ("127.0.0.3", 403)):
            connection = http.client.HTTPConnection("127.0.0.2", server.port, timeout=5)
            connection.request("GET", "/status.json", headers={"Host": host})
            assert connection.getresponse().status == expected
            connection.close()


def test_token_of_any_characters_opens_by_the_printed_address() -> None:
    token = " ".join(["a+b&c#d", "e/f=g%41?h"])
    with serve(token=token) as server:
        assert server.printed_url == f"http://127.0.0.1:{server.port}/", "who gave it knows it"
        path = server.url.removeprefix(f"http://127.0.0.1:{server.port}")
        assert ask(server, path)[0] == 303


def closed(connection: socket.socket, seconds: float) -> bool:
    """Whether the server has closed its end, without a word."""
    connection.settimeout(seconds)
    with contextlib.suppress(ConnectionResetError):
        return connection.recv(1) == b""
    return True


def test_peers_that_only_connect_take_neither_threads_nor_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_requests, "MAX_OPEN", 4)
    with serve(ANYWHERE, TOKEN) as server:
        address = ("127.0.0.1", server.port)
        first = [socket.create_connection(address, 5) for _ in range(4)]
        assert wait_until(lambda: len(server.connections) == 4)
        before = threading.active_count()
        rest = [socket.create_connection(address, 5) for _ in range(20)]
        assert all(closed(connection, 5) for connection in (*first, *rest[:-4]))
        assert wait_until(lambda: threading.active_count() <= before)
        assert wait_until(lambda: len(server.connections) == 4)
        for connection in (*first, *rest):
            connection.close()
        bearer = {"Authorization": f"Bearer {TOKEN}"}

        def answered() -> bool:
            with contextlib.suppress(OSError, http.client.HTTPException):
                return ask(server, "/status.json", bearer)[0] == 200
            return False

        assert wait_until(answered), "their places are free again"


def test_peers_that_only_connect_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_requests, "MAX_OPEN", 4)
    with serve() as server:
        address = ("127.0.0.1", server.port)
        viewer = http.client.HTTPConnection(*address, timeout=5)
        viewer.request("GET", "/status.json")
        assert viewer.getresponse().read()
        idle = [socket.create_connection(address, 5) for _ in range(3)]
        for connection in idle[1:]:
            connection.settimeout(5)
            connection.send(b"GET /status.json HT")  # which is no request either
        assert wait_until(lambda: len(server.connections) == 4)
        assert ask(server, "/status.json")[0] == 200
        assert closed(idle[0], 5), "the oldest of those that have never asked"
        assert wait_until(lambda: len(server.connections) == 3), "who has asked has left"
        idle.append(socket.create_connection(address, 5))
        assert wait_until(lambda: len(server.connections) == 4)
        assert ask(server, "/status.json")[0] == 200
        with idle[1].makefile("rb") as answer:
            assert b"400" in answer.read(), "to its end"
        viewer.request("GET", "/status.json")
        assert viewer.getresponse().status == 200, "it had asked before"
        viewer.close()
        for connection in idle:
            connection.close()


def test_nobody_who_is_answered_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_requests, "MAX_OPEN", 2)
    with serve() as server:
        add_stream(server)
        address = ("127.0.0.1", server.port)
        viewers = [socket.create_connection(address, 5) for _ in range(2)]
        for viewer in viewers:
            viewer.send(b"GET /streams/0.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert viewer.recv(12) == b"HTTP/1.1 200"
        with socket.create_connection(address, 5) as late:
            assert closed(late, 5)
        for viewer in viewers:
            assert not closed(viewer, 5)
            viewer.close()


def test_room_is_free_again_where_no_thread_could_be_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_requests, "MAX_OPEN", 1)
    with serve() as server:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", lambda _self: 1 / 0)
            with socket.create_connection(("127.0.0.1", server.port), 5) as connection:
                assert closed(connection, 5)
        assert ask(server, "/status.json")[0] == 200


def test_request_that_comes_byte_by_byte_has_one_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Handler, "timeout", 1.0)
    with serve() as server, socket.create_connection(("127.0.0.1", server.port), 5) as peer:
        begin = perf_counter()
        with contextlib.suppress(ConnectionError):
            for _ in range(40):
                peer.send(b"G")
                with contextlib.suppress(TimeoutError):
                    if closed(peer, 0.25):
                        break
        assert 0.9 < perf_counter() - begin < 5
        assert wait_until(lambda: not server.connections)


def test_connection_that_asks_again_has_the_time_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Handler, "timeout", 1.0)
    with serve() as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
        begin = perf_counter()
        while perf_counter() - begin < 2:
            connection.request("GET", "/status.json")
            answer = connection.getresponse()
            assert (answer.status, bool(answer.read())) == (200, True)
            threading.Event().wait(0.3)
        connection.close()
