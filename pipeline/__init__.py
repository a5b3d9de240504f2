"""From artifact to artifact: stages, engines, the inference path, video, report."""
