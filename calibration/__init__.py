"""From frames to INT8. Imports nothing of `pipeline` or `models`."""
