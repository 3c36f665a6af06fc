"""The compiled library: finding it, and calling it with tensors.

`griffin_lm._native` is built by an ordinary `pip install` where there is a C++ compiler (the source
is src/native). Without it everything runs on PyTorch's own operations.
The functions here check nothing but what would crash: dtype, device, contiguity are the caller's.
"""

import ctypes
import importlib
import os
from typing import Any

import torch
from torch import Tensor

from ..errors import BackendUnavailable

_VERSION = 4  # of the functions' arguments; src/native/select.cpp says the same
_POINTER, _INT, _SIZE = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
_SIGNATURES: dict[str, list[Any]] = {
    "griffin_linear_bf16": [_POINTER] * 3 + [_INT, _POINTER, _INT] + [_SIZE] * 3 + [_INT],
    "griffin_block_linear_bf16": [_POINTER] * 4 + [_SIZE] * 4 + [_INT],
    "griffin_linear_int8": [_POINTER] * 5 + [_INT, _POINTER, _INT] + [_SIZE] * 3 + [_INT],
    "griffin_linear_int4": [_POINTER] * 4 + [_INT, _POINTER, _INT] + [_SIZE] * 3 + [_INT],
    "griffin_ring_attention": [_POINTER] * 5 + [_INT] + [_POINTER] * 3 + [_SIZE] * 6 + [_INT],
    "griffin_scan": [_POINTER] * 4 + [_SIZE] * 3 + [_INT] * 2,
    "griffin_rg_lru": [_POINTER] * 3 + [_INT] + [_POINTER] * 4 + [_SIZE] * 3 + [_INT],
    "griffin_rg_lru_backward": [_POINTER] * 3 + [_INT] + [_POINTER] * 10 + [_SIZE] * 3 + [_INT],
}


def _open() -> tuple[Any, str | None]:
    """The library, or None and the reason why there is none."""
    if os.environ.get("GRIFFIN_NO_NATIVE"):
        return None, "GRIFFIN_NO_NATIVE is set"
    try:
        file = importlib.import_module("griffin_lm._native").__file__
        library = ctypes.CDLL(file)
        version = library.griffin_version()
        for name, arguments in _SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, None
    except ImportError:
        reason = (
            "the compiled library was not built: install a C++ compiler, then the package again"
        )
        return None, reason
    except (OSError, AttributeError) as error:
        return None, f"the compiled library can't be opened ({error}); install the package again"
    if version != _VERSION:
        return None, "the compiled library is of another version; install the package again"
    library.griffin_isa.restype = ctypes.c_char_p
    library.griffin_use.argtypes = [ctypes.c_char_p]
    return library, None


_library, UNBUILT = _open()
"""UNBUILT: why there are no compiled kernels, or None where there are."""


def isa() -> str:
    """The instruction set in use: "amx", "avx512", "avx2" or "portable"."""
    return "none" if _library is None else _library.griffin_isa().decode()


def use(name: str = "") -> None:
    """Uses another instruction set ("": the best), for tests and comparisons.

    Raises BackendUnavailable where this machine or this build has none of that name.
    """
    if _library is None or not _library.griffin_use(name.encode()):
        raise BackendUnavailable(
            f"the instruction set {name!r} can't serve: {UNBUILT or 'not on this machine'}"
        )


def why_not(*tensors: Tensor | None) -> str | None:
    """Why the library can't take these tensors: not built, or one isn't on the CPU."""
    if UNBUILT is not None:
        return UNBUILT
    for tensor in tensors:
        if tensor is not None and tensor.device.type != "cpu":
            return f"it computes on the CPU, and a tensor is on {tensor.device}"
    return None


def _at(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _is_wide(tensor: Tensor | None) -> bool:
    return tensor is not None and tensor.dtype == torch.float32


def linear_bf16(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (M, K), weight (N, K) and the result (M, N) bf16; bias (N) bf16 or fp32; sums in fp32."""
    (m, k), n = x.shape, weight.shape[0]
    out = torch.empty(m, n, dtype=torch.bfloat16)
    _library.griffin_linear_bf16(
        *(_at(x), _at(weight), _at(bias), _is_wide(bias), _at(out), 0),
        *(m, k, n, torch.get_num_threads()),
    )
    return out


def block_linear_bf16(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (M, H K), weight (H, N, K), bias (H N), all bf16, -> (M, H N): H maps side by side."""
    blocks, n, k = weight.shape
    out = torch.empty(x.shape[0], blocks * n, dtype=torch.bfloat16)
    _library.griffin_block_linear_bf16(
        *(_at(x), _at(weight), _at(bias), _at(out)),
        *(x.shape[0], blocks, k, n, torch.get_num_threads()),
    )
    return out


def linear_int8(
    x: Tensor, weight: Tensor, scale: Tensor, sums: Tensor, bias: Tensor | None
) -> Tensor:
    """x (M, K) bf16 or fp32; weight (N, K) int8, scale (N) fp32, sums (N) int32 of its rows."""
    (m, k), n = x.shape, weight.shape[0]
    out = torch.empty(m, n, dtype=x.dtype)
    _library.griffin_linear_int8(
        *(_at(x), _at(weight), _at(scale), _at(sums), _at(bias), _is_wide(bias)),
        *(_at(out), _is_wide(x), m, k, n, torch.get_num_threads()),
    )
    return out


def linear_int4(x: Tensor, weight: Tensor, scale: Tensor, rows: int, bias: Tensor | None) -> Tensor:
    """x (M, K) bf16 or fp32; weight and scale as `quantized_linear` packs them; N = rows."""
    m, k = x.shape
    out = torch.empty(m, rows, dtype=x.dtype)
    _library.griffin_linear_int4(
        *(_at(x), _at(weight), _at(scale), _at(bias), _is_wide(bias)),
        *(_at(out), _is_wide(x), m, k, rows, torch.get_num_threads()),
    )
    return out


def scan(x: Tensor, a: Tensor, h0: Tensor, reverse: bool = False) -> Tensor:
    """All h of h_t = a_t h_{t-1} + x_t; (B, T, R) and (B, R), fp32, contiguous."""
    out = torch.empty_like(x)
    _library.griffin_scan(
        _at(x), _at(a), _at(h0), _at(out), *x.shape, reverse, torch.get_num_threads()
    )
    return out


def rg_lru(x: Tensor, r: Tensor, i: Tensor, rate: Tensor, starts: Tensor, h0: Tensor) -> Tensor:
    """All h of an RG-LRU: x, r, i (B, T, R), all bf16 or all fp32; rate = c softplus(Lambda)."""
    out = torch.empty(x.shape, dtype=torch.float32)
    _library.griffin_rg_lru(
        *(_at(x), _at(r), _at(i), x.dtype == torch.float32),
        *(_at(rate), _at(starts), _at(h0), _at(out), *x.shape, torch.get_num_threads()),
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
    _library.griffin_rg_lru_backward(
        *(_at(x), _at(r), _at(i), x.dtype == torch.float32),
        *(_at(tensor) for tensor in (rate, starts, h0, hs, g, dx, dr, di, d_rate, d_h0)),
        *(*x.shape, torch.get_num_threads()),
    )
    return dx, dr, di, d_rate.sum(0), d_h0


def ring_attention(
    q: Tensor, k: Tensor, v: Tensor, ring_k: Tensor, ring_v: Tensor, read: Tensor, seen: Tensor
) -> Tensor:
    """As ops.attention.windowed_attention; seen (B, T) int64: earlier tokens each query sees."""
    out = torch.empty(q.shape, dtype=q.dtype)
    batch, steps, heads, width = q.shape
    _library.griffin_ring_attention(
        *(_at(tensor) for tensor in (q, k, v, ring_k, ring_v)),
        *(_is_wide(q), _at(read), _at(seen), _at(out)),
        *(batch, steps, heads, k.shape[2], width, ring_k.shape[1], torch.get_num_threads()),
    )
    return out
