"""The causal convolution by Triton: launches and gradients."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .. import gpu

_ROWS, _CHANNELS = 16, 128
_PARTS = 256  # partial sums of the weights' gradient


def _options(steps: int, width: int, taps: int) -> dict[str, Any]:
    return {
        "TAPS": taps,
        "ROWS": min(_ROWS, gpu.power_of_two(steps)),
        "CHANNELS": min(_CHANNELS, gpu.power_of_two(width)),
    }


def gradients(
    x: Tensor, past: Tensor, w: Tensor, b: Tensor, position: Tensor, g: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """At x, past, w and b, given g at the conv's output; contiguous."""
    from . import kernels

    (batch, steps, width), taps = x.shape, w.shape[0]
    dx, d_past = torch.empty_like(x), torch.zeros_like(past)
    if x.numel() == 0:
        return dx, d_past, torch.zeros_like(w), torch.zeros_like(b)
    options = _options(steps, width, taps)
    blocks = -(-width // options["CHANNELS"])
    tiles = -(-(steps + taps - 1) // options["ROWS"])
    given = (w, position, g, dx, d_past, steps, width)
    gpu.launch(kernels.gradient_at_inputs, (blocks * tiles * batch,), *given, **options)
    parts = min(_PARTS, batch * -(-steps // options["ROWS"]))
    sums = torch.empty(parts, taps + 1, width, dtype=torch.float32, device=x.device)
    gpu.launch(
        kernels.gradient_at_weights,
        (blocks * parts,),
        *(x, past, position, g, sums, batch, steps, width, parts),
        SUMS=gpu.power_of_two(taps + 1),
        **options,
    )
    total = sums.sum(0)
    return dx, d_past, total[:-1].to(w.dtype), total[-1].to(b.dtype)


class _Conv(torch.autograd.Function):
    """Keeps the inputs."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, past: Tensor, w: Tensor, b: Tensor, position: Tensor
    ) -> Tensor:
        """Contiguous."""
        from . import kernels

        ctx.save_for_backward(x, past, w, b, position)
        out, (batch, steps, width) = torch.empty_like(x), x.shape
        if x.numel():
            options = _options(steps, width, w.shape[0])
            blocks = -(-width // options["CHANNELS"]) * -(-steps // options["ROWS"])
            given = (x, past, w, b, position, out, steps, width)
            gpu.launch(kernels.conv, (blocks * batch,), *given, **options)
        return out

    @staticmethod
    @once_differentiable  # PyTorch gives it no types, hence the silence below
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        """At x, past, w and b."""
        x, past, w, b, position = ctx.saved_tensors
        return *gradients(x, past, w, b, position, grads[0].contiguous()), None


def causal_conv(x: Tensor, past: Tensor, w: Tensor, b: Tensor, position: Tensor) -> Tensor:
    """As ops.causal_conv.causal_conv: of 16 or 32 bits."""
    return _Conv.apply(*(tensor.contiguous() for tensor in (x, past, w, b, position)))


def why_not(x: Tensor, past: Tensor, w: Tensor, b: Tensor, position: Tensor) -> str | None:
    """One dtype of 16 or 32 bits; on a GPU."""
    if torch.compiler.is_compiling():
        return "torch.compile makes its own"
    if not x.dtype == past.dtype == w.dtype == b.dtype or x.dtype not in gpu.DTYPES:
        kinds = f"{x.dtype}, {past.dtype}, {w.dtype}, {b.dtype}"
        return f"it takes one dtype of 16 or 32 bits, not {kinds}"
    return gpu.why_not(x, past, w, b, position)
