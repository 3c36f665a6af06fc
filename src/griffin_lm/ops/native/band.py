"""Attention over a band of keys, for training: whole in bf16, the softmax alone in fp32."""

import torch
from torch import Tensor

from .library import at, library


def has_band() -> bool:
    """Whether the instruction set in use has band_forward and band_backward."""
    return library is not None and bool(library.griffin_has_band())


def band_forward(
    q: Tensor, k: Tensor, v: Tensor, first: Tensor, last: Tensor
) -> tuple[Tensor, Tensor]:
    """softmax(q k / sqrt(D)) v over each query's keys first to last, and its sums' logarithms.

    q (B, T, H, D), k and v (B, S, K, D) bf16; first <= last (B, T) int64; all contiguous. The
    result is as q, the logarithms (B K, T H / K) fp32. Products of bf16, the softmax among what
    they multiply, with fp32 sums.
    """
    out = torch.empty_like(q)
    lse = torch.empty(q.shape[0] * k.shape[2], q.shape[1] * q.shape[2] // k.shape[2])
    library.griffin_band_forward(
        *(at(tensor) for tensor in (q, k, v, first, last, out, lse)),
        *(*_sizes(q, k), q.shape[3] ** -0.5, torch.get_num_threads()),
    )
    return out, lse


def band_backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    first: Tensor,
    last: Tensor,
    out: Tensor,
    lse: Tensor,
    g: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients at q, k and v, given g at the result; out and lse are band_forward's."""
    found = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    library.griffin_band_backward(
        *(at(tensor) for tensor in (q, k, v, first, last, out, lse, g, *found)),
        *(*_sizes(q, k), q.shape[3] ** -0.5, torch.get_num_threads()),
    )
    return found


def _sizes(q: Tensor, k: Tensor) -> tuple[int, ...]:
    """B, T, S, H, K, D."""
    batch, steps, heads, width = q.shape
    return batch, steps, k.shape[1], heads, k.shape[2], width


def band_softmax(scores: Tensor, first: Tensor, end: Tensor, scale: float) -> Tensor:
    """Each row's softmax over its columns [first, end), in place; 0 elsewhere. The row's lse.

    scores (rows, columns) fp32, contiguous; first, end int32, one for every rows / len(first) rows;
    lse (rows): the logarithm of the sum of exponentials of scale * scores.
    """
    rows, columns = scores.shape
    lse = torch.empty(rows, dtype=torch.float32)
    library.griffin_band_softmax(
        *(at(tensor) for tensor in (scores, first, end, lse)),
        *(rows, columns, rows // first.numel(), scale, torch.get_num_threads()),
    )
    return lse


def band_gradient(
    scores: Tensor, slope: Tensor, first: Tensor, end: Tensor, lse: Tensor, scale: float
) -> None:
    """The way back, both in place: scores become the softmax, slope at it that at the scores."""
    rows, columns = scores.shape
    library.griffin_band_gradient(
        *(at(tensor) for tensor in (scores, slope, first, end, lse)),
        *(rows, columns, rows // first.numel(), scale, torch.get_num_threads()),
    )
