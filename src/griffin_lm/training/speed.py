"""How fast training is, against what this machine's matrix products can do."""

import time
from collections.abc import Callable

import torch
from torch import nn

_SIZE = {"cpu": 2048, "cuda": 8192}  # of the square matrices: large beside every cache
# parameters of two dimensions and more that no matrix product reads: biases and taps, S6's decays
_NO_PRODUCT = (".b", ".bias", "conv.w", ".A_log")


def matmul_parameters(model: nn.Module) -> int:
    """Parameters that stand in a matrix product for every token: the head, not the embedding.

    A table that is both (tied) counts once. 6 * this is the FLOPs of a token in training, without
    those of attention over keys and of the recurrence.
    """
    named = {name: p for name, p in model.named_parameters() if p.dim() >= 2}
    tied = not any(name.endswith("head.weight") for name in named)
    return sum(
        p.numel()
        for name, p in named.items()
        if not name.endswith(_NO_PRODUCT) and (tied or not name.endswith("embed.weight"))
    )


def matrix_rate(
    device: torch.device,
    bf16: bool,
    seconds: float,
    size: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """FLOP/s of the fastest of many square products, in bf16 or fp32, tried for so many seconds.

    size: of the squares; 0: large beside the device's caches. clock: what they are timed by.
    """
    size = size or _SIZE.get(device.type, 2048)
    kind = torch.bfloat16 if bf16 else torch.float32
    a = torch.randn(size, size, device=device).to(kind)
    b = torch.randn(size, size, device=device).to(kind)
    best, end = 0.0, time.perf_counter() + seconds
    torch.matmul(a, b)  # the first one prepares
    while True:
        _wait(device)
        begun = clock()
        torch.matmul(a, b)
        _wait(device)
        best = max(best, 2 * size**3 / (clock() - begun))
        if time.perf_counter() > end:
            return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
