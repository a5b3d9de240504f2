"""The small parts: histograms, rates, regions, calls with a hard end, job pools, names."""

from __future__ import annotations

import math
import threading
from time import perf_counter, sleep

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engines.base import EngineInfo
from pipeline.errors import UsageError
from pipeline.video.frames import JobPool, Region
from pipeline.video.metrics import Histogram, Rate, StreamStats
from pipeline.video.names import file_names
from pipeline.video.patience import Helper, StalledError, StoppedError
from pipeline.video.roi import parse_roi
from pipeline.video.summary import summarise
from tests.pipeline.video.fakes import wait_until

seconds = st.floats(2e-6, 9e3)


@given(st.lists(seconds, min_size=1, max_size=200), st.floats(0.01, 1.0))
def test_quantiles_are_numpys_to_a_bin(values: list[float], share: float) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    expected = np.quantile(values, share, method="inverted_cdf")
    assert histogram.quantile(share) == pytest.approx(expected, rel=0.0101)
    assert histogram.mean == pytest.approx(np.mean(values))
    assert histogram.count == len(values)


@given(st.lists(seconds, max_size=100), st.lists(seconds, max_size=100))
def test_merged_histograms_are_one_of_both(first: list[float], second: list[float]) -> None:
    parts = [Histogram(), Histogram(), Histogram()]
    for value in first:
        parts[0].add(value)
        parts[2].add(value)
    for value in second:
        parts[1].add(value)
        parts[2].add(value)
    parts[0].merge(parts[1])
    assert parts[0].cumulative((0.01, 0.1, 1.0)) == parts[2].cumulative((0.01, 0.1, 1.0))
    assert parts[0].largest == parts[2].largest


@given(st.lists(seconds, max_size=200))
def test_cumulative_counts(values: list[float]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    bounds = (0.001, 0.05, 1.0, 20.0)
    for bound, count in zip(bounds, histogram.cumulative(bounds), strict=True):
        array = np.array(values)
        # A value within a bin of the bound may count on either side.
        assert (array < bound / 1.0101).sum() <= count <= (array < bound * 1.0101).sum()


def test_values_beyond_the_range_count_at_its_ends() -> None:
    histogram = Histogram()
    for value in (0.0, -1.0, 1e9):
        histogram.add(value)
    assert histogram.count == 3
    assert histogram.quantile(1.0) >= 9e3
    assert math.isnan(Histogram().quantile(0.5))


def test_rate_follows_and_forgets() -> None:
    rate = Rate(window=2.0)
    assert rate.value(0.0) == 0
    for tick in range(21):
        rate.tick(tick * 0.1)
    assert rate.value(2.0) == pytest.approx(10)
    assert rate.value(3.0) == pytest.approx(5, rel=0.2), "it fades once nothing comes"
    assert rate.value(9.0) == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0,0,100,50", Region(0, 0, 100, 50)),
        ("10,20,30,40", Region(10, 20, 30, 40)),
        ("0,40%,100%,60%", Region(0, 40, 200, 60)),
        ("150,50,999,999", Region(150, 50, 50, 50)),
        (f"0,0,999999999,33.{'3' * 400}%", Region(0, 0, 200, 33)),
        (" 12.5% , 0, 1 ,1 ", Region(25, 0, 1, 1)),
    ],
)
def test_regions(text: str, expected: Region) -> None:
    assert parse_roi(text).resolve(100, 200) == expected


@pytest.mark.parametrize(
    "text",
    ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "-1,0,5,5", "1;2;3;4", f"0,0,{'9' * 400},5",
     f"0,{'9' * 400}%,5,5"],
)  # fmt: skip
def test_regions_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="--roi"):
        parse_roi(text)


@pytest.mark.parametrize("text", ["200,0,5,5", "0,0,0,5", "0,100%,10,10"])
def test_region_outside_the_frame(text: str) -> None:
    with pytest.raises(UsageError, match="no pixel"):
        parse_roi(text).resolve(100, 200)


@pytest.mark.parametrize(
    ("text", "size", "used"),
    [
        ("0,0,200,100", (100, 200), None),
        ("50%,0,50%,100%", (3, 3), None),  # 1.5 pixels and 1.5 pixels are rounded to 2 and 2
        ("150,50,60,60", (100, 200), "150,50,50,50"),
        ("0,40%,100%,70%", (100, 200), "0,40,200,60"),
    ],
)
def test_a_region_that_is_cut_off_is_told(
    text: str, size: tuple[int, int], used: str | None
) -> None:
    told = parse_roi(text).notice(*size)
    if used is None:
        assert told is None
    else:
        assert told == f"--roi {text} reaches past a frame of 200x100: {used} is segmented"


def test_helper_gives_results_and_errors() -> None:
    helper = Helper("test", threading.Event())
    assert helper.call(lambda: 7, 1.0) == 7
    with pytest.raises(ZeroDivisionError):
        helper.call(lambda: 1 // 0, 1.0)
    assert helper.call(lambda: "again", 1.0) == "again"
    helper.retire()
    assert not helper.usable


def test_helper_leaves_a_call_behind_and_closes_what_it_brings() -> None:
    gate = threading.Event()
    closed: list[str | None] = []

    def slow() -> str:
        gate.wait()
        return "late"

    helper = Helper("test", threading.Event())
    begin = perf_counter()
    with pytest.raises(StalledError):
        helper.call(slow, 0.1, late=closed.append)
    assert perf_counter() - begin < 1
    with pytest.raises(StalledError):
        helper.call(lambda: 1, 1.0)
    gate.set()
    assert wait_until(lambda: closed == ["late"], 2)


def test_helper_closes_after_a_late_failure_too() -> None:
    closed: list[None] = []

    def slow() -> None:
        sleep(0.2)
        raise OSError

    with pytest.raises(StalledError):
        Helper("test", threading.Event()).call(slow, 0.05, late=closed.append)
    assert wait_until(lambda: closed == [None], 2)


def test_helper_stops_waiting_when_told() -> None:
    stop = threading.Event()
    gate = threading.Event()
    threading.Timer(0.1, stop.set).start()
    begin = perf_counter()
    with pytest.raises(StoppedError):
        Helper("test", stop).call(gate.wait, 30.0)
    assert perf_counter() - begin < 2
    gate.set()


def test_pool_gives_each_job_once_and_lets_old_sizes_go() -> None:
    pool = JobPool()
    pool.resize(4, 6, 2, None)
    first, second = pool.take(), pool.take()
    assert first is not None
    assert second is not None
    assert first is not second
    assert pool.take() is None
    assert first.bgr is first.picture
    pool.resize(8, 6, 1, Region(1, 2, 3, 4))
    pool.give(first)
    pool.give(second)
    new = pool.take()
    assert new is not None
    assert new.size == (8, 6)
    assert new.picture.shape == (4, 3, 3)
    assert (new.labels == 255).all()
    assert pool.take() is None


def test_names_for_files_are_plain_and_unique() -> None:
    names = file_names(["cam0", "rtsp://h:1/a", "rtsp://h:1/a", "../../x y.mp4", "///", "cam0"])
    assert names == ["cam0", "h-1-a", "h-1-a-2", "x-y.mp4", "source", "cam0-2"]


def test_summary_of_nothing_is_json_without_figures() -> None:
    info = EngineInfo("fake", "none", "int8", "fake.xml")
    summary = summarise([StreamStats("x")], info, [], "end")
    assert summary["frames"] == 0
    assert summary["fps"] is None
    assert summary["latency_ms"] == {"p50": None, "p95": None, "p99": None}
    assert summary["output"] is None


def test_silence_is_measured_in_the_sources_own_frames() -> None:
    stats = StreamStats("x")
    assert stats.away_for(5.0) == 0
    for step in range(5):
        stats.count_arrival(10 + step * 0.04, 25.0)
    assert stats.away_for(11.1) == 0
    assert stats.away_for(11.2) == pytest.approx(1.04), "counted from its last frame"
    stats.count_arrival(12.0, 25.0)
    assert stats.away_for(12.5) == 0
    slow = StreamStats("y")
    for step in range(5):  # it states nothing
        slow.count_arrival(10.0 + 2 * step, None)
    assert slow.away_for(27.9) == 0
    assert slow.away_for(28.1) == pytest.approx(10.1)


def test_summary_of_several_streams_adds_up() -> None:
    streams = [StreamStats("a"), StreamStats("b")]
    for number, stats in enumerate(streams):
        stats.first_at, stats.replaced = 10.0, 3
        for step in range(10):
            stats.count_shown(10.0 + step * 0.1, 10.0 + step * 0.1 + 0.02 * (number + 1))
    summary = summarise(streams, EngineInfo("fake", "none", "int8", "fake.xml"), [], "end")
    assert (summary["frames"], summary["dropped"]) == (20, 6)
    assert summary["fps"] == pytest.approx(20 / 0.94, rel=1e-3)
    assert summary["latency_ms"]["p50"] == pytest.approx(20, rel=0.01)
    assert summary["latency_ms"]["p99"] == pytest.approx(40, rel=0.01)
    assert [stream["source"] for stream in summary["streams"]] == ["a", "b"]
    assert summary["source"] == ["a", "b"]
