"""Locality injection: the parallel convolutions of a RepMLP block become part of its FC kernel.

A convolution inside an h x w patch is linear in the patch's h*w positions, so it is a matrix. With
set s, output o = (oy, ox), input i = (iy, ix), kernel K_s of odd size k, p = k//2:

    T(K)[s, o, i] = K[s, iy - oy + p, ix - ox + p]      inside the window, else 0

(paper, section 3.3: the same matrix is got by convolving an identity). A BatchNorm after it, with
batch statistics mu, sigma^2, is the scale g = gamma / sqrt(sigma^2 + eps) and shift beta - mu g
per set. So, with FC3's kernel W and convolutions of sizes k:

    full:   W' = g W + sum_k T(g_k K_k)                one FC
    split:  K' = sum_k g_k K_k + A(g W),   W' = g W - T(A(g W))      one FC + one convolution

where A(W)[s, d] is the mean of W[s, o, o + d] over the positions o for which o + d is in the patch:
the part of the FC that *is* a convolution. Both are the same function as the training form. They
differ in INT8: inside the window the full kernel's weights are up to hundreds of times those
outside, and one scale serves both only if rounding carries errors on (``calibration.rounding``);
split gives each its own, and costs a convolution and a sum.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models import INJECTION_FORMS
from models.convolution import ConvBN
from models.errors import InjectionError, ModelError
from models.repmlp import RepMLPBlock
from models.segmenter import Segmenter

# Largest |difference| over largest |output|, in float64, that rounding alone can explain.
TOLERANCE = 1e-9


@dataclass(frozen=True)
class BlockProof:
    """How far an injected block is from the block it replaces, on random patches.

    Attributes:
        block: module name.
        form: ``full`` or ``split``.
        error: largest |difference| / largest |output|, all in float64.
        stored_error: the same once the merged weights are stored in float32.
        contrast: RMS weight inside the merged convolution's window / RMS weight outside, in the
            full form: what one INT8 scale would have to span.
    """

    block: str
    form: str
    error: float
    stored_error: float
    contrast: float


@dataclass(frozen=True)
class Injection:
    """The deploy-form network and the proof of each of its blocks."""

    model: Segmenter
    proofs: tuple[BlockProof, ...]


@dataclass(frozen=True)
class _Merged:
    """float64 parameters of one injected block; in full form there is no ``kernel``."""

    matrix: Tensor
    bias: Tensor
    kernel: Tensor | None
    kernel_bias: Tensor


def convolution_matrix(kernel: Tensor, h: int, w: int) -> Tensor:
    """T(K): (S, k, k) -> (S, h*w out, h*w in), zero padding inside an h x w patch."""
    sets, size, _ = kernel.shape
    if size % 2 == 0:
        raise ModelError(f"kernel size must be odd, got {size}")
    rows, inside = _window(size, h, w)
    flat = kernel.reshape(sets, -1)
    return torch.where(inside, flat[:, rows], flat.new_zeros(()))


def convolutional_part(matrix: Tensor, size: int, h: int, w: int) -> Tensor:
    """A(W): the mean over positions of (S, h*w, h*w) at each offset, as (S, size, size)."""
    rows, inside = _window(size, h, w)
    sums = matrix.new_zeros(matrix.shape[0], size * size)
    sums.index_add_(1, rows[inside], matrix[:, inside])
    counts = torch.bincount(rows[inside], minlength=size * size).clamp_min(1)
    return (sums / counts).reshape(-1, size, size)


def _window(size: int, h: int, w: int) -> tuple[Tensor, Tensor]:
    """(index into the flat kernel, whether it is inside) for each (out, in) pair of positions."""
    y = torch.arange(h).repeat_interleave(w)
    x = torch.arange(w).repeat(h)
    dy = y[None, :] - y[:, None] + size // 2
    dx = x[None, :] - x[:, None] + size // 2
    inside = (dy >= 0) & (dy < size) & (dx >= 0) & (dx < size)
    return torch.where(inside, dy * size + dx, 0), inside


def window_contrast(matrix: Tensor, size: int, h: int, w: int) -> float:
    """RMS weight inside the size x size window over RMS weight outside; 0 if nothing is outside."""
    _rows, inside = _window(size, h, w)
    squares = matrix.double().square()
    outside = squares[:, ~inside]
    if not outside.numel() or float(outside.sum()) == 0.0:
        return 0.0
    return float((squares[:, inside].mean() / outside.mean()).sqrt())


def batchnorm_affine(bn: nn.Module) -> tuple[Tensor, Tensor]:
    """(scale, shift) in float64 of a BatchNorm in evaluation mode."""
    if not isinstance(bn, nn.BatchNorm2d) or bn.running_var is None or bn.running_mean is None:
        raise ModelError("locality injection needs BatchNorm with running statistics")
    scale = bn.weight.detach().double() / (bn.running_var.double() + bn.eps).sqrt()
    return scale, bn.bias.detach().double() - bn.running_mean.double() * scale


def _merge(block: RepMLPBlock, form: str) -> _Merged:
    scale, shift = batchnorm_affine(block.fc3_bn)
    matrix = block.fc3_matrix().detach().double() * scale[:, None, None]
    bias = shift[:, None].repeat(1, block.h * block.w)
    size = max(block.kernels, default=1)
    kernel = matrix.new_zeros(block.sets, size, size)
    kernel_bias = matrix.new_zeros(block.sets)
    for k in block.kernels:
        branch = block.branch(k)
        if not isinstance(branch, ConvBN):
            raise ModelError(f"repconv{k} is not a convolution with BatchNorm")
        k_scale, k_shift = batchnorm_affine(branch.bn)
        pad = (size - k) // 2
        weight = branch.conv.weight.detach().double()[:, 0] * k_scale[:, None, None]
        kernel[:, pad : pad + k, pad : pad + k] += weight
        kernel_bias += k_shift
    if form == "full":
        matrix = matrix + convolution_matrix(kernel, block.h, block.w)
        return _Merged(matrix, bias + kernel_bias[:, None], None, kernel_bias)
    own = convolutional_part(matrix, size, block.h, block.w)
    matrix = matrix - convolution_matrix(own, block.h, block.w)
    return _Merged(matrix, bias, (kernel + own)[:, None], kernel_bias)


def _deploy_block(block: RepMLPBlock, merged: _Merged, dtype: torch.dtype) -> RepMLPBlock:
    split = merged.kernel.shape[-1] if merged.kernel is not None else 0
    new = RepMLPBlock(
        block.channels, block.h, block.w, sets=block.sets, kernels=(), deploy=True, split=split,
        gate_reduction=max(1, block.channels // block.gp.fc1.out_channels),
    )  # fmt: skip
    new.gp = copy.deepcopy(block.gp)
    new = new.to(dtype)
    with torch.no_grad():
        new.fc3.weight.copy_(merged.matrix.reshape(new.fc3.weight.shape))
        if new.fc3.bias is not None:
            new.fc3.bias.copy_(merged.bias.reshape(-1))
        if new.local is not None and merged.kernel is not None and new.local.bias is not None:
            new.local.weight.copy_(merged.kernel)
            new.local.bias.copy_(merged.kernel_bias)
    return new.eval()


def inject_block(
    block: RepMLPBlock, form: str, name: str = "block"
) -> tuple[RepMLPBlock, BlockProof]:
    """One deploy-form block and its proof. ``block`` is left untouched.

    Args:
        block: in train form.
        form: ``full`` or ``split``.
        name: for the proof and for errors.

    Raises ``InjectionError`` naming the block when the two are not the same function within
    ``TOLERANCE``, ``ModelError`` for an unknown form or a block that is injected already.
    """
    if form not in INJECTION_FORMS:
        raise ModelError(
            f"unknown injection form '{form}': choose from {', '.join(INJECTION_FORMS)}"
        )
    if block.deploy:
        raise ModelError(f"block {name} is in deploy form already")
    full = _merge(block, "full")
    merged = full if form == "full" else _merge(block, form)
    exact = copy.deepcopy(block).double().eval()
    stored = _deploy_block(block, merged, torch.float32)
    generator = torch.Generator().manual_seed(0)
    shape = (2, block.channels, block.h, 2 * block.w)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        want = exact.spatial(x)
        peak = float(want.abs().max().clamp_min(torch.finfo(torch.float64).tiny))
        error = float((_deploy_block(block, merged, torch.float64).spatial(x) - want).abs().max())
        stored_error = float((copy.deepcopy(stored).double().spatial(x) - want).abs().max())
    if not error / peak <= TOLERANCE:
        raise InjectionError(
            f"locality injection of {name} is off by {error / peak:.2e} of its output "
            f"(allowed {TOLERANCE:.0e}): the block holds weights that cannot be merged"
        )
    size = max(block.kernels, default=1)
    contrast = window_contrast(full.matrix, size, block.h, block.w)
    return stored, BlockProof(name, form, error / peak, stored_error / peak, contrast)


def inject_locality(model: Segmenter, form: str | Mapping[str, str] = "full") -> Injection:
    """The same network in deploy form. ``model`` is left untouched.

    Args:
        model: in train form.
        form: ``full`` or ``split`` for all blocks, or by block name (``full`` where not named).

    Raises:
        InjectionError: a block's proof failed; names the block.
        ModelError: unknown form or block name, or a network injected already.
    """
    names = [name for name, _block in model.backbone.repmlp_blocks()]
    forms = dict.fromkeys(names, form) if isinstance(form, str) else dict(form)
    unknown = set(forms) - set(names)
    if unknown:
        raise ModelError(f"no RepMLP block is called '{sorted(unknown)[0]}'")
    new = copy.deepcopy(model).eval()
    proofs = []
    for name in names:
        parent_name, _dot, child = name.rpartition(".")
        block = new.backbone.get_submodule(name)
        if not isinstance(block, RepMLPBlock):
            raise ModelError(f"{name} is not a RepMLP block")
        injected, proof = inject_block(block, forms.get(name, "full"), name)
        setattr(new.backbone.get_submodule(parent_name), child, injected)
        proofs.append(proof)
    return Injection(new, tuple(proofs))
