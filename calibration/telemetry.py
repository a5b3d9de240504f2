"""Nothing phones home: Intel's telemetry, which OpenVINO and nncf send while they convert a model.

Both import ``openvino_telemetry`` where it is installed, and it comes with both. Neither has an
option to leave it: the documented opt-out writes a file in the user's home folder, and reports
that the user opted out. Both do fall back to a stub of their own where the package is missing, so
here it is made to be missing, for this process alone.
"""

from __future__ import annotations

import sys


def silence_telemetry() -> None:
    """To be called before ``openvino`` or ``nncf`` is first imported; later calls change nothing.

    A program that imported one of the two before it came to us has taken its own decision.
    """
    # A module that is None cannot be imported: Python's own way to say so, which typeshed lacks.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
