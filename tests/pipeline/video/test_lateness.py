"""The lag of live streams: told truly, and bounded where decoding is slower than the stream.

The judgement is tested on simulated time against the simulation's own knowledge of every picture's
age; the decoder's part against real H.264, whose pictures say their numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, sleep

import numpy as np
import pytest

from pipeline.video.lateness import Haste, Lateness
from pipeline.video.readers.ffmpeg import FFmpegReader
from pipeline.video.sinks.base import Shown
from pipeline.video.source import Head, SourceOptions, parse_source
from tests.pipeline.video.clips import HEIGHT, WIDTH, number_of, write_clip
from tests.pipeline.video.fakes import CameraFake, Recorder
from tests.pipeline.video.harness import LIVE, add, make, run_for, script

RATE = 25


@dataclass
class Seen:
    """One simulated picture: its number, age and what was made of it."""

    number: int
    at: float
    age: float
    lag: float
    wanted: bool
    haste: Haste


def simulate(
    seconds: float,
    decode: float,
    *,
    gop: int = 25,
    drift: float = 0.0,
    clock: Callable[[float], float] = lambda t: t,
    held_up: Callable[[float], float] = lambda _t: 0.0,
) -> list[Seen]:
    """Watch a stream on a clock of the test's own.

    Args:
        seconds: how long.
        decode: seconds a picture takes.
        gop: pictures between two keyframes.
        drift: seconds a second by which the camera's clock is slow.
        clock: what the camera makes of its clock's time.
        held_up: seconds the network keeps a picture that was taken at a time, in order.
    """
    lateness, seen = Lateness(), []
    number, now, arrived = 0, 0.0, 0.0
    while now < seconds:
        taken = number / RATE * (1 + drift)
        arrived = max(arrived, taken + held_up(taken))
        waited = max(0.0, arrived - now)
        now = max(now, arrived)
        if lateness.haste is Haste.TO_KEYFRAME and number % gop:
            number += 1
            continue
        now += decode
        wanted = lateness.see(now, clock(number / RATE), waited)
        seen.append(Seen(number, now, now - taken, lateness.lag, wanted, lateness.haste))
        number += 1
    return seen


def test_stream_that_decodes_slower_than_it_comes_stays_near() -> None:
    """For an hour, so that nothing creeps; unbounded, it would be 20 minutes behind."""
    seen = simulate(3600, decode=0.06)
    for one in seen:
        assert one.lag == pytest.approx(one.age - 0.06, abs=0.01), "what is told is true"
    assert max(one.age for one in seen) < 2.5
    shown = [one.at for one in seen if one.wanted]
    assert np.diff(shown).max() < 2.0, "and something is always shown"


def test_backlog_that_decoding_alone_can_mend_costs_no_whole_second() -> None:
    """Two seconds come at once, after nothing came."""
    stall = 5.0
    seen = simulate(
        20, decode=0.01, held_up=lambda t: max(0.0, stall + 2 - t) if t > stall else 0.0
    )
    assert {one.haste for one in seen} == {Haste.NONE, Haste.UNREFERENCED}
    assert all(one.wanted for one in seen if not stall < one.at < stall + 3)
    late = [one for one in seen if one.lag > 0.31]
    assert late[0].wanted, "the first to come is the newest there is"
    assert sum(one.wanted for one in late) <= 4, "the others are not converted"
    assert max(one.at for one in late) < stall + 3
    assert max(one.age for one in late) == pytest.approx(2, abs=0.1)


def test_delay_of_the_network_is_told_and_costs_no_picture() -> None:
    """A longer way, from the tenth second on: nothing that is left out would make it shorter.

    A source that stands still, its clock with it, and goes on looks the same. So it is told for ten
    seconds, and then it is how the stream is.
    """
    seen = simulate(40, decode=0.01, held_up=lambda t: 1.5 if t > 10 else 0.0)
    assert all(one.wanted for one in seen)
    assert {one.haste for one in seen} == {Haste.NONE}
    for one in seen:
        if 11.5 < one.at < 20.5:
            assert one.lag == pytest.approx(1.5, abs=0.05)
        elif one.at > 22:
            assert one.lag < 0.05


def test_clock_that_runs_faster_than_the_pictures_come_is_not_ever_later() -> None:
    """25 a second by their timestamps, 20 by ours: a camera in low light."""
    seen = simulate(120, decode=0.01, drift=0.25)
    assert max(one.lag for one in seen) < 10 * 0.2 + 0.1
    assert all(one.wanted for one in seen)


def test_what_piles_up_is_late_for_as_long_as_nobody_waits() -> None:
    """For two minutes, of a source that cannot leave anything out."""
    lateness = Lateness()
    for number in range(2000):
        lateness.see(number * 0.06, number / RATE, 0.0)
        assert lateness.lag == pytest.approx(number * 0.02)


def test_what_comes_at_once_after_a_long_silence_is_late() -> None:
    """Longer than the offsets from before are remembered."""
    begin, silence = 5.0, 30.0
    seen = simulate(
        60,
        decode=0.01,
        held_up=lambda t: max(0.0, begin + silence - t) if t > begin else 0.0,
    )
    for one in seen:
        assert one.lag == pytest.approx(one.age - 0.01, abs=0.02)
    assert max(one.lag for one in seen) > silence - 1
    assert max(one.at for one in seen if one.lag > 0.31) < begin + silence + 12


def test_clock_that_runs_slow_is_no_lag() -> None:
    """200 ppm, twice what quartz does, over four hours: 2.9 s."""
    seen = simulate(4 * 3600, decode=0.01, drift=200e-6)
    assert max(one.lag for one in seen) < 0.05
    assert all(one.wanted for one in seen)


@pytest.mark.parametrize("leap", [-95443.7, -3.0, 20.0], ids=["wrap", "set back", "set forward"])
def test_clock_that_leaps_is_no_lag(leap: float) -> None:
    lateness = Lateness()
    for number in range(100):
        time = number / RATE
        assert lateness.see(time, time + (leap if number >= 50 else 0.0), 0.03)
        assert lateness.lag < 0.01


@pytest.mark.parametrize("leap", [10.0, -10.0], ids=["forward", "back"])
def test_what_is_piled_up_stays_late_where_the_clock_leaps(leap: float) -> None:
    once = simulate(40, decode=0.045, clock=lambda t: t + leap * (t > 6))
    for one in once:
        assert one.lag == pytest.approx(one.age - 0.045, abs=0.01)
    # In five seconds the lag of such a stream grows by half a second: it never was a whole one.
    ever = simulate(120, decode=0.045, clock=lambda t: t + leap * (t // 5))
    assert max(one.age for one in ever) < 4, "it was 13"


class Hasty(CameraFake):
    """25 pictures a second behind a socket that keeps them; decoding one takes 0.12 s.

    ``Hurried``: what it need not decode costs it nothing. Every twelfth is a keyframe.
    """

    def __init__(self) -> None:
        super().__init__(RATE)
        self.haste = Haste.NONE
        self.left_out = 0

    def grab(self) -> Head | None:
        waited = 0.0
        while True:
            self._number += 1
            wait = self._began + self._number * self._period - perf_counter()
            waited = max(waited, wait)
            sleep(max(0.0, wait))
            if self.haste is not Haste.TO_KEYFRAME or self._number % 12 == 0:
                break
            self.left_out += 1
        sleep(0.12)
        return Head(HEIGHT, WIDTH, self._number * self._period, waited)

    def age(self, number: int) -> float:
        return perf_counter() - self._began - number * self._period


class TrueAge(Recorder):
    """Also remembers how old the pictures really are."""

    def __init__(self, camera: Hasty) -> None:
        super().__init__()
        self.true: list[float] = []
        self._camera = camera

    def write(self, shown: Shown) -> None:
        super().write(shown)
        self.true.append(self._camera.age(self.numbers[-1]))


@pytest.mark.usefixtures("no_thread_outlives_its_test")
def test_what_the_runner_shows_of_such_a_stream_is_near_and_its_age_is_told() -> None:
    """In nine seconds the lag would grow to six."""
    camera = Hasty()
    sink = TrueAge(camera)
    runner = make(opener=script(camera))
    add(runner, LIVE, sink)
    run_for(runner, lambda: camera.age(0) > 9, 15)
    assert max(sink.true) < 4
    assert len(sink.indices) > 8
    # All but the time that decoding takes: it is in the least offset too.
    np.testing.assert_allclose(sink.ages, np.array(sink.true) - 0.12, atol=0.25)
    assert sink.indices == sink.numbers, "what was left out is a gap in the numbers"
    stats = runner.streams[0].stats
    assert stats.captured - len(sink.indices) - 8 <= stats.dropped
    assert stats.dropped >= camera.left_out > 50
    assert stats.stages["lag"].count == stats.shown
    assert stats.latency.largest == pytest.approx(max(sink.ages), abs=0.25)


def read(path: Path, haste: Callable[[int], Haste]) -> tuple[list[int], FFmpegReader]:
    """The numbers that come, where each is read in the haste that follows from the one before."""
    reader = FFmpegReader(parse_source(str(path)), SourceOptions())
    numbers: list[int] = []
    out = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    while True:
        reader.haste = haste(numbers[-1] if numbers else 0)
        head = reader.grab()
        if head is None:
            reader.close()
            return numbers, reader
        reader.retrieve(out)
        numbers.append(number_of(out))
        assert head.timestamp == pytest.approx(numbers[-1] / RATE, abs=1e-3)


def hurry_between(first: int, last: int, haste: Haste) -> Callable[[int], Haste]:
    return lambda number: haste if first <= number < last else Haste.NONE


@pytest.mark.parametrize("frames", [0, 2], ids=["no B", "2 B"])
def test_reader_in_haste_goes_from_keyframe_to_keyframe(tmp_path: Path, frames: int) -> None:
    coder = {"bf": str(frames), "sc_threshold": "0"}
    clip = write_clip(tmp_path / "clip.mp4", 120, gop=12, coder=coder)
    numbers, reader = read(clip, hurry_between(30, 70, Haste.TO_KEYFRAME))
    # Where files are decoded on several threads, those are some pictures ahead.
    begin = numbers.index(30)
    assert numbers[: begin + 1] == list(range(31))
    assert numbers == sorted(numbers)
    between = [n for n in numbers if 45 <= n < 70]
    assert 1 <= len(between) <= 12
    assert len(numbers) + reader.left_out == pytest.approx(120, abs=2)  # of what is put in order
    assert numbers[-1] == 119
    # The decoder has to find out anew how far B pictures are out of order, and loses one or two.
    whole = next(n for n in numbers if n >= (84 if frames else 70))
    assert numbers[numbers.index(whole) :] == list(range(whole, 120))
    assert reader.decode_errors == 0
    assert not reader.truncated


def test_reader_in_some_haste_leaves_out_what_nothing_refers_to(tmp_path: Path) -> None:
    coder = {"bf": "2", "b_strategy": "0", "sc_threshold": "0", "x264-params": "b-pyramid=none"}
    clip = write_clip(tmp_path / "clip.mp4", 121, gop=120, coder=coder)
    numbers, reader = read(clip, hurry_between(30, 90, Haste.UNREFERENCED))
    between = [n for n in numbers if 50 <= n < 90]
    assert set(np.diff(between)) == {3}, "every third is a P picture"
    assert len(numbers) + reader.left_out == pytest.approx(121, abs=2)
    assert numbers[-20:] == list(range(101, 121))
    assert reader.decode_errors == 0


def test_reader_of_pictures_that_stand_alone_takes_only_new_ones(tmp_path: Path) -> None:
    """Of a file all have come already: in haste none is decoded before its end."""
    clip = write_clip(tmp_path / "clip.mp4", 40, gop=1)
    numbers, reader = read(clip, hurry_between(20, 1000, Haste.TO_KEYFRAME))
    assert numbers[:21] == list(range(21))
    assert len(numbers) + reader.left_out == 40
    assert reader.left_out > 5
