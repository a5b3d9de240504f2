"""From what was asked for to a run: sources and sinks put together around one engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.engines.base import Engine
from pipeline.inference import FrameSegmenter
from pipeline.tiles import DEFAULT_OVERLAP, TileMode
from pipeline.video.checks import check_request
from pipeline.video.draw import Painter, Style
from pipeline.video.names import display_names, file_names, label_folders, output_paths, title
from pipeline.video.output import Controls
from pipeline.video.roi import RegionSpec
from pipeline.video.runner import Opener, Runner, RunnerOptions
from pipeline.video.sinks.base import Sink
from pipeline.video.source import SourceOptions, SourceSpec, open_reader
from pipeline.video.streams import Stream
from pipeline.video.summary import summarise

if TYPE_CHECKING:
    from pipeline.video.sinks.http import Address, VideoServer


@dataclass(frozen=True)
class Request:
    """Everything ``scripts/run_video.py`` can be asked for.

    Attributes:
        sources: what to read.
        source_options: how.
        output: video file of the overlay; one a stream, its name added, where there are several.
        labels: directory for label PNGs; a subdirectory a stream where there are several.
        http: where to serve the pictures.
        token: for viewers beyond this machine.
        window: whether to open windows.
        snapshots: where the window's ``s`` puts its pictures.
        style: how frames are drawn.
        patch: (height, width) of the network's patches, to draw their edges and those of tiles.
        max_frames, max_latency, skip, region: see ``RunnerOptions``.
        tiles, overlap, scale: see ``FrameSegmenter``.
    """

    sources: Sequence[SourceSpec]
    source_options: SourceOptions = field(default_factory=SourceOptions)
    output: Path | None = None
    labels: Path | None = None
    http: Address | None = None
    token: str | None = None
    window: bool = False
    snapshots: Path = field(default_factory=Path)
    style: Style = field(default_factory=Style)
    patch: tuple[int, int] | None = None
    max_frames: int | None = None
    max_latency: float | None = None
    skip: int = 0
    region: RegionSpec | None = None
    tiles: TileMode = "fit"
    overlap: float = DEFAULT_OVERLAP
    scale: float = 1.0

    @property
    def live(self) -> bool:
        """Whether a source may be live, or is played as if it were."""
        return self.source_options.realtime or any(spec.may_be_live for spec in self.sources)


class Session:
    """One run, ready to go. Use as a context manager: leaving it stops the HTTP server.

    Args:
        engine: an open engine; not closed by the session.
        request: what was asked for.
        opener: opens the readers; replaced in tests.

    Raises:
        UsageError: options that cannot be, or do not go together.
        SinkError: an output that cannot be written.
    """

    def __init__(self, engine: Engine, request: Request, *, opener: Opener = open_reader) -> None:
        check_request(request)
        self._engine = engine
        self._request = request
        self._files = file_names([spec.name for spec in request.sources])
        self.controls = Controls(snapshots=request.snapshots)
        segmenter = FrameSegmenter(
            engine, tiles=request.tiles, overlap=request.overlap, scale=request.scale
        )
        self._runner = Runner(
            segmenter,
            engine.slots,
            source_options=request.source_options,
            options=RunnerOptions(
                max_frames=request.max_frames,
                max_latency=request.max_latency,
                skip=request.skip,
                region=request.region,
                patch=request.patch,
            ),
            controls=self.controls,
            opener=opener,
        )
        self.server = self._serve()
        try:
            names = display_names([spec.name for spec in request.sources])
            for number, (spec, name) in enumerate(zip(request.sources, names, strict=True)):
                self._add(replace(spec, name=name), number)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_details: object) -> None:
        self.close()

    @property
    def streams(self) -> list[Stream]:
        """The runner's streams, in the order of the sources."""
        return list(self._runner.streams)

    def run(self, poll: Callable[[], None] | None = None) -> dict[str, Any]:
        """Run to the end; the summary. Errors: see ``Runner.run``."""
        self._runner.run(poll)
        return self.summary("stopped" if self.controls.stop.is_set() else "end")

    def summary(self, stopped: str) -> dict[str, Any]:
        """The figures so far, see ``summarise``."""
        stats = [stream.stats for stream in self._runner.streams]
        return summarise(stats, self._engine.info, self.outputs, stopped)

    @property
    def outputs(self) -> list[str]:
        """What was written; complete once the run is over, however it ended."""
        outlets = [stream.outlet for stream in self._runner.streams]
        made = [path for outlet in outlets for path in outlet.outputs]
        return made + [path for outlet in outlets for path in outlet.saved]

    def close(self) -> None:
        """Stop serving. Safe to call twice."""
        if self.server is not None:
            self.server.close()
            self.server = None

    def _serve(self) -> VideoServer | None:
        request, info = self._request, self._engine.info
        if request.http is None:
            return None
        from pipeline.video.sinks.http import VideoServer  # a tenth of a second of imports

        name = Path(info.path).stem
        facts = {
            "backend": info.backend, "device": info.device, "precision": info.precision,
            "name": name, "summary": f"{name}  ·  {info.precision}  ·  {info.backend}",
        }  # fmt: skip
        return VideoServer(request.http, token=request.token, engine=facts)

    def _add(self, spec: SourceSpec, number: int) -> None:
        request, files = self._request, self._files
        painter = Painter(request.style, title(spec))
        sinks: list[Sink] = []
        if request.output is not None:
            from pipeline.video.sinks.videofile import VideoFileSink  # imports PyAV

            path = output_paths(request.output, files)[number]
            sinks.append(VideoFileSink(path, self.controls.notices.append))
        if request.labels is not None:
            from pipeline.video.sinks.labels import LabelSink

            folder = label_folders(request.labels, files)[number]
            labels = LabelSink(folder)
            sinks.append(labels)
            if labels.earlier:
                self.controls.notices.append(
                    f"'{folder}' already holds the labels of {labels.earlier} frames; those that "
                    "this run does not reach stay as they are"
                )
        if request.window:
            from pipeline.video.sinks.window import WindowSink

            only = not sinks and request.http is None
            sinks.append(WindowSink(spec.name, self.controls, alone=only))
        stats = self._runner.add(spec, sinks, painter)
        if self.server is not None:
            self._runner.streams[-1].outlet.add(self.server.add(stats, painter))
