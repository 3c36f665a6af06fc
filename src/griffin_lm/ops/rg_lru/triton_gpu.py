"""The RG-LRU by Triton: launching its kernels, registered as the compiled library's version is.

torch.compile calls it instead of looking inside. The gradient recomputes the gates: it keeps the
inputs and the states, nothing else.
"""

from typing import Any

import torch
from torch import Tensor

from .. import gpu
from ..linear_scan.plan import Plan, plan
from ..linear_scan.triton_gpu import tile_width

_VEC, _ROWS, _STAGES = 2, 16, 4
_GRADIENT_ROWS, _GRADIENT_STAGES = 8, 3  # six tensors instead of three in flight

torch.library.define(
    "griffin_lm::triton_rg_lru",
    "(Tensor x, Tensor r, Tensor i, Tensor rate, Tensor starts, Tensor h0) -> Tensor",
)
torch.library.define(
    "griffin_lm::triton_rg_lru_backward",
    "(Tensor x, Tensor r, Tensor i, Tensor rate, Tensor starts, Tensor h0, Tensor hs, Tensor g)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)


def launch(
    x: Tensor, r: Tensor, i: Tensor, rate: Tensor, starts: Tensor, h0: Tensor, way: Plan
) -> Tensor:
    """All states (B, T, R) fp32 by a given plan; contiguous tensors."""
    from . import kernels

    batch, steps, width = x.shape
    hs = torch.empty(x.shape, dtype=torch.float32, device=x.device)
    if hs.numel() == 0:
        return hs
    options = _options(width, steps, _ROWS, _STAGES)
    grid = (-(-width // options["CHANNELS"]) * batch * way.chunks,)
    carry = h0
    if way.chunks > 1:
        decay, end = (h0.new_empty(batch, way.chunks, width) for _ in range(2))
        gpu.launch(
            kernels.states,
            grid,
            *(x, r, i, rate, starts, h0, decay, end, steps, width, way.chunk, way.chunks),
            ENDS=True,
            **options,
        )
        carry = linked(decay, end, h0, way)
    gpu.launch(
        kernels.states,
        grid,
        *(x, r, i, rate, starts, carry, carry, hs, steps, width, way.chunk, way.chunks),
        ENDS=False,
        **options,
    )
    return hs


def launch_gradient(
    x: Tensor,
    r: Tensor,
    i: Tensor,
    rate: Tensor,
    starts: Tensor,
    h0: Tensor,
    hs: Tensor,
    g: Tensor,
    way: Plan,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients at x, r, i (their dtypes), rate and h0 (fp32), given g at the states."""
    from . import kernels

    batch, steps, width = x.shape
    dx, dr, di = (torch.empty_like(tensor) for tensor in (x, r, i))
    d_h0 = torch.empty_like(h0)
    if x.numel() == 0:
        return dx, dr, di, torch.zeros_like(rate), torch.zeros_like(h0)
    options = _options(width, steps, _GRADIENT_ROWS, _GRADIENT_STAGES)
    grid = (-(-width // options["CHANNELS"]) * batch * way.chunks,)
    carry = nothing = torch.zeros_like(h0)
    if way.chunks > 1:
        decay, end = (h0.new_empty(batch, way.chunks, width) for _ in range(2))
        gpu.launch(
            kernels.gradient_ends,
            grid,
            *(r, rate, starts, g, decay, end, steps, width, way.chunk, way.chunks),
            **options,
        )
        carry = linked(decay, end, nothing, way)
    d_rate = h0.new_empty(batch * way.chunks, width)
    gpu.launch(
        kernels.gradient,
        grid,
        *(x, r, i, rate, starts, h0, hs, g, carry, dx, dr, di, d_rate, d_h0),
        *(steps, width, way.chunk, way.chunks),
        **options,
    )
    return dx, dr, di, d_rate.sum(0), d_h0


def _options(width: int, steps: int, rows: int, stages: int) -> dict[str, int]:
    return {
        "CHANNELS": tile_width(width),
        "ROWS": min(rows, gpu.power_of_two(steps)),
        "VEC": _VEC,
        "STAGES": stages,
        "warps": 1,
    }


def linked(decay: Tensor, end: Tensor, h0: Tensor, way: Plan) -> Tensor:
    """The states that the chunks begin with (B, chunks, R), given what each makes of one."""
    from ..linear_scan import kernels

    carry, (batch, width) = torch.empty_like(end), h0.shape
    channels = tile_width(width)
    grid = (-(-width // channels) * batch,)
    given = (decay, end, h0, carry, width, way.chunks)
    gpu.launch(kernels.link, grid, *given, CHANNELS=channels, warps=1)
    return carry


def _forward(x: Tensor, r: Tensor, i: Tensor, rate: Tensor, starts: Tensor, h0: Tensor) -> Tensor:
    size = x.element_size()  # three of these are read, and a state is written
    batch, steps, width = x.shape
    way = plan(batch, steps, width, 3 * size + 4, 3 * size, gpu.multiprocessors(x))
    return launch(*(tensor.contiguous() for tensor in (x, r, i, rate, starts, h0)), way=way)


def _backward(*tensors: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    size = tensors[0].element_size()  # besides: a state and its gradient
    batch, steps, width = tensors[0].shape
    processors = gpu.multiprocessors(tensors[0])
    way = plan(batch, steps, width, 6 * size + 8, size + 4, processors)
    return launch_gradient(*(tensor.contiguous() for tensor in tensors), way=way)


for _device in ("cuda", "cpu"):  # cpu: in the interpreter
    torch.library.impl("griffin_lm::triton_rg_lru", _device, func=_forward)
    torch.library.impl("griffin_lm::triton_rg_lru_backward", _device, func=_backward)


def _forward_shape(x: Tensor, *_: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=torch.float32, device=x.device)


def _backward_shapes(
    x: Tensor, r: Tensor, i: Tensor, rate: Tensor, starts: Tensor, h0: Tensor, *_: Tensor
) -> tuple[Tensor, ...]:
    made = [torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (x, r, i, rate, h0)]
    return tuple(made)


torch.library.register_fake("griffin_lm::triton_rg_lru", _forward_shape)
torch.library.register_fake("griffin_lm::triton_rg_lru_backward", _backward_shapes)


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs, output)


def _gradient(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    *inputs, hs = ctx.saved_tensors
    dx, dr, di, d_rate, d_h0 = torch.ops.griffin_lm.triton_rg_lru_backward(*inputs, hs, g)
    return dx, dr, di, d_rate, None, d_h0


torch.library.register_autograd("griffin_lm::triton_rg_lru", _gradient, setup_context=_keep)


def rg_lru(x: Tensor, r: Tensor, i: Tensor, rate: Tensor, starts: Tensor, h0: Tensor) -> Tensor:
    """All states (B, T, R) in fp32. Under autocast x is bf16 and its gates, with biases, fp32."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return torch.ops.griffin_lm.triton_rg_lru(x, r, i, rate, starts, h0)
    return _forward(x, r, i, rate, starts, h0)  # the dispatcher costs more than a decode step


def why_not(
    x: Tensor, r: Tensor, i: Tensor, rate: Tensor, starts: Tensor, h0: Tensor
) -> str | None:
    """x and the gates in bf16, fp16 or fp32; the state in fp32; on a GPU."""
    if not {x.dtype, r.dtype, i.dtype} <= {torch.bfloat16, torch.float16, torch.float32}:
        return f"it takes x and gates of 16 or 32 bits, not {x.dtype}, {r.dtype}, {i.dtype}"
    if rate.dtype != torch.float32 or h0.dtype != torch.float32:
        return f"it keeps the state in float32, not {h0.dtype}"
    return gpu.why_not(x, r, i, rate, starts, h0)
