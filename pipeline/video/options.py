"""The options of ``scripts/run_video.py``: what there are, and what they ask for together."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from pipeline.console import Parser, natural, parse_shape, positive_float, positive_int
from pipeline.errors import UsageError
from pipeline.tiles import DEFAULT_OVERLAP
from pipeline.video.draw import DEFAULT_OPACITY, Style, parse_classes
from pipeline.video.roi import parse_roi
from pipeline.video.session import Request
from pipeline.video.sinks.base import TOKEN_VARIABLE
from pipeline.video.sinks.window import display_available
from pipeline.video.source import SourceOptions, parse_source

DESCRIPTION = "Segment video as it comes: cameras, files, network streams or procedural streets."

EPILOG = """\
examples:
  run_video.py drive.mp4 --output overlay.mp4 --headless
  run_video.py cam0 rtsp://camera/stream --http 8080

exit codes: 0 done; 2 bad input, one line on stderr; 130 ended by Ctrl-C, SIGTERM or SIGHUP, the
output being finished and the summary printed
"""

MOST_PARALLEL = max(64, 4 * (os.cpu_count() or 1))
"""More threads or streams than this only take memory."""


def build_parser() -> Parser:
    """Every option of the command."""
    parser = Parser(
        description=DESCRIPTION, epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "sources", nargs="+", metavar="SOURCE",
        help="cam0, a device, a file, a directory of pictures, an RTSP or HTTP URL, or "
        "streets[:SEED]; several share one engine",
    )  # fmt: skip
    parser.add_argument(
        "--engine", type=Path, metavar="PATH",
        help="engine to run (default: the INT8 one in engines/ that fits this machine)",
    )  # fmt: skip
    parser.add_argument(
        "--threads", type=parallel, default=0, metavar="N",
        help="CPU threads (default: as tuned, or all)",
    )  # fmt: skip
    parser.add_argument(
        "--streams", type=parallel, default=0, metavar="N",
        help="frames computed at the same time on a CPU (default: as tuned; untuned, one where a "
        "source is live, for the least latency, else one for each core, for the most frames)",
    )  # fmt: skip
    parser.add_argument(
        "--allow-host-code", action="store_true",
        help="run the code that a version-compatible TensorRT engine carries; for your own only",
    )  # fmt: skip
    _add_output(parser)
    _add_reading(parser)
    _add_segmenting(parser)
    return parser


def _add_output(parser: Parser) -> None:
    group = parser.add_argument_group("where the result goes")
    group.add_argument("--output", type=Path, metavar="FILE.mp4", help="overlay video")
    group.add_argument("--labels", type=Path, metavar="DIR", help="label PNGs, as Cityscapes ids")
    group.add_argument(
        "--http", metavar="[HOST:]PORT",
        help="show it in browsers, with /metrics; on this machine alone unless a HOST is given, "
        f"and then with a token ({TOKEN_VARIABLE}, or one made up)",
    )  # fmt: skip
    group.add_argument("--headless", action="store_true", help="open no window")
    group.add_argument(
        "--snapshots", type=Path, metavar="DIR",
        help="where the window's key s saves to (default: here)",
    )  # fmt: skip
    group.add_argument("--json", action="store_true", help="print the summary as JSON on stdout")
    group.add_argument(
        "--opacity", type=float, help=f"of the classes' colours, 0 to 1 ({DEFAULT_OPACITY})"
    )
    group.add_argument("--classes", metavar="A,B", help="draw only these, such as road,car")
    group.add_argument(
        "--no-legend", action="store_true", help="draw no list of the classes in the picture"
    )
    group.add_argument("--patch-edges", action="store_true", help="draw the network's patches")


def _add_reading(parser: Parser) -> None:
    group = parser.add_argument_group("how sources are read")
    group.add_argument("--max-frames", type=positive_int, metavar="N", help="stop after N a source")
    group.add_argument("--max-latency", type=positive_float, metavar="MS",
                       help="leave out frames of live sources older than this")  # fmt: skip
    group.add_argument("--skip", type=natural, default=0, metavar="N",
                       help="leave out N frames between two (%(default)s)")  # fmt: skip
    group.add_argument("--loop", action="store_true", help="begin files anew at their end")
    group.add_argument(
        "--realtime", action="store_true", help="play files by their own clock, as if live"
    )
    group.add_argument(
        "--size", type=parse_shape, metavar="HxW", help="of a camera's or the streets' pictures"
    )
    group.add_argument("--rate", type=positive_float, metavar="FPS", help="asked of a camera")
    group.add_argument(
        "--open-timeout", type=positive_float, default=10.0, metavar="S",
        help="seconds a source may take to open (%(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--read-timeout", type=positive_float, default=5.0, metavar="S",
        help="seconds without a picture until a source counts as lost (%(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--give-up", type=positive_float, metavar="S",
        help="fail when a live source is away for longer (default: never)",
    )  # fmt: skip


def _add_segmenting(parser: Parser) -> None:
    group = parser.add_argument_group("what the network sees")
    group.add_argument("--roi", metavar="X,Y,W,H", help="segment this part, in pixels or per cent")
    group.add_argument(
        "--tiles", choices=("fit", "cover"), default="fit",
        help="fit the frame into one tile, or cover it with several (%(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--overlap", type=float,
        help="with --tiles cover: least part of a tile that its neighbour sees too, from 0 to "
        f"below 1 ({DEFAULT_OVERLAP})",
    )  # fmt: skip
    group.add_argument(
        "--scale", type=float, default=1.0,
        help="with --tiles cover: the frame is resized by this first, up to 16 (%(default)s)",
    )  # fmt: skip


def parallel(text: str) -> int:
    """A number of threads or streams; for argparse's ``type``."""
    number = positive_int(text)
    if number > MOST_PARALLEL:
        raise argparse.ArgumentTypeError(
            f"{number} is more than {MOST_PARALLEL}, the most that is of use on this machine"
        )
    return number


def read_request(options: argparse.Namespace) -> Request:
    """What the options ask for. Raises an ``EdgeError`` naming the one at fault."""
    address, token = None, None
    if options.http is not None:
        from pipeline.video.sinks.http import check_token, parse_address

        address, token = parse_address(options.http), os.environ.get(TOKEN_VARIABLE)
        if token is not None:
            check_token(token)
    classes = parse_classes(options.classes) if options.classes is not None else None
    region = parse_roi(options.roi) if options.roi is not None else None
    opacity = DEFAULT_OPACITY if options.opacity is None else options.opacity
    request = Request(
        sources=[parse_source(text) for text in options.sources],
        source_options=SourceOptions(
            open_timeout=options.open_timeout, read_timeout=options.read_timeout,
            size=options.size, rate=options.rate, loop=options.loop, realtime=options.realtime,
            give_up=options.give_up,
        ),
        output=options.output,
        labels=options.labels,
        http=address,
        token=token,
        window=not options.headless and display_available(),
        snapshots=options.snapshots or Path(),
        style=Style(opacity=opacity, classes=classes, legend=not options.no_legend),
        max_frames=options.max_frames,
        max_latency=options.max_latency / 1e3 if options.max_latency else None,
        skip=options.skip,
        region=region,
        tiles=options.tiles,
        overlap=DEFAULT_OVERLAP if options.overlap is None else options.overlap,
        scale=options.scale,
    )  # fmt: skip
    _check_together(options, request)
    return request


def _check_together(options: argparse.Namespace, request: Request) -> None:
    """Refuse options that would change nothing: whoever gave them expects something of them."""
    if options.overlap is not None and options.tiles != "cover":
        raise UsageError("--overlap needs --tiles cover: 'fit' makes one tile")
    if options.snapshots is not None and not request.window:
        raise UsageError("--snapshots is for the key s of the window, and none is opened")
    drawing = {
        "--opacity": options.opacity is not None,
        "--classes": options.classes is not None,
        "--no-legend": options.no_legend,
        "--patch-edges": options.patch_edges,
    }
    drawn = request.output is not None or request.http is not None or request.window
    for option, given in drawing.items():
        if given and not drawn:
            raise UsageError(
                f"{option} is for the overlay, which nobody sees: add --output or --http"
            )
