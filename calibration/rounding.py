"""Rounding a weight matrix so that what one weight loses, the weights beside it make good.

An output is y = w x. Rounding w to steps of s leaves the error (w - s q) x, whose mean square over
the inputs that occur is

    E = d H d^T,    d = w - s q,    H = E[x x^T].

Rounding each weight to the nearest step minimises d, not E. Where inputs are alike, as neighbouring
positions of a map are, a weight too small to be a step of its own can be carried to the next, and a
few steps among many zeros give the sum that all those small weights would have given: error
diffusion, as in print. One input after the other is rounded, and those still to come take the least
squares answer to what it left (Hassibi and Stork 1993, "Second order derivatives for network
pruning: Optimal Brain Surgeon"; Frantar et al. 2023, "OPTQ"):

    H^-1 = U^T U, U upper triangular
    e = (w_i - s q_i) / U_ii,    w_j <- w_j - e U_ij  for all j > i

H is known from some frames only, so a hundredth of its mean diagonal is added to the diagonal:
directions that were hardly seen are then not spent freely.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]

DAMPING: Final = 0.01
"""Added to the diagonal of H, as a share of its mean."""
_BLOCK: Final = 64
"""Inputs rounded before what they left is carried to all that follow: for speed alone."""


def round_compensated(
    weights: Matrix, scale: Matrix, limit: int, moments: Matrix
) -> Matrix:  # fmt: skip
    """Steps whose errors cancel over the inputs that occur; see the module's docstring.

    Args:
        weights: (S, outputs, inputs), one matrix a share-set.
        scale: size of a step, > 0: (1, outputs, 1), or a shape that broadcasts to it.
        limit: greatest magnitude of a step number.
        moments: H of each share-set, (S, inputs, inputs), symmetric; any factor of it does as well.

    Returns:
        Step numbers, whole, (S, outputs, inputs) in -limit to limit.
    """
    count = weights.shape[-1]
    left = np.array(weights, np.float64)
    steps = np.zeros_like(left)
    step = np.broadcast_to(scale, (1, left.shape[1], 1))[:, :, 0]
    upper = _upper(moments)
    for begin in range(0, count, _BLOCK):
        end = min(count, begin + _BLOCK)
        errors = np.empty((*left.shape[:2], end - begin))
        for i in range(begin, end):
            steps[:, :, i] = np.clip(np.rint(left[:, :, i] / step), -limit, limit)
            error = (left[:, :, i] - steps[:, :, i] * step) / upper[:, i, i, None]
            left[:, :, i + 1 : end] -= error[:, :, None] * upper[:, None, i, i + 1 : end]
            errors[:, :, i - begin] = error
        left[:, :, end:] -= errors @ upper[:, begin:end, end:]
    return steps


def output_error(weights: Matrix, rounded: Matrix, moments: Matrix) -> float:
    """Error of the outputs as a share of their norm, root mean square over all of them.

    Args:
        weights: (S, outputs, inputs).
        rounded: the same weights after rounding, in the same unit.
        moments: (S, inputs, inputs), as for ``round_compensated``.

    Returns:
        0 where the outputs are zero.
    """
    signal = _energy(weights, moments)
    return float(np.sqrt(max(0.0, _energy(weights - rounded, moments)) / signal)) if signal else 0.0


def _energy(weights: Matrix, moments: Matrix) -> float:
    return float(np.sum((weights @ moments) * weights))


def _upper(moments: Matrix) -> Matrix:
    """U of each share-set. Inputs that are all zero leave it the identity: nothing to cancel."""
    diagonal = np.arange(moments.shape[-1])
    damped = np.array(moments, np.float64)
    mean = damped[:, diagonal, diagonal].mean(1)
    damped[:, diagonal, diagonal] += np.where(mean > 0, DAMPING * mean, 1.0)[:, None]
    return np.asarray(np.linalg.cholesky(np.linalg.inv(damped)).swapaxes(1, 2), np.float64)
