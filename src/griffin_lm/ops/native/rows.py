"""What is computed row by row, or number by number."""

import torch
from torch import Tensor

from .library import at, is_wide, library

_PARTS = 32  # partial sums over rows: their number never depends on the threads


def gate(gate: Tensor, x: Tensor, gelu: bool) -> Tensor:
    """act(gate) * x: gate bf16 or fp32, x in its dtype or fp32, one shape; act is GELU or SiLU."""
    out = torch.empty_like(gate)
    library.griffin_gate(
        *(at(gate), is_wide(gate), at(x), is_wide(x), at(out), gelu),
        *(gate.numel(), torch.get_num_threads()),
    )
    return out


def gate_backward(gate: Tensor, x: Tensor, g: Tensor, gelu: bool) -> tuple[Tensor, Tensor]:
    """Gradients at gate and x, each of its dtype, given g, of the gate's, at the product."""
    at_gate, at_x = torch.empty_like(gate), torch.empty_like(x)
    library.griffin_gate_backward(
        *(at(gate), is_wide(gate), at(x), is_wide(x), at(g), at(at_gate), at(at_x), gelu),
        *(gate.numel(), torch.get_num_threads()),
    )
    return at_gate, at_x


def norm(
    x: Tensor, scale: Tensor, eps: float, offset: bool, keep: bool
) -> tuple[Tensor, Tensor | None]:
    """RMSNorm of the rows of x (N, W), and 1 / root of their mean squares (N) fp32 if `keep`.

    x bf16 or fp32, which the result is too; scale (W) either; offset: the factor is 1 + scale.
    """
    out, root = torch.empty_like(x), torch.empty(x.shape[0]) if keep else None
    library.griffin_norm(
        *(at(x), is_wide(x), at(scale), is_wide(scale), at(out), at(root)),
        *(*x.shape, eps, offset, torch.get_num_threads()),
    )
    return out, root


def norm_backward(
    x: Tensor, scale: Tensor, root: Tensor, g: Tensor, offset: bool
) -> tuple[Tensor, Tensor]:
    """Gradients at x (its dtype) and at scale (W) fp32, given g at the result."""
    rows, width = x.shape
    dx, d_scale = torch.empty_like(x), torch.zeros(min(max(rows, 1), _PARTS), width)
    library.griffin_norm_backward(
        *(at(x), is_wide(x), at(scale), is_wide(scale)),
        *(at(tensor) for tensor in (root, g, dx, d_scale)),
        *(rows, width, d_scale.shape[0], offset, torch.get_num_threads()),
    )
    return dx, d_scale.sum(0)


def loss(
    logits: Tensor, targets: Tensor, weight: Tensor, cap: float, slope: bool
) -> tuple[Tensor, Tensor]:
    """Cross entropy of logits (N, V) before the cap (0: none), bf16 or fp32: loss (N), right (N).

    slope: the gradient of weight (N) fp32 times the loss takes the logits' place. targets int64.
    """
    rows, columns = logits.shape
    each, right = torch.empty(rows), torch.empty(rows, dtype=torch.bool)
    library.griffin_loss(
        *(at(logits), is_wide(logits)),
        *(at(tensor) for tensor in (targets, weight, each, right)),
        *(rows, columns, cap, slope, torch.get_num_threads()),
    )
    return each, right
