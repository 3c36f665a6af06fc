"""The RG-LRU by the compiled library: one pass over memory, gates, decay and scan together.

Registered with torch.library, so that torch.compile calls it instead of looking inside. The
gradient recomputes the gates: it keeps the inputs and the states, nothing else.
"""

from typing import Any

import torch
from torch import Tensor

from .. import native

torch.library.define(
    "griffin_lm::rg_lru",
    "(Tensor x, Tensor r, Tensor i, Tensor rate, Tensor starts, Tensor h0) -> Tensor",
)
torch.library.define(
    "griffin_lm::rg_lru_backward",
    "(Tensor x, Tensor r, Tensor i, Tensor rate, Tensor starts, Tensor h0, Tensor hs, Tensor g)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)


def _forward(x: Tensor, r: Tensor, i: Tensor, rate: Tensor, starts: Tensor, h0: Tensor) -> Tensor:
    return native.rg_lru(*(tensor.contiguous() for tensor in (x, r, i, rate, starts, h0)))


torch.library.impl("griffin_lm::rg_lru", "cpu", func=_forward)


def _forward_shape(x: Tensor, *_: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=torch.float32, device=x.device)


torch.library.register_fake("griffin_lm::rg_lru", _forward_shape)


def _backward(*tensors: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return native.rg_lru_backward(*(tensor.contiguous() for tensor in tensors))


torch.library.impl("griffin_lm::rg_lru_backward", "cpu", func=_backward)


def _backward_shapes(
    x: Tensor, r: Tensor, i: Tensor, rate: Tensor, starts: Tensor, h0: Tensor, *_: Tensor
) -> tuple[Tensor, ...]:
    made = [torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (x, r, i, rate, h0)]
    return tuple(made)


torch.library.register_fake("griffin_lm::rg_lru_backward", _backward_shapes)


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs, output)


def _gradient(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    *inputs, hs = ctx.saved_tensors
    dx, dr, di, d_rate, d_h0 = torch.ops.griffin_lm.rg_lru_backward(*inputs, hs, g)
    return dx, dr, di, d_rate, None, d_h0


torch.library.register_autograd("griffin_lm::rg_lru", _gradient, setup_context=_keep)


def rg_lru(x: Tensor, r: Tensor, i: Tensor, rate: Tensor, starts: Tensor, h0: Tensor) -> Tensor:
    """All states (B, T, R) in fp32. Under autocast x is bf16 and its gates, with biases, fp32."""
    if not x.dtype == r.dtype == i.dtype:
        x, r, i = x.float(), r.float(), i.float()
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return torch.ops.griffin_lm.rg_lru(x, r, i, rate, starts, h0)
    return _forward(x, r, i, rate, starts, h0)  # the dispatcher costs more than a short call


def why_not(
    x: Tensor, r: Tensor, i: Tensor, rate: Tensor, starts: Tensor, h0: Tensor
) -> str | None:
    """x and the gates in bf16 or fp32; the state in fp32; on the CPU."""
    if not {x.dtype, r.dtype, i.dtype} <= {torch.bfloat16, torch.float32}:
        return f"it takes x and gates in bfloat16 or float32, not {x.dtype}, {r.dtype}, {i.dtype}"
    if rate.dtype != torch.float32 or h0.dtype != torch.float32:
        return f"it keeps the state in float32, not {h0.dtype}"
    return native.why_not(x, r, i, rate, starts, h0)
