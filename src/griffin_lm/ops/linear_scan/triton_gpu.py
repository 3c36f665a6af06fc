"""The linear scan by Triton: launching its kernels, as an operation that torch.compile can call."""

import torch
from torch import Tensor

from .. import gpu
from .plan import CHANNELS, Plan, plan

_VEC, _ROWS, _STAGES = 2, 16, 4
_BYTES, _REREAD = 12, 8  # of fp32: x and a are read, h is written; x and a once more

torch.library.define(
    "griffin_lm::triton_scan", "(Tensor x, Tensor a, Tensor h0, bool reverse=False) -> Tensor"
)


def _shape(x: Tensor, a: Tensor, h0: Tensor, reverse: bool = False) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


torch.library.register_fake("griffin_lm::triton_scan", _shape)


def launch(x: Tensor, a: Tensor, h0: Tensor, reverse: bool, way: Plan) -> Tensor:
    """All h (B, T, R) by a given plan; all tensors float32 and contiguous."""
    from . import kernels

    hs = torch.empty_like(x)
    batch, steps, width = x.shape
    if x.numel() == 0:
        return hs
    blocks = -(-width // tile_width(width))
    options = {
        "CHANNELS": tile_width(width),
        "ROWS": min(_ROWS, gpu.power_of_two(steps)),
        "VEC": _VEC,
        "STAGES": _STAGES,
        "REVERSE": reverse,
        "warps": 1,
    }
    carry = h0
    if way.chunks > 1:
        decay, end, carry = (h0.new_empty(batch, way.chunks, width) for _ in range(3))
        grid = (blocks * batch * way.chunks,)
        ends = (x, a, decay, end, steps, width, way.chunk, way.chunks)
        gpu.launch(kernels.ends, grid, *ends, **options)
        linked = (decay, end, h0, carry, width, way.chunks)
        channels = tile_width(width)
        gpu.launch(kernels.link, (blocks * batch,), *linked, CHANNELS=channels, warps=1)
    given = (x, a, carry, hs, steps, width, way.chunk, way.chunks)
    gpu.launch(kernels.scan, (blocks * batch * way.chunks,), *given, **options)
    return hs


def tile_width(width: int) -> int:
    """Channels of a program."""
    return min(CHANNELS, gpu.power_of_two(width))


def _scan(x: Tensor, a: Tensor, h0: Tensor, reverse: bool = False) -> Tensor:
    batch, steps, width = x.shape
    way = plan(batch, steps, width, _BYTES, _REREAD, gpu.multiprocessors(x))
    return launch(x.contiguous(), a.contiguous(), h0.contiguous(), reverse, way)


for _device in ("cuda", "cpu"):  # cpu: in the interpreter
    torch.library.impl("griffin_lm::triton_scan", _device, func=_scan)


def scan(x: Tensor, a: Tensor, h0: Tensor, reverse: bool = False) -> Tensor:
    """As `reference.scan`; (B, T, R) and (B, R), all float32."""
    if torch.compiler.is_compiling():
        return torch.ops.griffin_lm.triton_scan(x, a, h0, reverse)
    return _scan(x, a, h0, reverse)


def why_not(x: Tensor, a: Tensor, h0: Tensor) -> str | None:
    """float32 on a GPU."""
    if not x.dtype == a.dtype == h0.dtype == torch.float32:
        return f"it takes float32, not {x.dtype}, {a.dtype}, {h0.dtype}"
    return gpu.why_not(x, a, h0)
