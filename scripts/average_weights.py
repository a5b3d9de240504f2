#!/usr/bin/env python3
"""Average the weights of trained networks of one preset (model soups, Wortsman et al., ICML 2022).

Of runs that began at one another's weights the mean is often better than each, and it sees no more
of the val split than they did. Runs that began apart share no basin: their mean is noise.
--favour then raises the logit of a class that is called too rarely (or lowers it).
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":
    from pipeline.loading import leave_at_signals

    leave_at_signals()

import math
from collections.abc import Mapping, Sequence

from calibration.cityscapes import CLASS_NAMES
from pipeline.console import EXIT_OK, Parser, require, run_command, say
from pipeline.errors import UsageError

MOST_LOGIT = 10.0


def build_parser() -> Parser:
    """Every option of the command."""
    parser = Parser(description=__doc__)
    parser.add_argument("checkpoints", nargs="+", type=Path, metavar="FILE",
                        help="two or more; one will do with --favour")  # fmt: skip
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.safetensors")
    parser.add_argument("--preset", help="of checkpoints that do not say")
    parser.add_argument(
        "--favour", action="append", default=[], metavar="CLASS=LOGIT",
        help="add so much to the logits of a class, e.g. pole=1; may be repeated",
    )  # fmt: skip
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Load, average, write."""
    options = build_parser().parse_args(arguments)
    files: list[Path] = options.checkpoints
    favours = parse_favours(options.favour)
    if len(files) < 2 and not favours:
        raise UsageError(
            f"'{files[0]}' alone is its own mean: give two checkpoints or more, or --favour "
            "CLASS=LOGIT, for which one will do"
        )
    if options.output.suffix != ".safetensors":
        raise UsageError(f"--output {options.output}: name it .safetensors")
    require("torch", "safetensors", extra="build", why="averaging weights")
    from models.averaging import average, favour
    from models.checkpoints import save_segmenter
    from pipeline.publish import prepare

    mean, preset = average(files, options.preset)
    favour(mean, {CLASS_NAMES.index(name): logit for name, logit in favours.items()})
    prepare(options.output.parent)
    facts = {"mean_of": ", ".join(f"{f.absolute().parent.name}/{f.name}" for f in files)}
    if favours:
        facts["favoured"] = ", ".join(f"{name} {logit:+g}" for name, logit in favours.items())
    save_segmenter(mean, preset.name, options.output, facts)
    what = "a network" if len(files) == 1 else f"the mean of {len(files)} networks"
    say(f"{options.output}: {what} of preset {preset.name}{_told(facts)}")
    return EXIT_OK


def parse_favours(entries: Sequence[str]) -> dict[str, float]:
    """``CLASS=LOGIT`` entries -> logit by class name; ``UsageError`` for what is none."""
    favours: dict[str, float] = {}
    for entry in entries:
        name, _equals, text = entry.partition("=")
        try:
            logit = float(text)
        except ValueError:
            logit = math.nan
        if name not in CLASS_NAMES or not abs(logit) <= MOST_LOGIT:  # refuses NaN too
            raise UsageError(
                f"--favour '{entry}': give CLASS=LOGIT, a class such as pole and at most "
                f"{MOST_LOGIT:g}"
            )
        if name in favours:
            raise UsageError(f"--favour '{entry}': '{name}' is named twice; name each class once")
        favours[name] = logit
    return favours


def _told(facts: Mapping[str, str]) -> str:
    return f", favoured: {facts['favoured']}" if "favoured" in facts else ""


if __name__ == "__main__":
    run_command(main)
