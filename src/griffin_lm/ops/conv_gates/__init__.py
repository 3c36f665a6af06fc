"""What leads to the RG-LRU: the conv, and both gates before their sigmoid (Griffin, eqs. 1-2)."""

from jaxtyping import Float
from torch import Tensor

from ...shapes import Tokens
from ..backend import Backend, always, choose
from ..causal_conv import causal_conv
from ..linear.blocks import block_linear
from . import triton_gpu


def _reference(
    u: Tensor,
    past: Tensor,
    w: Tensor,
    b: Tensor,
    position: Tensor,
    a: Tensor,
    a_bias: Tensor,
    x: Tensor,
    x_bias: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """One operation after another, each by whatever serves it."""
    mixed = causal_conv(u, past, w, b, position)
    return mixed, block_linear(mixed, a, a_bias), block_linear(mixed, x, x_bias)


BACKENDS = (
    Backend("triton", triton_gpu.conv_gates, triton_gpu.why_not),
    Backend("reference", _reference, always),
)


def conv_gates(
    u: Float[Tensor, "B T R"],
    past: Float[Tensor, "B P R"],
    w: Float[Tensor, "C R"],
    b: Float[Tensor, " R"],
    position: Tokens,
    a: Float[Tensor, "H I O"],
    a_bias: Float[Tensor, "H O"],
    x: Float[Tensor, "H I O"],
    x_bias: Float[Tensor, "H O"],
) -> tuple[Float[Tensor, "B T R"], Float[Tensor, "B T S"], Float[Tensor, "B T S"]]:
    """causal_conv(u, ...), and of its result block_linear(..., a, a_bias) and (..., x, x_bias).

    R = H I, S = H O. The conv is rounded to u's dtype before the gates see it, by whatever backend.
    """
    arguments = (u, past, w, b, position, a, a_bias, x, x_bias)
    return choose("conv and gates", BACKENDS, *arguments)(*arguments)
