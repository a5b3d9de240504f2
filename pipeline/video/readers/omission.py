"""Which packets a reader in haste does not decode, and how many pictures are lost with them."""

from __future__ import annotations

from typing import Any

from pipeline.video.lateness import WAITED, Haste

_DEEPEST = 32
"""More pictures than this no decoder holds: H.264 reorders 16 at most, a thread holds one each."""


class Omission:
    """Stands between a demuxer and its decoder.

    Args:
        context: PyAV's codec context.

    Attributes:
        count: pictures left out undecoded, so far.
        skipping: whether packets are left out up to the next keyframe.
    """

    def __init__(self, context: Any) -> None:
        self.count = 0
        self._context = context
        self._haste = Haste.NONE
        self.skipping = False
        self._keyframes = 0
        self._distance = self._group = 0
        self._inside = self._deepest = 0
        self._came_out = False

    def leaves_out(self, packet: Any, haste: Haste, waited: float) -> bool:
        """Whether the packet shall not be decoded. Once one was not, none is before a keyframe.

        Args:
            packet: of the demuxer; without data at its end.
            haste: what may be left out.
            waited: seconds the demuxer waited for it.
        """
        if not packet.size:
            return False
        if (haste >= Haste.UNREFERENCED) != (self._haste >= Haste.UNREFERENCED):
            self._context.skip_frame = "NONREF" if haste else "DEFAULT"
        self._haste = haste
        self._distance += 1
        if packet.is_keyframe:
            self._keyframes += 1
            self._came_out = False
            self._group, self._distance = self._distance, 0
            # Where every picture stands alone, all are left out that have already come.
            alone = self._keyframes > 1 and self._group == 1
            self.skipping = haste is Haste.TO_KEYFRAME and alone and waited < WAITED
        elif haste is Haste.TO_KEYFRAME and self._keyframes > 1 and self._came_out:
            # A second keyframe has come, so a third is to be expected; and the decoder has let go
            # of what it had to put in order before it could give the last one.
            self.skipping, self._came_out = True, False
            self.count += min(self._inside, _DEEPEST)
            self._inside = 0
            self._context.flush_buffers()
        self.count += self.skipping
        return self.skipping

    def decoded(self, packet: Any, pictures: int, haste: Haste) -> None:
        """A packet was decoded, and so many pictures came out.

        A decoder may hold some back to put them in order; what goes in beyond that and does not
        come out was left out.
        """
        if not packet.size:
            return
        self._inside += 1 - pictures
        self._came_out = self._came_out or pictures > 0
        if haste is Haste.NONE:
            self._deepest = min(max(self._deepest, self._inside), _DEEPEST)
        elif self._inside > self._deepest:
            self.count += self._inside - self._deepest
            self._inside = self._deepest
