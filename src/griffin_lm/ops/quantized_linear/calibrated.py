"""int4 by the inputs that a matrix meets: GPTQ (Frantar et al. 2022, arXiv:2210.17323).

To nearest is best for inputs that have nothing to do with one another. A model's have: when a
weight is rounded, the weights of the same row that are not yet rounded can take back most of what
its error does to the products. Column by column (their algorithm 1, section 3.3),

    error = (w[j] - rounded(w[j])) / U[j, j],    w[j + 1 :] -= error U[j, j + 1 :],

where U is the upper Cholesky factor of the inverse of the inputs' second moment X^T X.
"""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from .packing import (
    GROUP,
    Int4Weight,
    best_scale,
    empty_int4,
    in_groups,
    pieces_of,
    put_int4,
    steps_of,
)

DAMPING = 0.01  # of the mean of the moment's diagonal, added to it (section 3.3)
_PIECE = 1 << 22  # weights whose columns are walked through together: Python's steps cost little


def quantize_int4_calibrated(
    weight: Float[Tensor, "N K"], moment: Float[Tensor, "K K"]
) -> Int4Weight:
    """The rounding whose products with inputs of this second moment, X^T X, are off least.

    The scales are chosen as `quantize_int4` chooses them, of a group as it stands when its turn
    comes. Inputs that were always zero, and a moment without off-diagonal, leave the nearest.
    Rows don't depend on one another.
    """
    made = empty_int4(weight)
    factor = compensation(moment, made.nibbles.shape[1] * GROUP).to(weight.device)
    for rows in pieces_of(weight, _PIECE):
        groups = in_groups(weight[rows])
        steps, scales = torch.empty_like(groups), torch.empty_like(groups[..., :1])
        flat = groups.view(len(groups), -1)  # what is left to round, changed as we go
        for g in range(groups.shape[1]):
            scale = scales[:, g] = best_scale(groups[:, g : g + 1])[:, 0].float()
            first, end = g * GROUP, (g + 1) * GROUP
            errors = torch.empty_like(groups[:, g])
            for j in range(first, end):
                column = flat[:, j : j + 1]
                step = steps_of(column, scale)
                error = (column - step * scale) / factor[j, j]
                flat[:, j + 1 : end] -= error * factor[j, j + 1 : end]
                steps[:, g, j - first], errors[:, j - first] = step[:, 0], error[:, 0]
            flat[:, end:] -= errors @ factor[first:end, end:]
        put_int4(made, rows.start, steps, scales)
    return made


def compensation(moment: Float[Tensor, "K K"], columns: int) -> Float[Tensor, "C C"]:
    """The upper factor U, U^T U the inverse of the damped moment; identity where inputs are zero.

    In fp32, computed in float64; columns: K rounded up to whole groups.
    """
    wide: Float64[Tensor, "C C"] = torch.eye(columns, dtype=torch.float64, device=moment.device)
    known = len(moment)
    wide[:known, :known] = moment
    diagonal = wide.diagonal()
    met = diagonal[:known] > 0
    mean = diagonal[:known][met].mean() if bool(met.any()) else 1.0
    diagonal[:known] += torch.where(met, DAMPING * mean, mean)
    lower = torch.linalg.cholesky(wide)
    return torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True).float()
