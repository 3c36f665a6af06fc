"""Parameters that stay float32 when a model is cast to a narrower dtype."""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn


class KeepsWide(nn.Module):
    """A module of which the parameters named in `wide` are never narrower than float32.

    For decays near 1 and for phases: bfloat16's 8 bits would move an angle that is applied
    thousands of times. `to`, `half` and `bfloat16` cast all the others; a loader, which makes the
    parameters itself, asks `parameter_dtype`.
    """

    wide: ClassVar[frozenset[str]] = frozenset()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "KeepsWide":
        own = [self._parameters[name] for name in self.wide]
        kept = {id(t) for p in own if p is not None for t in (p, p.grad) if t is not None}

        def keeping(tensor: Tensor) -> Tensor:
            cast = fn(tensor)
            if id(tensor) not in kept or cast.dtype == tensor.dtype:
                return cast
            return tensor.to(cast.device, widened(cast.dtype))

        return super()._apply(keeping, recurse)


def widened(dtype: torch.dtype) -> torch.dtype:
    """float32, or float64 for float64."""
    return torch.promote_types(dtype, torch.float32)


def parameter_dtype(owner: nn.Module, name: str, dtype: torch.dtype) -> torch.dtype:
    """The dtype of the parameter `name` of `owner` in a model whose weights are loaded as dtype."""
    stays = isinstance(owner, KeepsWide) and name in owner.wide
    return widened(dtype) if stays else dtype
