"""Words that messages of several rooms share."""

from __future__ import annotations


def counted(number: int, what: str) -> str:
    """``1 frame``, ``2 frames``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def flattered(calibrated: int, scored: int, name: str) -> str:
    """Says of a score that it is of frames which INT8's ranges were fitted to.

    Args:
        calibrated: how many of them, more than none.
        scored: frames in all.
        name: of what they calibrated.
    """
    return (
        f"{calibrated} of {counted(scored, 'scored frame')} also calibrated {name}: on frames it "
        "has not seen it may lose more."
    )
