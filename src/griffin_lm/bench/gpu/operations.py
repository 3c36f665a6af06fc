"""The operations that have Triton kernels, with operands of a size, for checks that suit all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...ops import gpu
from ...ops.attention import windowed_attention
from ...ops.attention.rounded import rounded, rounded_attention
from ...ops.causal_conv import causal_conv
from ...ops.conv_gates import conv_gates
from ...ops.cross_entropy import cross_entropy
from ...ops.gated_recurrence import gated_rg_lru
from ...ops.gating import gated
from ...ops.linear.blocks import block_linear
from ...ops.linear_scan import linear_scan
from ...ops.rg_lru import rg_lru
from ...ops.rms_norm import add_rms_norm, rms_norm

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Operation:
    """run: of the operands, one tensor. operands: of (rows, steps, width), on the CPU, fp32.

    Floating operands with a gradient come first: `differentiable` of them. batched: the operands of
    which a row of the batch has its own part. narrow: its result may be bf16, rounded once.
    """

    name: str
    run: Callable[..., Tensor]
    operands: Callable[[Shape], Sequence[Tensor]]
    differentiable: int
    batched: frozenset[int]
    narrow: bool = True


def _scan(shape: Shape) -> Sequence[Tensor]:
    rows, _, width = shape
    a = torch.rand(shape)
    a[torch.rand(shape) < 0.1] = 0
    return torch.randn(shape), a, torch.randn(rows, width)


def _rg_lru(shape: Shape) -> Sequence[Tensor]:
    rows, steps, width = shape
    x, r, i = (2 * torch.randn(shape) for _ in range(3))
    starts = torch.rand(rows, steps) < 0.05
    return x, r, i, 3 * torch.randn(width) - 3, torch.randn(rows, width), starts


def _conv(shape: Shape) -> Sequence[Tensor]:
    rows, steps, width = shape
    past, w, b = torch.randn(rows, 3, width), torch.randn(4, width), torch.randn(width)
    return torch.randn(shape), past, w, b, torch.randint(0, 9, (rows, steps))


def _blocks(shape: Shape) -> Sequence[Tensor]:
    rows, steps, width = shape
    return torch.randn(rows, steps, 2 * width), torch.randn(2, width, width), torch.randn(2, width)


def _attention(shape: Shape) -> Sequence[Tensor]:
    rows, steps, width = shape
    steps, width = min(steps, 3), min(max(16, 1 << (width - 1).bit_length()), 256)
    sizes = ((steps, 5), (steps, 1), (steps, 1), (150, 1), (150, 1))
    tensors = [torch.randn(rows, *size, width) for size in sizes]
    read = torch.arange(rows) * 111
    return *tensors, read, read[:, None] + torch.arange(steps)


def _gated(shape: Shape) -> Sequence[Tensor]:
    *inputs, starts = _rg_lru(shape)
    counts = torch.randint(0, shape[1] + 1, (shape[0],))
    return torch.randn(shape), *inputs, starts, counts


def _gated_run(y: Tensor, x: Tensor, r: Tensor, i: Tensor, Lambda: Tensor, *rest: Tensor) -> Tensor:
    """The product beside the last state."""
    h0, starts, counts = rest
    out, last = gated_rg_lru(x, r, i, y, Lambda, starts, h0, counts)
    return torch.cat([out, last[:, None].to(out.dtype)], 1)


def _conv_gates(shape: Shape) -> Sequence[Tensor]:
    rows, steps, width = shape
    maps = [torch.randn(size) for size in ((2, width, width), (2, width)) * 2]
    *around, position = _conv((rows, steps, 2 * width))
    return *around, *maps, position


def _conv_gates_run(u: Tensor, past: Tensor, w: Tensor, b: Tensor, *rest: Tensor) -> Tensor:
    *maps, position = rest
    a, a_bias, x, x_bias = maps
    return torch.cat(conv_gates(u, past, w, b, position, a, a_bias, x, x_bias), -1)


def _over_rounded(
    q: Tensor, k: Tensor, v: Tensor, ring_k: Tensor, ring_v: Tensor, read: Tensor, position: Tensor
) -> Tensor:
    pairs = (rounded(k), rounded(v), rounded(ring_k), rounded(ring_v))
    return rounded_attention(q, *pairs, read, position)


def _loss(shape: Shape) -> Sequence[Tensor]:
    rows, steps, width = shape
    words = 40 * width + 1
    return (
        5 * torch.randn(rows * steps, words),
        torch.rand(rows * steps),
        torch.arange(rows * steps),
    )


def _rows(shape: Shape) -> Sequence[Tensor]:
    return torch.randn(shape), torch.randn(shape)


def _rg_lru_run(
    x: Tensor, r: Tensor, i: Tensor, Lambda: Tensor, h0: Tensor, starts: Tensor
) -> Tensor:
    return rg_lru(x, r, i, Lambda, starts, h0)


def _loss_run(logits: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """The loss beside its gradient: that is made going forward."""
    targets = targets % logits.shape[1]
    each, _, gradient = cross_entropy(logits.detach().clone(), targets, weight, 30.0)
    return torch.cat([each[:, None], gradient.to(each.dtype)], 1)


def _add_norm_run(x: Tensor, added: Tensor, scale: Tensor) -> Tensor:
    return torch.cat(add_rms_norm(x, added, scale, 1e-6, False), -1)


_ALONE = frozenset[int]() if gpu.INTERPRETED else frozenset({0, 1, 8})
OPERATIONS = (
    Operation("linear scan", linear_scan, _scan, 3, frozenset({0, 1, 2}), narrow=False),
    Operation("rg_lru", _rg_lru_run, _rg_lru, 5, frozenset({0, 1, 2, 4, 5}), narrow=False),
    Operation("conv", causal_conv, _conv, 4, frozenset({0, 1, 4})),
    Operation("gate maps", block_linear, _blocks, 3, frozenset({0})),
    Operation(
        "rms norm",
        lambda x, scale: rms_norm(x, scale, 1e-6, True),
        lambda shape: (torch.randn(shape), torch.randn(shape[2])),
        2,
        frozenset({0}),
    ),
    Operation(
        "sum and norm",
        _add_norm_run,
        lambda shape: (*_rows(shape), torch.randn(shape[2])),
        3,
        frozenset({0, 1}),
        narrow=False,  # the sum is rounded before its norm: two roundings are meant
    ),
    Operation("geglu", lambda g, x: gated(g, x, "gelu"), _rows, 2, frozenset({0, 1})),
    Operation("decode attention", windowed_attention, _attention, 0, frozenset(range(7))),
    Operation("gated recurrence", _gated_run, _gated, 6, frozenset({0, 1, 2, 3, 5, 6, 7}), False),
    # two roundings are meant; NumPy's product of a row depends on its neighbours
    Operation("conv and gates", _conv_gates_run, _conv_gates, 8, _ALONE, narrow=False),
    Operation("attention, int8 keys", _over_rounded, _attention, 0, frozenset(range(7))),
    Operation("cross entropy", _loss_run, _loss, 0, frozenset()),
)
