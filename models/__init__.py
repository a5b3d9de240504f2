"""What is trained: RepMLPNet, UperNet, locality injection, checkpoints. Imports torch only."""

DEFAULT_PRESET = "edge-m"
"""What every command builds, trains and measures unless told otherwise."""
