"""Where the network's patches and tiles meet, in pixels of the frame."""

from __future__ import annotations

from pipeline.inference import FrameSegmenter
from pipeline.video.frames import Region


def edges_of(
    segmenter: FrameSegmenter, seen: tuple[int, int], patch: tuple[int, int], region: Region | None
) -> tuple[tuple[list[float], list[float]], list[Region]]:
    """Patch edges and tile borders in pixels of the whole frame."""
    plan = segmenter.plan(*seen)
    top, left = (region.y, region.x) if region is not None else (0, 0)
    rows, cols = plan.patch_edges(patch)
    scale = [plan.frame[d] / plan.picture[d] for d in range(2)]
    tiles = []
    for y, x in plan.origins:
        y0, x0 = max(0, round(y * scale[0])), max(0, round(x * scale[1]))
        y1 = min(seen[0], round((y + plan.tile[0]) * scale[0]))
        x1 = min(seen[1], round((x + plan.tile[1]) * scale[1]))
        tiles.append(Region(left + x0, top + y0, x1 - x0, y1 - y0))
    return ([top + y for y in rows], [left + x for x in cols]), tiles
