"""What a source is called: files, cameras, URLs; what is none, and what never shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import SourceError, UsageError
from pipeline.video.source import SourceOptions, open_reader, parse_source
from pipeline.video.urls import redact


@pytest.mark.parametrize(
    ("text", "kind", "target"),
    [
        ("cam0", "camera", "/dev/video0"),
        ("cam12", "camera", "/dev/video12"),
        ("streets", "streets", "0"),
        ("streets:7", "streets", "7"),
        ("rtsp://h/s", "url", "rtsp://h/s"),
        ("HTTP://h:80/s", "url", "http://h:80/s"),
    ],
)
def test_names(text: str, kind: str, target: str) -> None:
    spec = parse_source(text)
    assert (spec.kind, spec.target) == (kind, target)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", UsageError),
        ("ftp://h/s", UsageError),
        ("concat://a", UsageError),
        ("nothing-of-this-name.mp4", SourceError),
        ("/dev/null/x", SourceError),
    ],
)
def test_names_that_are_none(text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        parse_source(text)


@pytest.mark.parametrize("text", ["streets:", "streets:x", "streets:-1", "streets:1234567890"])
def test_streets_that_are_none_say_what_there_is(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=f"'{text}': give streets, or streets:SEED"):
        parse_source(text)
    Path(text).write_bytes(b"")
    assert parse_source(text).kind == "file"


def test_credentials_never_show() -> None:
    url = "rtsp://user:secret@cam.local:554/stream?token=hidden#x"
    assert parse_source(url).name == redact(url) == "rtsp://cam.local:554/stream"
    with pytest.raises(SourceError) as caught:
        open_reader(
            parse_source("rtsp://user:secret@127.0.0.1:9/s?k=hidden"), SourceOptions(open_timeout=2)
        )
    assert "secret" not in str(caught.value)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://user:hush/quiet@127.0.0.1:9/x",
        "rtsp://user:hush#quiet@127.0.0.1:9/x",
        "rtsp://user:hush?quiet@127.0.0.1:9/x",
        "rtsp://user:123/hush@127.0.0.1:9/x",
        "rtsp://user:hush@[quiet",
        "http://[hush",
        "http://host:hush/quiet",
        "ftp://user:hush/quiet@host/x",
        "ftp://user:hush@quiet?@host/x",
    ],
)
def test_urls_that_cannot_be_read_are_refused_without_their_secrets(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_source(text)
    assert "hush" not in str(caught.value)
    assert "quiet" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("RTSP://user:pw@Cam/One", "rtsp://Cam/One"),
        ("rtsp://user:p%2Fw@cam:554/x", "rtsp://cam:554/x"),
        ("rtsp://user:p@w/d@cam/x", "rtsp://cam/x"),
        ("http://cam/x?mail=a@b&key=pw", "http://..."),
        ("http://[::1]:80/x?key=pw", "http://[::1]:80/x"),
        ("udp://@239.0.0.1:1234", "udp://239.0.0.1:1234"),
        ("https://cdn/@live/x", "https://live/x"),
    ],
)
def test_urls_are_opened_whole_and_shown_bare(text: str, name: str) -> None:
    spec = parse_source(text)
    assert spec.name == name
    scheme, _colon, rest = text.partition(":")
    assert spec.target == f"{scheme.lower()}:{rest}"
