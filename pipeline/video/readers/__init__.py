"""One module per kind of source; each gives a ``pipeline.video.source.Reader``."""
