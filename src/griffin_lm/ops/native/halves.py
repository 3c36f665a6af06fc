"""Halves of a residual block, each one call: x + mlp(norm(x)) and x + mixer(norm(x)).

They have the bits of their parts, which they save the way through Python: a decode step of 26
blocks has some 700 small parts, and each takes longer to be called than to be done.

The weights are described by words of 8 bytes in the order of the structs of src/native/halves.cpp;
layers/halves.py writes them.
"""

import ctypes
import struct
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .library import at, library

BF16, FP32, INT8, INT4 = range(4)  # kinds of matrices, as src/native/halves.cpp numbers them
DENSE = {torch.bfloat16: BF16, torch.float32: FP32}


def array(words: Sequence[int]) -> Any:
    """The words side by side in memory."""
    return (ctypes.c_int64 * len(words))(*words)


def bits(number: float) -> int:
    """A double's word."""
    return struct.unpack("q", struct.pack("d", number))[0]


def mlp_half(described: Any, x: Tensor) -> Tensor:
    """x + down(act(gate n) * up n), n = norm(x); x (..., W) contiguous, of the weights' dtype."""
    out, rows = torch.empty_like(x), x.numel() // x.shape[-1]
    library.griffin_mlp_half(described, at(x), at(out), rows, torch.get_num_threads())
    return out


def recurrent_half(
    described: Any, x: Tensor, starts: Tensor, position: Tensor, h0: Tensor, past: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """x + the recurrent block of norm(x), its h (B, R) fp32 and its last inputs (B, C-1, R).

    x (B, T, W), all T tokens valid; starts, position (B, T); h0 and past as what is returned; all
    contiguous, x and past of the weights' dtype.
    """
    out, h1, past1 = torch.empty_like(x), torch.empty_like(h0), torch.empty_like(past)
    library.griffin_recurrent_half(
        *(described, at(x), at(out), x.shape[0], x.shape[1], at(starts), at(position)),
        *(at(h0), at(past), at(h1), at(past1), torch.get_num_threads()),
    )
    return out, h1, past1


def attention_half(
    described: Any,
    x: Tensor,
    angles: tuple[Tensor, Tensor] | None,
    rings: tuple[Tensor, Tensor],
    read: Tensor,
    position: Tensor,
    counts: Tensor,
) -> Tensor:
    """x + attention over a window of norm(x); the new keys and values are written to the rings.

    x (B, T, W), all T tokens valid, T at most N; angles: cos and sin (B, T, 1, A) fp32; rings: k
    and v (B, N, K, D); position (B, T), read and counts (B); all contiguous, x and the rings of the
    weights' dtype.
    """
    out = torch.empty_like(x)
    cos, sin = angles or (None, None)
    library.griffin_attention_half(
        *(described, at(x), at(out), x.shape[0], x.shape[1], at(cos), at(sin)),
        *(0 if cos is None else cos.shape[-1], at(rings[0]), at(rings[1]), rings[0].shape[1]),
        *(at(read), at(position), at(counts), torch.get_num_threads()),
    )
    return out
