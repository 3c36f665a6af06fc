"""The linear scan by the compiled library: sequential in time, channels side by side."""

import torch
from torch import Tensor

from .. import native

torch.library.define(
    "griffin_lm::scan", "(Tensor x, Tensor a, Tensor h0, bool reverse=False) -> Tensor"
)


def _scan(x: Tensor, a: Tensor, h0: Tensor, reverse: bool = False) -> Tensor:
    return native.scan(x.contiguous(), a.contiguous(), h0.contiguous(), reverse)


torch.library.impl("griffin_lm::scan", "cpu", func=_scan)


def _shape(x: Tensor, a: Tensor, h0: Tensor, reverse: bool = False) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


torch.library.register_fake("griffin_lm::scan", _shape)


def scan(x: Tensor, a: Tensor, h0: Tensor, reverse: bool = False) -> Tensor:
    """As `reference.scan`; (B, T, R) and (B, R), all float32."""
    if torch.compiler.is_compiling():
        return torch.ops.griffin_lm.scan(x, a, h0, reverse)
    return _scan(x, a, h0, reverse)


torch.library.define(
    "griffin_lm::scan_backward",
    "(Tensor a, Tensor h0, Tensor hs, Tensor g) -> (Tensor, Tensor, Tensor)",
)


def _backward(a: Tensor, h0: Tensor, hs: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return native.scan_backward(*(tensor.contiguous() for tensor in (a, h0, hs, g)))


torch.library.impl("griffin_lm::scan_backward", "cpu", func=_backward)


def _backward_shapes(a: Tensor, h0: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    one, other, first = (torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (a, a, h0))
    return one, other, first


torch.library.register_fake("griffin_lm::scan_backward", _backward_shapes)


def gradient(a: Tensor, h0: Tensor, hs: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """At x, a and h0, given g at hs = scan(x, a, h0): one walk over memory."""
    return torch.ops.griffin_lm.scan_backward(a, h0, hs, g)


def why_not(x: Tensor, a: Tensor, h0: Tensor) -> str | None:
    """float32 on the CPU."""
    if not x.dtype == a.dtype == h0.dtype == torch.float32:
        return f"it takes float32, not {x.dtype}, {a.dtype}, {h0.dtype}"
    return native.why_not(x, a, h0)
