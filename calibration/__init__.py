"""From frames to INT8. Imports nothing of `pipeline` or `models`."""

ESTIMATORS = ("minmax", "mean-minmax", "percentile")
"""Ways to find activation ranges; ``QuantizeSettings`` says what each does."""
DEFAULT_ESTIMATOR = "percentile"
"""What every command and ``QuantizeSettings`` take unless told otherwise."""

ROUNDINGS = ("compensated", "nearest")
"""Ways to round the weights of FC3: see ``rounding``."""
DEFAULT_ROUNDING = "compensated"
"""Likewise."""
