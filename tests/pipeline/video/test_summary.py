"""What the end of a run says to people."""

from __future__ import annotations

import pytest

from pipeline.engines.base import EngineInfo
from pipeline.video.metrics import StreamStats
from pipeline.video.summary import describe, summarise, truncated
from pipeline.wording import counted

INFO = EngineInfo("fake", "none", "int8", "fake.xml")


def stream(name: str, frames: int = 50, period: float = 0.02, **stages: float) -> StreamStats:
    """A source's figures: so many frames, ``period`` seconds apart, each taking these stages."""
    stats = StreamStats(name)
    stats.first_at = 0.0
    for number in range(frames):
        stats.count_shown(number * period, (number + 1) * period)
        for stage, seconds in stages.items():
            stats.stages[stage].add(seconds)
    return stats


def lines(*streams: StreamStats, outputs: tuple[str, ...] = ()) -> list[str]:
    return describe(summarise(streams, INFO, outputs, "end"))


def bound(*streams: StreamStats) -> str | None:
    return next((line for line in lines(*streams) if line.startswith("bound by")), None)


def test_one_frame_is_no_frames() -> None:
    assert counted(1, "frame") == "1 frame"
    assert lines(stream("a", 1))[0].startswith("1 frame; ")
    assert lines(stream("a", 0)) == ["0 frames"]
    stats = stream("a")
    stats.decode_errors, stats.reconnects, stats.replaced = 1, 2, 3
    assert lines(stats)[0].endswith("; 3 dropped; 1 decode error; 2 reconnects")


def test_several_sources_have_a_line_each() -> None:
    slow = stream("rtsp://slow", 10, 0.1)
    slow.replaced = 7
    said = lines(stream("cam0"), slow, outputs=("a.mp4", "b.mp4"))
    assert said[1].startswith("  cam0: 50 frames; 50.0 fps; latency ")
    assert said[2].startswith("  rtsp://slow: 10 frames; 10.0 fps; latency ")
    assert said[2].endswith("; 7 dropped")
    assert said[-1] == "wrote a.mp4, b.mp4"
    assert len(lines(stream("cam0"))) == 1


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ({"infer": 0.02}, "bound by: infer 20 ms"),
        ({"infer": 0.06}, "bound by: infer 60 ms, 3 frames at a time"),
        ({"infer": 0.05, "capture": 0.019}, "bound by: capture 19 ms"),
        ({"infer": 0.05, "draw": 0.01, "sinks": 0.009}, "bound by: draw + sinks 19 ms"),
        ({"infer": 0.005, "capture": 0.005, "queue": 0.1}, None),
    ],
)
def test_what_bounds_the_speed_is_named(stages: dict[str, float], expected: str | None) -> None:
    """50 frames a second: 20 ms from one to the next."""
    assert bound(stream("a", 50, 0.02, **stages)) == expected


def test_what_bounds_the_speed_is_not_guessed() -> None:
    assert bound(stream("a", 5, infer=0.03)) is None, "too few frames"
    readers = [stream(name, infer=0.001, capture=0.02) for name in ("a", "b")]
    assert bound(*readers) is None, "a thread each"
    two = [stream(name, infer=0.03) for name in ("a", "b")]  # each 50 frames a second
    assert bound(*two) == "bound by: infer 30 ms, 3 frames at a time"


def test_truncated_sources_are_named() -> None:
    broken = stream("b.mp4")
    broken.truncated = True
    assert truncated(summarise([stream("a.mp4"), broken], INFO, [], "end")) == ["b.mp4"]
    assert truncated(summarise([broken], INFO, [], "end")) == ["b.mp4"]
    assert truncated(summarise([stream("a.mp4")], INFO, [], "end")) == []
