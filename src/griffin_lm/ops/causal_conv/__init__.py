"""The depthwise causal convolution in front of the recurrence (Griffin, section 2.4)."""

import torch
from jaxtyping import Float
from torch import Tensor

from ...shapes import Counts, Tokens


def causal_conv(
    x: Float[Tensor, "B T R"],
    past: Float[Tensor, "B P R"],
    w: Float[Tensor, "C R"],
    b: Float[Tensor, " R"],
    position: Tokens,
) -> Float[Tensor, "B T R"]:
    """out_t = b + sum_s w[C-1-s] * x_{t-s}; the last row of w multiplies the current token.

    `past` holds the C - 1 inputs before x_0. The tap with shift s reaches only inside the document:
    it counts where position >= s, whatever lies in `past`.
    """
    taps, length = w.shape[0], x.shape[1]
    inputs = torch.cat([past, x], dim=1)
    out = b + w[-1] * x
    for shift in range(1, taps):
        outside = (position < shift)[..., None]
        begin = taps - 1 - shift
        out = out + w[begin] * inputs[:, begin : begin + length].masked_fill(outside, 0)
    return out


def last_inputs(
    x: Float[Tensor, "B T R"], past: Float[Tensor, "B P R"], count: Counts
) -> Float[Tensor, "B P R"]:
    """The C - 1 inputs before the next token, where each row has read `count` of x's T tokens."""
    inputs = torch.cat([past, x], dim=1)
    kept = count[:, None] + torch.arange(past.shape[1], device=x.device)
    return inputs.gather(1, kept[..., None].expand(-1, -1, x.shape[2]))
