"""Products with weights in bf16, fp32, 8 and 4 bits."""

import torch
from torch import Tensor

from .library import at, is_wide, library


def linear_bf16(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (M, K), weight (N, K) and the result (M, N) bf16; bias (N) bf16 or fp32; sums in fp32."""
    (m, k), n = x.shape, weight.shape[0]
    out = torch.empty(m, n, dtype=torch.bfloat16)
    library.griffin_linear_bf16(
        *(at(x), at(weight), at(bias), is_wide(bias), at(out), 0),
        *(m, k, n, torch.get_num_threads()),
    )
    return out


def block_linear_bf16(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (M, H K), weight (H, N, K), bias (H N), all bf16, -> (M, H N): H maps side by side."""
    blocks, n, k = weight.shape
    out = torch.empty(x.shape[0], blocks * n, dtype=torch.bfloat16)
    library.griffin_block_linear_bf16(
        *(at(x), at(weight), at(bias), at(out)),
        *(x.shape[0], blocks, k, n, torch.get_num_threads()),
    )
    return out


def linear_fp32(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (M, K), weight (N, K) and the result (M, N) fp32; bias (N) bf16 or fp32."""
    (m, k), n = x.shape, weight.shape[0]
    out = torch.empty(m, n)
    library.griffin_linear_fp32(
        *(at(x), at(weight), at(bias), is_wide(bias), at(out)),
        *(m, k, n, torch.get_num_threads()),
    )
    return out


def block_linear_fp32(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (M, H K), weight (H, N, K), bias (H N), all fp32, -> (M, H N): H maps side by side."""
    blocks, n, k = weight.shape
    out = torch.empty(x.shape[0], blocks * n)
    library.griffin_block_linear_fp32(
        *(at(x), at(weight), at(bias), at(out)),
        *(x.shape[0], blocks, k, n, torch.get_num_threads()),
    )
    return out


def linear_int8(
    x: Tensor, weight: Tensor, scale: Tensor, sums: Tensor, bias: Tensor | None
) -> Tensor:
    """x (M, K) bf16 or fp32; weight (N, K) int8, scale (N) fp32, sums (N) int32 of its rows."""
    (m, k), n = x.shape, weight.shape[0]
    out = torch.empty(m, n, dtype=x.dtype)
    library.griffin_linear_int8(
        *(at(x), at(weight), at(scale), at(sums), at(bias), is_wide(bias)),
        *(at(out), is_wide(x), m, k, n, torch.get_num_threads()),
    )
    return out


def linear_int4(x: Tensor, weight: Tensor, scale: Tensor, rows: int, bias: Tensor | None) -> Tensor:
    """x (M, K) bf16 or fp32; weight and scale as `quantized_linear` packs them; N = rows."""
    m, k = x.shape
    out = torch.empty(m, rows, dtype=x.dtype)
    library.griffin_linear_int4(
        *(at(x), at(weight), at(scale), at(bias), is_wide(bias)),
        *(at(out), is_wide(x), m, k, rows, torch.get_num_threads()),
    )
    return out
