"""Files and network streams, decoded by FFmpeg through PyAV.

PyAV rather than ``cv2.VideoCapture``: OpenCV hides a decode error among the end of the file, gives
no word of damaged pictures, and leaves the colour matrix of HD video out of account.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import numpy as np

from pipeline.engines.cpu import cpu_count
from pipeline.errors import SourceError
from pipeline.video.frames import Pixels
from pipeline.video.lateness import Haste
from pipeline.video.readers.completeness import Completeness
from pipeline.video.readers.omission import Omission
from pipeline.video.readers.upright import shown_size, write_upright
from pipeline.video.source import MAX_PIXELS, Head, SourceOptions, SourceSpec

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_FILE_FORMATS: Final = (
    "mov,matroska,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,mxf,nut,dv,gif,ivf,obu,yuv4mpegpipe,"
    "h264,hevc,m4v,mjpeg,png_pipe,jpeg_pipe,bmp_pipe,tiff_pipe,webp_pipe"
)
"""What a file may be. FFmpeg knows hundreds more: text files as a video of their letters, playlists
that lead elsewhere, and decoders that few have ever tested."""

_STREAM_FORMATS: Final = f"{_FILE_FORMATS},rtsp,rtp,sdp,hls,mpjpeg,live_flv"
"""What may come over the network."""

_NO_VIDEO: Final = "not a video, or one that is truncated or damaged"
_NO_SIZE: Final = (
    f"not a video, or one that is truncated, damaged or of more than {MAX_PIXELS // 1_000_000} "
    "megapixels"
)
"""FFmpeg tells these apart in its log alone, and forgets a size that ``max_pixels`` refuses. To ask
again without that limit could take gigabytes."""

_NOWHERE: Final = "its address cannot be connected to, or what comes from there is no video"
"""FFmpeg's "Invalid argument" is for such an address and for a format not among the allowed."""

_MAX_ERRORS_IN_A_ROW: Final = 256
"""So many undecodable packets without one picture between them: it is not going to get better."""

_LONGEST_GRAB: Final = 0.5
"""Seconds on the way to a keyframe after which we say that we are still there."""

_SINGLE_THREAD_PIXELS: Final = 1920 * 1088
"""A live stream up to this size is decoded on one thread: each further thread delays by a frame."""
_FEW_CPUS: Final = 4
"""So is a file where the engine has use for every CPU: several threads cost a sixth more of their
time, and one is still several times as fast as the engine."""


class FFmpegReader:
    """A file or URL. ``live`` for cameras' protocols and for HTTP streams of no stated length.

    Damaged pictures are counted as decode errors and left out, not shown. Timestamps are the
    container's; rotation and mirroring that metadata asks for are applied.
    """

    def __init__(self, spec: SourceSpec, options: SourceOptions) -> None:
        import av  # not before it is needed: it takes a tenth of a second

        self._av = av
        self._spec = spec
        self._timeout = options.read_timeout
        self._container = _open(av, spec, options)
        try:
            self._stream = self._choose_stream()
        except BaseException:
            self._container.close()
            raise
        self.live = self._is_live()
        self.rate = _rate(self._stream.average_rate)
        self.decode_errors = 0
        self.truncated = False
        self._prepare_decoder()
        self._reformatter = av.video.reformatter.VideoReformatter()
        self._packets: Iterator[Any] = self._container.demux(self._stream)
        self._ready: deque[VideoFrame] = deque()
        self._current: VideoFrame | None = None
        self._ended = False
        # An HTTP camera's JPEGs carry no time; FFmpeg would have them come 25 a second.
        self._clockless = self.live and self._container.format.name in ("mpjpeg", "mjpeg")
        self._judged = False
        self._pictures = 0
        self._discarded = 0
        self._errors_in_a_row = 0
        self._first: float | None = None
        self._last = 0.0
        self._completeness = Completeness(self._container, self._stream, self.rate)
        self.haste = Haste.NONE
        self._waited = 0.0
        self._omission = Omission(self._stream.codec_context)

    def grab(self) -> Head | None:
        """The next picture that decoded whole; see ``Hurried`` for what comes in haste."""
        self._waited, begin = 0.0, perf_counter()
        while True:
            while self._ready:
                frame = self._ready.popleft()
                if frame.is_corrupt:
                    self._count_error()
                    continue
                return self._accept(frame)
            if self._ended:
                self._judge_length()
                return None
            if self._omission.skipping and perf_counter() - begin > _LONGEST_GRAB:
                return Head(0, 0, self._last, self._waited)
            self._pump()

    @property
    def left_out(self) -> int:
        """Pictures left out undecoded, in haste."""
        return self._omission.count

    def retrieve(self, out: Pixels) -> None:
        """Convert the picture to BGR by its own colour matrix, as it wants to be shown."""
        frame = self._current
        if frame is None:
            raise SourceError(f"'{self._spec.name}': no picture was grabbed")
        picture = self._reformatter.reformat(frame, format="bgr24")
        plane: Any = picture.planes[0]  # exports the buffer protocol; its stub does not say so
        rows = np.frombuffer(plane, np.uint8)
        pixels: Pixels = np.ndarray(
            (picture.height, picture.width, 3), np.uint8, rows, strides=(plane.line_size, 3, 1)
        )
        write_upright(frame, pixels, out)

    def close(self) -> None:
        """Close the container."""
        self._ready.clear()
        self._current = None
        self._container.close()

    def _choose_stream(self) -> VideoStream:
        name = self._spec.name
        stream: Any = self._container.streams.best("video")
        if stream is None:
            raise SourceError(f"'{name}' holds no video stream")
        context = stream.codec_context
        if context is None:
            raise SourceError(f"'{name}': its video is in a format that FFmpeg cannot decode here")
        if self._spec.kind == "file" and not context.width * context.height:
            raise SourceError(f"'{name}': {_NO_SIZE}", hint=_hint(self._spec))
        if context.width * context.height > MAX_PIXELS:
            raise SourceError(
                f"'{name}': {context.width}x{context.height} is more than the "
                f"{MAX_PIXELS // 1_000_000} megapixels this reads"
            )
        found: VideoStream = stream
        return found

    def _is_live(self) -> bool:
        if self._spec.kind == "file":
            return False
        return not (
            urlsplit(self._spec.target).scheme in ("http", "https") and self._container.duration
        )

    def _prepare_decoder(self) -> None:
        context = self._stream.codec_context
        context.options = {"max_pixels": str(MAX_PIXELS)}
        small = context.width * context.height <= _SINGLE_THREAD_PIXELS
        if small and (self.live or cpu_count() <= _FEW_CPUS):
            context.thread_count = 1
        else:
            # Not slices: with those, FFmpeg's H.264 decoder does not tell of damaged pictures.
            context.thread_type = "FRAME"

    def _pump(self) -> None:
        """Feed one packet to the decoder."""
        begin = perf_counter()
        try:
            packet = next(self._packets)
        except StopIteration:
            self._ended = True
            return
        except self._av.InvalidDataError:
            self._count_error()
            self._packets = self._container.demux(self._stream)
            return
        except self._av.FFmpegError as error:
            raise SourceError(
                f"'{self._spec.name}': {_reason(error, self._spec, self._timeout)}"
            ) from error
        waited = perf_counter() - begin
        self._waited = max(self._waited, waited)
        self._discarded += packet.is_discard
        self._completeness.see_packet(packet)
        if self._omission.leaves_out(packet, self.haste, waited):
            return
        try:
            frames = self._stream.codec_context.decode(packet)
        except self._av.FFmpegError:
            # Whatever the decoder has against this packet, the next may be good.
            self._count_error()
            return
        self._omission.decoded(packet, len(frames), self.haste)
        self._ready.extend(frames)

    def _accept(self, frame: VideoFrame) -> Head:
        self._current = frame
        self._errors_in_a_row = 0
        self._last = time = self._time_of(frame)
        self._completeness.see_picture(frame, time)
        self._pictures += 1
        return Head(*shown_size(frame), time, self._waited)

    def _time_of(self, frame: VideoFrame) -> float:
        """Seconds since the first picture."""
        time: float | None = perf_counter() if self._clockless else frame.time
        if time is None:  # raw streams carry no clock: count on
            return self._last + (1 / self.rate if self.rate else 0.04) if self._pictures else 0.0
        if self._first is None:
            self._first = time
        return time - self._first

    def _count_error(self) -> None:
        self.decode_errors += 1
        self._errors_in_a_row += 1
        if self._errors_in_a_row > _MAX_ERRORS_IN_A_ROW:
            raise SourceError(
                f"'{self._spec.name}': {self._errors_in_a_row} packets in a row did not decode; "
                "the file is damaged beyond use"
            )

    def _judge_length(self) -> None:
        """Compare what came with what the header states, in time and in number."""
        if self.live or not self._pictures or self._judged:
            return
        self._judged = True
        self.truncated = self._completeness.truncated()
        accounted = self._pictures + self.decode_errors + self._discarded + self.left_out
        damaged = self.truncated or self.decode_errors > 0
        self.decode_errors += self._completeness.missing(accounted, damaged=damaged)


def _open(av: Any, spec: SourceSpec, options: SourceOptions) -> InputContainer:
    target = spec.target
    settings = {"probesize": "5000000", "max_pixels": str(MAX_PIXELS)}
    scheme = urlsplit(target).scheme.lower() if spec.kind == "url" else ""
    if spec.kind == "file":
        # An absolute path behind 'file:' is never taken for a protocol, whatever its name; and a
        # playlist on disk may not send us to the network or to other programs.
        target = f"file:{Path(target).absolute()}"
        settings |= {"protocol_whitelist": "file", "format_whitelist": _FILE_FORMATS}
    elif scheme in ("rtsp", "rtsps"):
        settings |= {
            "rtsp_flags": "prefer_tcp",  # UDP loses packets, and each lost one damages a picture
            "fflags": "nobuffer",
            "analyzeduration": "300000",
            "protocol_whitelist": "rtsp,rtsps,rtp,srtp,udp,tcp,tls,crypto",
            "format_whitelist": _STREAM_FORMATS,
        }
    else:
        settings |= {
            "protocol_whitelist": "http,https,tcp,tls,crypto,httpproxy,rtmp,rtmps,srt,udp,rtp",
            "format_whitelist": _STREAM_FORMATS,
        }
    begin = perf_counter()
    try:
        container: InputContainer = av.open(
            target, options=settings, timeout=(options.open_timeout, options.read_timeout)
        )
    except av.FFmpegError as error:
        reason = _reason(error, spec, options.open_timeout)
        # FFmpeg's RTSP and TLS make something else of it when their time is up.
        if spec.kind == "url" and perf_counter() - begin >= options.open_timeout:
            reason = _no_answer(options.open_timeout)
        raise SourceError(f"'{spec.name}': {reason}", hint=_hint(spec)) from error
    return container


def _hint(spec: SourceSpec) -> str | None:
    return "copy the file again, or see what ffprobe says of it" if spec.kind == "file" else None


def _reason(error: Exception, spec: SourceSpec, timeout: float) -> str:
    """What went wrong, in words; never FFmpeg's own text, which repeats the URL's password."""
    kind = type(error).__name__
    known = {
        "InvalidDataError": _NO_VIDEO,
        "ArgumentError": _NO_VIDEO if spec.kind == "file" else _NOWHERE,
        "EOFError": "it ends before its first frame",
        "ExitError": _no_answer(timeout),
        "HTTPUnauthorizedError": "the server wants a user name and password",
        "HTTPForbiddenError": "the server does not allow it",
        "HTTPNotFoundError": "the server has no such stream",
        "ProtocolNotFoundError": "this FFmpeg cannot read such streams",
    }
    if kind in known:
        return known[kind]
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"FFmpeg gave up ({kind.removesuffix('Error')})"


def _no_answer(timeout: float) -> str:
    return f"no answer within {timeout:g} s"


def _rate(rate: Fraction | None) -> float | None:
    return float(rate) if rate else None
