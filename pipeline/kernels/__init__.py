"""Hot loops around the engine: C behind a NumPy reference, the same bytes from either.

resize         frame -> frame of another size, by taps
cut_tiles      frame -> tiles, borders reflected, straight into the engine's buffer
blend_argmax   overlapping tiles' logits -> labels, never writing full-resolution logits
pick_labels    overlapping tiles' labels -> labels
overlay        labels -> colour, blended onto the frame
confusion      truth and prediction -> confusion matrix
"""

from pipeline.kernels.axis import Axis
from pipeline.kernels.calls import blend_argmax, confusion, cut_tiles, overlay, pick_labels, resize
from pipeline.kernels.colours import Colours
from pipeline.kernels.reference import NO_CLASS
from pipeline.kernels.taps import Taps, resize_taps

__all__ = [
    "NO_CLASS",
    "Axis",
    "Colours",
    "Taps",
    "blend_argmax",
    "confusion",
    "cut_tiles",
    "overlay",
    "pick_labels",
    "resize",
    "resize_taps",
]
