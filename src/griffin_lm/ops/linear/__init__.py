"""y = x w^T + b, for inference with the same bits in any batch.

PyTorch's own product of one row reads weights at half the memory's speed (docs/results/cpu.md), and
its order of additions depends on how many rows there are.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear as torch_linear

from .. import native
from ..backend import Backend, always, choose, preferred


def _native(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    rows = x.reshape(-1, x.shape[-1]).contiguous()
    product = native.linear_bf16 if x.dtype == torch.bfloat16 else native.linear_fp32
    return product(rows, weight, bias).view(*x.shape[:-1], weight.shape[0])


def _why_not_native(x: Tensor, weight: Tensor, bias: Tensor | None) -> str | None:
    if torch.compiler.is_compiling():
        return "torch.compile makes its own"
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return "it has no gradient: use torch.no_grad()"
    if x.dtype != weight.dtype or x.dtype not in (torch.bfloat16, torch.float32):
        return f"it multiplies bfloat16 or float32 by its like, not {x.dtype} by {weight.dtype}"
    if bias is not None and bias.dtype not in (torch.bfloat16, torch.float32):
        return f"the bias is {bias.dtype}"
    if not weight.is_contiguous() or weight.shape[1] == 0:
        return "the weight is not contiguous"
    if x.dtype == torch.float32 and preferred() == "auto" and native.isa() == "portable":
        return "PyTorch's own is faster without AVX2"
    return native.why_not(x, weight, bias)


BACKENDS = (
    Backend("native", _native, _why_not_native),
    Backend("reference", torch_linear, always),
)


def linear(
    x: Float[Tensor, "*B K"], weight: Float[Tensor, "N K"], bias: Float[Tensor, " N"] | None = None
) -> Float[Tensor, "*B N"]:
    """As torch.nn.functional.linear; bf16 is summed in fp32 and rounded once, bias included.

    x (..., K), weight (N, K), bias (N), one dtype; (..., N) in that dtype.
    """
    return choose("a linear map", BACKENDS, x, weight, bias)(x, weight, bias)
