"""The middle of the recurrent block: from the RG-LRU's gates to gelu(y) h, h unwritten in between.

    h_t = a_t h_{t-1} + sqrt(1 - a_t^2) (i_t x_t),   out_t = gelu(y_t) h_t   (Griffin, section 2.3)

h is the largest tensor of the block, since it is fp32: one kernel saves writing and reading it.
"""

from jaxtyping import Bool, Float
from torch import Tensor

from ...shapes import Counts
from ..backend import Backend, always, choose
from ..gating import gated
from ..last import last_valid
from ..rg_lru import rate_of, states
from . import triton_gpu


def _reference(
    x: Tensor,
    r: Tensor,
    i: Tensor,
    y: Tensor,
    rate: Tensor,
    starts: Tensor,
    h0: Tensor,
    counts: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """One operation after another, each by whatever serves it."""
    hs = states(x, r, i, rate, starts, h0)
    return gated(y, hs, "gelu"), last_valid(hs, counts, h0)


BACKENDS = (
    Backend("triton", triton_gpu.gated_rg_lru, triton_gpu.why_not),
    Backend("reference", _reference, always),
)


def gated_rg_lru(
    x: Float[Tensor, "B T R"],
    r_logits: Float[Tensor, "B T R"],
    i_logits: Float[Tensor, "B T R"],
    y: Float[Tensor, "B T R"],
    Lambda: Float[Tensor, " R"],
    starts: Bool[Tensor, "B T"],
    h0: Float[Tensor, "B R"],
    counts: Counts | None = None,
) -> tuple[Float[Tensor, "B T R"], Float[Tensor, "B R"]]:
    """gelu(y) * rg_lru(...) in y's dtype, and the state after each row's first `counts` steps.

    counts None: after all T, of which there is one at least. The other operands, and the state's
    dtype, are those of `ops.rg_lru.rg_lru`. The kernel rounds once, the reference h and gelu(y)
    before their product.
    """
    rate = rate_of(Lambda, x.dtype)
    arguments = (x, r_logits, i_logits, y, rate, starts, h0, counts)
    return choose("the gated recurrence", BACKENDS, *arguments)(*arguments)
