"""Load and save checkpoints: our own, the public RepMLPNet release's, MMSegmentation's.

Files are hostile until read: ``.safetensors`` holds only tensors, anything else goes through
``torch.load(weights_only=True)``, which refuses code. Nothing is skipped silently: every key that
was not used and every parameter that was not found is in the ``LoadReport``.

Forms are told apart by their keys: a deploy-form FC3 has a bias and no BatchNorm.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from models import WEIGHTS
from models.errors import ModelError
from models.files import write_whole
from models.segmenter import PRESETS, Preset, Segmenter, build_segmenter, find_preset
from models.unreadable import unreadable

FORMAT = "repmlp-edge"
MAX_BYTES = 8 << 30
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool, torch.uint8,
           torch.int8, torch.int16, torch.int32, torch.int64)  # fmt: skip

# MMSegmentation's UPerHead names -> ours.
_MMSEG = (
    (r"^decode_head\.psp_modules\.(\d+)\.1\.", r"head.ppm.branches.\1."),
    (r"^decode_head\.bottleneck\.", "head.ppm.bottleneck."),
    (r"^decode_head\.lateral_convs\.", "head.laterals."),
    (r"^decode_head\.fpn_convs\.", "head.fpn."),
    (r"^decode_head\.fpn_bottleneck\.", "head.fusion."),
    (r"^decode_head\.conv_seg\.", "head.classifier."),
    (r"^auxiliary_head\.convs\.0\.", "auxiliary.conv."),
    (r"^auxiliary_head\.conv_seg\.", "auxiliary.classifier."),
)
_OFFICIAL_SKIPPED = ("embeds.", "head.", "head_norm.")
# What a trained segmenter's file may hold and its deployment has no use for.
_NOT_DEPLOYED = ("auxiliary.", *(f"backbone.{name}" for name in _OFFICIAL_SKIPPED))
_MOST_KERNEL = 2 * 64 - 1  # what a patch of 64 can see; no preset has a larger one


@dataclass(frozen=True)
class LoadReport:
    """What became of every key.

    Attributes:
        naming: ``native``, ``repmlpnet`` or ``mmsegmentation``: whose key names the file uses.
        form: ``train`` or ``deploy``.
        loaded: parameters and buffers taken from the file.
        skipped: keys of the file that this network has no place for.
        fresh: parameters of this network that the file does not hold: still as initialised.
    """

    naming: str
    form: str
    loaded: tuple[str, ...]
    skipped: tuple[str, ...]
    fresh: tuple[str, ...]


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors by key, metadata) of a checkpoint file, on the CPU. Runs no code from it.

    Raises ``ModelError`` if it is missing, too large, incomplete or not a checkpoint, and
    ``UnsafeCheckpointError`` if it is a pickle with anything but tensors and plain containers.
    """
    if not path.is_file():
        wrong = "is a directory" if path.is_dir() else "is not a regular file"
        raise ModelError(f"checkpoint '{path}' {wrong if path.exists() else 'does not exist'}")
    if path.stat().st_size > MAX_BYTES:
        raise ModelError(f"checkpoint '{path}' is larger than {MAX_BYTES >> 30} GiB: refused")
    if path.suffix == ".safetensors":
        try:
            with safe_open(str(path), framework="pt", device="cpu") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  not a dict
                _check_plain(tensors, path)
                return tensors, dict(file.metadata() or {})
        except ModelError:
            raise
        except (SafetensorError, OSError, ValueError) as error:
            raise unreadable(path, error) from error
    try:
        with warnings.catch_warnings():
            # A file of an unusual pickle protocol is refused or read; torch's advice helps nobody.
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle makes torch raise anything at all
        raise unreadable(path, error) from error
    return _state_dict(content, path), {}


def _state_dict(content: object, path: Path) -> dict[str, Tensor]:
    for _level in range(3):
        if not isinstance(content, dict):
            break
        tensors = {
            str(key).removeprefix("module."): value
            for key, value in content.items()
            if isinstance(value, Tensor)
        }
        if tensors:
            _check_plain(tensors, path)
            return tensors
        content = next(
            (content[k] for k in ("state_dict", "ema", "model", "model_state") if k in content),
            None,
        )
    raise ModelError(f"checkpoint '{path}' holds no state dict of tensors")


def _check_plain(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise ``ModelError`` for the first tensor that is not dense and of usual numbers."""
    for key, value in tensors.items():
        odd = value.is_meta or value.is_nested or value.is_quantized
        usual = value.layout == torch.strided and not odd
        if not usual or value.dtype not in _DTYPES:
            kind = _dtype(value) if usual else "sparse, quantized or without content"
            raise ModelError(
                f"checkpoint '{path}': '{key}' is {kind}: save plain tensors of float32 or half"
            )


def rename_keys(tensors: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor], list[str]]:
    """(naming, tensors under our names, keys skipped because the naming says they do not apply)."""
    if any(key.startswith("decode_head.") for key in tensors):
        renamed = {}
        for key, value in tensors.items():
            new = key
            for pattern, replacement in _MMSEG:
                new = re.sub(pattern, replacement, new)
            renamed[new] = value
        return "mmsegmentation", renamed, []
    if any(key.startswith("conv_embedding.") for key in tensors):
        skipped = [key for key in tensors if key.startswith(_OFFICIAL_SKIPPED)]
        rest = {f"backbone.{k}": v for k, v in tensors.items() if k not in skipped}
        return "repmlpnet", rest, skipped
    return "native", dict(tensors), []


def form_of(tensors: Mapping[str, Tensor]) -> str:
    """``deploy`` if any FC3 has a bias, else ``train``."""
    return "deploy" if any(key.endswith(".fc3.bias") for key in tensors) else "train"


def shipped_checkpoint(preset: str) -> Path:
    """The checkpoint that comes with the package for a preset.

    Raises ``ModelError`` when there is none, naming those there are.
    """
    path = WEIGHTS / f"{find_preset(preset).name}.safetensors"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in WEIGHTS.glob("*.safetensors"))) or "none"
        raise ModelError(
            f"no weights are shipped for preset '{preset}' (shipped: {there}): "
            "give --checkpoint FILE, or train it with scripts/train.py"
        )
    return path


def is_shipped(path: Path) -> bool:
    """Whether the file is one of those that come with the package."""
    return path.resolve().parent == WEIGHTS.resolve()


def load_into(model: Segmenter, path: Path) -> LoadReport:
    """Copy what the file holds into ``model``, which must be of the file's form.

    Raises ``ModelError`` when the forms differ, naming the first key whose shape does not fit, or
    when nothing fits.
    """
    tensors, _metadata = read_tensors(path)
    _naming, renamed, _skipped = rename_keys(tensors)
    given, wanted = form_of(renamed), form_of(model.state_dict())
    # Most keys are in both forms, so the wrong one would load, and be another function.
    if given != wanted and any(key.endswith(".fc3.weight") for key in renamed):
        raise ModelError(
            f"checkpoint '{path}' is in {given} form, the network in {wanted} form: give the "
            f"checkpoint of these weights in {wanted} form"
        )
    return _copy(model, tensors, path)


def _copy(model: Segmenter, tensors: Mapping[str, Tensor], path: Path) -> LoadReport:
    naming, renamed, skipped = rename_keys(tensors)
    target = model.state_dict()
    loaded, fitting = [], {}
    for key, value in renamed.items():
        if key not in target:
            skipped.append(key)
            continue
        if value.shape != target[key].shape:
            raise ModelError(
                f"checkpoint '{path}' does not fit: '{key}' is {tuple(value.shape)}, "
                f"the network has {tuple(target[key].shape)}"
            )
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ModelError(f"checkpoint '{path}': '{key}' holds NaN or infinity")
        if value.is_floating_point() != target[key].is_floating_point():
            raise ModelError(
                f"checkpoint '{path}': '{key}' is {_dtype(value)}, the network has "
                f"{_dtype(target[key])}: quantized or packed weights are not what is trained"
            )
        if key.endswith(".running_var") and bool((value < 0).any()):
            raise ModelError(f"checkpoint '{path}': '{key}' holds a negative variance")
        fitting[key] = value
        loaded.append(key)
    if not any(key.endswith(".weight") for key in loaded):
        raise ModelError(f"checkpoint '{path}' holds nothing of this network")
    model.load_state_dict(fitting, strict=False)
    fresh = tuple(key for key in target if key not in fitting)
    form = form_of(renamed)
    return LoadReport(naming, form, tuple(loaded), tuple(sorted(skipped)), fresh)


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def load_segmenter(path: Path, preset: str | None = None) -> tuple[Segmenter, Preset, LoadReport]:
    """A complete trained network, in the file's own form and in evaluation mode.

    The preset comes from the file's metadata, or from ``preset``, which must agree with it.

    Raises ``ModelError`` when the preset is unknown or contradicts the file, or when a parameter
    is missing or left over: a network with random parts is not a trained one, and one without some
    of its own is another.
    """
    tensors, metadata = read_tensors(path)
    named = metadata.get("preset")
    if named and preset and named != preset:
        raise ModelError(f"checkpoint '{path}' is of preset '{named}', not '{preset}'")
    name = named or preset or _guess_preset(tensors)
    if name is None:
        raise ModelError(f"checkpoint '{path}' does not say its preset: name it with --preset")
    chosen = find_preset(name)
    _check_activation(path, chosen, metadata)
    model = _empty_like(chosen, tensors, path)
    report = _copy(model, tensors, path)
    missing = [key for key in report.fresh if not key.endswith("num_batches_tracked")]
    if missing:
        raise ModelError(
            f"checkpoint '{path}' lacks {_listed(missing)}: it is not a trained segmenter "
            f"of preset '{name}' (a backbone alone initialises training: train.py --init)"
        )
    unknown = [key for key in report.skipped if not key.startswith(_NOT_DEPLOYED)]
    if unknown:
        raise ModelError(
            f"checkpoint '{path}' holds {_listed(unknown)}, for which preset '{name}' has no "
            "place: it is another network, which would be wrong without them"
        )
    return model.eval(), chosen, report


def _listed(keys: list[str]) -> str:
    return f"'{keys[0]}'" + (f" and {len(keys) - 1} more" if len(keys) > 1 else "")


def _check_activation(path: Path, preset: Preset, metadata: Mapping[str, str]) -> None:
    """No tensor's shape tells GELU from ReLU, so weights of the other would run and be wrong."""
    trained, runs = metadata.get("activation", "gelu"), preset.backbone.activation
    if metadata.get("format") == FORMAT and trained != runs:
        raise ModelError(
            f"checkpoint '{path}' was trained with {trained} and preset '{preset.name}' now has "
            f"{runs}: train it on with scripts/train.py --init"
        )


def _empty_like(preset: Preset, tensors: Mapping[str, Tensor], path: Path) -> Segmenter:
    """A network of the preset in the form that the keys show: deploy or train, the latter with its
    parallel kernels, and with as many refinements of the stem as there are."""
    _naming, renamed, _skipped = rename_keys(tensors)
    named = {k for key in renamed for k in re.findall(r"\.repconv(\d+)\.", key)}
    kernels = sorted(_kernel(k, path) for k in named)
    deploy = form_of(renamed) == "deploy"
    backbone = preset.backbone
    if kernels and not deploy:
        backbone = replace(backbone, kernels=tuple(kernels))
    if backbone.refine:
        found = {k for key in renamed for k in re.findall(r"^backbone\.refine\.(\d+)\.", key)}
        backbone = replace(backbone, refine=len(found))
    preset = replace(preset, backbone=backbone)
    model = build_segmenter(preset, deploy=deploy, seed=0)
    for name, block in model.backbone.repmlp_blocks():
        local = renamed.get(f"backbone.{name}.local.weight")
        if local is not None and deploy and local.ndim == 4:
            block.add_local(_kernel(str(local.shape[-1]), path))
    return model


def _kernel(size: str, path: Path) -> int:
    """A kernel size that a file names. The network is made before its tensors are compared, so
    it must not be a file's to say how much memory that takes."""
    if len(size) > 3 or not 0 < int(size) <= _MOST_KERNEL or int(size) % 2 == 0:
        shown = size if len(size) < 10 else f"{size[:9]}..."
        raise ModelError(
            f"checkpoint '{path}' has a convolution of {shown}: odd sizes to {_MOST_KERNEL} are "
            "what RepMLP blocks take"
        )
    return int(size)


def _guess_preset(tensors: Mapping[str, Tensor]) -> str | None:
    """The one preset whose backbone and head widths are those of the tensors, if there is one."""
    _naming, renamed, _skipped = rename_keys(tensors)
    shapes = {k: tuple(v.shape) for k, v in renamed.items() if k.endswith("weight")}
    fits = []
    for preset in PRESETS.values():
        with torch.device("meta"):
            model = build_segmenter(preset, deploy=form_of(tensors) == "deploy")
        # Refinements of the stem may be fewer than the preset has now: see _empty_like.
        want = {
            k: tuple(v.shape)
            for k, v in model.state_dict().items()
            if k.endswith("weight") and not k.startswith("backbone.refine.")
        }
        if all(shapes.get(key) == shape for key, shape in want.items()):
            fits.append(preset.name)
    return fits[0] if len(fits) == 1 else None


def save_segmenter(
    model: Segmenter, preset: str, path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write the network as safetensors, without its auxiliary head; whole or not at all."""
    tensors = {
        key: value.detach().cpu().contiguous()
        for key, value in model.state_dict().items()
        if not key.startswith("auxiliary.")
    }
    header = {
        **(metadata or {}), "format": FORMAT, "preset": preset, "form": form_of(tensors),
        "activation": model.backbone.config.activation,
    }  # fmt: skip
    write_whole(path, save(tensors, header))
