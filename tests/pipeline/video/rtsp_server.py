"""A real RTSP server: GStreamer's, streaming a file. Run by the system's Python, which has ``gi``.

usage: rtsp_server.py FILE PORT
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any


def main(file: str, port: str) -> None:
    gi: Any = import_module("gi")  # not a package of this environment's
    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    glib, gst, rtsp = (
        import_module(f"gi.repository.{name}") for name in ("GLib", "Gst", "GstRtspServer")
    )
    gst.init(None)
    server = rtsp.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    factory = rtsp.RTSPMediaFactory()
    factory.set_launch(
        f'( filesrc location="{file}" ! qtdemux ! h264parse config-interval=1 '
        "! rtph264pay name=pay0 pt=96 )"
    )
    server.get_mount_points().add_factory("/street", factory)
    if not server.attach(None):
        sys.exit("the port is taken")
    print("ready", flush=True)  # noqa: T201  # the test waits for it
    glib.MainLoop().run()


if __name__ == "__main__":
    main(*sys.argv[1:])
