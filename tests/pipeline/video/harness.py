"""What the runner's tests share: runners around the double, and scripted sources."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from pipeline.errors import SourceError
from pipeline.inference import FrameSegmenter
from pipeline.video.draw import Painter, Style
from pipeline.video.output import Controls
from pipeline.video.runner import Runner, RunnerOptions
from pipeline.video.sinks.base import Sink
from pipeline.video.source import Reader, SourceOptions, SourceSpec, open_reader, parse_source
from tests.pipeline.video.clips import HEIGHT, WIDTH
from tests.pipeline.video.fakes import CameraFake, ColourEngine

LIVE = SourceSpec("url", "rtsp://camera/stream", "rtsp://camera/stream")
QUICK = SourceOptions(open_timeout=0.3, read_timeout=0.2)


def make(
    engine: ColourEngine | None = None,
    *,
    options: RunnerOptions | None = None,
    source_options: SourceOptions | None = None,
    opener: Callable[[SourceSpec, SourceOptions], Reader] = open_reader,
    controls: Controls | None = None,
) -> Runner:
    engine = engine or ColourEngine(HEIGHT, WIDTH)
    return Runner(
        FrameSegmenter(engine), engine.slots, options=options, source_options=source_options,
        opener=opener, controls=controls,
    )  # fmt: skip


def add(runner: Runner, source: str | SourceSpec, *sinks: Sink) -> None:
    spec = parse_source(source) if isinstance(source, str) else source
    runner.add(spec, sinks, Painter(Style(), spec.name))


def script(*readers: CameraFake | Exception | Callable[[], object]) -> Callable[..., Reader]:
    """An opener that gives these one after the other, the last one again and again."""
    left = list(readers)

    def opener(_spec: SourceSpec, _options: SourceOptions) -> Reader:
        found = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(found, Exception):
            raise found
        if not isinstance(found, CameraFake):
            found()
            raise SourceError("never reached")
        return found

    return opener


def run_for(runner: Runner, condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Run until the condition holds, then stop properly."""
    deadline = perf_counter() + seconds

    def poll() -> None:
        if condition() or perf_counter() > deadline:
            runner.controls.stop.set()

    runner.run(poll)
    assert condition(), "it did not come true in time"
