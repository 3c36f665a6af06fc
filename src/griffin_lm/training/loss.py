"""Cross entropy over a large vocabulary, without ever holding a batch's logits.

Tokens go through the head in chunks. Each chunk's gradient is made with its loss, from the same
logits, and only the gradients at the hidden states and at the head's matrix are kept: three
products of the size of the head in all, as without chunks.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..errors import TrainingError
from ..layers.quantized import QuantizedMatrix
from ..ops.cross_entropy import cross_entropy
from ..precision import accumulation
from ..shapes import Hidden, Tokens

_LOGITS = {"cpu": 2**25, "cuda": 2**27}  # numbers in a chunk's logits where no chunk is given


class Loss(NamedTuple):
    """total: sum of weight * loss, with a gradient; each: (B, T) fp32; right: (B, T) bool."""

    total: Tensor
    each: Tensor
    right: Tensor


def token_losses(
    head: Any,
    hidden: Hidden,
    targets: Tokens,
    weight: Tensor,
    chunk: int = 0,
    compiled: bool = False,
) -> Loss:
    """The weighted cross entropy of head(hidden) (B, T, V) against targets (B, T).

    head: the model's, with its matrix, tied or not, and its soft cap. weight: (B, T) fp32; tokens
    of weight 0 are left out: their loss is 0. chunk: tokens at a time. Under autocast the products
    are in its dtype; softmax, loss and sums are in fp32 (float64 for float64).
    """
    flat, wanted, weights = hidden.flatten(0, 1), targets.flatten(), weight.flatten()
    counted = weights.nonzero()[:, 0]
    partial = counted.shape[0] < weights.shape[0]
    if partial:
        flat, wanted, weights = flat[counted], wanted[counted], weights[counted]
    matrix = getattr(head, "weight", None)
    if isinstance(matrix, Tensor) and not _is_wrapped(head):
        width = chunk or max(1, _LOGITS.get(flat.device.type, 2**24) // matrix.shape[0])
        kind = _autocast_dtype(flat.device.type) or flat.dtype
        total, each, right = _Fused.apply(
            flat, matrix, wanted, weights, head.cap, width, kind, compiled, torch.is_grad_enabled()
        )
    else:
        rows = matrix.shape[0] if isinstance(matrix, QuantizedMatrix) else 2**18
        width = chunk or max(1, _LOGITS.get(flat.device.type, 2**24) // rows)
        total, each, right = _recomputed(head, flat, wanted, weights, width)
    if partial:
        each = each.new_zeros(targets.numel()).index_put((counted,), each)
        right = right.new_zeros(targets.numel()).index_put((counted,), right)
    return Loss(total, each.view_as(targets), right.view_as(targets))


def _is_wrapped(head: Any) -> bool:
    """Whether calling the head is more than its matrix: an adapter, or hooks."""
    from ..layers.embedding import Head, TiedHead

    return type(head) not in (Head, TiedHead) or bool(head._forward_hooks)


def _autocast_dtype(device: str) -> torch.dtype | None:
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


class _Fused(torch.autograd.Function):
    """Loss and gradient in one walk over chunks of tokens; see the file's head."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        matrix: Tensor,
        targets: Tensor,
        weight: Tensor,
        cap: float,
        chunk: int,
        kind: torch.dtype,
        compiled: bool,
        wanted: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """hidden (N, W), matrix (V, W), targets and weight (N)."""
        wide = accumulation(hidden.dtype)
        at_hidden = torch.empty_like(hidden) if wanted and ctx.needs_input_grad[0] else None
        by_matrix, at_matrix = wanted and ctx.needs_input_grad[1], None
        narrow = matrix.to(kind)
        each = hidden.new_empty(hidden.shape[0], dtype=wide)
        right = torch.empty_like(targets, dtype=torch.bool)
        room = narrow.new_empty(min(chunk, hidden.shape[0]), narrow.shape[0])  # of all chunks
        for begin in range(0, hidden.shape[0], chunk):
            span = slice(begin, begin + chunk)
            x = hidden[span].to(kind)
            logits = torch.mm(x, narrow.T, out=room[: x.shape[0]])
            each[span], right[span], gradient = cross_entropy(
                logits, targets[span], weight[span], cap, compiled
            )
            if at_hidden is not None:
                at_hidden[span] = gradient @ narrow
            if by_matrix and at_matrix is None:
                at_matrix = (gradient.T @ x).to(wide)
            elif at_matrix is not None and kind == wide:
                at_matrix.addmm_(gradient.T, x)
            elif at_matrix is not None:
                at_matrix += gradient.T @ x
        if by_matrix and at_matrix is None:
            at_matrix = torch.zeros_like(matrix, dtype=wide)
        # not saved for backward: a saved tensor would be copied once more on its way to .grad
        ctx.found = (at_hidden, at_matrix, hidden.dtype, matrix.dtype)
        ctx.mark_non_differentiable(each, right)
        return (each * weight.to(wide)).sum(), each, right

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        """Both gradients were made going forward."""
        if ctx.found is None:
            raise TrainingError("a chunked loss goes backward once: compute it again")
        at_hidden, at_matrix, hidden, matrix = ctx.found
        ctx.found = None
        return (
            None if at_hidden is None else at_hidden.mul_(grads[0]).to(hidden),
            None if at_matrix is None else at_matrix.mul_(grads[0]).to(matrix),
            *[None] * 7,
        )


def _recomputed(
    head: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor, weight: Tensor, chunk: int
) -> tuple[Tensor, Tensor, Tensor]:
    """For any head, a quantised one too: each chunk's logits are made again going backward."""

    def part(x: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        logits = head(x)
        logits = logits.to(accumulation(logits.dtype))
        loss = torch.nn.functional.cross_entropy(logits, wanted, reduction="none")
        return loss, logits.detach().argmax(-1) == wanted

    found: list[tuple[Tensor, Tensor]] = []
    for begin in range(0, hidden.shape[0], chunk):
        span = slice(begin, begin + chunk)
        found.append(checkpoint(part, hidden[span], targets[span], use_reentrant=False))
    if not found:
        none = hidden.sum() * 0
        return none, hidden.new_zeros(0), targets.new_zeros(0, dtype=torch.bool)
    each, right = (torch.cat(parts) for parts in zip(*found, strict=True))
    return (each * weight).sum(), each.detach(), right
