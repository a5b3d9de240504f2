#!/usr/bin/env python3
"""Average the weights of trained networks of one preset (model soups, Wortsman et al., ICML 2022).

Of runs that began at one another's weights the mean is often better than each, and it sees no more
of the val split than they did. Runs that began apart share no basin: their mean is noise.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.console import EXIT_OK, Parser, require, run_command, say
from pipeline.errors import UsageError


def build_parser() -> Parser:
    """Every option of the command."""
    parser = Parser(description=__doc__)
    parser.add_argument("checkpoints", nargs="+", type=Path, metavar="FILE", help="two or more")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.safetensors")
    parser.add_argument("--preset", help="of checkpoints that do not say")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Load, average, write."""
    options = build_parser().parse_args(arguments)
    files: list[Path] = options.checkpoints
    if len(files) < 2:
        raise UsageError("give two checkpoints or more: the mean of one is itself")
    if options.output.suffix != ".safetensors":
        raise UsageError(f"--output {options.output}: name it .safetensors")
    require("torch", "safetensors", extra="build", why="averaging weights")
    from models.averaging import average
    from models.checkpoints import save_segmenter
    from pipeline.publish import prepare

    mean, preset = average(files, options.preset)
    prepare(options.output.parent)
    facts = {"mean_of": ", ".join(f"{f.absolute().parent.name}/{f.name}" for f in files)}
    save_segmenter(mean, preset.name, options.output, facts)
    say(f"{options.output}: the mean of {len(files)} networks of preset {preset.name}")
    return EXIT_OK


if __name__ == "__main__":
    run_command(main)
