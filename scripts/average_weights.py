#!/usr/bin/env python3
"""Average the weights of trained networks of one preset (model soups, Wortsman et al., ICML 2022).

Of runs that began at one another's weights the mean is often better than each, and it sees no more
of the val split than they did. Runs that began apart share no basin: their mean is noise.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.console import EXIT_OK, Parser, run_command, say
from pipeline.errors import MissingDependencyError, UsageError


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
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingDependencyError("torch", "build", why="averaging weights") from error
    from models.checkpoints import load_segmenter, save_segmenter
    from models.errors import ModelError
    from pipeline.publish import prepare

    mean, preset, _report = load_segmenter(files[0], options.preset)
    total = {k: v.double() for k, v in mean.state_dict().items() if v.is_floating_point()}
    for file in files[1:]:
        other, _preset, _report = load_segmenter(file, preset.name)
        state = other.state_dict()
        if {k: v.shape for k, v in state.items()} != {
            k: v.shape for k, v in mean.state_dict().items()
        }:
            raise ModelError(f"'{file}' is in another form than '{files[0]}'")
        for key in total:
            total[key] += state[key].double()
    with torch.no_grad():
        for key, value in mean.state_dict().items():
            if key in total:
                value.copy_(total[key] / len(files))
    prepare(options.output.parent)
    facts = {"mean_of": ", ".join(f"{f.absolute().parent.name}/{f.name}" for f in files)}
    save_segmenter(mean, preset.name, options.output, facts)
    say(f"{options.output}: the mean of {len(files)} networks of preset {preset.name}")
    return EXIT_OK


if __name__ == "__main__":
    run_command(main)
