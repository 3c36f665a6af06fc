"""The linear scan in two levels, about 2 sqrt(T) steps instead of T.

T is cut into chunks of about sqrt(T). All chunks walk their steps side by side (level one), then
the states at the chunks' ends are linked (level two) and handed into each chunk. Nothing is divided
by a cumulative product, since `a` may be 0.
"""

import math

import torch
from jaxtyping import Inexact
from torch import Tensor

# a CPU has enough to do in one step of so many channels: there a plain loop is 5 times faster
WIDE = 4096


def scan(
    x: Inexact[Tensor, "B T R"],
    a: Inexact[Tensor, "B T R"],
    h0: Inexact[Tensor, "B R"],
    reverse: bool = False,
) -> Inexact[Tensor, "B T R"]:
    """All h of h_t = a_t * h_{t-1} + x_t, or of h_t = a_t * h_{t+1} + x_t if `reverse`."""
    if reverse:
        return scan(x.flip(1), a.flip(1), h0).flip(1)
    batch, length, width = x.shape
    if length <= 1:
        return torch.where(a == 0, x, a * h0[:, None] + x)
    if width >= WIDE and x.device.type == "cpu":
        return _step_by_step(x, a, h0)
    steps = math.isqrt(length - 1) + 1
    chunks = -(-length // steps)
    spare = chunks * steps - length
    if spare:  # a tail of h_t = h_{t-1}, cut off below
        x = torch.cat([x, x.new_zeros(batch, spare, width)], dim=1)
        a = torch.cat([a, a.new_ones(batch, spare, width)], dim=1)
    xs, decays = (tensor.view(batch, chunks, steps, width) for tensor in (x, a))
    cuts = decays == 0
    local = torch.empty_like(xs)  # the state if the chunk began from zero
    reach = torch.empty_like(decays)  # what is left of the chunk's initial state
    local[:, :, 0], reach[:, :, 0] = xs[:, :, 0], decays[:, :, 0]
    for t in range(1, steps):
        grown = torch.addcmul(xs[:, :, t], decays[:, :, t], local[:, :, t - 1])
        local[:, :, t] = torch.where(cuts[:, :, t], xs[:, :, t], grown)
        left = decays[:, :, t] * reach[:, :, t - 1]
        reach[:, :, t] = left.masked_fill_(cuts[:, :, t], 0)  # 0 * NaN would be NaN
    carry, carries = h0, []
    for chunk in range(chunks):
        carries.append(carry)
        left = reach[:, chunk, -1]
        end = local[:, chunk, -1]
        carry = torch.where(left == 0, end, torch.addcmul(end, left, carry))
    handed = reach * torch.stack(carries, dim=1)[:, :, None]
    hs = local + handed.masked_fill_(reach == 0, 0)
    return hs.view(batch, chunks * steps, width)[:, :length]


def _step_by_step(x: Tensor, a: Tensor, h0: Tensor) -> Tensor:
    hs, h = torch.empty_like(x), h0
    for t in range(x.shape[1]):
        h = torch.where(a[:, t] == 0, x[:, t], torch.addcmul(x[:, t], a[:, t], h))
        hs[:, t] = h
    return hs
