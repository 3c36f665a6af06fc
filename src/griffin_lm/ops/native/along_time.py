"""What moves along time: linear and selective scan, the RG-LRU, the conv, attention over a ring."""

import torch
from torch import Tensor

from .library import at, is_wide, library


def scan(x: Tensor, a: Tensor, h0: Tensor, reverse: bool = False) -> Tensor:
    """All h of h_t = a_t h_{t-1} + x_t; (B, T, R) and (B, R), fp32, contiguous."""
    out = torch.empty_like(x)
    library.griffin_scan(at(x), at(a), at(h0), at(out), *x.shape, reverse, torch.get_num_threads())
    return out


def scan_backward(a: Tensor, h0: Tensor, hs: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients at x, a and h0 of a scan whose result is hs, given g there; as `scan`."""
    dx, da, d_h0 = torch.empty_like(a), torch.empty_like(a), torch.empty_like(h0)
    library.griffin_scan_backward(
        *(at(tensor) for tensor in (a, h0, hs, g, dx, da, d_h0)),
        *(*a.shape, torch.get_num_threads()),
    )
    return dx, da, d_h0


def rg_lru(x: Tensor, r: Tensor, i: Tensor, rate: Tensor, starts: Tensor, h0: Tensor) -> Tensor:
    """All h of an RG-LRU: x, r, i (B, T, R), all bf16 or all fp32; rate = c softplus(Lambda)."""
    out = torch.empty(x.shape, dtype=torch.float32)
    library.griffin_rg_lru(
        *(at(x), at(r), at(i), x.dtype == torch.float32),
        *(at(rate), at(starts), at(h0), at(out), *x.shape, torch.get_num_threads()),
    )
    return out


def rg_lru_backward(
    x: Tensor,
    r: Tensor,
    i: Tensor,
    rate: Tensor,
    starts: Tensor,
    h0: Tensor,
    hs: Tensor,
    g: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients at x, r, i (their dtype), rate (R) and h0 (B, R), both fp32, given g at hs."""
    dx, dr, di = (torch.empty_like(x) for _ in range(3))
    d_rate, d_h0 = torch.empty_like(h0), torch.empty_like(h0)
    library.griffin_rg_lru_backward(
        *(at(x), at(r), at(i), x.dtype == torch.float32),
        *(at(tensor) for tensor in (rate, starts, h0, hs, g, dx, dr, di, d_rate, d_h0)),
        *(*x.shape, torch.get_num_threads()),
    )
    return dx, dr, di, d_rate.sum(0), d_h0


# of the selective scan; src/native/selective.cpp says the same (kChunk, kRun, kStates)
STATES_KEPT_EVERY, _RUN = 32, 64  # tokens; channels whose sums are made together
MOST_STATES = 64  # of a channel


def selective_scan(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    starts: Tensor,
    h0: Tensor,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """As ops.selective_scan, and the states that its gradient begins with; fp32, contiguous.

    Those are (B, T / 32, E, N), or none unless `keep`.
    """
    batch, steps, width = x.shape
    chunks = -(-steps // STATES_KEPT_EVERY) if keep else 0
    y, last = torch.empty_like(x), torch.empty_like(h0)
    kept = x.new_empty(batch, chunks, *h0.shape[1:])
    library.griffin_selective_scan(
        *(at(tensor) for tensor in (x, delta, A, B, C, starts, h0, y, last)),
        at(kept) if keep else 0,
        *(batch, steps, width, h0.shape[2], torch.get_num_threads()),
    )
    return y, last, kept


def selective_scan_backward(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    starts: Tensor,
    kept: Tensor,
    g: Tensor,
    g_last: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients at x, delta, A, B, C and h0, given g at y and g_last at the last state."""
    dx, d_delta, d_h0, dA = (torch.empty_like(t) for t in (x, x, g_last, g_last))
    runs = -(-x.shape[2] // _RUN)
    dB, dC = B.new_empty(runs, *B.shape), C.new_empty(runs, *C.shape)
    library.griffin_selective_scan_backward(
        *(at(tensor) for tensor in (x, delta, A, B, C, starts, kept, g, g_last)),
        *(at(tensor) for tensor in (dx, d_delta, dA, dB, dC, d_h0)),
        *(*x.shape, A.shape[1], torch.get_num_threads()),
    )
    return dx, d_delta, dA.sum(0), dB.sum(0), dC.sum(0), d_h0


def ring_attention(
    q: Tensor, k: Tensor, v: Tensor, ring_k: Tensor, ring_v: Tensor, read: Tensor, seen: Tensor
) -> Tensor:
    """As ops.attention.windowed_attention; seen (B, T) int64: earlier tokens each query sees."""
    out = torch.empty(q.shape, dtype=q.dtype)
    batch, steps, heads, width = q.shape
    library.griffin_ring_attention(
        *(at(tensor) for tensor in (q, k, v, ring_k, ring_v)),
        *(is_wide(q), at(read), at(seen), at(out)),
        *(batch, steps, heads, k.shape[2], width, ring_k.shape[1], torch.get_num_threads()),
    )
    return out


def write_ring(ring: Tensor, new: Tensor, read: Tensor, count: Tensor) -> Tensor:
    """As ops.attention.write_ring in place; of any dtype, contiguous, T at most N."""
    batch, steps = new.shape[:2]
    library.griffin_write_ring(
        *(at(ring), at(new), at(read), at(count)),
        *(batch, steps, ring.shape[1], ring[0, 0].nbytes),
    )
    return ring


def conv(x: Tensor, past: Tensor, w: Tensor, b: Tensor, position: Tensor) -> Tensor:
    """As ops.causal_conv: x (B, T, R), past (B, C-1, R), w (C, R), b (R), all bf16 or all fp32."""
    out = torch.empty_like(x)
    library.griffin_conv(
        *(at(tensor) for tensor in (x, past, w, b)),
        *(is_wide(x), at(position), at(out), *x.shape, w.shape[0], torch.get_num_threads()),
    )
    return out


def conv_backward(
    x: Tensor, past: Tensor, w: Tensor, position: Tensor, g: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients at x and past (their dtype), w (C, R), b (R), both fp32, given g at the result."""
    dx, d_past = torch.empty_like(x), torch.empty_like(past)
    d_w, d_b = torch.zeros(x.shape[0], *w.shape), torch.zeros(x.shape[0], x.shape[2])
    library.griffin_conv_backward(
        *(at(tensor) for tensor in (x, past, w)),
        *(is_wide(x), *(at(tensor) for tensor in (position, g, dx, d_past, d_w, d_b))),
        *(*x.shape, w.shape[0], torch.get_num_threads()),
    )
    return dx, d_past, d_w.sum(0), d_b.sum(0)
