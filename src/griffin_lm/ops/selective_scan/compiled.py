"""The selective scan by the compiled library: decays, scan and sums over states in one pass.

Registered with torch.library, so that torch.compile calls it instead of looking inside. The
gradient keeps the inputs and the state before every 32 tokens, and computes those between again.
"""

from typing import Any

import torch
from torch import Tensor

from .. import native

_INPUTS = "Tensor x, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor starts"
torch.library.define(
    "griffin_lm::selective_scan", f"({_INPUTS}, Tensor h0, bool keep) -> (Tensor, Tensor, Tensor)"
)
torch.library.define(
    "griffin_lm::selective_scan_backward",
    f"({_INPUTS}, Tensor kept, Tensor g, Tensor g_last)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)


def _forward(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    starts: Tensor,
    h0: Tensor,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    tensors = (tensor.contiguous() for tensor in (x, delta, A, B, C, starts, h0))
    return native.selective_scan(*tensors, keep=keep)


torch.library.impl("griffin_lm::selective_scan", "cpu", func=_forward)


def _forward_shapes(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    x, *_, h0, keep = arguments
    chunks = (x.shape[1] + native.STATES_KEPT_EVERY - 1) // native.STATES_KEPT_EVERY if keep else 0
    kept = x.new_empty(x.shape[0], chunks, h0.shape[1], h0.shape[2])
    return x.new_empty(x.shape), h0.new_empty(h0.shape), kept


torch.library.register_fake("griffin_lm::selective_scan", _forward_shapes)


def _backward(*tensors: Tensor) -> tuple[Tensor, ...]:
    return native.selective_scan_backward(*(tensor.contiguous() for tensor in tensors))


torch.library.impl("griffin_lm::selective_scan_backward", "cpu", func=_backward)


def _backward_shapes(*tensors: Tensor) -> tuple[Tensor, ...]:
    x, delta, A, B, C, *_, g_last = tensors
    return tuple(like.new_empty(like.shape) for like in (x, delta, A, B, C, g_last))


torch.library.register_fake("griffin_lm::selective_scan_backward", _backward_shapes)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, _, _ = inputs
    _, _, kept = output
    ctx.mark_non_differentiable(kept)
    ctx.save_for_backward(*tensors, kept)


def _gradient(ctx: Any, g: Tensor, g_last: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    made = torch.ops.griffin_lm.selective_scan_backward(*ctx.saved_tensors, g, g_last)
    *inputs, d_h0 = made
    return *inputs, None, d_h0, None


torch.library.register_autograd("griffin_lm::selective_scan", _gradient, setup_context=_keep)


def scan(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, starts: Tensor, h0: Tensor
) -> tuple[Tensor, Tensor]:
    """As `selective_scan`, all float32."""
    tensors = x, delta, A, B, C, starts, h0
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        y, last, _ = torch.ops.griffin_lm.selective_scan(*tensors, torch.is_grad_enabled())
    else:  # the dispatcher costs more than a short call
        y, last, _ = _forward(*tensors, False)
    return y, last


def why_not(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, starts: Tensor, h0: Tensor
) -> str | None:
    """float32 on the CPU, with at most 64 states a channel."""
    if any(each.dtype != torch.float32 for each in (x, delta, A, B, C, h0)):
        return f"it takes float32, not {x.dtype}"
    if A.shape[1] > native.MOST_STATES:
        return f"it takes {native.MOST_STATES} states of a channel at most, not {A.shape[1]}"
    return native.why_not(x, delta, A, B, C, starts, h0)
