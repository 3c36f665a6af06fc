"""The gated recurrence by Triton: launching its kernels, registered with torch.library.

torch.compile calls it instead of looking inside. Of the states one in EVERY is kept for the
gradient, which makes the others again.
"""

from typing import Any

import torch
from torch import Tensor

from .. import gpu
from ..linear_scan.plan import Plan, plan
from ..linear_scan.triton_gpu import tile_width
from ..rg_lru.triton_gpu import linked

EVERY = 8  # steps of a backward tile: one state in so many is kept
_VEC, _ROWS, _STAGES = 2, 8, 5
_GRADIENT_STAGES = 2  # five tensors in flight, four written

torch.library.define(
    "griffin_lm::triton_gated_rg_lru",
    "(Tensor x, Tensor r, Tensor i, Tensor y, Tensor rate, Tensor starts, Tensor h0,"
    " Tensor? counts, bool keep) -> (Tensor, Tensor, Tensor)",
)
torch.library.define(
    "griffin_lm::triton_gated_rg_lru_backward",
    "(Tensor x, Tensor r, Tensor i, Tensor y, Tensor rate, Tensor starts, Tensor h0,"
    " Tensor? counts, Tensor kept, Tensor g, Tensor g_last)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)


def _room(x: Tensor, h0: Tensor, keep: bool) -> Tensor:
    """For what is kept of the states."""
    return h0.new_empty(x.shape[0], -(-x.shape[1] // EVERY) if keep else 0, x.shape[2])


def launch(
    x: Tensor,
    r: Tensor,
    i: Tensor,
    y: Tensor,
    rate: Tensor,
    starts: Tensor,
    h0: Tensor,
    counts: Tensor | None,
    keep: bool,
    way: Plan,
) -> tuple[Tensor, Tensor, Tensor]:
    """out, last, kept by a given plan, as `kernels.gated_states` has them; contiguous tensors."""
    from ..rg_lru.kernels import states
    from . import kernels

    batch, steps, width = x.shape
    out, last = torch.empty_like(y), torch.empty_like(h0)
    saved = _room(x, h0, keep)
    if x.numel() == 0:
        return out, last.copy_(h0), saved
    options = _options(width, min(_ROWS, gpu.power_of_two(steps)), _STAGES)
    grid = (-(-width // options["CHANNELS"]) * batch * way.chunks,)
    carry, through = h0, (steps, width, way.chunk, way.chunks)
    if way.chunks > 1:
        decay, end = (h0.new_empty(batch, way.chunks, width) for _ in range(2))
        inputs = (x, r, i, rate, starts, h0, decay, end)
        gpu.launch(states, grid, *inputs, *through, ENDS=True, **options)
        carry = linked(decay, end, h0, way)
    gpu.launch(
        kernels.gated_states,
        grid,
        *(x, r, i, y, rate, starts, starts if counts is None else counts, carry),
        *(out, last, saved, *through),
        WHOLE=counts is None,
        KEEP=keep,
        EVERY=min(EVERY, options["ROWS"]),
        **options,
    )
    return out, last, saved


def launch_gradient(
    x: Tensor,
    r: Tensor,
    i: Tensor,
    y: Tensor,
    rate: Tensor,
    starts: Tensor,
    h0: Tensor,
    counts: Tensor | None,
    saved: Tensor,
    g: Tensor,
    g_last: Tensor,
    way: Plan,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients at x, r, i, y (their dtypes), rate and h0 (fp32), given those at out and last."""
    from . import kernels

    batch, steps, width = x.shape
    dx, dr, di, dy = (torch.empty_like(tensor) for tensor in (x, r, i, y))
    d_h0 = torch.empty_like(h0)
    if x.numel() == 0:
        return dx, dr, di, dy, torch.zeros_like(rate), d_h0.copy_(g_last)
    options = _options(width, min(EVERY, gpu.power_of_two(steps)), _GRADIENT_STAGES)
    options["WHOLE"] = counts is None
    count = starts if counts is None else counts
    grid = (-(-width // options["CHANNELS"]) * batch * way.chunks,)
    carry, through = torch.zeros_like(h0), (steps, width, way.chunk, way.chunks)
    if way.chunks > 1:
        decay, end = (h0.new_empty(batch, way.chunks, width) for _ in range(2))
        given = (r, y, rate, starts, count, g, g_last, decay, end)
        gpu.launch(kernels.gated_gradient_ends, grid, *given, *through, **options)
        carry = linked(decay, end, carry, way)
    d_rate = h0.new_empty(batch * way.chunks, width)
    gpu.launch(
        kernels.gated_gradient,
        grid,
        *(x, r, i, y, rate, starts, count, saved, g, g_last, carry),
        *(dx, dr, di, dy, d_rate, d_h0, *through),
        **options,
    )
    return dx, dr, di, dy, d_rate.sum(0), d_h0


def _options(width: int, rows: int, stages: int) -> dict[str, Any]:
    channels = tile_width(width)
    return {"CHANNELS": channels, "ROWS": rows, "VEC": _VEC, "STAGES": stages, "warps": 1}


def _contiguous(*tensors: Tensor | None) -> tuple[Any, ...]:
    return tuple(tensor if tensor is None else tensor.contiguous() for tensor in tensors)


def _forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    *tensors, keep = arguments
    (batch, steps, width), size = tensors[0].shape, tensors[0].element_size()
    processors = gpu.multiprocessors(tensors[0])
    way = plan(batch, steps, width, 5 * size, 3 * size, processors)
    return launch(*_contiguous(*tensors), keep=keep, way=way)


def _backward(*tensors: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    (batch, steps, width), size = tensors[0].shape, tensors[0].element_size()
    processors = gpu.multiprocessors(tensors[0])
    way = plan(batch, steps, width, 9 * size, 3 * size, processors)
    return launch_gradient(*_contiguous(*tensors), way=way)


for _device in ("cuda", "cpu"):  # cpu: in the interpreter
    torch.library.impl("griffin_lm::triton_gated_rg_lru", _device, func=_forward)
    torch.library.impl("griffin_lm::triton_gated_rg_lru_backward", _device, func=_backward)


def _forward_shapes(
    x: Tensor,
    r: Tensor,
    i: Tensor,
    y: Tensor,
    rate: Tensor,
    starts: Tensor,
    h0: Tensor,
    counts: Tensor | None,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return y.new_empty(y.shape), h0.new_empty(h0.shape), _room(x, h0, keep)


def _backward_shapes(*tensors: Any) -> tuple[Tensor, ...]:
    return tuple(tensors[n].new_empty(tensors[n].shape) for n in (0, 1, 2, 3, 4, 6))


torch.library.register_fake("griffin_lm::triton_gated_rg_lru", _forward_shapes)
torch.library.register_fake("griffin_lm::triton_gated_rg_lru_backward", _backward_shapes)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, keep = inputs
    assert keep, "a gradient is wanted of a call that kept nothing for it"
    ctx.mark_non_differentiable(output[2])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, output[2])


def _gradient(
    ctx: Any, g: Tensor | None, g_last: Tensor | None, _: Tensor | None
) -> tuple[Tensor | None, ...]:
    x, r, i, y, rate, starts, h0, counts, saved = ctx.saved_tensors
    g = torch.zeros_like(y) if g is None else g
    g_last = torch.zeros_like(h0) if g_last is None else g_last
    dx, dr, di, dy, d_rate, d_h0 = torch.ops.griffin_lm.triton_gated_rg_lru_backward(
        x, r, i, y, rate, starts, h0, counts, saved, g, g_last
    )
    return dx, dr, di, dy, d_rate, None, d_h0, None, None


torch.library.register_autograd("griffin_lm::triton_gated_rg_lru", _gradient, setup_context=_keep)


def gated_rg_lru(
    x: Tensor,
    r: Tensor,
    i: Tensor,
    y: Tensor,
    rate: Tensor,
    starts: Tensor,
    h0: Tensor,
    counts: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """As ops.gated_recurrence.gated_rg_lru, with c softplus(Lambda) in place of Lambda."""
    tensors, keep = (x, r, i, y, rate, starts, h0, counts), torch.is_grad_enabled()
    if keep or torch.compiler.is_compiling():
        out, last, _ = torch.ops.griffin_lm.triton_gated_rg_lru(*tensors, keep)
    else:  # the dispatcher costs more than a decode step
        out, last, _ = _forward(*tensors, keep)
    return out, last


def why_not(
    x: Tensor,
    r: Tensor,
    i: Tensor,
    y: Tensor,
    rate: Tensor,
    starts: Tensor,
    h0: Tensor,
    counts: Tensor | None,
) -> str | None:
    """x, y and the gates in bf16, fp16 or fp32; the state in fp32; on a GPU."""
    kinds = {tensor.dtype for tensor in (x, r, i, y)}
    if not kinds <= set(gpu.DTYPES):
        return f"it takes x, y and gates of 16 or 32 bits, not {sorted(map(str, kinds))}"
    if rate.dtype != torch.float32 or h0.dtype != torch.float32:
        return f"it keeps the state in float32, not {h0.dtype}"
    return gpu.why_not(x, r, i, y, rate, starts, h0, counts)
