"""The selective scan and its gradient, in chunks: only the states between chunks are kept.

With G_t the whole gradient at h_t, and g_t that at y_t,

    G_t = g_t C_t + a_{t+1} G_{t+1},     a_t = exp(delta_t A),     L_t = G_t h_{t-1} a_t,
    dC_t = sum_e g_t h_t,                dB_t = sum_e G_t delta_t x_t,
    dx_t = delta_t sum_n G_t B_t,        ddelta_t = x_t sum_n G_t B_t + sum_n L_t A,
    dA   = sum_t delta_t L_t,            dh_0 = a_1 G_1,

so backward walks the chunks from the last, computes each one's states again, and needs one linear
scan more, reversed. Where a document starts a = 0 and nothing passes: selected, not multiplied.
"""

from typing import Any

import torch
from torch import Tensor

from .reference import chunks, decays, flat_scan, states


class SelectiveScan(torch.autograd.Function):
    """y (B, T, E) and the last h (B, E, N) of x, delta, A, B, C, starts, h0."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        starts: Tensor,
        h0: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Saves the inputs and the state before each chunk."""
        h, ys, before = h0, [], []
        for part in chunks(x.shape[1], h0.numel()):
            before.append(h)
            decay = decays(delta[:, part], A, starts[:, part])
            hs = states(x[:, part], delta[:, part], B[:, part], decay, h)
            ys.append(torch.einsum("bten,btn->bte", hs, C[:, part]))
            h = hs[:, -1].clone()  # not a view, which would keep the whole chunk in memory
        ctx.save_for_backward(x, delta, A, B, C, starts, torch.stack(before))
        return torch.cat(ys, dim=1), h

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """See the top of the file."""
        x, delta, A, B, C, starts, before = ctx.saved_tensors
        gy, after = grads  # `after` is the gradient at the state after the chunk
        dA = torch.zeros_like(A)
        pieces: list[tuple[Tensor, ...]] = []
        parts = list(chunks(x.shape[1], after.numel()))
        for number, part in reversed(list(enumerate(parts))):
            h0, g, xs, deltas = before[number], gy[:, part], x[:, part], delta[:, part]
            decay = decays(deltas, A, starts[:, part])
            hs = states(xs, deltas, B[:, part], decay, h0)
            following = torch.cat([decay[:, 1:], torch.ones_like(decay[:, :1])], dim=1)
            inward = g[..., None] * C[:, part][:, :, None]
            G = flat_scan(inward, following, after, reverse=True)
            previous = torch.cat([h0[:, None], hs[:, :-1]], dim=1)
            L = (G * previous * decay).masked_fill_(decay == 0, 0)
            GB = torch.einsum("bten,btn->bte", G, B[:, part])
            pieces.append(
                (
                    deltas * GB,
                    xs * GB + (L * A).sum(-1),
                    torch.einsum("bten,bte->btn", G, deltas * xs),
                    torch.einsum("bten,bte->btn", hs, g),
                )
            )
            dA += torch.einsum("bten,bte->en", L, deltas)
            after = (decay[:, 0] * G[:, 0]).masked_fill_(decay[:, 0] == 0, 0)
        dx, ddelta, dB, dC = (torch.cat(each[::-1], dim=1) for each in zip(*pieces, strict=True))
        return dx, ddelta, dA, dB, dC, None, after
