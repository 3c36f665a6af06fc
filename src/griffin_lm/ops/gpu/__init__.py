"""The Triton kernels: whether they can serve here, and the device functions that they share.

Triton is imported when the first kernel runs, never before: the package works without it. Each
operation's folder has its kernels (`kernels.py`) and the functions that launch them
(`triton_gpu.py`). With TRITON_INTERPRET=1, which Triton reads when it is imported, kernels run on a
CPU one program after another: far too slow for use, right for tests.
"""

import os
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from ..backend import preferred

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DTYPES = (
    torch.bfloat16,
    torch.float16,
    torch.float32,
)  # what the kernels read; they compute in fp32
_HOPPER = 132  # multiprocessors of an H100 or H200: what the interpreter plans for


@cache
def missing() -> str | None:
    """Why no kernel can run on any tensor of this process, or None."""
    if find_spec("triton") is None:
        return "Triton is not installed"
    if INTERPRETED:
        return None
    if not torch.cuda.is_available():
        return "Triton kernels need an NVIDIA GPU, and torch sees none here"
    return None


def why_not(*tensors: Tensor | None) -> str | None:
    """Why the kernels can't take these tensors: nothing to run on, or one isn't on a GPU.

    In the interpreter they serve a CPU, but only where they are asked for by name.
    """
    if (reason := missing()) is not None:
        return reason
    emulated = INTERPRETED and preferred() == "triton"
    for tensor in tensors:
        if tensor is None or tensor.device.type == "cuda":
            continue
        if not (emulated and tensor.device.type == "cpu"):
            return f"it computes on a GPU, and a tensor is on {tensor.device}"
    return None


@cache
def _multiprocessors(index: int) -> int:
    return torch.cuda.get_device_properties(index).multi_processor_count


def multiprocessors(tensor: Tensor) -> int:
    """Of the tensor's device; for the interpreter, those of an H200."""
    return _multiprocessors(tensor.device.index) if tensor.is_cuda else _HOPPER


def power_of_two(number: int) -> int:
    """The smallest power of two that is at least `number`: Triton's blocks have such sizes."""
    return 1 << max(0, number - 1).bit_length()


def launch(
    kernel: Any, grid: tuple[int, ...], *arguments: Any, warps: int = 4, **constants: Any
) -> None:
    """Runs a kernel as so many programs of `warps` warps, on the device of its first tensor."""
    with torch.cuda.device_of(arguments[0]):
        # products and sums may be one operation, which is exacter as well; asked for by name,
        # because Triton 3.9 warns that its default will change
        kernel[grid](*arguments, num_warps=warps, enable_fp_fusion=True, **constants)
