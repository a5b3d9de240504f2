"""What is trained: RepMLPNet, UperNet, locality injection, checkpoints. Imports torch only."""

from typing import Final

DEFAULT_PRESET = "edge-m"
"""What every command builds, trains and measures unless told otherwise."""

INJECTION_FORMS = ("needed", "full", "split")
"""Forms of locality injection, see ``models.locality``."""
DEFAULT_INJECTION: Final = "needed"
