"""What is trained: RepMLPNet, UperNet, locality injection, checkpoints. Imports torch only."""

from pathlib import Path
from typing import Final

DEFAULT_PRESET = "edge-m"
"""What every command builds, trains and measures unless told otherwise."""

WEIGHTS: Final = Path(__file__).parent / "weights"
"""The folder of the shipped checkpoints."""

INJECTION_FORMS = ("full", "split")
"""Forms of locality injection, see ``models.locality``."""
DEFAULT_INJECTION: Final = "full"
